"""The SPDX 3.0.1 document of a release, `spdx.json`: AI and dataset profiles, as canonical JSON-LD. Pure.

It is written here and read back by spdx-python-model in the tests (docs/decisions/0014-libraries-as-oracles.md). The fields on
personal data are the reason for it: no other bill of materials asks whether there is any, and how it was anonymised.
Guarantee: the same facts give the same bytes; what nobody assessed is left out or said to be unknown.
Source: SPDX 3.0.1, AI and Dataset profiles (the properties that they require are all there).
"""

from __future__ import annotations

from typing import Final

from pipeline.card import LIMITS
from pipeline.evidence import moment
from pipeline.model_words import pipeline_tag
from pipeline.paper_claims import spdx_hashes, spdx_metrics, spdx_utility, spelled
from pipeline.paper_facts import Library, ReleaseFacts, hex_of
from privacy.canonical import Json, canonical_json

CONTEXT: Final = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
_CREATION: Final = "_:creation"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def spdx_document(about: ReleaseFacts) -> bytes:
    """The bytes of spdx.json."""
    base = f"urn:privet:release:{hex_of(about.model.sha256)}"
    made = _utc(about.made_at)
    packages: list[Json] = [_library(base, library) for library in sorted(about.libraries)]
    elements: list[Json] = [
        {**_element(base, "Organization", "controller"), "name": about.policy.controller},
        {**_element(base, "Tool", "privet"), "name": "privet"},
        _model(about, base, made),
        _dataset(about, base, made),
        *packages,
        _relation(base, "trainedOn", "model", ["dataset"]),
        _relation(base, "dependsOn", "model", [_name(library) for library in sorted(about.libraries)]),
        *(_no_licence(base, kind) for kind in ("hasDeclaredLicense", "hasConcludedLicense")),
    ]
    document = {
        **_element(base, "SpdxDocument", "document"),
        "profileConformance": ["core", "software", "ai", "dataset"],
        "rootElement": [f"{base}#model"],
        "element": sorted(str(e["spdxId"]) for e in elements if isinstance(e, dict)),
    }
    creation = {
        "type": "CreationInfo",
        "@id": _CREATION,
        "specVersion": "3.0.1",
        "created": made,
        "createdBy": [f"{base}#controller"],
        "createdUsing": [f"{base}#privet"],
    }
    return canonical_json({"@context": CONTEXT, "@graph": [creation, document, *elements]})


def _model(about: ReleaseFacts, base: str, made: str) -> Json:
    policy, recipe = about.policy, about.policy.recipe
    trained = f"{recipe.mechanism}, {recipe.steps} steps of {recipe.optimizer}; policy {about.policy_digest}"
    return {
        **_element(base, "ai_AIPackage", "model"),
        "name": policy.name,
        "description": policy.purpose,
        "software_packageVersion": about.model.sha256,
        "software_downloadLocation": f"{base}/model.safetensors",
        "software_primaryPurpose": "model",
        "suppliedBy": f"{base}#controller",
        "releaseTime": made,
        "builtTime": made,
        "verifiedUsing": spdx_hashes(about.model.sha256),
        "ai_typeOfModel": [recipe.model],
        "ai_domain": [pipeline_tag(policy)],
        "ai_informationAboutApplication": policy.purpose,
        "ai_informationAboutTraining": trained,
        "ai_limitation": " ".join(LIMITS),
        "ai_modelDataPreprocessing": [f"personal data: {policy.pii.default} by default", *_treatments(about)],
        "ai_hyperparameter": _pairs(
            {
                "clipping_norm": recipe.clipping_norm,
                "learning_rate": recipe.learning_rate,
                "optimizer": recipe.optimizer,
                "steps": recipe.steps,
            }
        ),
        "ai_metric": [*spdx_metrics(about.figures), *spdx_utility(about.utility)],
        "ai_useSensitivePersonalInformation": "yes",
    }


def _dataset(about: ReleaseFacts, base: str, made: str) -> Json:
    policy = about.policy
    records = about.facts.get("protect.records")
    size: dict[str, Json] = {"dataset_datasetSize": records} if type(records) is int else {}
    return {
        **_element(base, "dataset_DatasetPackage", "dataset"),
        "name": policy.dataset,
        "description": "De-identified and sealed; it does not leave.",
        "originatedBy": [f"{base}#controller"],
        "releaseTime": made,
        "builtTime": made,
        "software_primaryPurpose": "data",
        "software_downloadLocation": f"{base}/not-available",
        "software_packageVersion": about.dataset,
        "dataset_datasetType": ["image" if policy.source.fields.image else "text"],
        "dataset_datasetAvailability": "registration",
        "dataset_anonymizationMethodUsed": [
            *_treatments(about),
            "differential privacy of the training, not of the dataset",
        ],
        "dataset_confidentialityLevel": "red",
        "dataset_dataCollectionProcess": f"{policy.source.format} files of the controller; purpose: {policy.purpose}",
        "dataset_dataPreprocessing": ["personal data found and treated", "contribution bound per privacy unit", "validated"],
        "dataset_hasSensitivePersonalInformation": "yes",
        "dataset_intendedUse": policy.purpose,
        "dataset_knownBias": ["not assessed on the dataset; see audit/harm.json for the model"],
        **size,
    }


def _treatments(about: ReleaseFacts) -> list[Json]:
    return [f"{name}: {how}" for name, how in sorted(about.policy.pii.entities.items())]


def _library(base: str, library: Library) -> Json:
    return {
        **_element(base, "software_Package", _name(library)),
        "name": library.name,
        "software_packageVersion": library.version,
        "software_primaryPurpose": "library",
        "software_packageUrl": f"pkg:pypi/{library.name}@{library.version.replace('+', '%2B')}",
    }


def _name(library: Library) -> str:
    return f"pypi-{library.name}"


def _no_licence(base: str, kind: str) -> Json:
    """The policy states none: nobody may conclude one from silence."""
    return {
        **_element(base, "Relationship", f"model-{kind}"),
        "relationshipType": kind,
        "from": f"{base}#model",
        "to": ["expandedlicensing_NoAssertionLicense"],
    }


def _relation(base: str, kind: str, source: str, targets: list[str]) -> Json:
    return {
        **_element(base, "Relationship", f"{source}-{kind}"),
        "relationshipType": kind,
        "from": f"{base}#{source}",
        "to": [f"{base}#{target}" for target in targets],
    }


def _element(base: str, kind: str, name: str) -> dict[str, Json]:
    return {"type": kind, "spdxId": f"{base}#{name}", "creationInfo": _CREATION}


def _pairs(values: dict[str, Json]) -> list[Json]:
    return [{"type": "DictionaryEntry", "key": key, "value": spelled(value)} for key, value in sorted(values.items())]


def _utc(text: str) -> str:
    """Whole seconds in UTC with a Z, the only spelling that SPDX has."""
    return moment(text).strftime(_TIME)
