"""Tokens: the same value whichever way they are asked for, and never the identifier."""

from __future__ import annotations

import base64
import hmac
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DataError, UsageError
from privacy.tokens import Tokens, normal_subject

KEY = bytes(range(32))


def naive(key: bytes, subject: str, prefix: str = "u") -> str:
    """What a token is, by the standard library."""
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", subject).casefold()).strip()
    mac = hmac.digest(key, normal.encode("utf-8", "surrogatepass"), "sha256")
    return prefix + base64.b32encode(mac[:15]).decode().lower()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(), min_size=1)), st.binary(min_size=1, max_size=100))
def test_the_fast_way_equals_the_naive_one(subjects: list[str], key: bytes) -> None:
    usable = [s for s in subjects if normal_subject(s)]
    assert Tokens(key).of(usable) == [naive(key, s) for s in usable]


def test_the_value_of_a_token_is_pinned() -> None:
    """Another value would unlink every dataset made before."""
    assert Tokens(KEY).of(["Ada@example.org"]) == ["uylfikjhkwpsubyj5jyrzpprt"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_an_arrow_column_gets_the_same_tokens(kind: pa.DataType) -> None:
    values = [f"Customer {n % 7}" for n in range(50)] + ["Ｃustomer 3", "王伟", "王伟 "]
    column = pa.array(values, pa.string()).cast(kind)
    assert Tokens(KEY).of_array(column).to_pylist() == [naive(KEY, v) for v in values]
    assert Tokens(KEY).of_array(column.slice(3, 5)).to_pylist() == [naive(KEY, v) for v in values[3:8]]
    assert Tokens(KEY).of_array(column.slice(0, 0)).to_pylist() == []


@pytest.mark.parametrize("bad", ["", " ", "\u3000\n", None])
def test_nobody_gets_a_token_for_nothing(bad: str | None) -> None:
    with pytest.raises(DataError, match="E-VAULT-001"):
        Tokens(KEY).of_array(pa.array(["ada", bad]))
    if bad is not None:
        with pytest.raises(DataError, match="E-VAULT-001"):
            Tokens(KEY).of(["ada", bad])


def test_a_column_that_is_not_text_is_refused() -> None:
    for column in (pa.array([1, 2]), pa.array([b"a"])):
        with pytest.raises(UsageError, match="E-VAULT-005"):
            Tokens(KEY).of_array(column)


def test_kinds_and_keys_do_not_share_tokens() -> None:
    assert Tokens(KEY, "f").of(["ada"])[0][0] == "f"
    assert Tokens(KEY).of(["ada"]) != Tokens(KEY[::-1]).of(["ada"])
    assert len({t for n in range(2000) for t in Tokens(KEY).of([f"x{n}"])}) == 2000
