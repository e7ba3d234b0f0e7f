"""Signed checkpoints of a log in the public text formats of C2SP, so that other people's tools can check them too.

c2sp.org/signed-note (Ed25519, type 0x01), c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature (cosignature/v1, type 0x04),
c2sp.org/tlog-proof and the request of c2sp.org/tlog-witness. Guarantee: what `open_checkpoint` and `cosignatures` return
was signed by exactly the keys handed in, over exactly these bytes. Not covered: whether two checkpoints belong to one
history (`privacy.merkle.verify_consistency`), and ML-DSA cosignatures, which are passed over as unknown ones.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from privacy.canonical import Digest
from privacy.errors import IntegrityError
from privacy.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from privacy.signing import SigningKey, verify_signature

ED25519: Final = 1  # signature types of signed-note
COSIGNATURE: Final = 4
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_DASH = "\u2014"
_MAX_NOTE = 1 << 18
_MAX_SIGNATURES = 64
_MAX_PROOF = 63  # hashes; a log can't have 2^64 leaves
_MAX_TIME = (1 << 63) - 1
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
Kind = Literal[1, 4]


@dataclass(frozen=True, slots=True)
class Verifier:
    """Whose signatures of which type count, under the name they are made with."""

    name: str
    public_hex: str
    kind: Kind = ED25519

    def __post_init__(self) -> None:
        if not is_key_name(self.name) or not re.fullmatch(r"[0-9a-f]{64}", self.public_hex):
            raise malformed("a verifier key has a name with spaces or +, or is not an Ed25519 key")

    @property
    def key_id(self) -> bytes:
        encoded = self.name.encode() + b"\n" + bytes([self.kind]) + bytes.fromhex(self.public_hex)
        return hashlib.sha256(encoded).digest()[:4]

    def to_text(self) -> str:
        """The usual one-line form: name, key id, type and key."""
        return f"{self.name}+{self.key_id.hex()}+{_b64(bytes([self.kind]) + bytes.fromhex(self.public_hex))}"

    @classmethod
    def from_text(cls, text: str) -> Verifier:
        """Raises IntegrityError E-NOTE-001, also for a key id that is not that of name and key."""
        parts = text.strip().split("+", 2)  # base64 may hold a + itself
        data = unbase64(parts[2]) if len(parts) == 3 else b""
        if len(data) == 33 and data[0] in (ED25519, COSIGNATURE):
            found = cls(parts[0], data[1:].hex(), COSIGNATURE if data[0] == COSIGNATURE else ED25519)
            if found.key_id.hex() == parts[1]:
                return found
        raise malformed("a verifier key is not NAME+ID+KEY of an Ed25519 key")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line, not verified."""

    name: str
    key_id: bytes
    data: bytes

    def line(self) -> str:
        return f"{_DASH} {self.name} {_b64(self.key_id + self.data)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A signed note, taken apart and not verified. `text` ends with its newline."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, note: str) -> Note:
        """Raises IntegrityError E-NOTE-001."""
        text, blank, lines = note.rpartition("\n\n")
        listed = lines.split("\n")
        if len(note) > _MAX_NOTE or not blank or _CONTROL.search(note) or listed.pop() or not listed:
            raise malformed("a signed note is not text, a blank line and signature lines")
        if len(listed) > _MAX_SIGNATURES:
            raise malformed("a signed note has too many signatures")
        return cls(text + "\n", tuple(_signature(line) for line in listed))

    def format(self) -> str:
        return f"{self.text}\n{''.join(s.line() for s in self.signatures)}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: `size` leaves with this root, and the note that says so. Made by `open_checkpoint`: verified."""

    origin: str
    size: int
    root: bytes
    note: str

    @property
    def root_digest(self) -> Digest:
        return "sha256:" + self.root.hex()

    @property
    def text(self) -> str:
        """What was signed."""
        return Note.parse(self.note).text

    @classmethod
    def parse(cls, note: str) -> Checkpoint:
        """Without verifying a signature. Raises IntegrityError E-NOTE-001."""
        lines = Note.parse(note).text.split("\n")
        if len(lines) < 4 or not all(lines[:-1]) or not _NUMBER.fullmatch(lines[1]):
            raise malformed("a checkpoint is not origin, size and root")
        root = unbase64(lines[2])
        if len(root) != HASH_BYTES:
            raise malformed("the root of a checkpoint is not a SHA-256 hash")
        return cls(lines[0], int(lines[1]), root, note)


def sign_note(text: str, name: str, key: SigningKey) -> str:
    """A note with one Ed25519 signature. text: ends with a newline."""
    return Note(text, (NoteSignature(name, Verifier(name, key.public_hex).key_id, key.sign(text.encode())),)).format()


def sign_checkpoint(origin: str, size: int, root: bytes, key: SigningKey) -> Checkpoint:
    """The key's name is the origin, as the format recommends."""
    return Checkpoint(origin, size, root, sign_note(f"{origin}\n{size}\n{_b64(root)}\n", origin, key))


def open_note(note: str, known: Verifier) -> Note:
    """The note, if `known` signed it; other signatures are passed over.

    Raises IntegrityError E-NOTE-001 (malformed), E-NOTE-002 (its signature does not verify), E-NOTE-003 (has none).
    """
    parsed = Note.parse(note)
    own = [s for s in parsed.signatures if (s.name, s.key_id) == (known.name, known.key_id)]
    for signature in own:
        if not verify_signature(known.public_hex, signature.data, parsed.text.encode()):
            raise _forged("a signature")
    if not own:
        raise IntegrityError(
            "E-NOTE-003", "a note is not signed by the key that must have signed it", "Check that it is of the right log"
        )
    return parsed


def open_checkpoint(note: str, log: Verifier) -> Checkpoint:
    """A checkpoint that this very log signed. Raises as `open_note`; E-NOTE-003 also for another origin."""
    open_note(note, log)
    checkpoint = Checkpoint.parse(note)
    if checkpoint.origin != log.name:
        raise IntegrityError("E-NOTE-003", "a checkpoint is of another log", "Check that it is of the right log")
    return checkpoint


def cosign(note: str, name: str, key: SigningKey, time: int) -> str:
    """The note with a cosignature/v1 line added. time: POSIX seconds. Checking what is signed is the caller's part."""
    if not 0 <= time <= _MAX_TIME:
        raise malformed("the time of a cosignature is out of range")
    parsed = Note.parse(note)
    signature = key.sign(_cosigned_message(parsed.text, time))
    line = NoteSignature(name, Verifier(name, key.public_hex, COSIGNATURE).key_id, time.to_bytes(8, "big") + signature)
    return Note(parsed.text, (*parsed.signatures, line)).format()


def cosignatures(note: str, witnesses: Sequence[Verifier]) -> dict[str, int]:
    """Name and time (POSIX seconds, the latest) of each of these witnesses that cosigned; unknown ones are passed over.

    Raises IntegrityError E-NOTE-001 (malformed), E-NOTE-002 (a known witness's line does not verify).
    """
    parsed = Note.parse(note)
    known = {(w.name, w.key_id): w for w in witnesses if w.kind == COSIGNATURE}
    found: dict[str, int] = {}
    for line in parsed.signatures:
        witness = known.get((line.name, line.key_id))
        if witness is None:
            continue
        time = int.from_bytes(line.data[:8], "big")
        message = _cosigned_message(parsed.text, time)
        if len(line.data) != 72 or time > _MAX_TIME or not verify_signature(witness.public_hex, line.data[8:], message):
            raise _forged("a cosignature")
        found[witness.name] = max(time, found.get(witness.name, 0))
    return found


def merged(note: str, other: str) -> str:
    """One note with the signature lines of both; of one key the line of `other` stays. Both must have one text."""
    first, second = Note.parse(note), Note.parse(other)
    if first.text != second.text:
        raise malformed("two notes with different texts can't be made one")
    lines = {(s.name, s.key_id): s for s in (*first.signatures, *second.signatures)}
    return Note(first.text, tuple(lines.values())).format()


@dataclass(frozen=True, slots=True)
class TlogProof:
    """That an entry is in a log: its index, the path to the root, the checkpoint. `extra` is not authenticated by itself."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    def format(self) -> str:
        extra = [] if self.extra is None else [f"extra {_b64(self.extra)}"]
        lines = [PROOF_HEADER, *extra, f"index {self.index}", *map(_b64, self.path), "", self.checkpoint]
        return "\n".join(lines)

    @classmethod
    def parse(cls, text: str) -> TlogProof:
        """Raises IntegrityError E-NOTE-001."""
        head, blank, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        extra = None
        if len(lines) > 1 and lines[1].startswith("extra "):
            extra = unbase64(lines.pop(1).removeprefix("extra "))
        if not blank or lines[0] != PROOF_HEADER or len(lines) < 2 or not lines[1].startswith("index "):
            raise malformed("a proof does not begin as a tlog-proof does")
        return cls(_number(lines[1].removeprefix("index ")), _hashes(lines[2:]), checkpoint, extra)

    def verify(self, leaf: bytes, log: Verifier) -> Checkpoint:
        """The verified checkpoint in which `leaf` (the entry's bytes) stands. Raises as `open_checkpoint`, and E-NOTE-004."""
        checkpoint = open_checkpoint(self.checkpoint, log)
        if not verify_inclusion(leaf_hash(leaf), self.index, checkpoint.size, self.path, checkpoint.root):
            raise IntegrityError("E-NOTE-004", "a proof does not lead from the entry to the root", "Get it again")
        return checkpoint


@dataclass(frozen=True, slots=True)
class WitnessRequest:
    """What is carried to a witness: the size it cosigned last, the consistency proof from there, and the checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: str

    def format(self) -> str:
        return "\n".join([f"old {self.old}", *map(_b64, self.proof), "", self.checkpoint])

    @classmethod
    def parse(cls, text: str) -> WitnessRequest:
        """Raises IntegrityError E-NOTE-001."""
        head, blank, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if not blank or not lines[0].startswith("old "):
            raise malformed("a request to a witness does not begin with the old size")
        return cls(_number(lines[0].removeprefix("old ")), _hashes(lines[1:]), checkpoint)


def unbase64(text: str) -> bytes:
    """Standard base64 in its one spelling. Raises IntegrityError E-NOTE-001."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or _b64(data) != text:  # trailing bits are free in base64, and must not be here
        raise malformed("a hash or signature is not in base64")
    return data


def is_key_name(name: str) -> bool:
    """Whether a signature line can carry it: no spaces, no +."""
    return bool(name) and name.isprintable() and "+" not in name and not any(c.isspace() for c in name)


def malformed(what: str) -> IntegrityError:
    return IntegrityError("E-NOTE-001", what, "Get it again from its source; if it stays so, it was altered")


def _forged(what: str) -> IntegrityError:
    return IntegrityError("E-NOTE-002", f"{what} of a note does not verify", "It was altered or forged: get it again")


def _signature(line: str) -> NoteSignature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH or not is_key_name(parts[1]):
        raise malformed("a signature line of a note is malformed")
    data = unbase64(parts[2])
    if len(data) < 5:
        raise malformed("a signature line of a note is malformed")
    return NoteSignature(parts[1], data[:4], data[4:])


def _cosigned_message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise malformed("a number is not in its one decimal spelling")
    return int(text)


def _hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    found = tuple(unbase64(line) for line in lines)
    if len(found) > _MAX_PROOF or any(len(h) != HASH_BYTES for h in found):
        raise malformed("a proof is not a list of SHA-256 hashes")
    return found


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
