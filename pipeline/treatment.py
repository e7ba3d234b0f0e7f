"""From a policy to what acts on its texts: the detector with the policy's own rules, and the de-identifier.

Guarantee: protect, validate, mine, scan and the demo are given the same rules; a list or recognizer that the policy names and
that is not there stops the run. Who checks a dataset needs no secret: surrogates are known again by a public mark, and that no
value of a sealed deny list was left is counted by protect, whose role may open it (`left_behind`); validate asks for that
count. A keyed digest of the values would not do for validate: with it and its key any guess at a value could be tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from privacy.deidentify import Deidentifier, own_spans_by, surrogate_mark
from privacy.deidentify_guard import GuardedDetector, Spans
from privacy.detect import Detector, PatternDetector, build_detector, build_pattern_detector
from privacy.detection_rules import DetectionRules, own_recognizers
from privacy.policy_rules import denied_values, detection_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.home import Home
    from privacy.policy import Policy


def deidentifier_of(home: Home, policy: Policy) -> Deidentifier:
    """Its key needs the role of a steward."""
    return deidentifier_by(home.keyring.derive(f"{policy.dataset}/pseudonym", "entity"), policy)


def deidentifier_by(key: bytes, policy: Policy) -> Deidentifier:
    """Under another key than the dataset's: for a look whose pseudonyms must lead nowhere."""
    pii, dataset = policy.pii, policy.dataset
    return Deidentifier(
        pii.entities,
        pii.default,
        key,
        domain=pii.domain or "",
        mark_key=surrogate_mark(dataset, pii.domain or ""),
        date_shift_days=pii.date_shift_days,
        date_order=pii.date_order,
    )


def detector_of(home: Home, policy: Policy, languages: Sequence[str] = ()) -> Detector:
    """The detector of the protect stage, for the policy's languages unless others are named."""
    return build_detector(
        tuple(languages) or policy.languages,
        policy.pii.score_threshold,
        rules_of(home, policy),
        presidio_recognizers=policy.pii.presidio_recognizers,
    )


def rules_of(home: Home, policy: Policy) -> DetectionRules | None:
    """What the policy adds to detection, its sealed lists included; opening these needs the role of a steward."""
    if not has_rules(policy):
        return None
    return detection_rules(policy, *_denied(home, policy))


def left_behind(home: Home, policy: Policy) -> Detector | None:
    """Finds values of the sealed lists, and nothing else; None where the policy names none that it does not keep."""
    kept = {name for name, treatment in policy.pii.entities.items() if treatment == "keep"}
    values = {value: entity for value, entity in _denied(home, policy)[0].items() if entity not in kept}
    if not values:
        return None
    detector = PatternDetector(recognizers=own_recognizers(DetectionRules(deny=values)))
    own = own_spans_of(policy)
    return detector if own is None else GuardedDetector(detector, own)


def _denied(home: Home, policy: Policy) -> tuple[dict[str, str], str]:
    if not policy.pii.deny:
        return {}, ""
    key = home.keyring.derive(f"{policy.dataset}/pseudonym", "deny")
    return denied_values(policy, lambda name: _sealed_list(home, name), key)


def checking_detector(policy: Policy) -> Detector:
    """Patterns alone, with the policy's rules but its deny lists; what we wrote ourselves is left alone."""
    rules = detection_rules(policy, {}) if has_rules(policy) else None
    detector = build_pattern_detector(policy.pii.score_threshold, rules)
    own = own_spans_of(policy)
    return detector if own is None else GuardedDetector(detector, own)


def output_detector(policy: Policy, engine: str | None = None) -> Detector:
    """For what leaves: every pattern at any score, and the policy's own; nothing is allowed. engine: see `structural`."""
    patterns = DetectionRules(patterns=detection_rules(policy, {}).patterns)
    return build_pattern_detector(0.0, patterns if patterns.patterns else None, engine)


def own_spans_of(policy: Policy) -> Spans | None:
    """What knows the policy's surrogates and moved dates again; None where it has none."""
    used = {*policy.pii.entities.values(), policy.pii.default}
    if not used & {"surrogate", "date_shift"}:
        return None
    mark = surrogate_mark(policy.dataset, policy.pii.domain or "")
    return own_spans_by(mark, surrogates="surrogate" in used, dates="date_shift" in used)


def has_rules(policy: Policy) -> bool:
    pii = policy.pii
    return bool(pii.detect or pii.thresholds or pii.allow or pii.deny or pii.patterns)


def _sealed_list(home: Home, name: str) -> str | None:
    from pipeline.sealed_secrets import SealedSecrets, secret_name

    return SealedSecrets(home).get(secret_name("list", name))
