"""The bill of materials of a release, `bom.cdx.json`: CycloneDX 1.6 for a machine-learning model, as canonical JSON. Pure.

cyclonedx-python-lib knows no model card and drops one that it reads, so the document is written here and that library's strict
schema judges it in the tests (docs/decisions/0014-libraries-as-oracles.md). No field of the schema is about privacy: the
figures stand among the performance metrics, where the verifier compares them (`pipeline.paper_claims`).
Guarantee: the same facts give the same bytes. Not covered: a licence of the model, which no policy states; libraries beneath
those that are listed.
"""

from __future__ import annotations

import uuid
from typing import Final

from pipeline.card import LIMITS
from pipeline.evidence import STATEMENT_FILES
from pipeline.model_words import pipeline_tag, what_it_does
from pipeline.paper_claims import BOM_FILES, PROPERTIES, VERIFY, bom_metrics, bom_utility, hashes
from pipeline.paper_facts import Library, ReleaseFacts
from privacy.canonical import Json, canonical_json

# The namespace of serial numbers made from a digest, so that assembling again gives the same one.
_SERIALS: Final = uuid.UUID("7f0e3f0c-2a3c-5a59-9b43-6e1d3f6f4c11")
_KINDS: Final = {
    "CARD.md": "model-card",
    "journal.json": "log",
    "model.safetensors": "distribution",
    "model/config.json": "configuration",
    "policy.json": "configuration",
    "report.html": "documentation",
    "audit/harm.json": "risk-assessment",
    **dict.fromkeys(STATEMENT_FILES.values(), "attestation"),
}


def bill_of_materials(about: ReleaseFacts) -> bytes:
    """The bytes of bom.cdx.json."""
    serial = uuid.uuid5(_SERIALS, f"{about.policy_digest} {about.model.sha256} {about.made_at}")
    parts: list[Json] = [_library(library) for library in sorted(about.libraries)]
    return canonical_json(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{serial}",
            "version": 1,
            "metadata": {
                "timestamp": about.made_at,
                "tools": {"components": [{"type": "application", "name": "privet"}]},
                "component": _model(about),
            },
            "components": parts,
            "dependencies": [
                {"ref": _REF, "dependsOn": [_purl(library) for library in sorted(about.libraries)]},
                *({"ref": _purl(library)} for library in sorted(about.libraries)),
            ],
        }
    )


_REF: Final = "model"


def _model(about: ReleaseFacts) -> Json:
    policy, recipe = about.policy, about.policy.recipe
    told = (about.policy_digest, VERIFY, "none stated", recipe.pretrained or "none", recipe.pretrained_digest or "none")
    return {
        "type": "machine-learning-model",
        "bom-ref": _REF,
        "name": policy.name,
        "version": about.model.sha256,
        "description": policy.purpose,
        "supplier": {"name": policy.controller},
        "hashes": hashes(about.model.sha256),
        "externalReferences": [_reference(about, path) for path in BOM_FILES if path in about.files],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "self-supervised" if policy.recipe.model == "causal_lm" else "supervised"},
                "task": pipeline_tag(policy),
                "architectureFamily": policy.recipe.model,
                "modelArchitecture": f"{policy.recipe.model}, trains {policy.recipe.trains}",
                "datasets": [_dataset(about)],
                "inputs": [{"format": "image" if policy.source.fields.image else "de-identified text"}],
                "outputs": [{"format": "text" if policy.recipe.model == "causal_lm" else "label"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": [*bom_metrics(about.figures), *bom_utility(about.utility)]},
            "considerations": {
                "useCases": [policy.purpose, what_it_does(policy, ", ".join(policy.expectations.labels[:100]))],
                "technicalLimitations": list(LIMITS),
                "performanceTradeoffs": ["Noise and clipping that bound the privacy loss cost accuracy."],
                "ethicalConsiderations": [
                    {"name": f"{v.check}: {v.outcome}", "mitigationStrategy": v.reason} for v in about.verdicts
                ],
            },
        },
        "properties": [{"name": name, "value": value} for name, value in zip(PROPERTIES, told, strict=True)],
    }


def _reference(about: ReleaseFacts, path: str) -> Json:
    return {"type": _KINDS.get(path, "evidence"), "url": f"./{path}", "hashes": hashes(about.files[path].sha256)}


def _dataset(about: ReleaseFacts) -> Json:
    policy = about.policy
    return {
        "type": "dataset",
        "name": policy.dataset,
        "description": f"De-identified and sealed; it does not leave. Protect result {about.dataset}.",
        "classification": "confidential",
        "sensitiveData": [f"personal data of each {policy.privacy_unit.name}, de-identified before training"],
        "governance": {"owners": [{"organization": {"name": policy.controller}}]},
    }


def _library(library: Library) -> Json:
    licences: dict[str, Json] = {"licenses": [{"expression": library.licence}]} if library.licence else {}
    return {
        "type": "library",
        "bom-ref": _purl(library),
        "name": library.name,
        "version": library.version,
        "purl": _purl(library),
        **licences,
    }


def _purl(library: Library) -> str:
    return f"pkg:pypi/{library.name}@{library.version.replace('+', '%2B')}"
