"""How much slips through, in every run: made-up values are planted into copies of the run's own texts and must not come out.

Guarantee: the copies live in memory alone and never enter the dataset; they go through the same detector and treatment as
the texts; a value counts as missed when one letter or digit of it was left, or when it stands in the treated text. The bound is
Clopper-Pearson, one-sided, rounded up; for all types together it bounds the mean rate (Hoeffding 1956: equal rates are worst).
What is reported is counts by type, never a value or a text.
Assumption: canaries are drawn independently of the detector, from the operating system's randomness.
Not covered: the bound holds for data like the canaries only: their types, forms and cues, in texts like those of the run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.canary_values import KINDS
from privacy.canonical import Json, Scalar
from privacy.detect import Finding, detect_language

LEVEL = 0.95
SENTENCE = (
    "The bound holds for data like the planted values only: their types, forms and cues, in texts like those of this run. "
    "Personal data of other forms may be missed more often."
)
_CARRIERS = 64
_AROUND = 160  # characters of the text that are kept around a planted value
Treat = Callable[[Sequence[str]], Sequence[tuple[str, Sequence[Finding]]]]


@dataclass(frozen=True, slots=True)
class Planted:
    """A text with one made-up value of one type at [start, end)."""

    text: str
    start: int
    end: int
    entity: str


@dataclass(frozen=True, slots=True)
class SlipThrough:
    """planted, missed: by type. level: of each bound by itself."""

    planted: Mapping[str, int]
    missed: Mapping[str, int]
    level: float = LEVEL

    @property
    def bound(self) -> float | None:
        """Upper bound on the share that is missed, over all types; None when nothing was planted."""
        total = sum(self.planted.values())
        return miss_bound(sum(self.missed.values()), total, self.level) if total else None

    def facts(self) -> dict[str, Scalar]:
        return {
            "canaries_planted": sum(self.planted.values()),
            "canaries_missed": sum(self.missed.values()),
            **({} if self.bound is None else {"miss_bound": self.bound}),
        }

    def to_json(self) -> dict[str, Json]:
        types: dict[str, Json] = {
            name: {
                "planted": count,
                "missed": self.missed.get(name, 0),
                "miss_bound": miss_bound(self.missed.get(name, 0), count, self.level),
            }
            for name, count in sorted(self.planted.items())
        }
        return {"level": self.level, "types": types, "all": dict(self.facts()), "holds_for": SENTENCE}


class Carriers:
    """A uniform sample of the texts that pass by, for each language; held in memory only."""

    def __init__(self, draw: random.Random | None = None) -> None:
        self._draw = draw or random.SystemRandom()
        self._seen = 0
        self._kept: list[str] = []

    def offer(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._seen += 1
            if len(self._kept) < _CARRIERS:
                self._kept.append(text)
            elif (place := self._draw.randrange(self._seen)) < _CARRIERS:
                self._kept[place] = text

    def plant(self, languages: Sequence[str], per_type: int, skipped: frozenset[str]) -> list[Planted]:
        """`per_type` texts for each type and language but `skipped`; a value goes into a text of its language."""
        planted = []
        for kind in KINDS:
            if kind.entity in skipped or kind.language not in languages:
                continue
            own = [text for text in self._kept if detect_language(text) == kind.language] or ["."]
            for _ in range(per_type):
                planted.append(self._planted(self._draw.choice(own), kind.language, kind.entity, *kind.make(self._draw)))
        return planted

    def _planted(self, text: str, language: str, entity: str, before: str, value: str, after: str) -> Planted:
        begin = self._draw.randrange(max(1, len(text) - _AROUND))
        window = text[begin : begin + _AROUND]
        gaps = [0, len(window), *(n for n, sign in enumerate(window) if sign.isspace())]
        at = self._draw.choice(gaps)
        head, tail = window[:at].rstrip(), window[at:].lstrip()
        lead = f"{head}{'，' if language == 'zh' else ' '}{before}" if head else before
        return Planted(f"{lead}{value}{after} {tail}".rstrip(), len(lead), len(lead) + len(value), entity)


def measure(planted: Sequence[Planted], treat: Treat, kept: frozenset[str]) -> SlipThrough:
    """treat: gives the treated text and the findings of each text. kept: types that the policy leaves in the text."""
    counts: dict[str, int] = {}
    missed: dict[str, int] = {}
    for item, (treated, findings) in zip(planted, treat([item.text for item in planted]), strict=True):
        counts[item.entity] = counts.get(item.entity, 0) + 1
        if _slipped(item, treated, [f for f in findings if f.entity not in kept]):
            missed[item.entity] = missed.get(item.entity, 0) + 1
    return SlipThrough(counts, missed)


def miss_bound(missed: int, planted: int, level: float) -> float:
    """One-sided Clopper-Pearson upper bound, rounded up at 1e-6. Source: Clopper and Pearson 1934."""
    if not 0 <= missed <= planted or planted < 1:
        raise ValueError("a bound needs at least one canary, and no more missed than planted")
    if missed == planted:
        return 1.0
    from scipy.special import betaincinv

    return min(1.0, math.ceil(float(betaincinv(missed + 1, planted - missed, level)) * 1e6 + 1e-9) / 1e6)


def share_at_least(count: int, total: int, level: float = LEVEL) -> float:
    """One-sided Clopper-Pearson lower bound on a share, 0 for none of none. Source: Clopper and Pearson 1934."""
    if not count:
        return 0.0
    from scipy.special import betaincinv

    return float(betaincinv(count, total - count + 1, 1 - level))


def _slipped(item: Planted, treated: str, findings: Sequence[Finding]) -> bool:
    value = item.text[item.start : item.end]
    left = [True] * len(value)
    for finding in findings:
        for place in range(max(finding.start, item.start), min(finding.end, item.end)):
            left[place - item.start] = False
    uncovered = any(is_left and sign.isalnum() for is_left, sign in zip(left, value, strict=True))
    return uncovered or (value in treated and item.text.count(value) == 1)
