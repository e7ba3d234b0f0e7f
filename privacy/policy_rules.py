"""The detection rules of a policy: its patterns, lists and thresholds as `DetectionRules`, and its detector.

Guarantee: a policy whose pattern could be slow, can't be read or contradicts its own examples never loads; a sealed list that
is named and not there stops the run. Values of deny lists stand in no policy, manifest or error; the detector's version
depends on them through a keyed digest only.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from privacy.detection_rules import DetectionRules, OwnPattern, own_recognizers
from privacy.errors import PolicyError, PrivetError

if TYPE_CHECKING:
    from privacy.policy import OwnPattern as PolicyPattern
    from privacy.policy import Policy

ReadList = Callable[[str], str | None]  # name of a sealed list -> its lines
_MOST_VALUES = 1_000


def pattern_fault(own: PolicyPattern) -> tuple[str, str] | None:
    """(field, what is wrong) of a pattern that can't be used."""
    try:
        own_recognizers(DetectionRules(patterns=(_own("xx", own),)))
    except PrivetError as error:
        return "examples" if error.code == "E-DETECT-005" else "pattern", f"{error.cause.replace(' xx', '')}; {error.remedy}"
    return None


def detection_rules(policy: Policy, denied: Mapping[str, str], mark: str = "") -> DetectionRules:
    """denied: value -> type. mark: a keyed digest of the values, which stands for them in the detector's version."""
    pii = policy.pii
    return DetectionRules(
        entities=frozenset(pii.detect),
        thresholds=dict(pii.thresholds),
        allow=pii.allow,
        deny=dict(denied),
        patterns=tuple(_own(name, own) for name, own in pii.patterns.items()),
        deny_mark=mark,
    )


def denied_values(policy: Policy, read: ReadList, key: bytes) -> tuple[dict[str, str], str]:
    """Values of the policy's sealed lists with their types, and a keyed digest of them.

    Raises PolicyError E-DETECT-010 for a list that is not there, empty or over 1,000 values.
    """
    values: dict[str, str] = {}
    for name, entity in policy.pii.deny.items():
        lines = [line.strip() for line in (read(name) or "").splitlines() if line.strip()]
        if not lines or len(values) + len(lines) > _MOST_VALUES:
            raise PolicyError(
                "E-DETECT-010",
                f"the sealed list {name} of pii.deny is not there, is empty, or all lists hold over {_MOST_VALUES} values",
                f"Seal one value a line: privet secrets set {name} --kind list --file FILE",
            )
        values |= dict.fromkeys(lines, entity)
    if not values:
        return {}, ""
    said = "\0".join(f"{entity}\1{value}" for value, entity in sorted(values.items()))
    return values, hmac.new(key, said.encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def _own(name: str, own: PolicyPattern) -> OwnPattern:
    return OwnPattern(name, own.entity, own.pattern, own.score, own.examples, own.counterexamples)
