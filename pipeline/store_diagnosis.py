"""Says what was done to a sealed object that is refused already: swapped, rolled back, cut, reordered, spliced, …

Guarantee: nothing is opened by a diagnosis. It runs after the digest has failed, authenticates chunks in a scratch
buffer, and only chooses the words of the refusal. Authenticated means told by keys, not guessed from file names.
Assumption: without the object's key (another role, a destroyed domain) nothing can be told apart, and the answer is
"altered", E-STORE-002. A chunk that was taken from another object is recognised while that object is in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.stage import ArtifactRef
from pipeline.store_envelope import MAGIC, START, Envelope, header_length, not_sealed, parse_header
from privacy.errors import IntegrityError, PrivetError
from privacy.seal import HEADER, SEALED_CHUNK, TAG, SealContext
from privacy.seal_probe import SealedProbe, salt_was_altered

if TYPE_CHECKING:
    from privacy.keys import Keyring

_TRIED_PLACES = 1 << 20  # places that a moved chunk is looked for at; 16 GiB of file, some seconds


def place_of(ref: ArtifactRef) -> SealContext:
    return SealContext(ref.dataset, ref.path, ref.data_class, ref.version, ref.schema)


@dataclass(frozen=True, slots=True)
class _Body:
    """The chunks of the damaged file as they lie there, and the size that the reference says they had."""

    file: BinaryIO
    start: int
    size: int
    expected: int
    probe: SealedProbe

    def piece(self, index: int) -> bytes:
        self.file.seek(self.start + index * SEALED_CHUNK)
        return self.file.read(min(SEALED_CHUNK, max(0, self.size - index * SEALED_CHUNK)))

    def pieces(self) -> Iterator[bytes]:
        """Always ends with the one that is shorter than a chunk, empty if need be."""
        for index in range(self.size // SEALED_CHUNK + 1):
            yield self.piece(index)

    def authentic_prefix(self) -> int:
        for index, piece in enumerate(self.pieces()):
            if not self.probe.authentic(index, piece):
                return index
        return self.size // SEALED_CHUNK + 1

    @property
    def count(self) -> int:
        return self.size // SEALED_CHUNK + 1

    def ends_before_its_end(self) -> bool:
        """Whether the object as it was is all there, and more behind it."""
        whole, last = divmod(self.expected, SEALED_CHUNK)
        return self.probe.authentic(whole, self.piece(whole)[:last])


def what_happened(file: BinaryIO, ref: ArtifactRef, keyring: Keyring, others: Iterable[Path], shown: str) -> IntegrityError:
    """The refusal for a file whose bytes are not those of `ref`. others: further objects of the store."""
    with suppress(PrivetError):
        found = _diagnosed(file, ref, keyring, others, shown)
        if found is not None:
            return found
    return damaged(shown)


def damaged(shown: str) -> IntegrityError:
    return _refused("E-STORE-002", f"{shown} is not what was written")


def another_place() -> IntegrityError:
    return IntegrityError("E-STORE-004", "a sealed object was written for another place", "Use the manifest that belongs to it")


def _diagnosed(file: BinaryIO, ref: ArtifactRef, keyring: Keyring, others: Iterable[Path], shown: str) -> IntegrityError | None:
    file.seek(0, 2)
    size = file.tell()
    file.seek(0)
    start = file.read(START)
    if len(start) < START:
        return _cut(shown) if start.startswith(MAGIC) or MAGIC.startswith(start) else not_sealed(shown)
    if not start.startswith(MAGIC):
        return None if _is_envelope_of(file, start, ref) else not_sealed(shown)
    length = header_length(start)
    if START + length + HEADER > size:
        return _cut(shown)
    envelope = parse_header(file.read(length))
    if envelope.place != place_of(ref):
        return _of_another_place(file, envelope, ref, keyring, shown)
    key = keyring.unwrap(envelope.wrapped, envelope.place.to_bytes())
    header = file.read(HEADER)
    context = envelope.place.to_bytes()
    probe = SealedProbe(header, key, context)
    body_start = envelope.offset + HEADER
    body = _Body(file, body_start, size - body_start, ref.size - body_start, probe)
    if not probe.belongs:
        altered = probe.authentic(0, body.piece(0)) or salt_was_altered(header, key, context)
        return None if altered else _spliced(shown)
    return _of_the_body(body, others, shown)


def _is_envelope_of(file: BinaryIO, start: bytes, ref: ArtifactRef) -> bool:
    """Whether only the magic was damaged: what follows is the header of this very object."""
    try:
        return parse_header(file.read(header_length(start))).place == place_of(ref)
    except PrivetError:
        return False


def _of_another_place(
    file: BinaryIO, envelope: Envelope, ref: ArtifactRef, keyring: Keyring, shown: str
) -> IntegrityError | None:
    """A whole object of elsewhere, if its own key says so; else this one with an altered header."""
    context = envelope.place.to_bytes()
    key = keyring.unwrap(envelope.wrapped, context)
    file.seek(envelope.offset)
    if not SealedProbe(file.read(HEADER), key, context).belongs:
        return None
    place = envelope.place
    if (place.dataset, place.path, place.data_class) == (ref.dataset, ref.path, ref.data_class):
        return _rolled_back(shown)
    return _refused("E-STORE-012", f"{shown} was swapped for the object of another place")


def _of_the_body(body: _Body, others: Iterable[Path], shown: str) -> IntegrityError | None:
    good = body.authentic_prefix()
    if good == body.count:
        return _rolled_back(shown)
    if body.size > body.expected and good >= body.expected // SEALED_CHUNK and body.ends_before_its_end():
        return _refused("E-STORE-018", f"bytes were appended to {shown}")
    if good == 0 and body.count > 1 and not any(body.probe.authentic(i, p) for i, p in enumerate(body.pieces())):
        moved = _belongs_elsewhere(body, 0)
        return _reordered(shown) if moved else _spliced(shown)
    if body.size < body.expected and good == body.count - 1:
        return _cut(shown)  # all that is there is authentic, but for the piece that the cut went through
    if _belongs_elsewhere(body, good):
        return _reordered(shown)
    if _lies_in_another(body, good, others):
        return _spliced(shown)
    return None


def _belongs_elsewhere(body: _Body, index: int) -> bool:
    piece = body.piece(index)
    places = min(max(body.size, body.expected) // SEALED_CHUNK + 1, _TRIED_PLACES)
    return any(body.probe.authentic(place, piece) for place in range(places) if place != index)


def _lies_in_another(body: _Body, index: int, others: Iterable[Path]) -> bool:
    """Whether the very bytes of this chunk are at the same place of another sealed object."""
    piece = body.piece(index)
    if len(piece) < TAG:
        return False
    for path in others:
        with suppress(OSError, PrivetError), path.open("rb", buffering=0) as file:
            start = file.read(START)
            if len(start) < START or not start.startswith(MAGIC):
                continue
            at = START + header_length(start) + HEADER + index * SEALED_CHUNK
            file.seek(at + len(piece) - TAG)
            if file.read(TAG) != piece[-TAG:]:
                continue
            file.seek(at)
            if file.read(len(piece)) == piece:
                return True
    return False


def _cut(shown: str) -> IntegrityError:
    return _refused("E-STORE-014", f"{shown} is cut short")


def _rolled_back(shown: str) -> IntegrityError:
    return IntegrityError(
        "E-STORE-013",
        f"{shown} is a whole object of the same place, but not the one that the manifest names: an older or newer version",
        "Restore the object that the manifest names, and find out who put this one in its place",
    )


def _reordered(shown: str) -> IntegrityError:
    return _refused("E-STORE-015", f"chunks of {shown} were moved, doubled or taken out")


def _spliced(shown: str) -> IntegrityError:
    return _refused("E-STORE-016", f"{shown} was put together from parts of several sealed objects")


def _refused(code: str, cause: str) -> IntegrityError:
    return IntegrityError(
        code, cause, "Restore it from a backup, or delete it and run again, which makes anew what can be made anew"
    )
