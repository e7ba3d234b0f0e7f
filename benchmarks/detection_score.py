"""How findings are held against gold; both sides are mapped and scored by the same code.

Definitions (a finding is [start, end) with an entity type and a score; gold is a span with a kind; KIND maps types to kinds):
  union          characters covered by any finding of the text, overlaps and losers included.
  resolved       findings without overlaps: the higher score wins, then the longer; losers are dropped.
  span cover     share of gold spans of which at least half of the characters lie in the union, whatever the type.
  fully covered  share of gold spans of which every letter and digit lies in the union, whatever the type.
  right kind     share of gold spans with a resolved finding of their kind over at least half of their characters.
  match          a resolved finding and a gold span with intersection / union >= .5; one-to-one, the best pairs first.
  any-type       precision: matched share of resolved findings; recall: matched share of gold; kinds are ignored.
  typed          the same where only a pair of one kind can match; F1 is the harmonic mean over all kinds together (micro).
  character precision / recall   share of the union's characters that are gold / of gold characters in the union.
  false alarm    a resolved finding that shares no character with gold or neutral spans; given per text.
Neutral: a finding that lies with most of its characters in a neutral span counts neither for nor against; characters of neutral
spans are left out of character precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.detection_data import Example, Span

# One map for both sides. Stock has one type for every place and one for every moment, so ours are folded into these as well.
KIND = {
    "LOCATION": "PLACE", "ADDRESS": "PLACE", "STREET_ADDRESS": "PLACE", "GPE": "PLACE", "ZIP_CODE": "PLACE",
    "DATE_TIME": "DATE", "DATE_OF_BIRTH": "DATE", "AGE": "DATE",
    "CREDIT_CARD": "CARD", "CN_BANK_CARD": "CARD", "PHONE_NUMBER": "PHONE", "EMAIL_ADDRESS": "EMAIL", "IBAN_CODE": "IBAN",
    "US_SSN": "SSN", "US_ITIN": "SSN", "IP_ADDRESS": "IP", "MAC_ADDRESS": "MAC", "US_PASSPORT": "PASSPORT",
    "PASSPORT_NUMBER": "PASSPORT", "US_DRIVER_LICENSE": "DRIVER_LICENSE", "US_BANK_NUMBER": "ACCOUNT",
    "ACCOUNT_NUMBER": "ACCOUNT", "CUSTOMER_NUMBER": "ACCOUNT", "ORDER_NUMBER": "BOOKING", "PASSWORD": "SECRET",
    "UK_NHS": "HEALTH_ID", "US_NPI": "HEALTH_ID", "NHS_NUMBER": "HEALTH_ID", "NPI": "HEALTH_ID", "MEDICAL_LICENSE": "HEALTH_ID",
    "MEDICAL_RECORD_NUMBER": "HEALTH_ID", "MEDICAL_RECORD": "HEALTH_ID", "HEALTH_ID": "HEALTH_ID", "MEDICARE": "HEALTH_ID",
    "US_MBI": "HEALTH_ID", "CN_LICENSE_PLATE": "LICENSE_PLATE", "CN_RESIDENT_ID": "CN_RESIDENT_ID", "CN_USCC": "CN_USCC",
    "GPS_LOCATION": "GPS",
    "GPS_COORDINATES": "GPS", "COORDINATES": "GPS", "GEO_COORDINATES": "GPS", "LOCATION_COORDINATES": "GPS",
    # the finer types of the generated lines
    "NHS": "HEALTH_ID", "MRN": "HEALTH_ID", "CN_MOBILE": "PHONE", "CN_LANDLINE": "PHONE", "IPV4": "IP", "IPV6": "IP",
    "BIRTH_DATE": "DATE", "BIRTH_DATE_ZH": "DATE", "PERSON_ZH": "PERSON", "ADDRESS_ZH": "PLACE",
    **dict.fromkeys(
        ("AWS_KEY", "AWS_SECRET", "GCP_KEY", "AZURE_KEY", "GITHUB", "GITLAB", "SLACK", "STRIPE", "JWT", "PRIVATE_KEY", "BEARER",
         "BASIC", "DB_PASSWORD", "URL_TOKEN"), "SECRET"
    ),
}  # fmt: skip
MACHINE_KINDS = frozenset({"IP", "MAC", "USERNAME"})
CARD_OR_HEALTH = frozenset({"CARD", "HEALTH_ID"})


def kind_of(name: str) -> str:
    """The kind of a type of either side, or of a gold type."""
    return KIND.get(name, name)


@dataclass(frozen=True, slots=True)
class Found:
    """A finding of either side."""

    start: int
    end: int
    entity: str
    score: float

    @property
    def kind(self) -> str:
        return kind_of(self.entity)


@dataclass(slots=True)
class Cover:
    """Counts of one kind of gold."""

    gold: int = 0
    covered: int = 0
    fully: int = 0
    right_kind: int = 0


@dataclass(slots=True)
class Score:
    """Counts of one side on one set; every figure is a share of two of them. An empty denominator gives nan."""

    texts: int = 0
    found: int = 0
    matched: int = 0
    matched_typed: int = 0
    false_alarms: int = 0
    union_chars: int = 0
    union_gold_chars: int = 0
    gold_chars: int = 0
    kinds: dict[str, Cover] = field(default_factory=dict)
    found_kinds: Counter[str] = field(default_factory=Counter)

    @property
    def gold(self) -> int:
        return sum(c.gold for c in self.kinds.values())

    def cover(self, *kinds: str) -> float:
        """Span cover of these kinds; of all without an argument."""
        chosen = self._chosen(kinds)
        return _share(sum(c.covered for c in chosen), sum(c.gold for c in chosen))

    def fully(self, *kinds: str) -> float:
        chosen = self._chosen(kinds)
        return _share(sum(c.fully for c in chosen), sum(c.gold for c in chosen))

    def right_kind(self, *kinds: str) -> float:
        chosen = self._chosen(kinds)
        return _share(sum(c.right_kind for c in chosen), sum(c.gold for c in chosen))

    def _chosen(self, kinds: Sequence[str]) -> list[Cover]:
        return [cover for kind, cover in self.kinds.items() if not kinds or kind in kinds]

    @property
    def any_precision(self) -> float:
        return _share(self.matched, self.found)

    @property
    def any_recall(self) -> float:
        return _share(self.matched, self.gold)

    @property
    def typed_f1(self) -> float:
        return _share(2 * self.matched_typed, self.found + self.gold)

    @property
    def char_precision(self) -> float:
        return _share(self.union_gold_chars, self.union_chars)

    @property
    def char_recall(self) -> float:
        return _share(self.union_gold_chars, self.gold_chars)

    @property
    def alarms_per_text(self) -> float:
        return _share(self.false_alarms, self.texts)


def score(examples: Sequence[Example], findings: Sequence[Sequence[Found]]) -> Score:
    """Scores one side; `findings` has one list a text."""
    total = Score()
    for example, found in zip(examples, findings, strict=True):
        _add(total, example, found)
    return total


def _add(total: Score, example: Example, found: Sequence[Found]) -> None:
    union = _characters(found)
    gold = _characters(example.spans)
    neutral = _characters(example.neutral) - gold
    best = [f for f in resolved(found) if 2 * len(neutral & set(range(f.start, f.end))) <= f.end - f.start]
    total.texts += 1
    total.found += len(best)
    total.found_kinds.update(f.kind for f in best)
    total.matched += matches(best, example.spans, typed=False)
    total.matched_typed += matches(best, example.spans, typed=True)
    total.false_alarms += sum(not (gold | neutral) & set(range(f.start, f.end)) for f in best)
    total.union_chars += len(union - neutral)
    total.union_gold_chars += len(union & gold)
    total.gold_chars += len(gold)
    for span in example.spans:
        cover = total.kinds.setdefault(span.kind, Cover())
        cover.gold += 1
        cover.covered += is_covered(span, union)
        cover.fully += all(i in union for i in range(span.start, span.end) if example.text[i].isalnum())
        same = {i for f in best if f.kind == kind_of(span.kind) for i in range(f.start, f.end)}
        cover.right_kind += is_covered(span, same)


def is_covered(span: Span, union: set[int]) -> bool:
    """Whether at least half of its characters lie in `union`."""
    return 2 * len(union & set(range(span.start, span.end))) >= span.end - span.start


def covered_characters(found: Iterable[Found]) -> set[int]:
    return _characters(found)


def resolved(found: Iterable[Found]) -> list[Found]:
    """Without overlaps: the higher score wins, then the longer, then the earlier. Sorted by place."""
    taken: set[int] = set()
    kept = []
    for finding in sorted(found, key=lambda f: (-f.score, f.start - f.end, f.start, f.entity)):
        place = set(range(finding.start, finding.end))
        if place and not place & taken:
            taken |= place
            kept.append(finding)
    return sorted(kept, key=lambda f: f.start)


def matches(found: Sequence[Found], gold: Sequence[Span], *, typed: bool) -> int:
    """Pairs of a finding and a gold span with intersection / union >= .5, each used once, the best pairs first."""
    pairs = []
    for i, finding in enumerate(found):
        for j, span in enumerate(gold):
            inside = min(finding.end, span.end) - max(finding.start, span.start)
            if inside <= 0 or (typed and finding.kind != kind_of(span.kind)):
                continue
            ratio = inside / (max(finding.end, span.end) - min(finding.start, span.start))
            if ratio >= 0.5:
                pairs.append((-ratio, i, j))
    used_found: set[int] = set()
    used_gold: set[int] = set()
    for _, i, j in sorted(pairs):
        if i not in used_found and j not in used_gold:
            used_found.add(i)
            used_gold.add(j)
    return len(used_found)


def _characters(spans: Iterable[Span | Found]) -> set[int]:
    return {i for span in spans for i in range(span.start, span.end)}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
