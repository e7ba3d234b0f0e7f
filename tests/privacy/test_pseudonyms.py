"""Pseudonyms of columns and of texts are one function; domains are strangers to each other."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.deidentify import Deidentifier
from privacy.errors import UsageError
from privacy.pseudonyms import Pseudonyms, folded_value

KEY = b"k" * 32
NAMES = ["Alice Smith", "ALICE  SMITH", "Bob", "张伟", "+1 (415) 555-2671", "+14155552671"]


def test_a_pseudonym_is_keyed_blake2b_over_type_and_folded_value() -> None:
    for name in NAMES:
        wanted = hashlib.blake2b(b"PERSON\0" + folded_value(name).encode(), key=KEY, digest_size=8).hexdigest()
        assert Pseudonyms(KEY).of("PERSON", name) == wanted[:6]
        assert Pseudonyms(KEY).array(pa.array([name]), "PERSON").to_pylist() == [f"<PERSON_{wanted[:16]}>"]


@given(st.lists(st.text(), min_size=0, max_size=20))
def test_many_at_once_are_as_one_by_one(values: list[str]) -> None:
    values = [v.encode("utf-8", "ignore").decode() for v in values]
    made = Pseudonyms(KEY).array(pa.array(values, pa.string()), "PERSON").to_pylist()
    assert [m[8:14] for m in made] == [Pseudonyms(KEY).of("PERSON", v) for v in values]


def test_a_dictionary_stays_one_and_two_spellings_become_one_entry() -> None:
    column = pa.array(NAMES * 3).dictionary_encode()
    made = Pseudonyms(KEY).array(column, "PERSON")
    assert pa.types.is_dictionary(made.type)
    assert made.to_pylist() == Pseudonyms(KEY).array(pa.array(NAMES * 3), "PERSON").to_pylist()
    assert len(made.dictionary) == 4
    assert Pseudonyms(KEY).array(pa.array(["a", None]), "PERSON").to_pylist()[1] is None


def test_domains_and_types_are_unlinkable_and_one_domain_is_stable() -> None:
    column = pa.array(NAMES)
    one, again, other = (
        Deidentifier({}, "pseudonym", KEY, domain=domain).pseudonyms(column, "PERSON").to_pylist() for domain in ("a", "a", "b")
    )
    assert one == again
    assert not set(one) & set(other)
    assert Pseudonyms(KEY).of("PERSON", "x") != Pseudonyms(KEY).of("USERNAME", "x")


def test_a_column_pseudonym_begins_like_the_one_in_a_text_and_is_a_placeholder() -> None:
    from privacy.recognizers.view import PLACEHOLDER

    made = Pseudonyms(KEY).array(pa.array(["Bob"]), "PERSON").to_pylist()[0]
    assert made.startswith(f"<PERSON_{Pseudonyms(KEY).of('PERSON', 'Bob')}")
    assert PLACEHOLDER.fullmatch(made)


def test_a_column_that_is_not_text_is_refused() -> None:
    with pytest.raises(UsageError, match="E-DEID-005"):
        Pseudonyms(KEY).array(pa.array([1, 2]), "PERSON")
