"""Utility on held-out units and tables that name no small group."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.worlds import SMALL, units
from training.data import IGNORED, UnitData
from training.engine import make_carrier
from training.evaluate import label_table, load_released, predictions, utility
from training.models.text_mlp import TextMlp
from training.recipes import recipe_of


def always(label: int) -> TextMlp:
    made = make_carrier(SMALL).model
    model = load_released(recipe_of(SMALL).build(SMALL), made.released())
    assert isinstance(model, TextMlp)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.eye(3)[label])
    return model


def labelled(*labels: int) -> UnitData:
    """One unit a label, its second record absent."""
    data = units(SMALL, len(labels))
    return UnitData(data.units, data.inputs, np.array([[label, IGNORED] for label in labels], dtype=np.int64).reshape(-1, 2))


def test_tensors_of_another_model_are_not_put_in_place() -> None:
    weights = make_carrier(SMALL).model.released()
    for broken in (
        {**weights, "more": torch.zeros(1)},
        {**weights, "head.bias": torch.zeros(4)},
        dict(list(weights.items())[1:]),
    ):
        with pytest.raises(ValueError, match="not those of this model"):
            load_released(recipe_of(SMALL).build(SMALL), broken)


def test_accuracy_counts_real_records_only_and_stands_beside_the_majority() -> None:
    found = utility(always(1), labelled(1, 1, 0, 2))
    assert found is not None
    assert (found.accuracy, found.majority, found.records, found.units) == (0.5, 0.5, 4, 4)


def test_no_holdout_is_not_an_accuracy_of_zero() -> None:
    assert utility(always(1), labelled()) is None


def test_absent_records_are_never_predicted() -> None:
    found = predictions(always(2), labelled(0, 1))
    assert found.tolist() == [[2, IGNORED], [2, IGNORED]]


def test_counts_of_few_units_are_withheld_and_can_not_be_had_by_subtraction() -> None:
    data = labelled(*([0] * 40))
    model = always(0)
    original = predictions(model, data)
    assert (original[:, 0] == 0).all()
    table = label_table(model, data, SMALL.labels, 10)
    assert table == {"a": None, "b": None, "c": None}  # 40 of 40 units would say that the other labels got none


def test_a_single_withheld_cell_takes_the_smallest_other_with_it(monkeypatch: object) -> None:
    import training.evaluate as module

    made = np.array([[0, IGNORED]] * 30 + [[1, IGNORED]] * 20 + [[2, IGNORED]] * 3)
    original = module.predictions
    module.predictions = lambda model, data: made  # type: ignore[assignment]
    try:
        assert label_table(None, None, SMALL.labels, 10) == {"a": 30, "b": None, "c": None}  # type: ignore[arg-type]
    finally:
        module.predictions = original  # type: ignore[assignment]


def test_only_the_best_label_of_a_prompt_leaves() -> None:
    assert recipe_of(SMALL).respond(always(2), ["hello", ""], SMALL) == ["c", "c"]
    assert recipe_of(SMALL).respond(always(2), [], SMALL) == []
