"""The documents of an honest audit, as its parts write them, for a world that trains nothing."""

from __future__ import annotations

from pipeline.evidence import REQUIRED_VERDICTS
from privacy.canonical import Json
from privacy.policy import Policy

PROBED = tuple(name.removeprefix("probe.") for name in REQUIRED_VERDICTS if name.startswith("probe."))


def bounds_of(policy: Policy, claim: float, gate_bound: float) -> dict[str, Json]:
    """What `pipeline.audit_conformance` writes, but for the reveal of the coins. claim: epsilon of the trace."""
    fdp, scores = "a Gaussian trade-off curve", "independent scores"
    bounds: list[tuple[str, float, float, str]] = [
        ("fdp", 0.95, 0.9, fdp),
        ("gaussian", 0.95, 1.7, scores),
        ("gaussian_traced", policy.audit.gate_level, gate_bound, scores),
    ]
    return {
        "claimed_epsilon": claim,
        "gate_level": policy.audit.gate_level,
        "bounds": [
            {"name": name, "level": level, "epsilon_lower_bound": low, "capped": False, "assumes": assumes}
            for name, level, low, assumes in bounds
        ],
        "probe_level": policy.audit.probe_level,
        "probe": [{"check": check, "p_value": 0.4} for check in PROBED],
    }


def redaction_of(policy: Policy) -> dict[str, Json]:
    return {
        "outputs": 8,
        "planted_values": 40,
        "leaks": 0,
        "stream_planted_values": 40,
        "stream_leaks": 0,
        "leaks_allowed": policy.audit.max_output_leaks,
    }


def attacks_of(policy: Policy, claim: float) -> dict[str, Json]:
    asked = policy.audit.membership
    found: dict[str, Json] = {
        "membership": {
            "gate_level": policy.audit.gate_level,
            "claimed_epsilon": claim,
            "max_tpr": asked.max_tpr,
            "attacks": [{"attack": name, "auc": 0.52, "epsilon_lower_bound": 0.3} for name in asked.attacks],
        }
    }
    if policy.recipe.model == "causal_lm":
        wanted = policy.audit.memorisation
        found["memorisation"] = {
            "texts": wanted.samples,
            "spans": 0,
            "max_spans": wanted.max_spans,
            "signs": wanted.signs,
            "subjects": wanted.subjects,
        }
    if (secrets := policy.audit.secrets) is not None:
        found["exposure"] = {
            "shown": {"secrets": secrets.planted, "mean_bits": 2.1},
            "controls": {"secrets": secrets.controls, "mean_bits": 1.4},
            "digits": secrets.digits,
            "max_exposure_bits": secrets.max_exposure_bits,
            "most_bits": round(secrets.max_exposure_bits + 2, 2),
        }
    return found


def harm_of(policy: Policy) -> dict[str, Json]:
    asked = policy.audit.harm
    found: dict[str, Json] = {
        "groups": {name: {"rows": {}, "withheld": 0, "gap": 0.0, "gap_interval": [0.0, 0.1]} for name in asked.groups},
        "limits": {
            "min_group": asked.min_group,
            "max_gap": asked.max_gap,
            "max_swap_rate": asked.max_swap_rate,
            "max_harm_rate": asked.max_harm_rate,
        },
        "level": policy.audit.report_level,
    }
    if asked.swaps and policy.recipe.model not in ("image_cnn", "causal_lm"):
        found["swaps"] = {"texts": 120, "changed_rate": 0.0, "interval": [0.0, 0.05]}
    if asked.classifier is not None and policy.recipe.model == "causal_lm":
        found["classifier"] = {"texts": 32, "harmful_rate": 0.0}
    return found
