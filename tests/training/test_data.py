"""Units from records: nothing fitted, a keyed contribution bound, a keyed holdout, features for both languages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DataError
from tests.training.worlds import small_config
from training.data import IGNORED, Record, UnitData, bounded_records, features, is_holdout, split_units, token_ids
from training.recipes import recipe_of

KEY, OTHER = b"k" * 32, b"o" * 32


def rows(units: int, each: int) -> list[Record]:
    return [Record(f"u{u}", f"r{u}-{i}", f"word{i}", "a") for u in range(units) for i in range(each)]


def test_words_come_before_pairs_and_case_and_digits_do_not_count() -> None:
    assert features("My Order 4711") == ["my", "order", "#", "my order", "order #"]


def test_chinese_gives_characters_and_pairs() -> None:
    assert features("我要退款 now") == ["我", "要", "退", "款", "now", "我要", "要退", "退款"]


def test_chinese_beside_latin_letters_is_not_one_word() -> None:
    assert features("abc退款def")[:4] == ["abc", "退", "款", "def"]


@pytest.mark.parametrize("text", ["<PERSON>", "<PERSON_3fa9c1>", "<person_0000aaaa>"])
def test_a_pseudonym_collapses_to_its_type(text: str) -> None:
    """The model must not learn one person's pseudonym."""
    assert features(f"hello {text}") == ["hello", "<person>", "hello <person>"]


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_gives_ids_in_range(text: str) -> None:
    ids = token_ids(text, 64, 16)
    assert len(ids) <= 16
    assert all(0 < i < 64 for i in ids)


def test_lone_surrogates_do_not_stop_the_hash() -> None:
    assert token_ids("\ud800abc", 64, 4)


def test_the_bound_keeps_the_same_records_whatever_their_order_or_content() -> None:
    records = rows(5, 9)
    kept = {u: [r.record_id for r in rs] for u, rs in bounded_records(records, 4, KEY).items()}
    changed = [Record(r.unit, r.record_id, "other text", "b") for r in reversed(records)]
    assert {u: [r.record_id for r in rs] for u, rs in bounded_records(changed, 4, KEY).items()} == kept
    assert all(len(found) == 4 for found in kept.values())
    assert {u: [r.record_id for r in rs] for u, rs in bounded_records(records, 4, OTHER).items()} != kept


def test_adding_a_unit_moves_no_other_unit_between_training_and_holdout() -> None:
    small, large = (bounded_records(rows(n, 2), 4, KEY) for n in (50, 51))
    for part in (0, 1):
        assert set(split_units(small, KEY, 0.3)[part]) <= set(split_units(large, KEY, 0.3)[part])


def test_the_holdout_has_its_share_and_never_meets_training() -> None:
    training, holdout = split_units(bounded_records(rows(2000, 1), 4, KEY), KEY, 0.2)
    assert not set(training) & set(holdout)
    assert len(holdout) / 2000 == pytest.approx(0.2, abs=0.04)
    assert sum(is_holdout(f"u{n}", OTHER, 0.2) == is_holdout(f"u{n}", KEY, 0.2) for n in range(500)) < 450


def encode(grouped: dict[str, list[Record]]) -> UnitData:
    config = small_config(labels=("a", "b"), max_records=3)
    return recipe_of(config).encode(grouped, config)


def test_arrays_pad_with_what_the_loss_ignores() -> None:
    grouped = {"u1": [Record("u1", "r1", "one", "b")], "u0": [Record("u0", "r0", "two words", "a")]}
    data = encode(grouped)
    assert data.units == ("u0", "u1")
    tokens = data.inputs["tokens"]
    assert tokens.shape == (2, 3, 4)
    assert data.labels.tolist() == [[0, IGNORED, IGNORED], [1, IGNORED, IGNORED]]
    assert np.count_nonzero(tokens[0, 0]) == 3
    assert not tokens[:, 1:].any()
    assert data.lengths.tolist() == [[3, 0, 0], [1, 0, 0]]


def test_an_undeclared_label_is_refused_without_quoting_it() -> None:
    with pytest.raises(DataError, match="E-TRAIN-010") as caught:
        encode({"u": [Record("u", "r", "x", "secret-label")]})
    assert "secret-label" not in str(caught.value)


def test_arrays_that_disagree_about_their_units_are_no_data() -> None:
    with pytest.raises(ValueError, match="units and records"):
        UnitData(("u",), {"tokens": np.zeros((2, 1, 4))}, np.zeros((1, 1), np.int64))
