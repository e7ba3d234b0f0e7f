"""What a bundle claims about the journal: its entries, the checkpoint over them, proofs, and what witnesses have cosigned.

Guarantee: pure, like `pipeline.claims`; the root is computed anew from the frontier and the entries. Who signed the
checkpoint is the pipeline of the statements; which witnesses have to be there is said by the trust root that decides.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.evidence import PROOF_FILES, STAGES, witnesses_of
from privacy.canonical import Digest, Json
from privacy.checkpoint import Checkpoint, TlogProof, cosignatures, open_checkpoint
from privacy.entries import Entry, Export, journal_verifier, parse_export, verify_export
from privacy.errors import IntegrityError
from privacy.merkle import verify_consistency
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.claims import Evidence

_LAST = 253_402_300_799  # the last second that a calendar has


def journal_entries(evidence: Evidence) -> tuple[Entry, ...]:
    """The journal segment, verified against its checkpoint."""
    return _verified(evidence.signer.public_hex, evidence.view.texts["journal.json"])[0].entries


def journal_checkpoint(evidence: Evidence) -> Checkpoint:
    """The checkpoint over the segment and everything before it."""
    return _verified(evidence.signer.public_hex, evidence.view.texts["journal.json"])[1]


@lru_cache(maxsize=2)  # several claims read it, and a long one takes seconds
def _verified(public_hex: str, export: bytes) -> tuple[Export, Checkpoint]:
    parsed = parse_export(export)
    return parsed, verify_export(parsed, journal_verifier(public_hex))


def has_rejection(entries: Iterable[Entry], gate: str, digest: Digest) -> bool:
    """Whether the journal has a rejection of exactly this digest, signed or clicked; final though its file be deleted."""
    return any(
        entry.kind in ("approval", "unsigned_reject")
        and (entry.facts.get("decision"), entry.facts.get("gate"), entry.facts.get("digest")) == ("reject", gate, digest)
        for entry in entries
    )


def lost_referrals(entries: Iterable[Entry], gate: str, digest: Digest, there: Container[Json]) -> bool:
    """Whether the journal has a referral of exactly this digest whose envelope is not `there`: deleting it decides nothing."""
    wanted = ("refer", gate, digest)
    said = (e.facts for e in entries if e.kind == "approval")
    return any((f.get("decision"), f.get("gate"), f.get("digest")) == wanted and f.get("envelope") not in there for f in said)


def stage_entry(entries: Iterable[Entry], manifest: Digest) -> Entry | None:
    """The first entry that names a stage's result."""
    return next((e for e in entries if e.kind == "stage" and e.facts.get("manifest") == manifest), None)


def check_journal(evidence: Evidence) -> str:
    """The segment is one signed tree, every stage result stands in it, and its proof says so alone."""
    entries, checkpoint = journal_entries(evidence), journal_checkpoint(evidence)
    for stage in STAGES:
        entry = stage_entry(entries, evidence.block.manifests[stage])
        if entry is None:
            raise _broken("E-CLAIM-009", f"the journal does not hold the {stage} result")
        path = PROOF_FILES[stage]
        proof = TlogProof.parse(evidence.view.texts[path].decode())
        told = (proof.index, proof.extra, proof.checkpoint)
        if told != (entry.seq, entry.body, checkpoint.note):
            raise _broken("E-CLAIM-020", f"{path} is not the proof of the {stage} entry under the bundle's checkpoint")
        proof.verify(entry.body, journal_verifier(evidence.signer.public_hex))
    return f"{len(entries)} entries under one signed root of {checkpoint.size}; {len(STAGES)} stage results proved one by one"


def release_state(released_under: Checkpoint, proof: Sequence[bytes]) -> dict[str, Json]:
    """What the release statement says of the journal: a checkpoint, and that it continues the one of the bundle."""
    return {"checkpoint": released_under.note, "consistency": [h.hex() for h in proof]}


def check_release_state(evidence: Evidence, value: Mapping[str, Json]) -> Checkpoint:
    """The checkpoint of the release, which continues that of the bundle.

    Raises IntegrityError E-CLAIM-011, E-NOTE-001 to 003 (also for a forged cosignature of a known witness).
    """
    match value:
        case {"checkpoint": str(note), "consistency": list(listed), **rest} if not rest:
            later, own = open_checkpoint(note, journal_verifier(evidence.signer.public_hex)), journal_checkpoint(evidence)
            cosignatures(note, witnesses_of(evidence.trust))
            if verify_consistency(own.size, later.size, _hashes(listed), own.root, later.root):
                return later
    raise _broken("E-CLAIM-011", "the release names a state of the journal that does not continue the bundle's")


def witnessed(evidence: Evidence, checkpoint: Checkpoint) -> Verdict:
    """Every witness that the trust root names has cosigned; without one, nobody but the pipeline saw this journal."""
    name, wanted = "witnesses", witnesses_of(evidence.trust)
    seen = cosignatures(checkpoint.note, wanted)
    missing = [w.name for w in wanted if w.name not in seen]
    if missing:
        return Verdict(name, "failed", f"E-CLAIM-021: {', '.join(missing)} did not cosign the journal's checkpoint")
    if not wanted:
        return Verdict(name, "passed", "the trust root asks for none; keep the checkpoint as an anchor")
    return Verdict(name, "passed", f"cosigned by {', '.join(sorted(seen))}")


def cosigned_at(evidence: Evidence, checkpoint: Checkpoint) -> tuple[datetime, ...]:
    """When the witnesses of the trust root cosigned it, by their own clocks."""
    seen = cosignatures(checkpoint.note, witnesses_of(evidence.trust)).values()
    return tuple(datetime.fromtimestamp(min(time, _LAST), UTC) for time in seen)


def _hashes(listed: Sequence[Json]) -> tuple[bytes, ...]:
    try:
        found = tuple(bytes.fromhex(str(h)) for h in listed)
    except ValueError:
        found = ()
    if [h.hex() for h in found] != listed:
        raise _broken("E-CLAIM-011", "the release holds a consistency proof that is malformed")
    return found


def _broken(code: str, cause: str) -> IntegrityError:
    return IntegrityError(code, cause, "Get the bundle again from its source; if it stays so, it was altered")
