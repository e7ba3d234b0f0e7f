"""Anchors of the journal: states of it that were noted elsewhere, read from wherever people kept them.

Guarantee: a checkpoint in a file or a bundle counts only with the journal's own signature; a bare SIZE:ROOT counts as it
is, for it is the word of whoever types it. Not covered: whether the copy was out of the attacker's reach.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pipeline.bundle import RELEASE_STATEMENT, read_bundle
from pipeline.evidence import moment, witnesses_of
from privacy.checkpoint import PROOF_HEADER, Checkpoint, TlogProof, Verifier, WitnessRequest, cosignatures, open_checkpoint
from privacy.errors import PrivetError, UsageError
from privacy.journal_audit import Anchor
from privacy.signing import TrustRoot, open_envelope

_MAX_FILE = 1 << 20
_PLAIN = re.compile(r"(\d{1,18}):(?:sha256:)?([0-9a-f]{64}|[A-Za-z0-9+/]{43}=)", re.ASCII)


def read_anchors(text: str, log: Verifier, trust: TrustRoot) -> list[Anchor]:
    """From SIZE:ROOT, the file of a checkpoint (also a cosigned one, a request to a witness, a tlog-proof), a bundle folder.

    Raises UsageError E-JOURNAL-009 for anything else, IntegrityError E-NOTE when a checkpoint is not the journal's.
    """
    found = _anchors(text, log, trust)
    if any(anchor.size == 0 for anchor in found):  # every journal continues an empty one
        raise _no_anchor()
    return found


def _anchors(text: str, log: Verifier, trust: TrustRoot) -> list[Anchor]:
    if plain := _PLAIN.fullmatch(text):
        root = bytes.fromhex(plain[2]) if len(plain[2]) == 64 else base64.b64decode(plain[2])
        return [Anchor(int(plain[1]), root, "SIZE:ROOT as given")]
    path = Path(text)
    if path.is_dir():
        return _of_bundle(path, log, trust)
    note = read_note(path)
    checkpoint = open_checkpoint(note, log)
    times = cosignatures(note, witnesses_of(trust))
    at = max(times.values(), default=None)
    seen = f", cosigned by {', '.join(sorted(times))}" if times else ""
    return [Anchor(checkpoint.size, checkpoint.root, f"{path.name}{seen}", None if at is None else _iso(at))]


def read_note(path: Path) -> str:
    """The checkpoint in a file. Raises UsageError E-JOURNAL-009."""
    text = read_text(path)
    if text.startswith("old "):
        return WitnessRequest.parse(text).checkpoint
    return TlogProof.parse(text).checkpoint if text.startswith(PROOF_HEADER) else text


def read_text(path: Path) -> str:
    """A small plain file. Raises UsageError E-JOURNAL-009."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for its writer
        with os.fdopen(handle, "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and len(data := file.read(_MAX_FILE + 1)) <= _MAX_FILE:
                return data.decode()
    except (OSError, ValueError):
        pass
    raise _no_anchor()


def _no_anchor() -> UsageError:
    return UsageError(
        "E-JOURNAL-009",
        "this is no anchor: neither SIZE:ROOT (not 0) nor the file of a checkpoint nor the folder of a bundle",
        "Give what you noted earlier, elsewhere: privet journal checkpoint, a bundle, or what a witness printed",
    )


def _of_bundle(folder: Path, log: Verifier, trust: TrustRoot) -> list[Anchor]:
    view = read_bundle(folder)
    released = open_envelope(view.texts.get(RELEASE_STATEMENT, b""), trust).predicate
    own = view.json("journal.json")
    at, state = released.get("released_at"), released.get("journal")
    found = []
    for what, value in (("release statement", state), ("journal.json", own)):
        note = value.get("checkpoint") if isinstance(value, Mapping) else None
        checkpoint: Checkpoint = open_checkpoint(str(note), log)
        found.append(Anchor(checkpoint.size, checkpoint.root, f"{what} of the bundle {folder.name}", str(at)))
    return found


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def age_of(anchor: Anchor, newest_under: str | None, now: datetime) -> float | None:
    """Seconds since the anchor was taken, as far as that is known; else since the newest entry that it covers."""
    try:
        return max(0.0, (now - moment(anchor.at or newest_under or "")).total_seconds())
    except PrivetError:
        return None
