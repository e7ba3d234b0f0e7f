"""The papers of a bundle by the libraries that other people read them with, and the verifier's own reading of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import example, given
from hypothesis import strategies as st
from spdx_python_model import v3_0_1 as spdx

from pipeline import assemble as assembling
from pipeline.bom import bill_of_materials
from pipeline.card import _flow, model_card
from pipeline.evidence import EVIDENCE_FILES
from pipeline.paper_claims import BOM_FILES, VERIFY, bom_metrics, figures_of, read_head, spdx_metrics
from pipeline.paper_facts import Library, ReleaseFacts, libraries
from pipeline.spdx import spdx_document
from privacy.canonical import parse_canonical
from privacy.errors import IntegrityError
from tests.worlds.release_world import MODEL, World
from tests.worlds.traces import trace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, ReleaseFacts, Path]:
    """A released world, and the facts that its papers were written from."""
    kept: list[ReleaseFacts] = []
    patched = pytest.MonkeyPatch()
    patched.setattr(assembling, "spdx_document", lambda about: kept.append(about) or spdx_document(about))
    try:
        world = World(tmp_path_factory.mktemp("world")).run().sign_quorum()
    finally:
        patched.undo()
    return world, kept[0], world.release().path


@pytest.fixture
def facts(made: tuple[World, ReleaseFacts, Path]) -> ReleaseFacts:
    return made[1]


@pytest.fixture
def bundle(made: tuple[World, ReleaseFacts, Path]) -> Path:
    return made[2]


def test_the_same_facts_give_the_same_bytes(facts: ReleaseFacts, bundle: Path) -> None:
    written = {
        "CARD.md": model_card(facts).encode(),
        "bom.cdx.json": bill_of_materials(facts),
        "spdx.json": spdx_document(facts),
    }
    shuffled = replace(facts, libraries=tuple(reversed(facts.libraries)), files=dict(reversed(list(facts.files.items()))))
    for name, data in written.items():
        assert (bundle / name).read_bytes() == data, name
    assert bill_of_materials(shuffled) == written["bom.cdx.json"]
    assert spdx_document(shuffled) == written["spdx.json"]


# The model card, as a hub reads it.


def test_the_card_is_a_hugging_face_model_card(facts: ReleaseFacts, bundle: Path) -> None:
    card = ModelCard((bundle / "CARD.md").read_text(), ignore_metadata_errors=False)
    data = card.data
    assert isinstance(data, ModelCardData)
    assert (data.language, data.library_name, data.pipeline_tag) == (["en", "zh"], "pytorch", "text-classification")
    assert data.model_name == "test_chat"
    assert [(r.task_type, r.metric_type, r.metric_value) for r in data.eval_results] == [
        ("text-classification", "accuracy", 0.81)
    ]
    privacy = data.to_dict()["privacy"]
    assert facts.trace is not None
    assert privacy["epsilon"] == facts.trace.epsilon
    assert (privacy["delta"], privacy["privacy_unit"], privacy["adjacency"]) == (1e-4, "customer", "add-or-remove-one")
    assert {b["name"]: b["epsilon_lower_bound"] for b in privacy["lower_bounds"] if b["level"] == 0.95} == {
        "fdp": 0.9,
        "gaussian": 1.7,
    }
    assert privacy["verify"] == VERIFY
    assert ModelCard(str(card)).data.to_dict() == data.to_dict()


def test_a_small_delta_is_a_number_for_every_reader_of_yaml(facts: ReleaseFacts) -> None:
    """YAML 1.1 takes 1e-05 for a word, and so would the hub."""
    assert yaml.safe_load("1e-05") == "1e-05"
    tiny = trace(delta=1e-7, epsilon=3e-05)
    card = model_card(replace(facts, trace=tiny))
    head = ModelCard(card).data.to_dict()["privacy"]
    assert (head["delta"], head["epsilon"]) == (1e-7, 3e-05)
    assert read_head(card.encode())["privacy"]["delta"] == 1e-7  # type: ignore[index, call-overload]


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(max_codepoint=0xD7FF), max_size=20)


NESTED = st.recursive(plain | words, lambda v: st.lists(v, max_size=4) | st.dictionaries(words, v, max_size=4), max_leaves=8)


@given(value=NESTED)
@example(value="\x7f\x85\u2028\ufeff# - ? :")
def test_what_is_written_in_the_head_is_the_same_in_json_and_in_yaml(value: object) -> None:
    text = _flow(value)  # type: ignore[arg-type]
    assert json.loads(text) == value
    assert yaml.safe_load(f"key: {text}") == {"key": value}


def test_the_verifiers_reading_of_the_head_is_yamls(bundle: Path) -> None:
    data = (bundle / "CARD.md").read_bytes()
    assert read_head(data) == yaml.safe_load(data.decode().split("---\n")[1])


@pytest.mark.parametrize(
    "head",
    [
        "",
        "no head at all",
        "---\nepsilon: 1\n",
        "---\nepsilon: 1\nepsilon: 2\n---\n",
        "---\nepsilon: .inf\n---\n",
        "---\nepsilon: NaN\n---\n",
        "---\n? epsilon\n---\n",
        "---\nprivacy:\n  epsilon: 1\n  epsilon: 2\n---\n",
        "---\nprivacy:\n  epsilon: 1\nprivacy:\n  epsilon: 2\n---\n",
        '---\nprivacy: {"epsilon": 1, "epsilon": 2}\n---\n',
        "---\nprivacy: &a 1\n---\n",
        "\n---\nepsilon: 1\n---\n",
    ],
)
def test_a_head_that_is_not_ours_is_refused(head: str) -> None:
    with pytest.raises(IntegrityError, match="E-CLAIM-024"):
        read_head(head.encode())


# CycloneDX.


def strictly(data: bytes, version: SchemaVersion = SchemaVersion.V1_6) -> object:
    return JsonStrictValidator(version).validate_str(data.decode())


def test_the_bill_of_materials_passes_the_strict_schema_of_cyclonedx(bundle: Path) -> None:
    data = (bundle / "bom.cdx.json").read_bytes()
    assert strictly(data) is None
    assert strictly(data.replace(b'"specVersion":"1.6"', b'"specVersion":"1.7"'), SchemaVersion.V1_7) is None


def test_the_strict_schema_would_say_no(bundle: Path) -> None:
    """Or the test above could not fail."""
    bom = json.loads((bundle / "bom.cdx.json").read_bytes())
    bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["privacy"] = {"epsilon": 8}
    assert strictly(json.dumps(bom).encode()) is not None


def test_the_bill_of_materials_says_what_is_in_the_bundle(facts: ReleaseFacts, bundle: Path) -> None:
    import hashlib

    component = json.loads((bundle / "bom.cdx.json").read_bytes())["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert component["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(MODEL).hexdigest()}]
    told = {r["url"].removeprefix("./"): r["hashes"][0]["content"] for r in component["externalReferences"]}
    assert set(told) == set(BOM_FILES) == set(EVIDENCE_FILES) - {"bom.cdx.json", "spdx.json"}
    assert all(hashlib.sha256((bundle / path).read_bytes()).hexdigest() == digest for path, digest in told.items())
    card = component["modelCard"]
    metrics = {m["type"]: m["value"] for m in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert facts.trace is not None
    assert float(metrics["differential privacy: epsilon"]) == facts.trace.epsilon
    assert metrics["utility: train.holdout_accuracy"] == "0.81"
    assert card["modelParameters"]["datasets"][0]["name"] == "test_chat"
    assert len(card["considerations"]["ethicalConsiderations"]) == len(facts.verdicts) > 10


def test_libraries_have_their_versions_and_licences(facts: ReleaseFacts, bundle: Path) -> None:
    from importlib.metadata import version

    parts = {c["name"]: c for c in json.loads((bundle / "bom.cdx.json").read_bytes())["components"]}
    assert {"numpy", "cryptography", "opacus", "torch"} <= set(parts)
    assert all(part["version"] == version(name) for name, part in parts.items())
    assert parts["numpy"]["licenses"][0]["expression"]
    assert libraries() == facts.libraries
    odd = replace(facts, libraries=(Library("torch", "2.13.0+cpu", "BSD-3-Clause"), Library("nothing", "1")))
    assert strictly(bill_of_materials(odd)) is None


# SPDX.


def read_spdx(data: bytes) -> spdx.SHACLObjectSet:
    import io

    found = spdx.SHACLObjectSet()
    spdx.JSONLDDeserializer().read(io.BytesIO(data), found)
    return found


def test_the_spdx_document_is_one_for_the_reference_model(facts: ReleaseFacts, bundle: Path) -> None:
    found = read_spdx((bundle / "spdx.json").read_bytes())
    (model,) = found.foreach_type(spdx.ai_AIPackage)
    (dataset,) = found.foreach_type(spdx.dataset_DatasetPackage)
    (document,) = found.foreach_type(spdx.SpdxDocument)
    metrics = {entry.key: entry.value for entry in model.ai_metric}
    assert facts.trace is not None
    assert float(metrics["differential privacy: epsilon"]) == facts.trace.epsilon
    assert metrics["audit: epsilon lower bound (gaussian at confidence 0.95)"] == "1.7"
    assert model.verifiedUsing[0].hashValue == facts.model.sha256.removeprefix("sha256:")
    assert model.ai_useSensitivePersonalInformation == spdx.PresenceType.yes
    assert dataset.dataset_hasSensitivePersonalInformation == spdx.PresenceType.yes
    assert dataset.dataset_confidentialityLevel == spdx.dataset_ConfidentialityLevelType.red
    assert len(dataset.dataset_anonymizationMethodUsed) == len(facts.policy.pii.entities) + 1
    assert dataset.dataset_datasetSize == 88
    assert list(document.rootElement) == [model]
    assert not found.missing_ids


# What the AI and dataset profiles of SPDX 3.0.1 require beside the core.
REQUIRED = {
    spdx.ai_AIPackage: (
        "suppliedBy",
        "releaseTime",
        "software_packageVersion",
        "software_downloadLocation",
        "software_primaryPurpose",
    ),
    spdx.dataset_DatasetPackage: (
        "originatedBy",
        "releaseTime",
        "builtTime",
        "software_downloadLocation",
        "software_primaryPurpose",
        "dataset_datasetType",
    ),
}


def test_the_spdx_document_has_what_its_profiles_require(bundle: Path) -> None:
    found = read_spdx((bundle / "spdx.json").read_bytes())
    for kind, names in REQUIRED.items():
        (element,) = found.foreach_type(kind)
        assert [name for name in names if not getattr(element, name)] == []
    kinds = {str(r.relationshipType).rsplit("/", 1)[-1] for r in found.foreach_type(spdx.Relationship)}
    assert {"hasDeclaredLicense", "hasConcludedLicense", "trainedOn", "dependsOn"} <= kinds
    parse_canonical((bundle / "spdx.json").read_bytes())


# The figures that all three share.


def test_without_a_mechanism_no_paper_claims_anything() -> None:
    figures = figures_of(None, {"bounds": []})
    assert figures == {"mechanism": "none"}
    assert [m["value"] for m in bom_metrics(figures)] == ["none"]  # type: ignore[index, call-overload]
    assert [m["value"] for m in spdx_metrics(figures)] == ["none"]  # type: ignore[index, call-overload]


@pytest.mark.parametrize("bounds", [None, [], {}, {"bounds": 7}, {"bounds": ["x", {"name": 3}]}])
def test_bounds_of_another_form_break_nothing(bounds: object) -> None:
    figures = figures_of(trace(), bounds)  # type: ignore[arg-type]
    assert len(bom_metrics(figures)) >= len(figures) - 1
    assert len(spdx_metrics(figures)) == len(bom_metrics(figures))
