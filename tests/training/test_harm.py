"""Groups and swaps: figures as of a naive loop, no small group told from the rest, planted bias found, none imagined."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tests.worlds.policies import make_policy
from training.config import TrainingConfig
from training.harm_groups import TOGETHER, Cells, GroupTable, down, group_table, up, wilson, withhold
from training.harm_swaps import SwapText, swap_figures, swap_texts
from training.harm_terms import CONTROL, TEMPLATES, TERMS
from training.models.base import UnitModel
from training.recipes import recipe_of

LABELS = ("refund", "delivery", "greeting")


def cells(seed: int, units: int = 120, groups: str = "abc", right: float | dict[str, float] = 0.7) -> Cells:
    """One to three records a unit; a unit may stand in two groups."""
    random = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), random.integers(1, 4, units))
    group = np.array([groups[int(n)] for n in random.integers(0, len(groups), len(unit))], dtype=object)
    truth = random.integers(0, 3, len(unit))
    chance = np.array([right if isinstance(right, float) else right[value] for value in group.tolist()])
    hit = random.random(len(unit)) < chance
    predicted = np.where(hit, truth, (truth + 1) % 3)
    return Cells(group, unit.astype(np.int64), hit.astype(np.float64), predicted.astype(np.int64), truth.astype(np.int64))


def naive_rates(found: Cells, value: str, said: list[bool], where: list[bool]) -> float:
    """Mean over the group's records of `said` among `where`, a unit's records weighing one together."""
    rows = [n for n in range(len(found.group)) if found.group[n] == value]
    each = {n: 1 / sum(1 for m in rows if found.unit[m] == found.unit[n]) for n in rows}
    total = sum(each[n] for n in rows if where[n])
    return sum(each[n] for n in rows if where[n] and said[n]) / total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_figures_are_those_of_a_naive_loop(seed: int) -> None:
    found = cells(seed)
    table = group_table(found, LABELS, 10, 0.95)
    values = sorted(set(found.group.tolist()))
    every = [True] * len(found.group)
    accuracy = {v: naive_rates(found, v, [r == 1.0 for r in found.right], every) for v in values}
    assert set(table.rows) == set(values)
    for value in values:
        units = len({u for u, g in zip(found.unit, found.group, strict=True) if g == value})
        assert table.rows[value]["units"] == units - units % 5
        assert table.rows[value]["accuracy"] == pytest.approx(accuracy[value], abs=0.0051)
    gap = max(accuracy.values()) - min(accuracy.values())
    assert table.gap is not None
    assert gap - 1e-9 <= table.gap <= gap + 0.01 + 1e-9
    for label, said in enumerate(LABELS):
        chosen, truth = (found.predicted == label).tolist(), (found.truth == label).tolist()
        rates = [naive_rates(found, v, chosen, every) for v in values]
        if said in table.differences["demographic_parity"]:
            assert table.differences["demographic_parity"][said] == up(max(rates) - min(rates))
        if said in table.differences["equalised_odds"]:
            odds = []
            for side in (truth, [not t for t in truth]):
                each = [naive_rates(found, v, chosen, side) for v in values]
                odds.append(max(each) - min(each))
            assert table.differences["equalised_odds"][said] == pytest.approx(max(odds), abs=0.0101)
    assert table.differences["demographic_parity"]


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(0, 60), max_size=8), st.integers(2, 30))
def test_what_is_withheld_cannot_be_told_from_a_total(counts: dict[str, int], minimum: int) -> None:
    hidden = withhold(counts, minimum)
    assert {name for name, count in counts.items() if count < minimum} <= hidden
    if hidden and hidden != set(counts):
        assert len(hidden) >= 2
        assert sum(counts[name] for name in hidden) >= minimum
    if all(count >= minimum for count in counts.values()):
        assert hidden == set()


def test_a_lone_small_group_takes_the_next_smallest_with_it() -> None:
    assert withhold({"a": 100, "b": 30, "c": 3}, 20) == {"b", "c"}
    assert withhold({"a": 100, "b": 3, "c": 3}, 20) == {"a", "b", "c"}  # six people are no crowd to hide in
    assert withhold({"a": 100, "b": 40, "c": 12, "d": 12}, 20) == {"c", "d"}
    assert withhold({"a": 100, "b": 3}, 20) == {"a", "b"}


def test_a_small_group_moves_no_figure_of_the_groups_that_are_shown() -> None:
    """Its records could be anything: they move the figures of all groups withheld together, and no other."""
    base = cells(3, groups="abcd")
    tiny = np.array([u == 5 for u in base.unit])
    group = np.where(tiny, "tiny", np.where(base.group == "d", "c", base.group))
    tables = []
    for flip in (False, True):
        right = np.where(tiny & flip, 1 - base.right, base.right)
        predicted = np.where(tiny & flip, (base.predicted + 1) % 3, base.predicted)
        tables.append(group_table(Cells(group.astype(object), base.unit, right, predicted, base.truth), LABELS, 10, 0.95))
    before, after = (dict(table.rows) for table in tables)
    assert int(str(before[TOGETHER]["units"])) >= 10
    assert before.pop(TOGETHER) != after.pop(TOGETHER)
    assert before == after
    assert tables[0].withheld == 2
    assert "tiny" not in str(tables[0].to_json())


def test_small_groups_are_no_place_to_hide() -> None:
    """Two groups of which nobody is answered rightly, each too small to be shown."""
    base = cells(3, units=120, groups="ab")
    small = {n: name for name, units in (("x", range(12)), ("y", range(12, 24))) for n in units}
    group = np.array([small.get(int(u), g) for u, g in zip(base.unit, base.group, strict=True)], dtype=object)
    right = np.where([int(u) in small for u in base.unit], 0.0, 1.0)
    table = group_table(Cells(group, base.unit, right, base.predicted, base.truth), LABELS, 20, 0.95)
    assert table.withheld == 2
    assert table.gap == 1.0


def test_rates_of_few_units_are_withheld_and_their_differences_too() -> None:
    base = cells(4, groups="ab")
    rare = np.where(base.predicted == 2, 0, base.predicted)
    rare[:2] = 2  # one unit or two are told greeting
    table = group_table(Cells(base.group, base.unit, base.right, rare, base.truth), LABELS, 10, 0.95)
    for row in table.rows.values():
        rates = row["selection_rate"]
        assert isinstance(rates, dict)
        assert rates["greeting"] is None
        assert list(rates.values()).count(None) >= 2  # they add up to one
    assert "greeting" not in table.differences["demographic_parity"]


def test_one_group_alone_has_no_gap() -> None:
    assert group_table(cells(1, groups="a"), LABELS, 10, 0.95).gap is None
    assert group_table(cells(1, units=4), LABELS, 10, 0.95) == GroupTable({}, 3, None, None)


@pytest.mark.parametrize(("share", "count"), [(0.0, 20), (0.5, 40), (0.93, 73), (1.0, 21)])
def test_the_interval_is_wilsons(share: float, count: int) -> None:
    wanted = binomtest(round(share * count), count).proportion_ci(0.95, "wilson")
    assert wilson(round(share * count) / count, count, 0.95) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_a_group_sensitive_model_is_found_and_a_fair_one_is_not_accused() -> None:
    unfair = group_table(cells(7, 400, right={"a": 0.9, "b": 0.9, "c": 0.6}), LABELS, 20, 0.95)
    assert unfair.gap is not None
    assert unfair.interval is not None
    assert unfair.gap > 0.2
    assert unfair.interval[0] > 0.1
    missed = 0
    for seed in range(60):
        fair = group_table(cells(seed, 200, right=0.8), LABELS, 20, 0.95)
        assert fair.interval is not None
        missed += fair.interval[0] > 0.0
    assert missed <= 3  # at 95 %; the Bonferroni intervals are wider still


def test_rounding_never_flatters() -> None:
    assert (up(0.2), up(0.2001), up(0.0), up(1.0), down(0.2), down(0.2099)) == (0.2, 0.21, 0.0, 1.0, 0.2, 0.2)


def test_wordings_of_a_text_differ_in_the_term_alone() -> None:
    found = swap_texts(
        LABELS, ("en", "zh"), {"origin": ("a Northerner", "a Southerner", "北方人", "南方人"), "lone": ("a poet",)}
    )
    assert {text.group for text in found} == {*TERMS["en"], "origin"}  # a term alone has nothing to be swapped with
    for text in found:
        templates = [t for language in TEMPLATES.values() for t in language]
        fits = []
        for template in templates:
            before, after = template.split("{term}")
            topics = {after.format(topic=topic) for topic in LABELS}
            fits += [all(w.startswith(before) and w.endswith(t) for w in text.wordings) for t in topics]
        assert sum(fits) == 1
        assert len(set(text.wordings)) == len(text.wordings) > 1
    zh = [text for text in found if "北方人" in text.wordings[0]]
    assert zh
    assert all("北方人" in text.wordings[0] and "南方人" in text.wordings[1] for text in zh)


def test_the_terms_of_a_group_are_each_named_once_and_every_language_has_each_group() -> None:
    for terms in TERMS.values():
        assert set(terms) == set(TERMS["en"])
        listed = [term for group in terms.values() for term in group]
        assert len(set(listed)) == len(listed)
        assert all(len(group) > 2 for group in terms.values())


def _swapped(scores: np.ndarray, texts: list[SwapText]) -> dict[str, float]:
    return {name: found.changed for name, found in swap_figures(texts, scores.astype(np.float32), 0.95).items()}


def test_a_planted_bias_is_found_in_its_group_and_nowhere_else() -> None:
    texts = swap_texts(LABELS, ("en",))
    wordings = [w for text in texts for w in text.wordings]
    plain = np.array([[1.0, 0.0, 0.0] for _ in wordings])
    assert set(_swapped(plain, texts).values()) == {0.0}
    biased = np.array([[0.0, 1.0, 0.0] if "Muslim" in w else [1.0, 0.0, 0.0] for w in wordings])
    rates = _swapped(biased, texts)
    assert rates.pop("religion") == 1.0
    whole = rates.pop("")
    assert set(rates.values()) == {0.0}
    assert whole == pytest.approx(1 / (len(TERMS["en"]) - 1))  # the control is not counted
    figures = swap_figures(texts, biased.astype(np.float32), 0.95)
    assert figures["religion"].score_gap == pytest.approx((math.e - 1) / (math.e + 2))
    assert figures["gender"].untouched == 1.0
    assert figures["religion"].untouched == 0.0


def test_a_bias_against_the_control_is_not_held_against_identities() -> None:
    texts = swap_texts(LABELS, ("en",))
    wordings = [w for text in texts for w in text.wordings]
    nervous = np.array([[0.0, 1.0, 0.0] if "a caller" in w else [1.0, 0.0, 0.0] for w in wordings])
    rates = _swapped(nervous, texts)
    assert (rates[""], rates[CONTROL]) == (0.0, 1.0)


def test_scores_that_are_not_numbers_are_no_answer() -> None:
    texts = swap_texts(LABELS, ("en",))
    count = sum(len(text.wordings) for text in texts)
    with pytest.raises(ValueError, match="finite"):
        swap_figures(texts, np.full((count, 3), np.nan, dtype=np.float32), 0.95)
    with pytest.raises(ValueError, match="one row"):
        swap_figures(texts, np.zeros((count - 1, 3), dtype=np.float32), 0.95)


SMALL = {"steps": 5, "hash_buckets": 64, "embedding_width": 4, "max_tokens": 12}
IMAGES = {"model": "image_cnn", "image_size": [8, 8], "hidden_layers": 1, "embedding_width": 4, "norm_groups": 0}
ITEMS = {
    "model": "two_tower",
    "catalogue": {"refund": "Money back", "delivery": "A parcel", "greeting": "Hello there"},
    **SMALL,
}
WRITER = {"model": "causal_lm", "trains": "scratch", "embedding_width": 8, "heads": 2, "hidden_layers": 1, "max_tokens": 16}


def model_of(recipe: dict[str, object]) -> tuple[TrainingConfig, UnitModel]:
    fields = {"subject": "s", "label": "l", "text": [] if "image_size" in recipe else ["text"]}
    changes = {"source.fields": {**fields, **({"image": "i"} if "image_size" in recipe else {})}, "recipe": recipe}
    config = TrainingConfig.from_policy(make_policy(**changes), 0.0)
    return config, recipe_of(config).build(config).eval()


@pytest.mark.parametrize("recipe", [SMALL, IMAGES, ITEMS, WRITER], ids=["text", "images", "items", "writer"])
def test_who_is_right_is_the_utility_record_by_record(recipe: dict[str, object]) -> None:
    config, model = model_of(recipe)
    data = recipe_of(config).synthetic(config, 30)
    found = recipe_of(config).utility(model, data, config)
    right = recipe_of(config).right(model, data, config)
    assert found is not None
    assert right.shape == data.labels.shape
    assert np.isnan(right[~data.present]).all()
    assert round(float(np.nanmean(right)), 3) == found.accuracy
    assert int((~np.isnan(right)).sum()) == found.records


@pytest.mark.parametrize("recipe", [SMALL, ITEMS], ids=["text", "items"])
def test_what_a_model_makes_of_a_text_depends_on_it(recipe: dict[str, object]) -> None:
    config, model = model_of(recipe)
    texts = ["I am a woman and need help", "I am a man and need help", "I am a woman and need help"]
    found = recipe_of(config).label_scores(model, texts, config)
    assert found is not None
    assert found.shape == (3, 3)
    assert np.array_equal(found[0], found[2])
    assert all(not np.array_equal(a, b) for a, b in pairwise(found))
    empty = recipe_of(config).label_scores(model, [], config)
    assert empty is not None
    assert empty.shape == (0, 3)


@pytest.mark.parametrize("recipe", [IMAGES, WRITER], ids=["images", "writer"])
def test_what_reads_no_text_scores_none(recipe: dict[str, object]) -> None:
    config, model = model_of(recipe)
    assert recipe_of(config).label_scores(model, ["I am a woman"], config) is None
