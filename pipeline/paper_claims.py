"""What the papers of a bundle (model card, CycloneDX bill of materials, SPDX document) say about privacy, and that it is true.

The papers are read by other people's tools, which check no signature; so their figures are the ones that get copied. The
writers (`pipeline.card`, `pipeline.bom`, `pipeline.spdx`) and the verifier share the figures below.
Guarantee: each privacy figure, each figure of utility and each digest in the three papers is the one of the mechanism trace,
the published bounds, the stage results and the list of evidence; no field, part or metric stands beside those of our writers;
the card states the privacy loss of the trace. Not covered: the words around them (descriptions, further sentences of the card),
which the root and the signatures cover and nobody recomputes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pipeline.evidence import EVIDENCE_FILES, MODEL_FILE
from privacy.accounting import MechanismTrace, privacy_statement, recompute_epsilon
from privacy.canonical import Digest, Json, Scalar, canonical_json, digest_of, parse_json
from privacy.errors import IntegrityError
from privacy.rounding import shown_up

if TYPE_CHECKING:
    from pipeline.claims import Evidence

CARD, BOM, SPDX = "CARD.md", "bom.cdx.json", "spdx.json"
BOM_FILES: Final = tuple(path for path in EVIDENCE_FILES if path not in (BOM, SPDX))  # neither can hold the other's digest
VERIFY: Final = "privet verify BUNDLE --trust trust.json"
UTILITY: Final = "utility: "  # metrics of this kind are those of the stage results, and no privacy figures
PROPERTIES: Final = tuple(f"privet:{name}" for name in ("policy", "verify", "licence", "pretrained", "pretrained_sha256"))
_FIELD = re.compile(r"[a-z][a-z0-9_-]*")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")
# All fields that our writers write, where a further one could claim something.
_HEAD: Final = "language library_name pipeline_tag tags model-index model_sha256 dataset privacy"
_BOM: Final[Mapping[tuple[str, ...], str]] = {
    (): "bomFormat specVersion serialNumber version metadata components dependencies",
    ("metadata",): "timestamp tools component",
    ("metadata", "component"): "type bom-ref name version description supplier hashes externalReferences modelCard properties",
    ("metadata", "component", "modelCard"): "modelParameters quantitativeAnalysis considerations",
    ("metadata", "component", "modelCard", "modelParameters"): (
        "approach task architectureFamily modelArchitecture datasets inputs outputs"
    ),
    ("metadata", "component", "modelCard", "quantitativeAnalysis"): "performanceMetrics",
    ("metadata", "component", "modelCard", "considerations"): (
        "useCases technicalLimitations performanceTradeoffs ethicalConsiderations"
    ),
}
_PART: Final = "type bom-ref name version purl licenses"
_ELEMENTS: Final = (
    "CreationInfo SpdxDocument Organization Tool ai_AIPackage dataset_DatasetPackage software_Package Relationship"
)
_PACKAGE: Final = (
    "type spdxId creationInfo name description software_packageVersion software_downloadLocation software_primaryPurpose "
    "suppliedBy releaseTime builtTime verifiedUsing ai_typeOfModel ai_domain ai_informationAboutApplication "
    "ai_informationAboutTraining ai_limitation ai_modelDataPreprocessing ai_hyperparameter ai_metric "
    "ai_useSensitivePersonalInformation"
)
_EMPTY: Final[Mapping[str, Json]] = {}


def figures_of(trace: MechanismTrace | None, bounds: Json) -> dict[str, Json]:
    """The privacy figures that papers repeat. bounds: the value of audit/bounds.json."""
    if trace is None:
        return {"mechanism": "none"}
    listed = bounds.get("bounds") if isinstance(bounds, Mapping) else None
    known: list[Json] = [
        {name: bound.get(name) for name in ("name", "level", "epsilon_lower_bound")}
        for bound in (listed if isinstance(listed, list) else [])
        if isinstance(bound, Mapping)
    ]
    return {
        "mechanism": trace.mechanism,
        "epsilon": float(trace.epsilon),
        "delta": float(trace.delta),
        "privacy_unit": trace.privacy_unit,
        "adjacency": trace.neighbouring_relation,
        "max_records_per_unit": trace.max_records_per_unit,
        "clipping_norm": float(trace.clipping_norm),
        "noise_multiplier": float(trace.noise_multiplier),
        **({"noise_schedule": [list(part) for part in trace.noise_schedule]} if trace.noise_schedule else {}),
        "sampling_probability": float(trace.sampling_probability),
        "steps": trace.steps,
        "accountant": trace.accountant,
        "lower_bounds": known,
    }


def spelled(value: Json) -> str:
    """A figure as papers whose values are strings spell it: text as it is, the rest as canonical JSON."""
    return value if isinstance(value, str) else canonical_json(value).decode()


def bom_metrics(figures: Mapping[str, Json]) -> list[Json]:
    """CycloneDX `performanceMetrics`: the schema knows no field for privacy, and allows any type of metric."""
    about = f"per {figures.get('privacy_unit')}, {figures.get('adjacency')}"
    found: list[Json] = [
        {"type": f"differential privacy: {name}", "value": spelled(value), "slice": about}
        for name, value in sorted(figures.items())
        if name != "lower_bounds"
    ]
    for bound in _bounds(figures):
        low, level = spelled(bound["epsilon_lower_bound"]), spelled(bound["level"])
        found.append(
            {
                "type": f"audit: epsilon lower bound ({spelled(bound['name'])})",
                "value": low,
                "slice": f"at confidence {level}",
                "confidenceInterval": {"lowerBound": low},
            }
        )
    return found


def spdx_metrics(figures: Mapping[str, Json]) -> list[Json]:
    """SPDX `ai_metric`: a list of pairs."""
    pairs = [(f"differential privacy: {name}", spelled(value)) for name, value in figures.items() if name != "lower_bounds"]
    pairs += [
        (
            f"audit: epsilon lower bound ({spelled(bound['name'])} at confidence {spelled(bound['level'])})",
            spelled(bound["epsilon_lower_bound"]),
        )
        for bound in _bounds(figures)
    ]
    return [{"type": "DictionaryEntry", "key": key, "value": value} for key, value in sorted(pairs)]


def utility_of(facts: Mapping[str, Json]) -> dict[str, Scalar]:
    """Exact figures over units kept out of training, outside the privacy claim. facts: `stage.fact` → value."""
    known = {k: v for k, v in facts.items() if "accuracy" in k or "majority" in k}
    return {k: v for k, v in sorted(known.items()) if isinstance(v, int | float) and not isinstance(v, bool)}


def bom_utility(utility: Mapping[str, Scalar]) -> list[Json]:
    about = "units kept out of training; exact, outside the claim"
    return [{"type": f"{UTILITY}{name}", "value": spelled(value), "slice": about} for name, value in utility.items()]


def spdx_utility(utility: Mapping[str, Scalar]) -> list[Json]:
    pairs = sorted((f"{UTILITY}{name}", spelled(value)) for name, value in utility.items())
    return [{"type": "DictionaryEntry", "key": key, "value": value} for key, value in pairs]


def card_utility(utility: Mapping[str, Scalar]) -> list[Json]:
    return [
        {"type": "accuracy", "name": name, "value": value}
        for name, value in utility.items()
        if name.endswith("accuracy") and "majority" not in name
    ]


def plain_markdown(text: str) -> str:
    """On one line, with nothing in it that Markdown takes for markup."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def check_papers(evidence: Evidence) -> str:
    """Raises IntegrityError E-CLAIM-024 (card), E-CLAIM-025 (bill of materials), E-CLAIM-026 (SPDX)."""
    view = evidence.view
    figures = figures_of(evidence.trace(), view.json("audit/bounds.json"))
    digests = {path: view.files[path].sha256 for path in BOM_FILES}
    utility = utility_of(_facts(evidence.manifests))
    _check_card(read_head(view.texts[CARD]), figures, utility, digests[MODEL_FILE])
    if not any(plain_markdown(said) in view.texts[CARD].decode() for said in statements(evidence.trace())):
        raise _broken("E-CLAIM-024", f"{CARD} does not state the privacy loss of the mechanism trace")
    _check_bom(view.json(BOM), figures, utility, digests)
    _check_spdx(view.json(SPDX), figures, utility, digests[MODEL_FILE])
    return f"card, bill of materials and SPDX document repeat the trace, the published bounds and {len(digests)} digests"


def spellings(trace: MechanismTrace) -> tuple[str, str]:
    """Epsilon as the writer computed it, and as this machine does: two may land on neighbouring steps of one grid."""
    return shown_up(trace.epsilon), shown_up(recompute_epsilon(trace))


def statements(trace: MechanismTrace) -> tuple[str, str]:
    """The privacy statement in either spelling."""
    text, (theirs, ours) = privacy_statement(trace), spellings(trace)
    return text, text.replace(f"epsilon {ours}", f"epsilon {theirs}").replace(f"e^{ours}", f"e^{theirs}")


def _facts(manifests: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for stage, manifest in manifests.items():
        facts = manifest.get("facts")
        found |= {f"{stage}.{name}": value for name, value in facts.items()} if isinstance(facts, Mapping) else {}
    return found


def _closed(value: Json, fields: str, code: str, where: str) -> None:
    """A field that our writers don't write could claim what nobody compares."""
    if not isinstance(value, Mapping) or not set(value) <= set(fields.split()):
        raise _broken(code, f"{where} has a field that no release has")


def _check_card(head: Mapping[str, Json], figures: Mapping[str, Json], utility: Mapping[str, Scalar], model: Digest) -> None:
    _closed(head, _HEAD, "E-CLAIM-024", CARD)
    told = [_at(result, "metrics") for index in _list(head, "model-index") for result in _list(index, "results")]
    if digest_of(told) != digest_of([card_utility(utility)] if card_utility(utility) else []):
        raise _broken("E-CLAIM-024", f"{CARD} gives other figures of utility than the stage results")
    if head.get("model_sha256") != model or digest_of(head.get("privacy")) != digest_of({**figures, "verify": VERIFY}):
        raise _broken("E-CLAIM-024", f"{CARD} names another model or other privacy figures than the evidence")


def _check_bom(bom: Json, figures: Mapping[str, Json], utility: Mapping[str, Scalar], digests: Mapping[str, Digest]) -> None:
    component = _at(bom, "metadata", "component")
    for path, fields in _BOM.items():
        _closed(_at(bom, *path), fields, "E-CLAIM-025", BOM)
    for part in _list(bom, "components"):
        _closed(part, _PART, "E-CLAIM-025", BOM)
    names = [_at(one, "name") for one in _list(component, "properties")]
    if any(_at(part, "type") != "library" for part in _list(bom, "components")) or names != [*PROPERTIES]:
        raise _broken("E-CLAIM-025", f"{BOM} lists something beside the model, its libraries and its properties")
    metrics = _list(_at(component, "modelCard", "quantitativeAnalysis"), "performanceMetrics")
    wanted = [*bom_metrics(figures), *bom_utility(utility)]
    if digest_of([_at(component, "hashes"), metrics]) != digest_of([hashes(digests[MODEL_FILE]), wanted]):
        raise _broken("E-CLAIM-025", f"{BOM} names another model or other privacy figures than the evidence")
    told: list[Json] = [[_at(ref, "url"), _at(ref, "hashes")] for ref in _list(component, "externalReferences")]
    if digest_of(told) != digest_of([[f"./{path}", hashes(digest)] for path, digest in sorted(digests.items())]):
        raise _broken("E-CLAIM-025", f"{BOM} gives another digest than the evidence for a file, or leaves one out")


def _check_spdx(spdx: Json, figures: Mapping[str, Json], utility: Mapping[str, Scalar], model: Digest) -> None:
    _closed(spdx, "@context @graph", "E-CLAIM-026", SPDX)
    packages = [element for element in _list(spdx, "@graph") if _at(element, "type") == "ai_AIPackage"]
    said: list[Json] = []
    for package in packages:
        _closed(package, _PACKAGE, "E-CLAIM-026", SPDX)
        said.append([_at(package, "verifiedUsing"), _list(package, "ai_metric")])
    wanted: list[Json] = [*spdx_metrics(figures), *spdx_utility(utility)]
    if any(_at(e, "type") not in _ELEMENTS.split() for e in _list(spdx, "@graph")):
        raise _broken("E-CLAIM-026", f"{SPDX} holds an element that no release has")
    if digest_of(said) != digest_of([[spdx_hashes(model), wanted]]):
        raise _broken("E-CLAIM-026", f"{SPDX} names another model or other privacy figures than the evidence")


def hashes(digest: Digest) -> list[Json]:
    return [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}]


def spdx_hashes(digest: Digest) -> list[Json]:
    return [{"type": "Hash", "algorithm": "sha256", "hashValue": digest.removeprefix("sha256:")}]


def read_head(card: bytes) -> dict[str, Json]:
    """The fields of a model card's YAML head, as our writer spells them: `key: JSON`, and blocks of these indented by two.

    Raises IntegrityError E-CLAIM-024 for anything else. It reads no YAML but its own.
    """
    try:
        begin, head, _ = card.decode().split("---\n", 2)
        if begin:
            raise ValueError
        found: dict[str, Json] = {}
        block: dict[str, Json] | None = None
        for line in head.rstrip("\n").split("\n"):
            name, _, text = line.strip().partition(":")
            place = block if line.startswith("  ") and block is not None else found
            if name in place or not _FIELD.fullmatch(name):
                raise ValueError
            place[name] = parse_json(text.encode()) if text else None
            if not text:
                block = {}
                found[name] = block
    except (ValueError, IntegrityError):
        raise _broken("E-CLAIM-024", f"{CARD} has no head that can be read") from None
    return found


def _bounds(figures: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    listed = figures.get("lower_bounds")
    return [bound for bound in (listed if isinstance(listed, list) else []) if isinstance(bound, Mapping)]


def _at(value: Json, *path: str) -> Json:
    for name in path:
        value = (value if isinstance(value, Mapping) else _EMPTY).get(name)
    return value


def _list(value: Json, name: str) -> list[Json]:
    found = _at(value, name)
    return found if isinstance(found, list) else []


def _broken(code: str, cause: str) -> IntegrityError:
    return IntegrityError(code, cause, "Get the bundle again from its source; if it stays so, it was altered")
