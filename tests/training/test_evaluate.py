"""Utility on held-out units and tables that name no small group."""

from __future__ import annotations

import numpy as np
import torch

from tests.training.worlds import SMALL, units
from training.data import IGNORED, UnitData
from training.engine import make_model
from training.evaluate import label_table, load_model, predictions, top_labels, utility


def always(label: int) -> object:
    model = load_model({n: t for n, t in make_model(SMALL).state_dict().items() if n != "canary.weight"}, 3)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.eye(3)[label])
    return model


def labelled(*labels: int) -> UnitData:
    """One unit a label, its second record absent."""
    data = units(SMALL, len(labels))
    return UnitData(data.units, data.tokens, np.array([[label, IGNORED] for label in labels], dtype=np.int64))


def test_accuracy_counts_real_records_only_and_stands_beside_the_majority() -> None:
    found = utility(always(1), labelled(1, 1, 0, 2))  # type: ignore[arg-type]
    assert found is not None
    assert (found.accuracy, found.majority, found.records, found.units) == (0.5, 0.5, 4, 4)


def test_no_holdout_is_not_an_accuracy_of_zero() -> None:
    assert utility(always(1), labelled()) is None  # type: ignore[arg-type]


def test_absent_records_are_never_predicted() -> None:
    found = predictions(always(2), labelled(0, 1))  # type: ignore[arg-type]
    assert found.tolist() == [[2, IGNORED], [2, IGNORED]]


def test_counts_of_few_units_are_withheld_and_can_not_be_had_by_subtraction() -> None:
    data = labelled(*([0] * 40))
    model = always(0)
    original = predictions(model, data)  # type: ignore[arg-type]
    assert (original[:, 0] == 0).all()
    table = label_table(model, data, SMALL.labels, 10)  # type: ignore[arg-type]
    assert table == {"a": 40, "b": None, "c": None}


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
    assert top_labels(always(2), ["hello", ""], SMALL.labels, 4) == ["c", "c"]  # type: ignore[arg-type]
    assert top_labels(always(2), [], SMALL.labels, 4) == []  # type: ignore[arg-type]
