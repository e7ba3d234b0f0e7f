"""The journal's commands: verify against anchors, show, checkpoints to carry elsewhere, proofs, and the witness."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.errors import EnvironmentFault, GateClosed, IntegrityError, UsageError

if TYPE_CHECKING:
    from privacy.canonical import Json
    from privacy.journal_audit import Anchor, JournalState


def journal_verify(args: Namespace) -> int:
    from pipeline.anchors import read_anchors
    from pipeline.home import Home
    from privacy.entries import journal_verifier
    from privacy.journal_audit import verify_journal

    home = Home.open(args.home)
    log = journal_verifier(home.key.public_hex)
    anchors = [anchor for text in args.anchor for anchor in read_anchors(text, log, home.trust)]
    try:
        state = verify_journal(home.place("journal"), home.key.public_hex, anchors)
    except IntegrityError as error:
        if args.json:
            print(json.dumps({"outcome": "failed", "code": error.code, "cause": error.cause}))
            return error.exit_code
        raise
    told = _told(state, anchors, datetime.now(UTC))
    unanchored = not anchors and not args.no_anchor
    if args.json:
        print(json.dumps({"outcome": "not_evaluated" if unanchored else "passed", **told}))
        return GateClosed.exit_code if unanchored else 0
    _print_state(state, told, "consistent in itself" if unanchored else "ok")
    if unanchored:
        raise GateClosed(
            "E-JOURNAL-016",
            "no anchor was given: a journal that was cut, put back to an older copy, or rewritten by the holder of its key "
            "would not show",
            "Give --anchor (a checkpoint, a bundle, SIZE:ROOT) that was kept elsewhere, or --no-anchor to do without",
        )
    return 0


def _told(state: JournalState, anchors: list[Anchor], now: datetime) -> dict[str, Json]:
    from pipeline.anchors import age_of

    listed: list[Json] = [
        {
            "source": anchor.source,
            "size": anchor.size,
            "age_seconds": age_of(anchor, state.anchored_at.get(anchor.size), now),
            "entries_since": state.size - anchor.size,
        }
        for anchor in anchors
    ]
    counts: dict[str, Json] = {"size": state.size, "root": state.root, "at": state.at, "checkpoints": state.checkpoints}
    return {**counts, "anchors": listed}


def _print_state(state: JournalState, told: dict[str, Json], verdict: str) -> None:
    newest = "" if state.at is None else f", newest of {state.at}"
    print(f"{verdict}: {state.size} entries{newest}, {state.checkpoints} signed checkpoints, root {state.root}")
    listed = told["anchors"]
    for anchor in listed if isinstance(listed, list) else ():
        assert isinstance(anchor, dict)
        age = anchor["age_seconds"]
        old = "of unknown age" if age is None else f"{_duration(float(str(age)))} old"
        print(f"anchor: {anchor['source']}, size {anchor['size']}, {old}; {anchor['entries_since']} entries came since")


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "under a minute"


def journal_show(args: Namespace) -> int:
    from pipeline.home import Home

    for entry in Home.open(args.home).journal.entries():
        if args.json:
            print(json.dumps({**entry.to_json(), "digest": entry.digest}, ensure_ascii=False, sort_keys=True))
        else:
            facts = ", ".join(f"{name} {_short(value)}" for name, value in entry.facts.items())
            print(f"{entry.seq:>6}  {entry.at}  {entry.kind:<20}  {facts}")
    return 0


def _short(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    shown = text[7:19] + "…" if text.startswith("sha256:") else text[:60] + "…" if len(text) > 60 else text
    return "".join(c if c.isprintable() else "?" for c in shown)


def journal_key(args: Namespace) -> int:
    from pipeline.home import Home
    from privacy.entries import journal_verifier

    print(journal_verifier(Home.open(args.home).key.public_hex).to_text())
    return 0


def journal_checkpoint(args: Namespace) -> int:
    from pipeline.home import Home
    from privacy.checkpoint import WitnessRequest

    journal = Home.open(args.home).journal
    checkpoint = journal.checkpoint()
    text = checkpoint.note
    if args.since is not None:
        proof = journal.consistency_proof(args.since, checkpoint.size)
        text = WitnessRequest(args.since, proof, checkpoint.note).format()
    _put(text, args.out)
    return 0


def journal_prove(args: Namespace) -> int:
    from pipeline.home import Home
    from privacy.checkpoint import TlogProof

    journal = Home.open(args.home).journal
    checkpoint = journal.checkpoint()
    path = journal.inclusion_proof(args.seq, checkpoint.size)
    _put(TlogProof(args.seq, path, checkpoint.note, journal.entries(args.seq)[0].body).format(), args.out)
    return 0


def journal_accept(args: Namespace) -> int:
    from pipeline.anchors import read_note
    from pipeline.evidence import witnesses_of
    from pipeline.home import Home
    from privacy.checkpoint import cosignatures

    home = Home.open(args.home)
    witnesses = witnesses_of(home.journalled_trust())
    kept = home.journal.accept(read_note(args.file), witnesses)
    print(f"kept: size {kept.size}, cosigned by {', '.join(sorted(cosignatures(kept.note, witnesses)))}")
    return 0


def journal_witness(args: Namespace) -> int:
    """Needs no home: it runs where the journal's operator has no access."""
    from pipeline.anchors import read_text
    from pipeline.home import read_key_file
    from pipeline.witness import Witness, refuse_witness_name
    from privacy.checkpoint import Verifier

    refuse_witness_name(args.name)
    text = read_text(args.checkpoint)
    if args.proof is not None:
        text = f"{read_text(args.proof).rstrip()}\n\n{text}"
    witness = Witness(args.state, args.name, read_key_file(args.key))
    try:
        log = None if args.log is None else Verifier.from_text(args.log)
    except IntegrityError:
        raise UsageError("E-WITNESS-010", "--log is not a verifier key", "Pass what privet journal key printed") from None
    _put(witness.cosign(text, log, int(datetime.now(UTC).timestamp())), args.out)
    return 0


def _put(text: str, out: Path | None) -> None:
    """To standard output, or whole to a file: these are made to be carried elsewhere."""
    if out is None:
        sys.stdout.write(text)
        return
    temporary = out.with_name(f".{out.name}.{os.urandom(6).hex()}.new")
    try:
        temporary.write_text(text)
        temporary.replace(out)
    except OSError as error:
        raise EnvironmentFault(
            "E-JOURNAL-018", f"the file can't be written ({error.strerror})", "Name a file in a folder that you may write to"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    print(f"wrote {out}")
