"""Section 1 of the report: what this is about, byte for byte, who is behind it and which tools made it."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from pipeline.assemble import stream_digest
from pipeline.evidence import MODEL_FILE, is_pipeline
from pipeline.report_facts import Facts, fixed, measured, missing, not_applicable
from pipeline.report_page import Figure, Section
from pipeline.report_words import datum, say
from privacy.canonical import Digest
from privacy.signing import Person

_TOOLS = (
    "torch", "opacus", "numpy", "scipy", "cryptography", "presidio-analyzer", "great-expectations", "apache-airflow",
    "fairlearn", "safetensors",
)  # fmt: skip
_ROOT = Path(__file__).resolve().parent.parent


def identity(facts: Facts) -> Section:
    policy, ctx, digests = facts.policy, facts.ctx, facts.digests
    train = facts.manifests["train"]
    figures: list[Figure] = [
        facts.configured("policy", say("policy"), say("{name} (layout {version})", name=policy.name, version=policy.version)),
        measured("policy_digest", say("digest of the policy"), ctx.policy_digest, ctx.policy_digest),
        facts.asserted("purpose", say("purpose"), policy.purpose),
        facts.asserted("controller", say("controller"), policy.controller),
        facts.configured("dataset", say("dataset"), policy.dataset),
        measured("dataset_digest", say("digest of the protected dataset's result"), digests["protect"], digests["protect"]),
        _model(facts),
        measured("code_version", say("version of Privet that trained"), train.code_version, digests["train"]),
        measured("code_digest", say("digest of Privet's source files, when the report was made"), source_digest()),
        _lockfile(),
        Figure("run", say("run"), datum(ctx.run_id), "measured"),
        _dag(facts),
        *(
            measured(f"result_{stage}", say("result of the {stage} stage", stage=stage), m.created_at, digests[stage])
            for stage, m in facts.manifests.items()
        ),
        measured("tools", say("versions of the tools, when the report was made"), ", ".join(_versions())),
        Figure("requested_by", say("requested by"), datum(ctx.requested_by), "asserted by a person"),
        *(_holder(person) for person in ctx.home.trust.people),
        measured("trust", say("digest of the trust root"), ctx.home.trust.digest, ctx.home.trust.digest),
        fixed(
            "time_source",
            say("time source"),
            say("the clock of the machine that ran the stages; the journal keeps the order, whatever the clock says"),
        ),
    ]
    return Section("identity", say("Identity"), (), tuple(figures))


def _model(facts: Facts) -> Figure:
    label = say("digest of the released weights (model.safetensors)")
    ref = facts.manifests["train"].outputs.get("model")
    if ref is None:
        return missing("model_digest", label, say("the training left no model"))
    return measured("model_digest", label, stream_digest(facts.ctx, ref, MODEL_FILE).sha256, facts.digests["train"])


def _holder(person: Person) -> Figure:
    if is_pipeline(person):
        held = say("held by the pipeline, in its home")
    elif person.custody == "demo":
        held = say("of a demo identity, beside the pipeline's")
    else:
        held = say("held by the person")
    value = say("roles: {roles}; key {held}", roles=", ".join(person.roles), held=held)
    return Figure(f"holder_{person.name}", say("key holder {name}", name=person.name), value, "asserted by a person")


def _dag(facts: Facts) -> Figure:
    label = say("Airflow DAG")
    found = os.environ.get("AIRFLOW_CTX_DAG_ID")
    if found:
        return measured("dag", label, found)
    return not_applicable(
        "dag", label, say("the report was made outside an Airflow task, for policy {name}", name=facts.policy.name)
    )


def _lockfile() -> Figure:
    label = say("digest of the lock file of the dependencies")
    path = _ROOT / "requirements.lock"
    if not path.is_file():
        return missing("lockfile", label, say("this installation came without one"))
    return measured("lockfile", label, _digest_of([path]))


@lru_cache(maxsize=1)
def source_digest() -> Digest:
    """SHA-256 over names and bytes of the source files that this process runs from."""
    return _digest_of(sorted(p for top in ("privacy", "training", "pipeline", "dags") for p in (_ROOT / top).rglob("*.py")))


def _digest_of(paths: Sequence[Path]) -> Digest:
    hasher = hashlib.sha256()
    for path in paths:
        data = path.read_bytes()
        hasher.update(f"{path.relative_to(_ROOT).as_posix()}\0{len(data)}\0".encode())
        hasher.update(data)
    return "sha256:" + hasher.hexdigest()


@lru_cache(maxsize=1)
def _versions() -> tuple[str, ...]:
    found = [f"python {platform.python_version()}"]
    for name in _TOOLS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)
