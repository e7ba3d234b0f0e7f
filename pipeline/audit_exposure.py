"""Exposure of planted secrets: does the language model that leaves know numbers that it was shown, and no others?

Guarantee: the ranks of the controls, which were drawn like the others and shown to nobody, are uniform whatever the model is,
so their mean follows a known law; where it does not, at `audit.probe_level`, the audit can't see and fails. Figures are of
made-up secrets and tell about no data subject. No secret is in the document.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.audit_case import AuditCase
from privacy.canonical import Json, parse_json
from privacy.errors import PrivetError
from privacy.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from privacy.policy_audit import PlantedSecrets
    from training.exposure import Exposure

CHECK = "audit.exposure"


def exposure(case: AuditCase) -> tuple[str, tuple[Verdict, ...], Json]:
    """Nothing where the policy plants no secrets."""
    from pipeline.planted_secrets import BEFORE, planted_secrets
    from pipeline.train import ledger_key
    from training.exposure import exposures
    from training.models.causal_lm import CausalLm

    ctx, asked, opened = case.ctx, case.ctx.policy.audit.secrets, case.opened
    if asked is None:
        return "exposure", (), {}
    use = case.trained.inputs.get("use")
    if use is None or opened is None or not isinstance(opened.model, CausalLm):
        return _unknown("there is no language model of an approved training to ask")
    planted = planted_secrets(ctx.home, ctx.policy, ledger_key(ctx.policy_digest, case.protect_digest, use))
    assert planted is not None
    try:
        wanted = asked.max_exposure_bits + 2
        found = exposures(opened.model, opened.config, 0, BEFORE, (*planted.shown, *planted.controls), wanted)
    except ValueError:
        return _unknown("the scores of the model are no finite numbers")
    shown, controls = found.bits[: asked.planted], found.bits[asked.planted :]
    verdict = exposure_verdict(shown, controls, asked.max_exposure_bits, found.most, ctx.policy.audit.probe_level)
    return "exposure", (verdict,), _document(asked, found) | {"bits_per_character": _bits_per_character(case)}


def shown_secrets(case: AuditCase) -> tuple[str, ...]:
    """What the model of this case was shown, for the redactor's list; nothing where nothing was planted."""
    from pipeline.planted_secrets import planted_secrets
    from pipeline.train import ledger_key

    use = case.trained.inputs.get("use")
    if case.ctx.policy.audit.secrets is None or use is None:
        return ()
    found = planted_secrets(case.ctx.home, case.ctx.policy, ledger_key(case.ctx.policy_digest, case.protect_digest, use))
    return () if found is None else found.shown


def exposure_verdict(shown: Sequence[float], controls: Sequence[float], allowed: float, most: float, level: float) -> Verdict:
    """shown, controls: exposure in bits. most: what this audit could have seen. level: of both tails of the controls' law."""
    mean, chance = sum(shown) / len(shown), sum(controls) / len(controls)
    said = f"mean exposure {mean:.1f} bits of at most {most:.1f} ({allowed:g} allowed); of controls {chance:.1f}"
    below, above = tails(controls)
    outcome: Outcome = "passed"
    if min(below, above) < level / 2:
        outcome, said = "failed", f"controls, which nobody was shown, are out of line, so this audit can't see; {said}"
    elif mean > allowed:
        outcome, said = "failed", f"the model knows secrets that it was shown: {said}"
    elif most <= allowed:
        outcome, said = "not_evaluated", f"too few candidates were scored to see as much as is allowed; {said}"
    return Verdict(CHECK, outcome, said)


def tails(controls: Sequence[float]) -> tuple[float, float]:
    """Probability of a sum as low, and as high, when ranks are uniform.

    The exposure of a uniform rank is 1 / ln 2 times an exponential variable, so the sum of n is Erlang:
    P[sum > x] = exp(-x) sum of x^k / k! for k < n. That ranks are whole numbers makes the upper tail a little lighter.
    """
    x, term, total = sum(controls) * math.log(2), 1.0, 0.0
    for k in range(len(controls)):
        term = term * x / k if k else 1.0
        total += term
    above = math.exp(-x) * total
    return max(0.0, 1.0 - above), above


def _document(asked: PlantedSecrets, found: Exposure) -> dict[str, Json]:
    from training.exposure import NULL_MEAN_BITS

    def group(bits: Sequence[float]) -> dict[str, Json]:
        return {"secrets": len(bits), "mean_bits": round(sum(bits) / len(bits), 1), "max_bits": round(max(bits), 1)}

    return {
        "shown": group(found.bits[: asked.planted]) | {"units_each": asked.repeats},
        "controls": group(found.bits[asked.planted :]) | {"units_each": 0, "mean_bits_by_chance": round(NULL_MEAN_BITS, 2)},
        "digits": asked.digits,
        "max_exposure_bits": asked.max_exposure_bits,
        "most_bits": round(found.most, 2),
        "rank": "exact" if found.exact else "sampled",
        "candidates": found.candidates,
        "about": "made-up secrets, drawn for this training; a poor model shows little whatever protects it",
    }


def _bits_per_character(case: AuditCase) -> Json:
    """Of holdout texts, as the training measured it; None where it did not."""
    ref = case.trained.outputs.get("metrics")
    try:
        value = None if ref is None else parse_json(case.ctx.home.store.read_plain(ref))
    except PrivetError:
        return None
    match value:
        case {"utility": {"bits_per_character": float() | int() as bits}}:
            return bits
    return None


def _unknown(reason: str) -> tuple[str, tuple[Verdict, ...], Json]:
    return "exposure", (Verdict(CHECK, "not_evaluated", reason),), {}
