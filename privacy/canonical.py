"""Canonical JSON, digests and the Merkle root: one byte sequence per value, one digest per byte sequence.

Guarantee: equal values give equal bytes on every supported Python; `NaN`, infinities, duplicate keys and
types outside JSON are refused, so nothing is hashed that another verifier could read differently.
The tree is RFC 6962 section 2.1 (leaf prefix 0x00, node prefix 0x01): a leaf can't be passed off as a node.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from privacy.errors import IntegrityError

_PREFIX = "sha256:"
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
Digest = str  # "sha256:" + 64 lower-case hex digits
Scalar = str | int | float | bool | None
Json = Scalar | Sequence["Json"] | Mapping[str, "Json"]


def canonical_json(value: Json) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces. Raises IntegrityError E-CANON-001 for what JSON can't carry."""
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise IntegrityError(
            "E-CANON-001",
            f"a value of evidence is not representable as canonical JSON ({type(error).__name__})",
            "Report this as a defect; evidence holds only text, finite numbers, booleans, lists and objects",
        ) from None


def parse_json(data: bytes) -> Json:
    """Strict JSON: UTF-8, no duplicate keys, no NaN. Raises IntegrityError E-CANON-002."""
    try:
        value: Json = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        return value
    except (ValueError, RecursionError):
        raise IntegrityError(
            "E-CANON-002", "a JSON document of the evidence is malformed", "Restore the file from its source"
        ) from None


def parse_canonical(data: bytes) -> Json:
    """Like `parse_json`, and the bytes must be the canonical form (so no byte is free to change)."""
    value = parse_json(data)
    if canonical_json(value) != data:
        raise IntegrityError(
            "E-CANON-003", "a JSON document of the evidence is not in canonical form", "Restore the file from its source"
        )
    return value


def digest_bytes(data: bytes) -> Digest:
    return _PREFIX + hashlib.sha256(data).hexdigest()


def digest_of(value: Json) -> Digest:
    """Digest of the canonical form."""
    return digest_bytes(canonical_json(value))


def is_digest(text: object) -> bool:
    if not isinstance(text, str) or not text.startswith(_PREFIX):
        return False
    hexa = text[len(_PREFIX) :]
    return len(hexa) == 64 and all(c in "0123456789abcdef" for c in hexa)


def merkle_root(leaves: Sequence[bytes]) -> Digest:
    """Root over the leaves in order (RFC 6962 section 2.1); the empty tree is the hash of nothing."""
    if not leaves:
        return digest_bytes(b"")
    level = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = paired + level[len(paired) * 2 :]
    return _PREFIX + level[0].hex()


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError("duplicate key")
        found[key] = value
    return found


def _no_constant(name: str) -> Json:
    raise ValueError(name)
