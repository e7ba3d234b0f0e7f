"""A witness: a second key, kept elsewhere, that cosigns a journal's checkpoints only while they continue each other.

Guarantee: for one log it never cosigns two histories, nor a smaller state after a larger one, also when two processes ask
at once or one is killed: the state is durable before a cosignature leaves. It needs no access to the home.
Assumption: its folder and key are out of reach of whoever holds the journal's key. Not covered: what the entries say.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.store_files import sync_folder
from privacy.canonical import canonical_json, parse_canonical
from privacy.checkpoint import (
    COSIGNATURE,
    Checkpoint,
    Verifier,
    WitnessRequest,
    cosign,
    cosignatures,
    is_key_name,
    open_checkpoint,
)
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError
from privacy.merkle import verify_consistency
from privacy.signing import SigningKey


def refuse_witness_name(name: str) -> None:
    """Raises UsageError E-WITNESS-011."""
    if not is_key_name(name):
        raise UsageError(
            "E-WITNESS-011", "a witness can't have that name", "Name it without spaces and +, best like witness.example/w1"
        )


@dataclass(frozen=True, slots=True)
class Witness:
    """Keeps one file per log in `folder`: the log's key and the checkpoint that it cosigned last."""

    folder: Path
    name: str
    key: SigningKey

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, self.key.public_hex, COSIGNATURE)

    def cosign(self, text: str, log: Verifier | None, now: int) -> str:
        """The cosigned note. text: a checkpoint, or a checkpoint with its consistency proof (`WitnessRequest`).

        log: the journal's verifier key; needed the first time. Raises E-WITNESS-001 (unknown log), 002 (ROLLBACK), 003
        (FORK), 004 (wrong proof), 005 (proof from another size), 006 (own state unreadable), 007 (another key for a known
        log), 008 (not a key apart), E-NOTE-001 to 003.
        """
        request = WitnessRequest.parse(text) if text.startswith("old ") else None
        note = text if request is None else request.checkpoint
        with _locked(self.folder):
            path = self.folder / f"{hashlib.sha256(Checkpoint.parse(note).origin.encode()).hexdigest()[:32]}.json"
            before = _read(path)
            known = self._log(before, log)
            checkpoint = open_checkpoint(note, known)
            time = now
            if before is not None:
                seen = open_checkpoint(before.note, known)
                _refuse_another_history(seen, checkpoint, request)
                time = max(now, cosignatures(before.note, [self.verifier]).get(self.name, now))
            elif request is not None and request.old:
                raise _other_start(request.old, 0)
            cosigned = cosign(checkpoint.note, self.name, self.key, time)
            _replace(path, _Seen(known.to_text(), cosigned))
        return cosigned

    def _log(self, before: _Seen | None, given: Verifier | None) -> Verifier:
        known = None if before is None else Verifier.from_text(before.log)
        if known is not None and given not in (None, known):
            raise IntegrityError(
                "E-WITNESS-007",
                "this witness knows the log under another key",
                "Find out which key is the journal's; a log does not change its key under one origin",
            )
        found = known or given
        if found is None:
            raise UsageError(
                "E-WITNESS-001",
                "this witness has never seen that log",
                "Get the journal's verifier key from its operator (privet journal key) and pass it once with --log",
            )
        if found.public_hex == self.key.public_hex:
            raise UsageError("E-WITNESS-008", "the witness has the journal's own key", "Make it a key of its own, elsewhere")
        return found


@dataclass(frozen=True, slots=True)
class _Seen:
    log: str
    note: str


def _refuse_another_history(seen: Checkpoint, new: Checkpoint, request: WitnessRequest | None) -> None:
    if new.size < seen.size:
        raise IntegrityError(
            "E-WITNESS-002",
            f"ROLLBACK: the checkpoint has size {new.size} < {seen.size}, which this witness has cosigned",
            "The journal was cut off or put back to an older copy: keep the checkpoint as evidence",
        )
    if new.size == seen.size:
        if new.root != seen.root:
            raise IntegrityError(
                "E-WITNESS-003",
                f"FORK: two signed roots at {new.size}, this one and the one that this witness has cosigned",
                "History was rewritten with the journal's key: keep both checkpoints as evidence",
            )
        return
    if request is None or request.old != seen.size:
        raise _other_start(None if request is None else request.old, seen.size)
    if not verify_consistency(seen.size, new.size, request.proof, seen.root, new.root):
        raise IntegrityError(
            "E-WITNESS-004",
            f"the proof does not show that {new.size} entries continue the {seen.size} that this witness has cosigned",
            f"Export it again with --since {seen.size}; if it stays so, history was rewritten",
        )


def _other_start(old: int | None, wanted: int) -> UsageError:
    given = "without a proof" if old is None else f"with a proof from size {old}"
    return UsageError(
        "E-WITNESS-005",
        f"the checkpoint comes {given}, and this witness has cosigned size {wanted} last",
        f"Export it with privet journal checkpoint --since {wanted}",
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> _Seen | None:
    try:
        match parse_canonical(path.read_bytes()):
            case {"witness": 1, "log": str(log), "note": str(note), **rest} if not rest:
                return _Seen(log, note)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(error) from None
    except PrivetError:
        pass
    raise IntegrityError(  # forgetting what was cosigned would make the next rewrite of history look like the first one
        "E-WITNESS-006", "the witness's own state is damaged", "Restore its folder from a backup; never start it anew"
    )


def _replace(path: Path, seen: _Seen) -> None:
    """Old or new, whole and flushed, after any crash."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.new")
    try:
        with temporary.open("xb") as file:
            file.write(canonical_json({"witness": 1, "log": seen.log, "note": seen.note}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _unusable(error) from None
    finally:
        temporary.unlink(missing_ok=True)


def _unusable(error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        "E-WITNESS-009", f"the witness's folder can't be used ({error.strerror})", "Check its path, its owner and the disk"
    )
