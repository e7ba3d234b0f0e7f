"""`privet compress` on a real home: candidates stay sealed until their parent was released and the quorum signed for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from pipeline import read as read_module
from pipeline.approve import sign_request
from pipeline.compress import STATEMENT_FILE, compress, hand_out, read_table, request_candidate
from pipeline.home import DEMO_PEOPLE
from pipeline.stage import StageResult
from pipeline.train import train
from privacy.canonical import digest_bytes
from privacy.errors import EnvironmentFault, GateClosed, IntegrityError, UsageError
from privacy.revocation import Revocation
from privacy.signing import open_envelope
from tests.pipeline.test_search import FAST, write_public
from tests.pipeline.training_world import TrainingWorld
from training import compress as compress_module

BLOCK: dict[str, object] = {
    "methods": ["int8_weights", "prune"],
    "exports": ["safetensors"],
    "public": {"path": "public.jsonl", "origin": "made up for this test"},
}
ROOT = "sha256:" + "7" * 64
AUDIT = "sha256:" + "6" * 64


class Trained:
    """One training for all tests of this module; each test looks at a candidate made from it."""

    def __init__(self, path: Path) -> None:
        write_public(path)
        self.path = path
        self.world = TrainingWorld(path, **{**FAST, "compress": BLOCK})
        self.train = train(self.world.ctx, self.world.protect.digest, self.world.approve())

    def candidate(self) -> StageResult:
        return compress(self.world.ctx, self.train.digest, self.path)

    def release_the_parent(self) -> None:
        facts = {"run": "run-1", "evidence_root": ROOT, "manifests": {"train": self.train.digest, "audit": AUDIT}}
        self.world.home.journal.append("release", facts)  # type: ignore[arg-type]

    def sign(self, result: StageResult, decision: str = "approve") -> None:
        request = request_candidate(self.world.ctx, result)
        for role in request.quorum:
            name = next(name for name, roles in DEMO_PEOPLE.items() if role in roles)
            key = self.world.home.identity(name)
            sign_request(self.world.home, request, name, role, decision, "fits", key, self.world.ctx.clock())  # type: ignore[arg-type]


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(tmp_path)


def test_candidates_are_sealed_and_their_evidence_names_the_parent(trained: Trained) -> None:
    result = trained.candidate()
    table = read_table(trained.world.ctx, result)
    store = trained.world.home.store
    assert result.manifest.inputs == {"train": trained.train.digest}
    assert table["parent"] == trained.train.digest
    assert table["parent_epsilon"] == trained.train.manifest.facts["epsilon"]
    assert [row["method"] for row in table["rows"]] == ["int8_weights", "prune"]  # type: ignore[union-attr, index, call-overload]
    assert table["inputs"]["origin"] == "public"  # type: ignore[index, call-overload]
    for name, listed in table["files"].items():  # type: ignore[union-attr]
        ref = result.manifest.outputs[name]
        assert ref.sealed
        assert (ref.data_class, ref.version) == ("model", trained.train.manifest.facts["ledger_key"])
        assert digest_bytes(store.read_sealed(ref)) == listed["sha256"]
    parent = load(store.read_sealed(trained.train.manifest.outputs["model"]))
    small = load(store.read_sealed(result.manifest.outputs["prune.safetensors"]))
    kept = small["embedding.weight"] != 0
    assert torch.equal(small["embedding.weight"][kept], parent["embedding.weight"][kept])
    assert trained.candidate().reused


def test_no_private_unit_is_looked_at_before_the_files_are_made_and_nothing_is_charged(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit of a file reads private units, as its parent's did; making it must not."""
    seen: list[str] = []
    made, read = compress_module.compress, read_module.read_protected

    def noted(what: str, call: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object) -> object:
            seen.append(f"{what} begins")
            found = call(*args)
            seen.append(f"{what} ends")
            return found

        return run

    monkeypatch.setattr(compress_module, "compress", noted("making", made))
    monkeypatch.setattr(read_module, "read_protected", noted("reading", read))
    ledger = trained.world.home.ledger
    before = {scope: ledger.spends(scope) for scope in ledger.scopes()}
    trained.candidate()
    assert seen[:2] == ["making begins", "making ends"]
    assert "reading begins" in seen[2:]
    assert "making begins" not in seen[2:]
    assert {scope: ledger.spends(scope) for scope in ledger.scopes()} == before


def test_nothing_leaves_before_the_parent_and_without_signatures_of_its_own(trained: Trained) -> None:
    result, out = trained.candidate(), trained.path / "out"
    with pytest.raises(GateClosed, match="E-COMPRESS-009"):
        request_candidate(trained.world.ctx, result)
    with pytest.raises(GateClosed, match="E-COMPRESS-009"):
        hand_out(trained.world.ctx, result, out)
    trained.release_the_parent()
    with pytest.raises(GateClosed, match="E-COMPRESS-010"):
        hand_out(trained.world.ctx, result, out)
    assert not out.exists()
    trained.sign(result)
    paths = hand_out(trained.world.ctx, result, out)
    table = read_table(trained.world.ctx, result)
    names = {*table["files"], *(f"{name}.audit.json" for name in table["files"])}  # type: ignore[misc, union-attr]
    assert {path.name for path in paths} == {*names, STATEMENT_FILE}
    signed = open_envelope((out / STATEMENT_FILE).read_bytes(), trained.world.home.trust)
    assert signed.subject == {name: digest_bytes((out / name).read_bytes()) for name in names}
    assert signed.predicate["parent_release"] == ROOT
    assert signed.predicate["parent_conformance"]["audit"] == AUDIT  # type: ignore[index, call-overload]
    (entry,) = [e for e in trained.world.home.journal.entries() if e.kind == "compressed_release"]
    assert entry.facts["statement"] == digest_bytes((out / STATEMENT_FILE).read_bytes())
    with pytest.raises(EnvironmentFault, match="E-COMPRESS-011"):
        hand_out(trained.world.ctx, result, out)


def test_signatures_for_one_release_of_the_parent_do_not_serve_another(trained: Trained) -> None:
    result = trained.candidate()
    trained.release_the_parent()
    trained.sign(result)
    facts = {"run": "run-9", "evidence_root": "sha256:" + "8" * 64, "manifests": {"train": trained.train.digest}}
    trained.world.home.journal.append("release", facts)  # type: ignore[arg-type]
    with pytest.raises(GateClosed, match="E-COMPRESS-010"):
        hand_out(trained.world.ctx, result, trained.path / "out")


@pytest.mark.parametrize("by", ["release", "model"])
def test_nothing_leaves_of_a_model_that_was_taken_back(trained: Trained, by: str) -> None:
    result = trained.candidate()
    trained.release_the_parent()
    trained.sign(result)
    model = trained.world.home.store.read_sealed(trained.train.manifest.outputs["model"])
    root = ROOT if by == "release" else "sha256:" + "5" * 64
    taken_back = Revocation(root, digest_bytes(model) if by == "model" else None, trained.world.ctx.clock(), "withdrawn")
    trained.world.home.journal.append("revocation", taken_back.to_json())
    for leave in (lambda: hand_out(trained.world.ctx, result, trained.path / "out"), lambda: trained.sign(result)):
        with pytest.raises(GateClosed, match="E-REVOKE-003"):
            leave()
    assert not (trained.path / "out").exists()


def test_a_rejection_is_final_and_the_requester_signs_for_nothing(trained: Trained) -> None:
    result = trained.candidate()
    trained.release_the_parent()
    trained.sign(result)
    own = trained.world.context(requested_by="demo_steward")
    with pytest.raises(GateClosed, match="E-COMPRESS-010"):
        hand_out(own, result, trained.path / "own")
    trained.sign(result, "reject")
    with pytest.raises(GateClosed, match="E-GATE-012"):
        hand_out(trained.world.ctx, result, trained.path / "out")


def test_what_is_no_model_of_this_policy_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="E-COMPRESS-007"):
        compress(trained.world.ctx, trained.world.protect.digest, tmp_path)
    other = TrainingWorld(tmp_path / "other", **{**FAST, "compress": {"methods": ["prune"]}})
    with pytest.raises(IntegrityError, match="E-COMPRESS-007"):
        compress(
            trained.world.context(policy=other.ctx.policy, policy_digest=other.ctx.policy_digest),
            trained.train.digest,
            tmp_path,
        )
    bare = TrainingWorld(tmp_path / "bare", **FAST)
    with pytest.raises(UsageError, match="E-COMPRESS-006"):
        compress(bare.ctx, trained.train.digest, tmp_path)


def test_a_training_is_tracked_with_aggregates_alone(tmp_path: Path) -> None:
    write_public(tmp_path)
    public = {"path": str(tmp_path / "public.jsonl"), "origin": "made up for this test"}
    said: list[str] = []
    world = TrainingWorld(tmp_path, **{**FAST, "tracking": {"to": ["jsonl"], "loss": "public", "public": public}})
    ctx = world.context(progress=lambda what, done, total: said.append(what))
    result = train(ctx, world.protect.digest, world.approve())
    (file,) = (world.home.path / "tracking" / "jsonl").glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows[0]["steps"] == 10
    assert [row["step"] for row in rows[1:]] == list(range(1, 11))
    epsilons = [row["epsilon_so_far"] for row in rows[1:]]
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] == pytest.approx(result.manifest.facts["epsilon"], abs=1e-6)
    assert all(row["public_loss"] > 0 for row in rows[3:])
    assert any(what.startswith("train, epsilon ") for what in said)
    data = file.read_bytes()
    assert not [word for word in (b"u0001", b"money", b"PERSON", b'norm": [', b"batch_size", b"accuracy") if word in data]
