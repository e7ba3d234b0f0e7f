"""Utility by group: how often the model is right for the units of each value of a field, and how far the groups lie apart.

Guarantee: a group of fewer than `minimum` units is withheld, with as many of the next smallest as it takes for the withheld to
be two groups or more and `minimum` units or more together: what is shown, taken from a published total, then tells of a crowd.
Nothing published is finer than 0.01; counts are rounded down to a multiple of 5.
Not covered: figures are exact, from holdout units, and not differentially private; two fields that divide people almost alike
can be compared with each other. A group's size is chance: a small one may look good or bad by luck, which the interval says.
Source: Fairlearn's MetricFrame (Weerts et al. 2023, 2303.16626); Wilson 1927 for the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from privacy.canonical import Json

MOST_VALUES = 50  # of a field: one with more is no closed vocabulary that people can be compared by
_STEP = 0.01
_COUNTED_IN = 5


TOGETHER = "(groups withheld, together)"


@dataclass(frozen=True, slots=True)
class Cells:
    """Holdout records as rows. group: the field's value. unit: index of the privacy unit. right: in [0, 1].

    predicted, truth: index of a label; empty where the model does not classify.
    """

    group: npt.NDArray[np.object_]
    unit: npt.NDArray[np.int64]
    right: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """A unit counts once in each of its groups, however many records it has there."""
        pairs = list(zip(self.group.tolist(), self.unit.tolist(), strict=True))
        count: dict[tuple[str, int], int] = {}
        for pair in pairs:
            count[pair] = count.get(pair, 0) + 1
        return np.array([1.0 / count[pair] for pair in pairs], dtype=np.float64)

    def of(self, chosen: npt.NDArray[np.bool_]) -> Cells:
        labelled = len(self.predicted) > 0
        predicted, truth = (a[chosen] if labelled else a for a in (self.predicted, self.truth))
        return Cells(self.group[chosen], self.unit[chosen], self.right[chosen], predicted, truth)

    def joined(self, values: frozenset[str]) -> Cells:
        """With these groups as one, TOGETHER."""
        group = np.array([TOGETHER if value in values else value for value in self.group.tolist()], dtype=np.object_)
        return Cells(group, self.unit, self.right, self.predicted, self.truth)

    def units_by_group(self) -> dict[str, int]:
        found: dict[str, set[int]] = {}
        for value, unit in zip(self.group.tolist(), self.unit.tolist(), strict=True):
            found.setdefault(value, set()).add(unit)
        return {value: len(units) for value, units in sorted(found.items())}


@dataclass(frozen=True, slots=True)
class GroupTable:
    """gap: of accuracy, between the best and the worst group shown, rounded up; None where fewer than two are shown.

    accuracy: mean over a group's units of the share of their records there that were right. differences: of demographic parity
    and of equalised odds, by label; labels too rare in some group are left out.
    """

    rows: Mapping[str, Mapping[str, Json]]
    withheld: int
    gap: float | None
    interval: tuple[float, float] | None
    differences: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        return {
            "rows": {value: dict(row) for value, row in self.rows.items()},
            "withheld": self.withheld,
            "gap": self.gap,
            "gap_interval": None if self.interval is None else list(self.interval),
            "differences": {name: dict(by_label) for name, by_label in self.differences.items()},
        }


def group_table(cells: Cells, labels: Sequence[str], minimum: int, level: float) -> GroupTable:
    """labels: names of the label indices; used where the model classifies. level: of the two-sided interval of the gap.

    Groups that are withheld are compared as one, TOGETHER, where it has `minimum` units: small groups are no place to hide.
    """
    hidden = withhold(cells.units_by_group(), minimum)
    cells = cells.joined(hidden)
    units = cells.units_by_group()
    values = [value for value in units if value != TOGETHER or units[value] >= minimum]
    shown = cells.of(np.array([value in values for value in cells.group.tolist()], dtype=np.bool_))
    if not values:
        return GroupTable({}, len(hidden), None, None)
    accuracy = _accuracy(shown)
    rows: dict[str, dict[str, Json]] = {
        value: {"units": units[value] // _COUNTED_IN * _COUNTED_IN, "accuracy": _near(accuracy[value])} for value in values
    }
    rates, differences = _by_label(shown, values, labels, minimum)
    for value, by_label in rates.items():
        rows[value]["selection_rate"] = dict(by_label)
    if len(values) < 2:
        return GroupTable(rows, len(hidden), None, None, {})
    each = 1 - (1 - level) / len(values)  # Bonferroni: all groups' intervals hold together
    around = [wilson(accuracy[value], units[value], each) for value in values]
    low = max(0.0, max(a for a, _ in around) - min(b for _, b in around))
    high = max(b for _, b in around) - min(a for a, _ in around)
    gap = max(accuracy[value] for value in values) - min(accuracy[value] for value in values)
    return GroupTable(rows, len(hidden), up(gap), (down(low), up(high)), differences)


def withhold(counts: Mapping[str, int], minimum: int) -> frozenset[str]:
    """The small cells, and the next smallest until what is withheld is two cells or more and `minimum` or more together."""
    hidden = {name for name, count in counts.items() if count < minimum}
    if not hidden:
        return frozenset()
    for name in sorted(set(counts) - hidden, key=lambda name: (counts[name], name)):
        if len(hidden) > 1 and sum(counts[name] for name in hidden) >= minimum:
            break
        hidden.add(name)
    return frozenset(hidden)


def wilson(share: float, count: int, level: float) -> tuple[float, float]:
    """Two-sided interval of a share of `count` units. For shares of shares it is wider than needed, never narrower."""
    z = NormalDist().inv_cdf(1 - (1 - level) / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def up(value: float) -> float:
    """To the next hundredth above, so that no figure looks better than it is."""
    return min(1.0, round(math.ceil(value / _STEP - 1e-9) * _STEP, 2))


def down(value: float) -> float:
    return max(0.0, round(math.floor(value / _STEP + 1e-9) * _STEP, 2))


def _near(value: float) -> float:
    return round(value, 2)


def _accuracy(cells: Cells) -> dict[str, float]:
    """By group, from Fairlearn."""
    from fairlearn.metrics import MetricFrame

    frame = MetricFrame(
        metrics=lambda truth, found, weights: float(np.average(found, weights=weights)),
        y_true=cells.right,
        y_pred=cells.right,
        sensitive_features=_names(cells),
        sample_params={"weights": cells.weights},
    )
    return {str(value): float(found) for value, found in frame.by_group.items()}


def _by_label(
    cells: Cells, values: Sequence[str], labels: Sequence[str], minimum: int
) -> tuple[dict[str, dict[str, float | None]], dict[str, dict[str, float]]]:
    """(selection rates by group and label, differences by kind and label); rates of few units are None."""
    from fairlearn.metrics import MetricFrame, demographic_parity_difference, equalized_odds_difference, selection_rate

    if not len(cells.predicted):
        return {}, {}
    given, weights = _names(cells), cells.weights
    chosen = {value: _units_by_label(cells, value, cells.predicted, labels) for value in values}
    hidden = {value: withhold(by_label, minimum) for value, by_label in chosen.items()}
    rates: dict[str, dict[str, float | None]] = {value: dict.fromkeys(labels) for value in values}
    differences: dict[str, dict[str, float]] = {"demographic_parity": {}, "equalised_odds": {}}
    for index, label in enumerate(labels):
        if all(label in hidden[value] for value in values):
            continue
        said, truth = cells.predicted == index, cells.truth == index
        about = {"sensitive_features": given, "sample_params": {"sample_weight": weights}}
        frame = MetricFrame(metrics=selection_rate, y_true=truth, y_pred=said, **about)
        for value in values:
            if label not in hidden[value]:
                rates[value][label] = _near(float(frame.by_group[value]))
        if len(values) < 2 or any(label in hidden[value] for value in values):
            continue
        both = {"sensitive_features": given, "sample_weight": weights}
        differences["demographic_parity"][label] = up(float(demographic_parity_difference(truth, said, **both)))
        if _common(cells, values, index, minimum):
            differences["equalised_odds"][label] = up(float(equalized_odds_difference(truth, said, **both)))
    return rates, differences


def _common(cells: Cells, values: Sequence[str], label: int, minimum: int) -> bool:
    """Whether every group has enough units with that label, and enough with another."""
    return all(
        len(set(cells.unit[(cells.group == value) & side].tolist())) >= minimum
        for value in values
        for side in (cells.truth == label, cells.truth != label)
    )


def _units_by_label(cells: Cells, value: str, found: npt.NDArray[np.int64], labels: Sequence[str]) -> dict[str, int]:
    here = cells.group == value
    return {label: len(set(cells.unit[here & (found == n)].tolist())) for n, label in enumerate(labels)}


def _names(cells: Cells) -> npt.NDArray[np.object_]:
    """Fairlearn takes strings only as what they are where they stand in an object array."""
    return np.array([str(value) for value in cells.group.tolist()], dtype=object)
