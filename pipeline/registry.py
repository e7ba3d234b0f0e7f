"""An entry for the public registry of differential privacy deployments (OpenDP, NIST), made from a bundle alone.

Guarantee: every figure is read from the mechanism trace, the policy and the report of the bundle; epsilon is recomputed and
rounded up. What only people know (region, sector, kind of curator, authors) is asked for, and else marked for filling in.
The layout is that of schemas/deployments-schema.yaml of opendp/deployments-registry-data (second half of 2026). The status is
always Draft: people submit it, and the registry's board judges it. Not covered: its spelling check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.evidence import Reader
from privacy.accounting import MechanismTrace, recompute_epsilon
from privacy.canonical import Json
from privacy.errors import IntegrityError, UsageError
from privacy.rounding import shown_up

CuratorKind = Literal["Government", "Industry", "Nonprofit"]
CURATORS: Final = ("Government", "Industry", "Nonprofit")
SECTORS: Final = ("Technology", "Healthcare", "Education", "Government", "Energy", "Finance")
UNKNOWN: Final = "Fill in before submitting."


@dataclass(frozen=True, slots=True)
class Told:
    """What no bundle holds. authors: who fills in the record."""

    region: str = UNKNOWN
    curator_kind: CuratorKind = "Industry"
    sector: str | None = None
    authors: tuple[str, ...] = (UNKNOWN,)


def entry(policy: Json, trace: Json, report: Json, published: str, told: Told) -> dict[str, Json]:
    """The record. published: YYYY-MM-DD; policy, trace, report: the JSON files of a bundle.

    Raises IntegrityError E-REPORT-004 for files that are none of a private model, UsageError E-REPORT-005 for a wrong sector.
    """
    if told.sector is not None and told.sector not in SECTORS:
        raise UsageError("E-REPORT-005", "the registry knows no such sector", f"Take one of: {', '.join(SECTORS)}")
    mechanism = MechanismTrace.from_json(trace)
    try:
        return _entry(Reader(policy), mechanism, report, published, told)
    except (KeyError, TypeError):
        raise IntegrityError(
            "E-REPORT-004", "a file of the bundle has not the form that a registry entry is made from", "Get the bundle again"
        ) from None


def _entry(policy: Reader, trace: MechanismTrace, report: Json, published: str, told: Told) -> dict[str, Json]:
    name, unit = policy.text("name"), trace.privacy_unit
    basic: dict[str, Json] = {
        "name": name,
        "data_curators": [{"data_curator_name": policy.text("controller"), "data_curator_type": told.curator_kind}],
        "description": (
            f"A {policy.text('recipe', 'model')} model, trained with differentially private SGD on dataset "
            f"{policy.text('dataset')}."
        ),
        "intended_use": policy.text("purpose"),
        "data_product_type": "Machine learning model",
        "data_product_region": told.region,
        "publication_date": published,
        **({"data_product_sector": told.sector} if told.sector else {}),
    }
    deployment: dict[str, Json] = {
        "basic": basic,
        "dp_variant": _variant(trace),
        "privacy_loss": _loss(trace),
        "deployment_model": _model(trace),
        "implementation": _implementation(policy, trace, report),
        "administrative": {"status": "Draft", "registry_authors": list(told.authors), "tier": 3},
    }
    return {"url_slug": _slug(f"{name}-{published[:4]}-{unit}"), "deployment": deployment}


def _variant(trace: MechanismTrace) -> dict[str, Json]:
    return {
        "variant_name": "Approximate DP",
        "data_domain": (
            f"Sets of records, grouped by {trace.privacy_unit}; at most {trace.max_records_per_unit} records of one enter."
        ),
        "unprotected_quantities": (
            "The release is the final weights. Its evidence publishes exact counts of records, units and findings, results of "
            "validation, accuracy on held-out units and figures of attacks; each is marked as outside the claim."
        ),
    }


def _loss(trace: MechanismTrace) -> dict[str, Json]:
    unit, epsilon = trace.privacy_unit, recompute_epsilon(trace)
    return {
        "privacy_unit": f"{unit}-level",
        "privacy_unit_details": (
            f"Two datasets are adjacent if one is the other with all records of one {unit} added or removed "
            f"({trace.neighbouring_relation}); contributions beyond {trace.max_records_per_unit} records are "
            "dropped by a keyed rule."
        ),
        "number_of_privacy_units": trace.population,
        "privacy_parameters": {"epsilon": float(shown_up(epsilon)), "delta": trace.delta},
        "privacy_parameters_details": (
            f"Epsilon is rounded up, from Renyi DP. The number of units is the public population that sampling uses, not the "
            f"true count. {trace.steps} steps are charged, {trace.steps_in_model} are in the released model."
        ),
    }


def _model(trace: MechanismTrace) -> dict[str, Json]:
    return {
        "model_name": "Central",
        "model_name_details": "The controller's machine holds the records and trains; only the final weights leave it.",
        "trust_assumptions": (
            "The controller and the machine that trains are trusted with the records. Who sees the model only is not: any side "
            "information is allowed for. Noise and sampling are assumed to be unpredictable."
        ),
        "actors": "Controller, pipeline operator, stewards and officers who sign at the gates, auditor, users of the model.",
        "release_type": "One release",
        "release_type_details": f"Further runs on the same data are charged to one ledger, per {trace.privacy_unit}.",
        "data_source_type": "Static",
        "access_type": "Non-interactive",
    }


def _implementation(policy: Reader, trace: MechanismTrace, report: Json) -> dict[str, Json]:
    audited = _figures(report, "audit", "lower_bound")
    utility = _figures(report, "utility", "accuracy")
    cap = policy.at("budget", "cap_epsilon")
    return {
        "preprocessing_and_hyperparameter_tuning": (
            "Personal data in texts is detected and replaced before training; vocabulary, labels and sizes are public "
            "constants, nothing is fitted on the data outside the mechanism. Private trials are charged to the ledger."
        ),
        "mechanisms": (
            f"- {trace.mechanism}: Poisson sampling with probability {trace.sampling_probability:.6g} (expected batch "
            f"{trace.expected_batch_size}), clipping to L2 norm {trace.clipping_norm:.6g} per {trace.privacy_unit}, noise "
            f"multiplier {trace.noise_multiplier:.6g}, {trace.steps} steps.\n"
            f"- Implemented by Privet; sampler {trace.sampler}, noise {trace.noise_source}.\n"
            "- Floating-point effects of noise are outside the figure; time and memory of training are not protected.\n"
            "- Records are encrypted at rest, by role; access to keys is journalled."
        ),
        "composition": f"Renyi DP of all charged steps ({trace.accountant}); a Renyi filter admits runs up to epsilon {cap}.",
        "post_processing": "The canary rows are removed from the weights; nothing else is done to them.",
        "justification": (
            "Parameters are fixed in a signed policy before training; two gates need signatures of people. The run was audited "
            f"against its own claim, with canaries: {'; '.join(audited) or 'no lower bound stated'}. A lower bound is no proof."
        ),
        "utility": "; ".join(utility) or "Not measured.",
        "additional_information": "The evidence bundle can be verified offline: privet verify BUNDLE --trust trust.json.",
    }  # fmt: skip


def _figures(report: Json, section: str, part: str) -> list[str]:
    found = []
    sections = report.get("sections") if isinstance(report, Mapping) else None
    for item in sections if isinstance(sections, Sequence) and not isinstance(sections, str) else ():
        figures = item.get("figures") if isinstance(item, Mapping) and item.get("key") == section else None
        for figure in figures if isinstance(figures, Sequence) and not isinstance(figures, str) else ():
            if isinstance(figure, Mapping) and part in str(figure.get("key")) and figure.get("basis") == "measured":
                found.append(f"{figure.get('label')}: {figure.get('value')}")
    return found[:8]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
