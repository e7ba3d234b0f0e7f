from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.canonical import canonical_json, digest_of, is_digest, merkle_root, parse_canonical, parse_json
from privacy.errors import IntegrityError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
).filter(lambda v: "\ud800" not in str(v))


@given(json_values)
def test_canonical_form_survives_a_round_trip(value: object) -> None:
    try:
        data = canonical_json(value)  # type: ignore[arg-type]
    except (IntegrityError, UnicodeEncodeError):
        return
    assert canonical_json(parse_canonical(data)) == data


def test_key_order_does_not_change_the_digest() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert is_digest(digest_of({}))
    assert not is_digest("sha256:zz")
    assert not is_digest(None)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, b"bytes", "\ud800"])
def test_values_that_two_verifiers_could_read_differently_are_refused(value: object) -> None:
    with pytest.raises(IntegrityError) as caught:
        canonical_json(value)  # type: ignore[arg-type]
    assert caught.value.code == "E-CANON-001"


@pytest.mark.parametrize("data", [b'{"a":1,"a":2}', b"[NaN]", b"\xff", b"[" * 100_000])
def test_ambiguous_documents_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_json(data)
    assert caught.value.code == "E-CANON-002"


@pytest.mark.parametrize("data", [b'{"a": 1}', b'{"b":1,"a":2}', b"[1.0e0]", b'["\\u0041"]'])
def test_another_spelling_of_the_same_value_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_canonical(data)
    assert caught.value.code == "E-CANON-003"


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_merkle_root_equals_the_definition(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == "sha256:" + naive_root(leaves).hex()


def test_a_node_can_not_be_passed_off_as_a_leaf() -> None:
    a, b = b"a", b"b"
    inner = hashlib.sha256(b"\0" + a).digest() + hashlib.sha256(b"\0" + b).digest()
    assert merkle_root([inner]) != merkle_root([a, b])


def test_a_value_too_deep_to_write_is_an_integrity_error_and_no_crash() -> None:
    deep: list[object] = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(IntegrityError, match="E-CANON-001"):
        canonical_json(deep)  # type: ignore[arg-type]
