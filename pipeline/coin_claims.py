"""What a bundle claims about the coins of its canaries: who drew them, that they were drawn before, and what they were.

Guarantee: pure, like `pipeline.claims`. Under a policy that asks for an auditor, the coins pass only when somebody with that
role, who is neither the pipeline nor the requester, signed exactly the commitment that the training used, for this pipeline
and this number of canaries, and the journal has that envelope before the training result.
Not covered: a trainer that knows the coins (it must, to train with them) and writes a false record of its own steps; an
auditor who hands a trainer many sets to choose from. Under `coins: pipeline` nobody but the pipeline vouches for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pipeline.evidence import is_pipeline, moment
from privacy.canonical import Digest, Json, digest_bytes, is_digest
from privacy.entries import Entry
from privacy.errors import IntegrityError, PrivetError
from privacy.signing import Person, SigningKey, TrustRoot, make_statement, open_envelope, seal_envelope
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.claims import Evidence

COINS_TYPE = "https://privet.dev/predicate/canary-coins/v1"
COINS_FILE = "audit/coins.json"
AUDITOR_ROLE = "auditor"
USED = "canary_commitment"  # kind of the journal entry that binds one set of coins to one training
Mode = Literal["auditor", "pipeline"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A signed statement about one set of coins. pipeline: the public key of the home that they were drawn for, in hex."""

    signer: Person
    commitment: Digest
    canaries: int
    pipeline: str
    drawn_at: str


def coins_envelope(key: SigningKey, pipeline: str, commitment: Digest, canaries: int, now: datetime) -> bytes:
    predicate: dict[str, Json] = {
        "canaries": canaries,
        "pipeline": pipeline,
        "drawn_at": now.isoformat(timespec="seconds"),
    }
    return seal_envelope(make_statement({"coins": commitment}, COINS_TYPE, predicate), key)


def open_coins(envelope: bytes, trust: TrustRoot) -> Drawn:
    """Raises IntegrityError E-SIGN-001, E-SIGN-002 (no trusted signature), E-COINS-001 (a statement about something else)."""
    signed = open_envelope(envelope, trust)
    if signed.predicate_type == COINS_TYPE and set(signed.subject) == {"coins"} and is_digest(signed.subject["coins"]):
        match signed.predicate:
            case {"canaries": int(canaries), "pipeline": str(pipeline), "drawn_at": str(drawn_at), **rest} if not rest:
                moment(drawn_at)
                return Drawn(signed.signer, signed.subject["coins"], canaries, pipeline, drawn_at)
    raise IntegrityError(
        "E-COINS-001", "what was signed is no statement about the coins of canaries", "Draw coins with privet audit coins"
    )


def coins_fault(drawn: Drawn, mode: Mode, requested_by: str, pipeline: str, canaries: int) -> str | None:
    """Why this set may not serve a training; None when it may."""
    if drawn.pipeline != pipeline:
        return "E-COINS-003: the coins were drawn for another pipeline"
    if drawn.canaries != canaries:
        return "E-COINS-003: the coins were drawn for another number of canaries"
    if mode == "pipeline":
        return None if is_pipeline(drawn.signer) else "E-COINS-002: the policy has the pipeline draw the coins, and it did not"
    if is_pipeline(drawn.signer):
        return "E-COINS-002: the pipeline drew the coins itself, and the policy asks for an auditor"
    if drawn.signer.name == requested_by:
        return "E-COINS-002: the requester of the training drew its coins"
    if AUDITOR_ROLE not in drawn.signer.roles:
        return "E-COINS-002: the coins were drawn by somebody who is no auditor"
    return None


def opening(salt: bytes, packed: bytes, canaries: int) -> dict[str, Json]:
    """What is revealed of a set after the audit. packed: one bit a canary, the first in the highest bit, zeros at the end."""
    return {"canaries": canaries, "drawn": packed.hex(), "salt": salt.hex()}


def commitment_of(revealed: Json) -> Digest | None:
    """The commitment that this opens; None for what is no opening (see `training.canaries`, which commits)."""
    match revealed:
        case {"canaries": int(canaries), "drawn": str(drawn), "salt": str(salt), **rest} if not rest:
            try:
                bits, secret = bytes.fromhex(drawn), bytes.fromhex(salt)
            except ValueError:
                return None
            spare = 8 * len(bits) - canaries
            spelled = (bits.hex(), secret.hex()) == (drawn, salt) and len(secret) == 32
            if spelled and 0 <= spare < 8 and canaries > 0 and not bits[-1] & ((1 << spare) - 1):
                return digest_bytes(secret + bits)
    return None


def coins_mode(policy: Json) -> Mode:
    """policy: the value of policy.json. Whatever is not plainly `pipeline` asks for an auditor."""
    audit = policy.get("audit") if isinstance(policy, Mapping) else None
    return "pipeline" if isinstance(audit, Mapping) and audit.get("coins") == "pipeline" else "auditor"


def committed(evidence: Evidence, before: Sequence[Entry]) -> Verdict:
    """Coins drawn after the training, or by whoever trains, could be drawn to look well.

    before: the journal's entries that stand before the training result.
    """
    name, facts = "canaries", evidence.manifests["train"].get("facts")
    commitment = facts.get("canary_commitment") if isinstance(facts, Mapping) else None
    if not isinstance(commitment, str):
        return Verdict(name, "not_evaluated", "E-CLAIM-019: the training names no commitment to its canary coins")
    uses = [e for e in before if e.kind == USED and e.facts.get("commitment") == commitment]
    if not uses:
        return Verdict(name, "failed", "E-CLAIM-019: the journal has no commitment to the canary coins before the training")
    if len({str(e.facts.get("ledger_key")) for e in uses}) > 1:
        return Verdict(name, "failed", "E-COINS-005: the journal has these coins used by another training, too")
    if uses[0].facts.get("ledger_key") != evidence.trace().ledger_key:
        return Verdict(name, "failed", "E-COINS-005: the journal has these coins used by another training than this one")
    return _signed(evidence, commitment, uses)


def _signed(evidence: Evidence, commitment: Digest, uses: Sequence[Entry]) -> Verdict:
    name, envelope = "canaries", evidence.view.texts[COINS_FILE]
    try:
        drawn = open_coins(envelope, evidence.trust)
    except PrivetError as error:
        return Verdict(name, "failed", f"{error.code}: {COINS_FILE}: {error.cause}")
    policy = evidence.view.json("policy.json")
    mode = coins_mode(policy)
    fault = coins_fault(drawn, mode, evidence.block.requested_by, evidence.signer.public_hex, _canaries(policy))
    if fault is None and mode == "auditor" and drawn.signer.public_hex in evidence.requester_keys:
        fault = "E-COINS-002: the requester of the training drew its coins"
    if fault is not None:
        return Verdict(name, "failed", fault)
    if drawn.commitment != commitment:
        return Verdict(name, "failed", "E-COINS-003: the signed commitment is not the one that the training used")
    if not any(e.facts.get("envelope") == digest_bytes(envelope) for e in uses):
        return Verdict(name, "failed", "E-COINS-004: the journal has no such signature before the training")
    bounds = evidence.view.json("audit/bounds.json")
    revealed = bounds.get("canary_opening") if isinstance(bounds, Mapping) else None
    if revealed is None:
        said = "E-COINS-007: the coins were never revealed, so nobody can tell whether the audit used those committed to"
        return Verdict(name, "not_evaluated", said)
    if commitment_of(revealed) != commitment:
        return Verdict(name, "failed", "E-COINS-006: the revealed coins do not open the commitment")
    return Verdict(name, "passed", said_of(drawn, mode) + "; revealed, they open it")


def said_of(drawn: Drawn, mode: Mode) -> str:
    """For people: who vouches for the coins."""
    when = "the journal has the commitment before the training result"
    if mode == "pipeline":
        return f"{when}; the pipeline drew the coins itself, as the policy allows, so nobody else vouches for them"
    whose = "a demo identity, its key beside the pipeline's" if drawn.signer.custody == "demo" else "an auditor"
    return f"{when}; drawn and signed by {drawn.signer.name}, {whose}"


def _canaries(policy: Json) -> int:
    audit = policy.get("audit") if isinstance(policy, Mapping) else None
    found = audit.get("canaries") if isinstance(audit, Mapping) else None
    return found if isinstance(found, int) else -1
