"""Membership inference on the model that leaves: what an attack finds, and whether that refutes the claim.

Guarantee: a bound is taken at the level of the gate, shared among the attacks that the policy asks for, and compared with the
claim; what is written are aggregates, rounded outwards, and none where fewer than `outputs.min_subjects` units stand on a side.
Assumption: `training.membership`. Not covered: the figures are exact, over real units, so they stand outside the privacy claim;
shadow models are trained on the same units, and nothing of them is kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pipeline.audit_case import AuditCase, Opened
from privacy.canonical import Json
from privacy.rounding import EXACT, shown_down, shown_up
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from training.membership import FloatArray, Rate, Shadows

CHECK = "audit.membership"
_RATES = (0.001, 0.01)
_WORST = 1e9
_STEP = 100  # shares are rounded to hundredths: one unit more or less should not show


def membership(case: AuditCase) -> tuple[str, tuple[Verdict, ...], Json]:
    """Its part of the document `attacks`, under "membership"."""
    name = "membership"
    if case.opened is None:
        return name, (Verdict(CHECK, "not_evaluated", "there is no model that loads"),), {}
    least = case.ctx.policy.outputs.min_subjects
    inside, outside = (int(part.present.any(1).sum()) for part in (case.opened.training, case.opened.holdout))
    if min(inside, outside) < least:
        said = f"withheld: fewer than {least} units to learn from, or to compare with"
        return name, (Verdict(CHECK, "not_evaluated", said),), {"withheld": said}
    found = _attacked(case, case.opened, inside)
    return name, (_verdict(case, found),), _document(case, found)


def _attacked(case: AuditCase, opened: Opened, members: int) -> dict[str, _Found]:
    from training.membership import joined, lira_scores, loss_scores, rmia_scores, unit_losses

    asked = case.ctx.policy.audit.membership
    everybody = joined(opened.training, opened.holdout)
    losses = unit_losses(opened.model, everybody)
    losses = np.nan_to_num(losses, nan=_WORST, posinf=_WORST)  # a model that gives no number knows nobody
    found: dict[str, _Found] = {}
    shadows = _shadows(case, opened) if asked.shadows else None
    for attack in asked.attacks:
        if attack == "loss":
            scores = loss_scores(losses)
        else:
            assert shadows is not None  # the policy model holds it
            scores = (lira_scores if attack == "lira" else rmia_scores)(losses, shadows)
        found[attack] = _Found.of(case, scores[:members], scores[members:], len(asked.attacks))
    return found


def _shadows(case: AuditCase, opened: Opened) -> Shadows:
    """Under the mechanism and the noise of the run, without a ledger: see `training.membership.train_shadows`."""
    from training.config import TrainingConfig
    from training.membership import joined, train_shadows
    from training.preflight import preflight

    policy = case.ctx.policy
    config = TrainingConfig.from_policy(policy, case.claim.noise_multiplier)
    return train_shadows(
        config,
        joined(opened.training, opened.holdout),
        policy.audit.membership.shadows,
        preflight(config).memory,
        progress=lambda done, total: case.ctx.progress("shadow models", done, total),
    )


class _Found:
    """What one attack found."""

    def __init__(
        self, area: tuple[float, float, float], rates: list[Rate], bound: float, found_at_least: float, perfect: float
    ) -> None:
        """found_at_least: lower bound, at the level of the gate, of the share of members found at 1 % false positives.
        perfect: the bound that an attack which is always right would give with as many units.
        """
        self.area, self.rates, self.bound, self.found_at_least, self.perfect = area, rates, bound, found_at_least, perfect

    @classmethod
    def of(cls, case: AuditCase, inside: FloatArray, outside: FloatArray, attacks: int) -> _Found:
        from training.membership import auc, clopper_pearson, curve, epsilon_lower_bound, rate_at

        audit, level = case.ctx.policy.audit, 1 - (1 - case.ctx.policy.audit.gate_level) / (2 * attacks)
        bound = epsilon_lower_bound(inside, outside, audit.holdout_share, case.claim.delta, level)
        share = rate_at(inside, outside, 0.01, audit.report_level).true_positive_rate
        at_least, _ = clopper_pearson(round(share * len(inside)), len(inside), level)
        members, others = 1.0 + np.arange(len(inside), dtype=np.float64), -1.0 - np.arange(len(outside), dtype=np.float64)
        perfect = epsilon_lower_bound(members, others, audit.holdout_share, case.claim.delta, level)
        rates = curve(inside, outside, audit.report_level)
        return cls(auc(inside, outside, audit.report_level), rates, bound, at_least, perfect)


def _verdict(case: AuditCase, found: dict[str, _Found]) -> Verdict:
    audit, claim = case.ctx.policy.audit, case.claim
    for name, one in found.items():
        if one.bound > claim.epsilon:
            said = (
                f"at confidence {audit.gate_level}, the {name} attack shows epsilon of at least {shown_down(one.bound, EXACT)}"
            )
            return Verdict(CHECK, "failed", f"{said}, above the claimed {shown_up(claim.epsilon, EXACT)}")
        if one.found_at_least > audit.membership.max_tpr:
            said = f"at 1 % false positives, the {name} attack finds more than {audit.membership.max_tpr:.2g} of the members"
            return Verdict(CHECK, "failed", f"{said}, the most that the policy allows, at confidence {audit.gate_level}")
    highest, perfect = max(one.bound for one in found.values()), max(one.perfect for one in found.values())
    if perfect <= claim.epsilon and audit.membership.max_tpr >= 1:
        said = f"with so few units an attack that is always right would show {shown_down(perfect)}, under the claim"
        return Verdict(CHECK, "not_evaluated", f"{said}; set audit.membership.max_tpr below 1")
    said = f"epsilon {shown_up(claim.epsilon)} is not refuted at confidence {audit.gate_level} by {' and '.join(found)}"
    shown = f"lower bound {shown_down(highest)}; an attack that is always right would show {shown_down(perfect)}"
    return Verdict(CHECK, "passed", f"{said} ({shown}); an attack that finds nothing proves nothing")


def _document(case: AuditCase, found: dict[str, _Found]) -> dict[str, Json]:
    audit = case.ctx.policy.audit
    document: dict[str, Json] = {
        "protection": "none: computed exactly over real units, outside the privacy claim",
        "members": "units that the model learnt from",
        "non_members": "units held out by a keyed coin",
        "gate_level": audit.gate_level,
        "report_level": audit.report_level,
        "claimed_epsilon": case.claim.epsilon,
        "max_tpr": audit.membership.max_tpr,
        "attacks": [_shown(name, one) for name, one in found.items()],
        "meaning": "an attack that finds nothing proves nothing; the bound assumes a Gaussian trade-off curve",
    }
    if audit.membership.shadows:
        document["shadows"] = {
            "models": audit.membership.shadows,
            "trained": "with the recipe and mechanism of the run, each on a random half of all units, outside the ledger",
            "kept": "nothing: their weights are dropped once the losses are taken",
        }
    return document


def _shown(name: str, one: _Found) -> dict[str, Json]:
    area, low, high = one.area
    rates = [r for r in one.rates if r.false_positive_rate in _RATES]
    return {
        "attack": name,
        "auc": _round(area),
        "auc_interval": [_down(low), _up(high)],
        "tpr_at_fpr": [
            {"fpr": r.false_positive_rate, "tpr": _round(r.true_positive_rate), "interval": [_down(r.lower), _up(r.upper)]}
            for r in rates
        ],
        "epsilon_lower_bound": float(shown_down(one.bound)),
        "most_that_could_be_shown": float(shown_down(one.perfect)),
        "roc": [[r.false_positive_rate, _round(r.true_positive_rate)] for r in one.rates],
    }


def _round(share: float) -> float:
    return round(share * _STEP) / _STEP


def _down(share: float) -> float:
    return math.floor(share * _STEP + 1e-9) / _STEP


def _up(share: float) -> float:
    return math.ceil(share * _STEP - 1e-9) / _STEP
