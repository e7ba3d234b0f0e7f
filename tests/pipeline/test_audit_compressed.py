"""Each compressed file is audited by itself: what compression broke stays, what it did not break may leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pipeline import audit_compressed
from pipeline import compress as compressing
from pipeline.audit_case import AuditCase, Part, open_case
from pipeline.audit_compressed import OF_THE_RUN, RELOAD, Architecture, FileAudit, audit_files, needed_of_a_file, read_audit
from pipeline.audit_conformance import conformance
from pipeline.compress import compress, hand_out, read_table, request_candidate
from pipeline.evidence import required_verdicts
from pipeline.stage import StageResult
from pipeline.train import train
from privacy.canonical import canonical_json, digest_bytes
from privacy.errors import DataError, EnvironmentFault, GateClosed, IntegrityError, UsageError
from privacy.policy_training import Compress
from privacy.verdict import Verdict
from tests.pipeline.test_compress import BLOCK, Trained
from tests.pipeline.test_search import write_public
from tests.pipeline.training_world import SETTINGS, TrainingWorld
from training.compress import compress as make
from training.public import synthetic_inputs
from training.recipes import recipe_of


class Accurate(Trained):
    """A model that is worth something, and a policy that wants it to stay so."""

    def __init__(self, path: Path, **block: object) -> None:
        write_public(path)
        self.path = path
        # One weight left in each matrix tells at most one of three labels from the rest (.667): the floor lies above it.
        changes = {**SETTINGS, "audit": {"canaries": 120, "min_accuracy": 0.8}, "compress": {**BLOCK, **block}}
        self.world = TrainingWorld(path, **changes)
        self.train = train(self.world.ctx, self.world.protect.digest, self.world.approve())

    def case(self) -> AuditCase:
        return open_case(self.world.ctx, self.world.protect.digest, self.train.digest)


def files_in(world: Trained, result: StageResult) -> Mapping[str, Mapping[str, object]]:
    return read_table(world.world.ctx, result)["files"]  # type: ignore[return-value]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Accurate, StageResult]:
    """Pruning takes nearly every weight away; storing them as int8 takes nearly nothing."""
    world = Accurate(tmp_path_factory.mktemp("broken"), prune_share=0.999, exports=["safetensors", "onnx"])
    result = world.candidate()
    world.release_the_parent()
    return world, result


def test_a_method_that_breaks_the_model_is_held_back_and_another_leaves(
    broken: tuple[Accurate, StageResult], tmp_path: Path
) -> None:
    world, result = broken
    files = files_in(world, result)
    assert {name: file["may_leave"] for name, file in files.items()} == {
        "int8_weights.safetensors": True,
        "int8_weights.onnx": True,
        "prune.safetensors": False,
        "prune.onnx": False,
    }
    for name in ("prune.safetensors", "prune.onnx"):
        assert files[name]["verdicts"]["audit.utility"] == "failed"  # type: ignore[index]
    world.sign(result)
    shown = dict(request_candidate(world.world.ctx, result).shown)
    assert "stays here: audit.utility (failed)" in shown["prune.onnx"]
    assert "all of its own audits passed" in shown["int8_weights.onnx"]
    written = {path.name for path in hand_out(world.world.ctx, result, tmp_path / "out")}
    assert not [name for name in written if name.startswith("prune")]
    assert {"int8_weights.onnx", "int8_weights.onnx.audit.json", "int8_weights.safetensors"} <= written


def test_the_evidence_of_a_file_names_its_bytes_and_all_that_was_found(broken: tuple[Accurate, StageResult]) -> None:
    world, result = broken
    store = world.world.home.store
    for name, file in files_in(world, result).items():
        evidence = store.read_plain(result.manifest.outputs[f"audit/{name}"])
        assert file["audit"] == digest_bytes(evidence)
        found = json.loads(evidence)
        data = store.read_sealed(result.manifest.outputs[name])
        assert (found["file"], found["sha256"], found["bytes"]) == (name, digest_bytes(data), len(data))
        assert {"attacks", "redaction", "harm"} <= set(found["documents"])
        assert {v["check"] for v in found["verdicts"]} >= {RELOAD, *needed_of_a_file(world.world.ctx.policy)}
        assert b"u0001" not in evidence


def test_the_audits_look_at_the_bytes_and_not_at_the_parent(
    broken: tuple[Accurate, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes swapped after making are what is audited: here those of the broken file under the good one's name."""
    world, result = broken
    store = world.world.home.store
    case = world.case()
    assert case.opened is not None
    config = case.opened.config
    bad = store.read_sealed(result.manifest.outputs["prune.safetensors"])
    of = Architecture(config, lambda: recipe_of(config).build(config))
    (found,) = audit_files(case, {"prune.safetensors": bad}, lambda name: of, lambda name: None)
    assert not found.may_leave
    (unread,) = audit_files(case, {"int8_weights.safetensors": bad}, lambda name: of, lambda name: None)
    assert {v.outcome for v in unread.verdicts} == {"not_evaluated"}
    assert "could not be loaded back" in unread.verdicts[0].reason


def test_a_file_of_no_kind_holds_back_itself_alone(broken: tuple[Accurate, StageResult]) -> None:
    world, result = broken
    case = world.case()
    assert case.opened is not None
    config = case.opened.config
    good = world.world.home.store.read_sealed(result.manifest.outputs["int8_weights.onnx"])
    files = {"int8_dynamic.onnx": b"no graph", "int8_static.pt2": b"no archive", "int8_weights.onnx": good}
    of = Architecture(config, lambda: recipe_of(config).build(config))
    found = audit_files(case, files, lambda name: of, lambda name: None)
    assert [one.may_leave for one in found] == [False, False, True]


def test_the_checks_of_the_run_and_those_of_a_file_are_all_there_are(broken: tuple[Accurate, StageResult]) -> None:
    """A verdict that a release needs is either about the parent's run, or asked of each file."""
    world, _ = broken
    policy = world.world.ctx.policy
    about_the_run = {verdict.check for verdict in conformance(world.case()).verdicts} | {"validation"}
    needed = set(required_verdicts(policy.canonical()))  # type: ignore[arg-type]
    assert needed - set(needed_of_a_file(policy)) == needed & about_the_run
    assert set(OF_THE_RUN) <= needed
    assert {"audit.utility", "audit.output_scan", "audit.group_harm"} <= set(needed_of_a_file(policy))


def test_a_verdict_that_is_missing_blocks_also_when_it_is_read_back(broken: tuple[Accurate, StageResult]) -> None:
    world, result = broken
    policy = world.world.ctx.policy
    evidence = world.world.home.store.read_plain(result.manifest.outputs["audit/int8_weights.onnx"])
    value = json.loads(evidence)
    assert read_audit("int8_weights.onnx", value["sha256"], evidence, policy).may_leave
    fewer = {**value, "verdicts": [v for v in value["verdicts"] if v["check"] != "audit.utility"]}
    assert not read_audit("int8_weights.onnx", value["sha256"], canonical_json(fewer), policy).may_leave
    assert not read_audit("int8_weights.onnx", value["sha256"], canonical_json({**value, "verdicts": []}), policy).may_leave
    twice = {**value, "verdicts": [*value["verdicts"], value["verdicts"][-1]]}
    with pytest.raises(IntegrityError, match="E-COMPRESS-016"):
        read_audit("int8_weights.onnx", value["sha256"], canonical_json(twice), policy)
    with pytest.raises(IntegrityError, match="E-COMPRESS-015"):
        read_audit("prune.onnx", value["sha256"], evidence, policy)
    with pytest.raises(IntegrityError, match="E-COMPRESS-015"):
        read_audit("int8_weights.onnx", "sha256:" + "0" * 64, evidence, policy)


def _with(part: Callable[[AuditCase], Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_compressed, "OF_THE_MODEL", (part, *audit_compressed.OF_THE_MODEL))


def _one(world: Accurate, result: StageResult) -> FileAudit:
    case, name = world.case(), "int8_weights.safetensors"
    assert case.opened is not None
    config = case.opened.config
    data = world.world.home.store.read_sealed(result.manifest.outputs[name])
    of = Architecture(config, lambda: recipe_of(config).build(config))
    (found,) = audit_files(case, {name: data}, lambda _: of, lambda _: None)
    return found


def test_an_audit_that_cannot_look_at_a_file_holds_it_back(
    broken: tuple[Accurate, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks_inside(case: AuditCase) -> Part:
        raise AttributeError("u0001")  # whatever the error says stays out of the evidence

    _with(looks_inside, monkeypatch)
    found = _one(*broken)
    assert [v.check for v in found.verdicts if v.blocks] == ["compress.looks_inside"]
    assert b"u0001" not in found.evidence


def test_a_leak_in_a_file_holds_it_back(broken: tuple[Accurate, StageResult], monkeypatch: pytest.MonkeyPatch) -> None:
    def leak(case: AuditCase) -> Part:
        return Part((Verdict("audit.memorisation", "failed", "the file repeats what it should not"),), {"leak": {}})

    _with(leak, monkeypatch)
    found = _one(*broken)
    assert found.in_table()["held_back_by"] == ["audit.memorisation (failed): the file repeats what it should not"]


def test_a_fault_of_the_disk_is_no_finding(broken: tuple[Accurate, StageResult], monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(case: AuditCase) -> Part:
        raise EnvironmentFault("E-STORE-099", "the disk is full", "Free some space")

    _with(faulty, monkeypatch)
    with pytest.raises(EnvironmentFault):
        _one(*broken)


def test_a_finding_of_the_data_is_one_about_the_file(
    broken: tuple[Accurate, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(case: AuditCase) -> Part:
        raise DataError("E-TEST-001", "it can't be looked at", "No")

    _with(refuses, monkeypatch)
    assert not _one(*broken).may_leave


def test_where_no_file_passed_nobody_is_asked_and_nothing_is_written(tmp_path: Path) -> None:
    world = Accurate(tmp_path, methods=["prune"], prune_share=0.999)
    result = world.candidate()
    world.release_the_parent()
    with pytest.raises(GateClosed, match="E-COMPRESS-014"):
        request_candidate(world.world.ctx, result)
    assert result.manifest.facts["held_back"] == 1
    assert not (tmp_path / "out").exists()


def test_a_student_is_rebuilt_with_its_own_configuration(tmp_path: Path) -> None:
    distil = {"changes": {"embedding_width": 4}, "steps": 200}
    world = Accurate(tmp_path, methods=["distil"], distil=distil, exports=["safetensors"])
    files = files_in(world, world.candidate())
    assert files["distil.safetensors"]["verdicts"][RELOAD] == "passed"  # type: ignore[index]


WRITER = {
    **SETTINGS["recipe"],  # type: ignore[dict-item]
    **{"model": "causal_lm", "trains": "scratch", "embedding_width": 8, "heads": 2, "hidden_layers": 1, "max_tokens": 16},
    "steps": 2,
}


@pytest.mark.slow
def test_a_model_that_writes_is_audited_as_one(tmp_path: Path) -> None:
    block = {"methods": ["int8_weights"], "exports": ["safetensors"]}
    world = TrainingWorld(tmp_path, recipe=WRITER, audit={"canaries": 20}, compress=block)
    run = train(world.ctx, world.protect.digest, world.approve())
    result = compress(world.ctx, run.digest, tmp_path)
    evidence = json.loads(world.home.store.read_plain(result.manifest.outputs["audit/int8_weights.safetensors"]))
    found = {v["check"]: v["outcome"] for v in evidence["verdicts"]}
    assert found[RELOAD] == found["audit.utility"] == found["audit.output_scan"] == "passed"
    assert not [name for name in found if name.startswith("compress.") and name != RELOAD]


@pytest.mark.parametrize(
    "block",
    [{"methods": ["int8_dynamic"]}, {"methods": ["prune"], "exports": ["safetensors", "onnx"]}, {"methods": ["prune"]}],
)
def test_what_could_not_write_is_not_made_of_a_model_that_writes(block: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="E-COMPRESS-008"):
        compressing._refuse_what_cannot_write(Compress.model_validate(block))


def test_making_a_file_needs_no_private_unit() -> None:
    """The type system holds it: the parent's weights and public inputs are all that making a file takes."""
    assert set(make.__annotations__) == {"model", "plan", "public", "student", "return"}
    assert make.__annotations__["public"] == "PublicInputs"
    assert synthetic_inputs.__annotations__["return"] == "PublicInputs"
