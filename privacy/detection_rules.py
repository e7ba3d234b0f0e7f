"""What a policy may add to detection: which types count and from which score, values to leave and to find, patterns of its own.

Guarantee: a pattern is refused unless its cost is bounded for every input, and unless it matches its own examples and none of
its counterexamples, so a steward sees a wrong pattern when the policy loads and not in what slips through.
Assumption: values of `allow` and `deny` are compared as recognizers see a text (full-width forms, look-alikes), ignoring case.
Not covered: `allow` is believed: what it lists is left in the text wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from re import _parser as sre  # type: ignore[attr-defined]  # the parser of the standard library has no public name
from typing import Any

from privacy.entities import ENTITY_TYPES
from privacy.errors import PolicyError
from privacy.findings import Finding
from privacy.recognizers.prefilter import Untranslatable, loosen
from privacy.recognizers.spec import LEFT, RIGHT, Recognizer, compiled
from privacy.recognizers.view import view_of

_MAX_SPAN = 1_000
_DENIED = "policy/deny:"  # no pattern of a policy can be called so
_MAX_WAYS = 4_096  # ways in which one start may be tried: more and a hostile text makes the pattern slow


@dataclass(frozen=True, slots=True)
class OwnPattern:
    """A pattern of the policy. It is tried where a word starts and must end where one ends; case is ignored."""

    name: str
    entity: str
    pattern: str
    score: float = 0.85
    examples: tuple[str, ...] = ()
    counterexamples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DetectionRules:
    """entities: the types that count; empty for all. thresholds: lowest score by type. allow: values that are never reported.
    deny: value -> type, always reported, whatever entities, thresholds and allow say. deny_mark: a keyed digest that stands for
    them in `facts`.
    patterns: see `own_recognizers`.
    """

    entities: frozenset[str] = frozenset()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    deny: Mapping[str, str] = field(default_factory=dict)
    patterns: tuple[OwnPattern, ...] = ()
    deny_mark: str = ""

    def facts(self) -> dict[str, object]:
        """For the detector's version: everything here decides what is found."""
        patterns = [[p.name, p.entity, p.pattern, p.score] for p in self.patterns]
        return {
            "entities": sorted(self.entities), "thresholds": dict(self.thresholds), "allow": sorted(self.allow),
            "deny": self.deny_mark or dict(self.deny), "patterns": patterns,
        }  # fmt: skip


class Acceptance:
    """Whether a finding counts under the rules."""

    def __init__(self, rules: DetectionRules, score_threshold: float = 0.0) -> None:
        self._entities = rules.entities
        self._thresholds = dict(rules.thresholds)
        self._default = score_threshold
        self._allow = frozenset(_folded(value) for value in rules.allow)

    def __call__(self, text: str, finding: Finding) -> bool:
        if finding.recognizer.startswith(_DENIED):
            return True  # whatever else the policy says of its type
        if self._entities and finding.entity not in self._entities:
            return False
        if finding.score < self._thresholds.get(finding.entity, self._default):
            return False
        return not self._allow or _folded(text[finding.start : finding.end]) not in self._allow


def own_recognizers(rules: DetectionRules) -> tuple[Recognizer, ...]:
    """The policy's patterns and denied values as recognizers.

    Raises PolicyError E-DETECT-003 for an unknown type, E-DETECT-004 for a pattern that can't be read or has no bound,
    E-DETECT-005 when an example is not matched or a counterexample is.
    """
    named = {*rules.entities, *rules.thresholds, *rules.deny.values(), *(p.entity for p in rules.patterns)}
    if named - ENTITY_TYPES:
        raise PolicyError(
            "E-DETECT-003", "a detection rule names a type that does not exist", "Use a type of docs/policy.md, section pii"
        )
    denied = tuple(
        Recognizer(f"{_DENIED}{number}", entity, _literal(value), 1.0, "the policy lists this value", version="policy")
        for number, (value, entity) in enumerate(sorted(rules.deny.items()))
    )
    return (*denied, *(_own(pattern) for pattern in rules.patterns))


def _own(own: OwnPattern) -> Recognizer:
    rule = Recognizer(
        f"policy/{own.name}",
        own.entity,
        _checked(own),
        own.score,
        "a pattern of the policy; its examples were checked when it was loaded",
        version="policy",
    )
    if not 0.0 < own.score <= 1.0:
        raise PolicyError(
            "E-DETECT-004", f"the score of the policy's pattern {own.name} is not above 0 and up to 1", "Set it, e.g. to 0.85"
        )
    missed = sum(not rule.scan(view_of(text)) for text in own.examples)
    caught = sum(bool(rule.scan(view_of(text))) for text in own.counterexamples)
    if missed or caught or not own.examples:
        raise PolicyError(
            "E-DETECT-005",
            f"the policy's pattern {own.name} misses {missed} of its {len(own.examples)} examples and matches {caught} that it"
            " should not",
            "Give at least one example, and correct the pattern or the examples",
        )
    return rule


def _checked(own: OwnPattern) -> re.Pattern[str]:
    try:
        tree = sre.parse(own.pattern, re.IGNORECASE)
        low, high = tree.getwidth()
        problem = _unbounded(tree)
        pattern = compiled(LEFT + "(?:" + own.pattern + ")" + RIGHT)
        loosen(pattern)
    except (re.error, Untranslatable, OverflowError, RecursionError):
        low, high, problem = 0, 0, "can't be read, or uses a construct such as \\b that is not supported"
    if not problem and (low == 0 or high > _MAX_SPAN):
        problem = f"matches nothing at all, or spans over {_MAX_SPAN} characters"
    if not problem and _ways(tree) > _MAX_WAYS:
        problem = "can be tried in too many ways"
    if problem:
        raise PolicyError(
            "E-DETECT-004",
            f"the policy's pattern {own.name} can't be used: it {problem}",
            "Bound every repeat ({1,40} for + and *), repeat no group of variable length, leave out \\b: words are kept whole",
        )
    return pattern


def _unbounded(tree: Any, inside: bool = False) -> str:
    """What makes the cost of a pattern grow with its input, or nothing; `inside`: within a repeat of variable length."""
    for op, value in tree:
        name = str(op)
        problem = ""
        if name.endswith("REPEAT"):
            variable = int(value[1]) != value[0]
            if int(value[1]) > _MAX_SPAN:
                problem = "repeats without an upper bound"
            elif inside and variable:
                problem = "repeats a group of variable length"
            else:
                problem = _unbounded(value[2], inside or int(value[1]) > 1)
        elif name == "SUBPATTERN":
            problem = _unbounded(value[3], inside)
        elif name == "BRANCH":
            problem = next(filter(None, (_unbounded(branch, inside) for branch in value[1])), "")
        elif name in ("ASSERT", "ASSERT_NOT"):
            problem = _unbounded(value[1], inside)
        elif name.startswith("GROUPREF"):
            problem = "refers back to a group"
        if problem:
            return problem
    return ""


def _ways(tree: Any) -> int:
    """How many paths one start has at most: the product over what follows each other, the sum over alternatives."""
    ways = 1
    for op, value in tree:
        name = str(op)
        if name.endswith("REPEAT"):
            ways *= (int(value[1]) - value[0] + 1) * _ways(value[2]) ** min(int(value[1]), 8)
        elif name == "SUBPATTERN":
            ways *= _ways(value[3])
        elif name == "BRANCH":
            ways *= sum(map(_ways, value[1]))
        elif name in ("ASSERT", "ASSERT_NOT"):
            ways *= _ways(value[1])
        if ways > _MAX_WAYS:
            return ways
    return ways


def _literal(value: str) -> re.Pattern[str]:
    text = view_of(value).text
    if not text.strip() or len(text) > _MAX_SPAN:
        raise PolicyError("E-DETECT-004", "a value to find is empty or too long", "List values of 1 to 1000 characters")
    return compiled((LEFT if text[0].isalnum() else "") + re.escape(text) + (RIGHT if text[-1].isalnum() else ""))


def _folded(value: str) -> str:
    return view_of(value).text.casefold()
