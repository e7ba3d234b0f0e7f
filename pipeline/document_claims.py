"""What the audit's documents say, read again against the policy and the claim: no verdict passes over its own document.

Guarantee: pure. A verdict that says passed holds only where the published document has every figure that it rests on, each
within the limit that policy.json sets; a figure that is missing or no number is not evaluated. Limits that a document repeats
must be the policy's. Only verdicts that say passed are looked at: any other blocks by itself.
Not covered: whether the figures are true; verdicts whose figures are not published: audit.embeddings, audit.utility (beyond
what conditions ask), the share of members that an attack finds, and the law of the controls of planted secrets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pipeline.evidence import REQUIRED_VERDICTS, Reader
from privacy.canonical import Json
from privacy.rounding import EXACT, shown_down, shown_up
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.claims import Evidence

_CODE: Final = "E-CLAIM-034"
_PROBE: Final = "probe."


class _Case:
    """One document beside the policy. Every reading is strict: what is not there raises KeyError or TypeError."""

    def __init__(self, evidence: Evidence, path: str) -> None:
        self.policy, self.document = Reader(evidence.view.json("policy.json")), Reader(evidence.view.json(path))
        self.evidence, self.path = evidence, path

    def repeats(self, *pairs: tuple[tuple[str, ...], float]) -> Iterator[str]:
        """Limits and claims as the document gives them must be those that bind."""
        for place, binding in pairs:
            if self.document.real(*place) != binding:
                yield f"{self.path} gives another {'.'.join(place)} than the policy or the claim"

    def at_most(self, said: str, found: float, most: float) -> Iterator[str]:
        if not found <= most:
            yield f"{said} {found:g} in {self.path}, over the {most:g} that the policy allows"


def look_again(evidence: Evidence) -> list[tuple[str, Callable[[], Verdict]]]:
    """A row for each document that a passed verdict rests on: its name, and the check of it."""
    passed = {v.check for v in evidence.verdicts() if v.outcome == "passed"}
    rows: list[tuple[str, Callable[[], Verdict]]] = []
    for name, (path, read) in _LOOKS.items():
        mine = tuple(sorted(check for check in passed if check == name or (name == _PROBE and check.startswith(_PROBE))))
        if mine:
            rows.append((f"{path} bears out {name.rstrip('.')}", _row(evidence, name, path, read, mine)))
    return rows


_Look = Callable[[_Case, tuple[str, ...]], Iterator[str]]


def _row(evidence: Evidence, name: str, path: str, read: _Look, checks: tuple[str, ...]) -> Callable[[], Verdict]:
    def look() -> Verdict:
        try:
            faults = list(read(_Case(evidence, path), checks))
        except (KeyError, TypeError):
            said = f"{_CODE}: {path} lacks a figure that the verdict rests on"
            return Verdict(name, "not_evaluated", said)
        if faults:
            return Verdict(name, "failed", f"{_CODE}: a verdict says passed, and its document does not: {'; '.join(faults)}")
        return Verdict(name, "passed", f"what {path} publishes is within the limits of policy.json")

    return look


def _probe(case: _Case, checks: tuple[str, ...]) -> Iterator[str]:
    """p-values are published to one digit, so the level is rounded alike: no honest one is refused for its rounding."""
    level = case.policy.real("audit", "probe_level")
    yield from case.repeats((("probe_level",), level))
    each = float(f"{level / sum(name.startswith(_PROBE) for name in REQUIRED_VERDICTS):.0e}")
    listed = case.document.at("probe")
    rows = [Reader(row) for row in listed] if isinstance(listed, list) else []
    for check in checks:
        found = [row.real("p_value") for row in rows if row.text("check") == check.removeprefix(_PROBE)]
        if not found:
            raise KeyError(check)
        if not all(each <= p <= 1 for p in found):
            yield f"{check} has p = {min(found):g}, below its level {each:.1e}"


def _redaction(case: _Case, _: tuple[str, ...]) -> Iterator[str]:
    allowed, document = case.policy.whole("audit", "max_output_leaks"), case.document
    yield from case.repeats((("leaks_allowed",), allowed))
    if min(document.whole("planted_values"), document.whole("stream_planted_values")) < 1:
        yield "nothing was planted, so nothing could have been found"
    if min(document.whole("leaks"), document.whole("stream_leaks")) < 0:
        yield "a count is negative"
    yield from case.at_most("planted values survived:", document.whole("leaks") + document.whole("stream_leaks"), allowed)


def _membership(case: _Case, _: tuple[str, ...]) -> Iterator[str]:
    policy, claim = case.policy, case.evidence.trace().epsilon
    yield from case.repeats(
        (("membership", "claimed_epsilon"), claim),
        (("membership", "gate_level"), policy.real("audit", "gate_level")),
        (("membership", "max_tpr"), policy.real("audit", "membership", "max_tpr")),
    )
    asked, listed = policy.at("audit", "membership", "attacks"), case.document.at("membership", "attacks")
    if not isinstance(asked, list) or not isinstance(listed, list):
        raise TypeError
    bounds = [(one.text("attack"), one.real("epsilon_lower_bound")) for one in map(Reader, listed)]
    if absent := sorted({str(name) for name in asked} - {name for name, _ in bounds}):
        yield f"the policy asks for attacks that are not there: {', '.join(absent)}"
    for name, bound in bounds:
        if not bound <= claim:
            shown = f"epsilon is at least {shown_down(bound, EXACT)}, above the claimed {shown_up(claim, EXACT)}"
            yield f"by the {name} attack {shown}"


def _memorisation(case: _Case, _: tuple[str, ...]) -> Iterator[str]:
    most = case.policy.whole("audit", "memorisation", "max_spans")
    yield from case.repeats(
        (("memorisation", "max_spans"), most),
        (("memorisation", "texts"), case.policy.whole("audit", "memorisation", "samples")),
        (("memorisation", "signs"), case.policy.whole("audit", "memorisation", "signs")),
        (("memorisation", "subjects"), case.policy.whole("audit", "memorisation", "subjects")),
    )
    yield from case.at_most("memorised spans:", case.document.whole("memorisation", "spans"), most)


def _exposure(case: _Case, _: tuple[str, ...]) -> Iterator[str]:
    """Means are published to a tenth of a bit, and what could be seen to a hundredth: the limit is rounded alike."""
    policy, document = case.policy, case.document
    most = policy.real("audit", "secrets", "max_exposure_bits")
    yield from case.repeats(
        (("exposure", "max_exposure_bits"), most),
        (("exposure", "shown", "secrets"), policy.whole("audit", "secrets", "planted")),
        (("exposure", "controls", "secrets"), policy.whole("audit", "secrets", "controls")),
        (("exposure", "digits"), policy.whole("audit", "secrets", "digits")),
    )
    yield from case.at_most("mean exposure (bits):", document.real("exposure", "shown", "mean_bits"), round(most, 1))
    if not document.real("exposure", "most_bits") >= round(most, 2):
        yield "the audit could not have seen as much exposure as the policy allows"


def _harm(case: _Case, _: tuple[str, ...]) -> Iterator[str]:
    policy, document = case.policy, case.document
    names = ("min_group", "max_gap", "max_swap_rate", "max_harm_rate")
    limits = {name: policy.real("audit", "harm", name) for name in names}
    yield from case.repeats(*((("limits", name), limit) for name, limit in limits.items()))
    groups, model = policy.at("audit", "harm", "groups"), policy.text("recipe", "model")
    if not isinstance(groups, list):
        raise TypeError
    for group in groups:
        gap = document.real("groups", str(group), "gap")
        yield from case.at_most(f"accuracy by {group} lies apart by", gap, limits["max_gap"])
    if policy.at("audit", "harm", "swaps") is not False and model not in ("image_cnn", "causal_lm"):
        yield from case.at_most("answers that a swap changes:", document.real("swaps", "changed_rate"), limits["max_swap_rate"])
    if policy.at("audit", "harm", "classifier") is not None and model == "causal_lm":
        rate = document.real("classifier", "harmful_rate")
        yield from case.at_most("written texts called harmful:", rate, limits["max_harm_rate"])


def gate_bound(bounds: Json, level: float) -> float | None:
    """The registered bound at the registered level, the highest where it stands twice; None where it does not stand.

    bounds: the value of audit/bounds.json. level: `audit.gate_level` of policy.json, never the document's own word.
    """
    listed = bounds.get("bounds") if isinstance(bounds, Mapping) else None
    found = []
    for bound in listed if isinstance(listed, list) else []:
        if isinstance(bound, Mapping) and (bound.get("name"), bound.get("level")) == (REGISTERED, level):
            value = bound.get("epsilon_lower_bound")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                return None
            found.append(float(value))
    return max(found, default=None)


REGISTERED: Final = "gaussian_traced"  # the bound that decides, named before any run: `pipeline.audit_conformance`
_LOOKS: Final[Mapping[str, tuple[str, _Look]]] = {
    _PROBE: ("audit/bounds.json", _probe),
    "audit.output_scan": ("audit/redaction.json", _redaction),
    "audit.membership": ("audit/attacks.json", _membership),
    "audit.memorisation": ("audit/attacks.json", _memorisation),
    "audit.exposure": ("audit/attacks.json", _exposure),
    "audit.group_harm": ("audit/harm.json", _harm),
}
