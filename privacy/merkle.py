"""The Merkle tree of a log (RFC 6962 section 2.1, RFC 9162 section 2.1): roots, inclusion and consistency proofs.

Guarantee: pure functions of bytes; a leaf can't be passed off as a node (prefixes 0x00, 0x01); a verifier returns True
only for the one proof that the definition gives. Assumption: SHA-256 is collision resistant. Not covered: who vouches
for a root (`privacy.checkpoint`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The roots of the largest complete subtrees of a tree of `size` leaves, left to right: all that an append needs."""

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.nodes) != self.size.bit_count() or any(len(n) != HASH_BYTES for n in self.nodes):
            raise ValueError("the nodes are not those of a frontier of this size")

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Frontier:
        """Raises ValueError for anything but a frontier of that size."""
        if len(data) % HASH_BYTES:
            raise ValueError("not a list of hashes")
        return cls(size, tuple(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)))

    def to_bytes(self) -> bytes:
        return b"".join(self.nodes)

    def extended(self, leaf_hashes: Iterable[bytes]) -> Frontier:
        """The frontier after these leaves; this one does not change."""
        nodes, size = list(self.nodes), self.size
        for node in leaf_hashes:
            size += 1
            merges = size
            while not merges & 1:  # each trailing zero of the new size completes one more subtree
                node = node_hash(nodes.pop(), node)
                merges >>= 1
            nodes.append(node)
        return Frontier(size, tuple(nodes))

    def root(self) -> bytes:
        return _folded(self.nodes)


class Tree:
    """Every complete subtree of a log in memory (64 bytes a leaf), so that any root and any proof costs O(log n)."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]

    @property
    def size(self) -> int:
        return len(self._levels[0]) // HASH_BYTES

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        self._levels[0] += b"".join(leaf_hashes)
        for height, below in enumerate(self._levels):
            if height + 1 == len(self._levels) and len(below) >= 2 * HASH_BYTES:
                self._levels.append(bytearray())  # seen by this very loop
            if height + 1 < len(self._levels):
                above = self._levels[height + 1]
                pairs = bytes(memoryview(below)[2 * len(above) : len(below) - len(below) % (2 * HASH_BYTES)])
                above += b"".join([sha256(b"\x01" + pairs[i : i + 64]).digest() for i in range(0, len(pairs), 64)])

    def truncate(self, size: int) -> None:
        """Forget the leaves from `size` on."""
        for height, level in enumerate(self._levels):
            del level[(size >> height) * HASH_BYTES :]

    def leaf(self, index: int) -> bytes:
        return self._node(0, index)

    def frontier(self, size: int) -> Frontier:
        return Frontier(size, tuple(self._complete(0, size)))

    def root(self, size: int) -> bytes:
        return _folded(tuple(self._complete(0, size)))

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """PATH(index, D[size]) of RFC 6962 section 2.1.1, from the leaf's sibling upwards."""
        self._check(0 <= index < size <= self.size)
        path, start, end = [], 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return tuple(reversed(path))

    def consistency_proof(self, old: int, new: int) -> tuple[bytes, ...]:
        """PROOF(old, D[new]) of RFC 6962 section 2.1.2; empty for old = 0 and for old = new."""
        self._check(0 <= old <= new <= self.size)
        path, start, end = [], 0, new
        while old and old != end:
            middle = start + _split(end - start)
            if old <= middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        if start:  # otherwise it is the old root itself, which whoever asks has
            path.append(self._range(start, end))
        return tuple(reversed(path))

    def _check(self, holds: bool) -> None:
        if not holds:
            raise ValueError("there is no such leaf or size")

    def _node(self, height: int, index: int) -> bytes:
        at = index * HASH_BYTES
        return bytes(self._levels[height][at : at + HASH_BYTES])

    def _complete(self, start: int, end: int) -> Iterable[bytes]:
        """The complete subtrees of a range that begins where a subtree at least as large as the range does."""
        self._check(0 <= start <= end <= self.size)
        while start < end:
            height = (end - start).bit_length() - 1
            yield self._node(height, start >> height)
            start += 1 << height

    def _range(self, start: int, end: int) -> bytes:
        return _folded(tuple(self._complete(start, end)))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162 section 2.1.3.2. leaf: the leaf's hash."""
    if not 0 <= index < size or any(len(p) != HASH_BYTES for p in proof):
        return False
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """RFC 9162 section 2.1.4.2: whether the tree of `new` leaves begins with the tree of `old` leaves."""
    if not 0 <= old <= new or any(len(p) != HASH_BYTES for p in proof):
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _folded(nodes: Sequence[bytes]) -> bytes:
    if not nodes:
        return EMPTY_ROOT
    root = nodes[-1]
    for node in reversed(nodes[:-1]):
        root = node_hash(node, root)
    return root
