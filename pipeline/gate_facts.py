"""What the conditions of an approval may be about: facts of the evidence under closed names.

Guarantee: pure and one definition for the home, the release stage and the verifier, so a condition means the same to all
three. Names: epsilon, delta, cap_epsilon, steps, noise_multiplier, mechanism, release, policy, data, source, recognizers,
model, utility (also audit.utility), verdict.CHECK, metric.PATH and fact.STAGE.NAME; nothing else can be asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from privacy.canonical import Digest, Json, digest_of
from privacy.conditions import Facts, Value
from privacy.errors import IntegrityError

if TYPE_CHECKING:
    from pipeline.claims import Evidence

# What nobody can know before the training; a condition of the use on one of these is decided at the release.
LATER: Final = (
    "verdict",
    "metric",
    "utility",
    "audit",
    "steps",
    "noise_multiplier",
    "model",
    "fact.train",
    "fact.audit",
    "fact.report",
)
_MAX_DEPTH: Final = 5
_MAX_FACTS: Final = 4000


def use_facts(policy: Mapping[str, Json], manifests: Mapping[str, Json]) -> Facts:
    """Before the training. manifests: those of protect and validate, by stage."""
    return Facts(_common(policy, manifests), LATER)


def release_facts(
    policy: Mapping[str, Json],
    manifests: Mapping[str, Json],
    trace: Json,
    verdicts: Json,
    metrics: Json,
    model: Digest,
) -> Facts:
    """With everything there is: nothing is left for later. model: digest of its plain bytes."""
    values = _common(policy, manifests)
    values.pop("epsilon", None)  # what was asked bounds nothing: only a mechanism's trace says what was reached
    if isinstance(trace, Mapping) and trace.get("mechanism") not in (None, "none"):
        values |= {
            name: v for name in ("epsilon", "delta", "steps", "noise_multiplier") if (v := _plain(trace.get(name))) is not None
        }
    for verdict in verdicts if isinstance(verdicts, list) else []:
        match verdict:
            case {"check": str(check), "outcome": str(outcome)}:
                # Said twice, and not alike: the worse one counts, and it is not the one that passed.
                values[f"verdict.{check}"] = outcome if values.get(f"verdict.{check}", outcome) == outcome else "not_evaluated"
    values |= dict(_flat("metric", metrics))
    reached = values.get("metric.utility.holdout_accuracy", values.get("fact.train.holdout_accuracy"))
    if reached is not None:
        values |= {"utility": reached, "audit.utility": reached}
    return Facts({**values, "model": model})


def facts_of(evidence: Evidence, model_file: str) -> Facts:
    """Those of an opened bundle, for both its gates. Raises IntegrityError where a document is missing or malformed."""
    view = evidence.view
    policy = view.json("policy.json")
    if not isinstance(policy, Mapping):
        raise IntegrityError("E-EVID-003", "policy.json is not a policy", "Get the bundle again")
    return release_facts(
        policy,
        dict(evidence.manifests),
        view.json("trace.json"),
        view.json("audit/verdicts.json"),
        view.json("audit/metrics.json"),
        view.files[model_file].sha256,
    )


def _common(policy: Mapping[str, Json], manifests: Mapping[str, Json]) -> dict[str, Value]:
    budget, recipe = policy.get("budget"), policy.get("recipe")
    values: dict[str, Value] = {"policy": digest_of(dict(policy)), "release": str(policy.get("name"))}
    for name in ("epsilon", "delta", "cap_epsilon"):
        if isinstance(budget, Mapping) and (found := _plain(budget.get(name))) is not None:
            values[name] = found
    if isinstance(recipe, Mapping):
        values["mechanism"] = str(recipe.get("mechanism"))
    for stage, manifest in manifests.items():
        if isinstance(manifest, Mapping) and isinstance(manifest.get("facts"), Mapping):
            values |= dict(_flat(f"fact.{stage}", manifest["facts"]))
    protect = manifests.get("protect")
    if isinstance(protect, Mapping):
        values["data"] = digest_of(dict(protect))
        inputs = protect.get("inputs")
        if isinstance(inputs, Mapping) and isinstance(inputs.get("ingest"), str):
            values["source"] = str(inputs["ingest"])
        if "fact.protect.detector" in values:
            values["recognizers"] = values["fact.protect.detector"]
    return values


def _flat(prefix: str, value: Json) -> Iterator[tuple[str, Value]]:
    found = 0
    pending: list[tuple[str, Json, int]] = [(prefix, value, 0)]
    while pending and found < _MAX_FACTS:
        name, inside, depth = pending.pop()
        if isinstance(inside, Mapping):
            pending += [(f"{name}.{key}", part, depth + 1) for key, part in inside.items()] if depth < _MAX_DEPTH else []
        elif (plain := _plain(inside)) is not None:
            found += 1
            yield name, plain


def _plain(value: Json) -> Value | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return value if not isinstance(value, str) or len(value) <= 200 else None
