"""Compression: public inputs alone, files that compute what the model does, figures of both sides, no trace of this machine."""

from __future__ import annotations

import inspect
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from safetensors.torch import load

from privacy.errors import DataError, IntegrityError, UsageError
from privacy.policy_training import Compress, PublicSet
from tests.worlds.policies import make_policy
from training import compress as compress_module
from training import exports
from training.compress import Compressed, Int8Rows, compress, distilled, pruned, run_model, with_int8_weights
from training.config import TrainingConfig
from training.data import IGNORED, UnitData
from training.models.base import UnitModel
from training.public import PublicInputs, public_inputs, read_public, synthetic_inputs
from training.recipes import recipe_of

CONFIG = TrainingConfig.from_policy(make_policy(**{"recipe.embedding_width": 16, "recipe.hash_buckets": 512}), 1.0)
SMALL = TrainingConfig.from_policy(make_policy(**{"recipe.embedding_width": 4, "recipe.hash_buckets": 512}), 1.0)
DISTIL = {"changes": {"embedding_width": 4}, "steps": 150}
WORDS = {"refund": "money back please", "delivery": "where is my parcel", "greeting": "hello good morning"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def build(config: TrainingConfig = CONFIG) -> UnitModel:
    """With a head that tells classes apart, so that agreement is about something."""
    model = recipe_of(config).build(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@pytest.fixture
def public(tmp_path: Path) -> PublicInputs:
    rows = [{"text": f"{text} {n}", "label": label} for label, text in WORDS.items() for n in range(30)]
    rows.append({"text": "of another kind", "label": "unheard"})
    (tmp_path / "public.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = read_public(PublicSet(path="public.jsonl", origin="made up for this test"), tmp_path)
    return public_inputs(found, CONFIG)


def one(method: str, public: PublicInputs, **changes: object) -> Compressed:
    plan = Compress.model_validate({"methods": [method], "exports": ["safetensors"], **changes})
    (found,) = compress(build(), plan, public, lambda: recipe_of(SMALL).build(SMALL))
    return found


def test_every_way_in_takes_public_inputs_and_no_units() -> None:
    """Nothing in the module accepts `UnitData`, so private units can't be handed to it by mistake."""
    for _, function in inspect.getmembers(compress_module, inspect.isfunction):
        if function.__module__ == compress_module.__name__:
            assert UnitData not in get_type_hints(function).values(), function.__name__


def test_private_units_are_refused(public: PublicInputs) -> None:
    units = recipe_of(CONFIG).synthetic(CONFIG, 4)
    with pytest.raises(UsageError, match="E-COMPRESS-001"):
        compress(build(), Compress(), units, build)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="E-PUBLIC-001"):
        PublicInputs(units, np.zeros(4, dtype=np.int64), "public", "sha256:" + "0" * 64, object())
    with pytest.raises(UsageError, match="E-PUBLIC-001"):
        replace(public, made_by=None)


def test_a_public_set_is_read_with_its_labels_and_its_digest(public: PublicInputs, tmp_path: Path) -> None:
    assert len(public) == 91
    assert public.truth.tolist().count(IGNORED) == 1
    assert public.data.labels.shape == (91, 1)
    (tmp_path / "public.csv").write_text("text,label\nhello,greeting\n")
    both = read_public(PublicSet(path=".", origin="made up for this test"), tmp_path)
    assert len(both.examples) == 92
    assert both.digest != public.digest
    learn, score = both.split(0.3)
    assert len(learn.examples) + len(score.examples) == 92
    assert 10 < len(score.examples) < 50
    assert both.labels == ("delivery", "greeting", "refund", "unheard")


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("x.jsonl", b'{"text": 3}', "E-PUBLIC-003"),
        ("x.jsonl", b"{", "E-PUBLIC-003"),
        ("x.jsonl", b"[1]", "E-PUBLIC-003"),
        ("x.jsonl", b"\xff\xfe", "E-PUBLIC-003"),
        ("x.csv", b"words,label\nhello,a\n", "E-PUBLIC-003"),
        ("x.jsonl", b"", "E-PUBLIC-002"),
        ("y.txt", b"", "E-PUBLIC-002"),
    ],
)
def test_what_is_no_public_set_is_refused_without_its_text(tmp_path: Path, name: str, data: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=code) as refused:
        read_public(PublicSet(path="x.jsonl" if name != "x.csv" else name, origin="made up for this test"), tmp_path)
    assert "hello" not in str(refused.value)


def test_pruning_leaves_the_largest_weights_and_half_the_packed_size(public: PublicInputs) -> None:
    model = build()
    made = pruned(model, 0.5)
    for (name, was), (_, now) in zip(model.named_parameters(), made.named_parameters(), strict=True):
        if was.ndim < 2:
            assert torch.equal(was, now), name
            continue
        kept = now != 0
        assert abs(float(kept.float().mean()) - 0.5) < 0.01
        assert torch.equal(was[kept], now[kept])
        assert was[~kept].abs().max() <= was[kept].abs().min()
    row = one("prune", public).row
    assert row.bytes_after == row.bytes_before
    assert row.packed_after < 0.7 * row.packed_before


def test_int8_rows_are_near_and_a_quarter_of_the_size(public: PublicInputs) -> None:
    weight = torch.randn(64, 32) * torch.logspace(-3, 2, 64).unsqueeze(1)
    weight[7] = 0.0
    rows = Int8Rows(weight)
    assert float(((rows.whole() - weight).abs() / (weight.abs().amax(1, keepdim=True) + 1e-30)).max()) <= 0.5 / 127 + 1e-6
    assert torch.equal(rows.rows(torch.tensor([3, 7])), rows.whole()[[3, 7]])
    found = one("int8_weights", public)
    assert found.row.bytes_after < 0.4 * found.row.bytes_before
    assert found.row.agreement > 0.9
    stored = load(found.files["int8_weights.safetensors"])
    assert {str(tensor.dtype) for name, tensor in stored.items() if "integers" in name} == {"torch.int8"}


def test_tied_weights_stay_tied() -> None:
    class Tied(UnitModel):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(50, 8)
            self.head = torch.nn.Linear(8, 50, bias=False)
            self.head.weight = self.words.weight

        def outputs(self, inputs: object) -> torch.Tensor:
            return self.head(self.words(inputs["tokens"].long()).mean(-2))  # type: ignore[index, no-any-return]

    made = with_int8_weights(Tied())
    assert made.words.rows is made.head.rows  # type: ignore[union-attr]
    assert len([name for name in load(exports.to_safetensors(made)) if "integers" in name]) == 1


def test_a_student_learns_its_teacher_from_public_text_alone(public: PublicInputs) -> None:
    untaught = recipe_of(SMALL).build(SMALL).eval()
    teacher = build()
    plan = Compress.model_validate({"methods": ["distil"], "distil": DISTIL}).distil
    assert plan is not None
    wanted = run_model(teacher, public).argmax(-1)
    taught = distilled(teacher, recipe_of(SMALL).build(SMALL), public, plan)
    agreement = [float((run_model(m, public).argmax(-1) == wanted).mean()) for m in (untaught, taught)]
    assert agreement[1] > 0.9 > agreement[0]
    again = distilled(teacher, recipe_of(SMALL).build(SMALL), public, plan)
    assert all(torch.equal(a, b) for a, b in zip(taught.parameters(), again.parameters(), strict=True))


def test_a_row_holds_both_sides_of_one_run(public: PublicInputs) -> None:
    row = one("distil", public, distil=DISTIL).row
    value = row.to_json()
    assert value["size_ratio"] == pytest.approx(row.bytes_after / row.bytes_before, abs=1e-3)
    assert row.milliseconds_before > 0
    assert row.milliseconds_after > 0
    assert row.accuracy_before is not None
    assert row.measured_on == "public"
    assert one("prune", synthetic_inputs(CONFIG, 20)).row.accuracy_before is None


def test_a_broken_model_is_not_compressed(public: PublicInputs) -> None:
    model = build()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="E-COMPRESS-003"):
        compress(model, Compress(), public, build)


@pytest.mark.slow
def test_onnx_files_compute_what_the_model_does_and_int8_is_smaller(public: PublicInputs) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    dynamic = one("int8_dynamic", public)
    static = one("int8_static", public)
    for found in (dynamic, static):
        assert found.row.bytes_after < 0.6 * found.row.bytes_before
        assert found.row.agreement > 0.9
        assert found.row.packed_after < found.row.packed_before
    plain = one("prune", public, exports=["onnx", "torch_export", "safetensors"])
    assert set(plain.files) == {"prune.onnx", "prune.pt2", "prune.safetensors"}
    model = pruned(build(), 0.5)
    inputs = public.part(slice(0, 9))
    with torch.no_grad():
        wanted = model.outputs({name: torch.from_numpy(array) for name, array in inputs.items()}).numpy()
    assert np.allclose(exports.onnx_runner(plain.files["prune.onnx"])(inputs), wanted, atol=1e-4)
    loaded = torch.export.load(io.BytesIO(plain.files["prune.pt2"])).module()
    assert np.allclose(loaded(torch.from_numpy(inputs["tokens"])).detach().numpy(), wanted, atol=1e-4)
    archive = zipfile.ZipFile(io.BytesIO(plain.files["prune.pt2"]))
    written = [plain.files["prune.onnx"], *dynamic.files.values(), *static.files.values()]
    written += [archive.read(name) for name in archive.namelist()]
    for data in written:  # source files and folders of whoever exported it
        assert not [word for word in (b".py", str(Path(__file__).parents[2]).encode(), b"/dev/shm") if word in data]


@pytest.mark.slow
def test_an_export_that_computes_something_else_is_not_handed_out(public: PublicInputs) -> None:
    pytest.importorskip("onnxruntime")

    class Lying(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.calls = build(), 0

        def outputs(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.model.outputs(inputs) + (0.0 if torch.compiler.is_exporting() else 1.0)

    with pytest.raises(IntegrityError, match="E-COMPRESS-005"):
        exports.to_torch_export(Lying(), public.part(slice(0, 2)))  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="E-COMPRESS-005"):
        exports.to_onnx(Lying(), public.part(slice(0, 2)))  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_architecture_that_takes_its_batch_for_granted_by_len_is_exported_too(public: PublicInputs) -> None:
    config = TrainingConfig.from_policy(
        make_policy(
            **{"recipe.model": "text_encoder", "recipe.embedding_width": 16, "recipe.heads": 2, "recipe.hidden_layers": 1}
        ),
        1.0,
    )
    model, inputs = recipe_of(config).build(config).eval(), synthetic_inputs(config, 6)
    assert exports.to_torch_export(model, inputs.part(slice(0, 2)))  # which has been run on three units as well

    class Frozen(torch.nn.Module):
        def outputs(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return inputs["tokens"].float() if inputs["tokens"].sum() > 0 else inputs["tokens"].double()

    with pytest.raises(UsageError, match="E-COMPRESS-013"):
        exports.to_torch_export(Frozen(), inputs.part(slice(0, 2)))  # type: ignore[arg-type]


@pytest.mark.slow
def test_quantising_leaves_no_file_of_the_model_behind(
    public: PublicInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(Path("/dev/shm").iterdir())
    exports.quantised(exports.to_onnx(build(), public.part(slice(0, 2))), public.part(slice(0, 8)))
    assert set(Path("/dev/shm").iterdir()) <= before
    assert list(tmp_path.rglob("*")) == [tmp_path / "public.jsonl"]
