"""From a policy to what acts on its texts: the detector with the policy's own rules, and the de-identifier.

Guarantee: protect, validate and mine are given the same rules; a list or recognizer that the policy names and that is not there
stops the run. Who checks a dataset needs no secret: surrogates are known again by a public mark.
Not covered: the second scan of validate does not know the sealed deny lists, which its role may not open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from privacy.deidentify import Deidentifier, own_spans_by, surrogate_mark
from privacy.deidentify_guard import GuardedDetector, Spans
from privacy.detect import Detector, build_detector, build_pattern_detector
from privacy.detection_rules import DetectionRules
from privacy.policy_rules import denied_values, detection_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.home import Home
    from privacy.policy import Policy


def deidentifier_of(home: Home, policy: Policy) -> Deidentifier:
    """Its key needs the role of a steward."""
    pii, dataset = policy.pii, policy.dataset
    return Deidentifier(
        pii.entities,
        pii.default,
        home.keyring.derive(f"{dataset}/pseudonym", "entity"),
        domain=pii.domain or "",
        mark_key=surrogate_mark(dataset, pii.domain or ""),
        date_shift_days=pii.date_shift_days,
        date_order=pii.date_order,
    )


def detector_of(home: Home, policy: Policy, languages: Sequence[str] = ()) -> Detector:
    """The detector of the protect stage, for the policy's languages unless others are named."""
    rules = None
    if _has_rules(policy):
        key = home.keyring.derive(f"{policy.dataset}/pseudonym", "deny") if policy.pii.deny else b""
        rules = detection_rules(policy, *denied_values(policy, lambda name: _sealed_list(home, name), key))
    return build_detector(
        tuple(languages) or policy.languages,
        policy.pii.score_threshold,
        rules,
        presidio_recognizers=policy.pii.presidio_recognizers,
    )


def checking_detector(policy: Policy) -> Detector:
    """Patterns alone, with the policy's rules but its deny lists; what we wrote ourselves is left alone."""
    rules = detection_rules(policy, {}) if _has_rules(policy) else None
    detector = build_pattern_detector(policy.pii.score_threshold, rules)
    own = own_spans_of(policy)
    return detector if own is None else GuardedDetector(detector, own)


def output_detector(policy: Policy) -> Detector:
    """For what leaves: every pattern at any score, and the policy's own; nothing is allowed."""
    patterns = DetectionRules(patterns=detection_rules(policy, {}).patterns)
    return build_pattern_detector(0.0, patterns if patterns.patterns else None)


def own_spans_of(policy: Policy) -> Spans | None:
    """What knows the policy's surrogates and moved dates again; None where it has none."""
    used = {*policy.pii.entities.values(), policy.pii.default}
    if not used & {"surrogate", "date_shift"}:
        return None
    mark = surrogate_mark(policy.dataset, policy.pii.domain or "")
    return own_spans_by(mark, surrogates="surrogate" in used, dates="date_shift" in used)


def _has_rules(policy: Policy) -> bool:
    pii = policy.pii
    return bool(pii.detect or pii.thresholds or pii.allow or pii.deny or pii.patterns)


def _sealed_list(home: Home, name: str) -> str | None:
    from pipeline.sealed_secrets import SealedSecrets, secret_name

    return SealedSecrets(home).get(secret_name("config", name))
