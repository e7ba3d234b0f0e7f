"""What the papers of a bundle (model card, CycloneDX bill of materials, SPDX document) say about privacy, and that it is true.

The papers are read by other people's tools, which check no signature; so their figures are the ones that get copied. The
writers (`pipeline.card`, `pipeline.bom`, `pipeline.spdx`) and the verifier share the figures below.
Guarantee: each privacy figure and each digest in the three papers is the one of the mechanism trace, the published bounds and
the list of evidence. Not covered: the words around them, which the root and the signatures cover and nobody recomputes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pipeline.evidence import EVIDENCE_FILES, MODEL_FILE
from privacy.accounting import MechanismTrace
from privacy.canonical import Digest, Json, canonical_json, digest_of, parse_json
from privacy.errors import IntegrityError

if TYPE_CHECKING:
    from pipeline.claims import Evidence

CARD, BOM, SPDX = "CARD.md", "bom.cdx.json", "spdx.json"
BOM_FILES: Final = tuple(path for path in EVIDENCE_FILES if path not in (BOM, SPDX))  # neither can hold the other's digest
VERIFY: Final = "privet verify BUNDLE --trust trust.json"
UTILITY: Final = "utility: "  # metrics of this kind are not privacy figures
_FIELD = re.compile(r"[a-z][a-z0-9_-]*")
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


def check_papers(evidence: Evidence) -> str:
    """Raises IntegrityError E-CLAIM-024 (card), E-CLAIM-025 (bill of materials), E-CLAIM-026 (SPDX)."""
    view = evidence.view
    figures = figures_of(evidence.trace(), view.json("audit/bounds.json"))
    digests = {path: view.files[path].sha256 for path in BOM_FILES}
    _check_card(read_head(view.texts[CARD]), figures, digests[MODEL_FILE])
    _check_bom(view.json(BOM), figures, digests)
    _check_spdx(view.json(SPDX), figures, digests[MODEL_FILE])
    return f"card, bill of materials and SPDX document repeat the trace, the published bounds and {len(digests)} digests"


def _check_card(head: Mapping[str, Json], figures: Mapping[str, Json], model: Digest) -> None:
    if head.get("model_sha256") != model or digest_of(head.get("privacy")) != digest_of({**figures, "verify": VERIFY}):
        raise _broken("E-CLAIM-024", f"{CARD} names another model or other privacy figures than the evidence")


def _check_bom(bom: Json, figures: Mapping[str, Json], digests: Mapping[str, Digest]) -> None:
    component = _at(bom, "metadata", "component")
    metrics = _list(_at(component, "modelCard", "quantitativeAnalysis"), "performanceMetrics")
    own = [metric for metric in metrics if not str(_at(metric, "type")).startswith(UTILITY)]
    if digest_of([_at(component, "hashes"), own]) != digest_of([hashes(digests[MODEL_FILE]), bom_metrics(figures)]):
        raise _broken("E-CLAIM-025", f"{BOM} names another model or other privacy figures than the evidence")
    told: list[Json] = [[_at(ref, "url"), _at(ref, "hashes")] for ref in _list(component, "externalReferences")]
    if digest_of(told) != digest_of([[f"./{path}", hashes(digest)] for path, digest in sorted(digests.items())]):
        raise _broken("E-CLAIM-025", f"{BOM} gives another digest than the evidence for a file, or leaves one out")


def _check_spdx(spdx: Json, figures: Mapping[str, Json], model: Digest) -> None:
    packages = [element for element in _list(spdx, "@graph") if _at(element, "type") == "ai_AIPackage"]
    said: list[Json] = []
    for package in packages:
        own = [metric for metric in _list(package, "ai_metric") if not str(_at(metric, "key")).startswith(UTILITY)]
        said.append([_at(package, "verifiedUsing"), own])
    if digest_of(said) != digest_of([[spdx_hashes(model), spdx_metrics(figures)]]):
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
