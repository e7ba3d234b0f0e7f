"""LoRA and AdaLoRA in PEFT's file format: `adapter_config.json` beside `adapter_model.safetensors`.

Guarantee: what is read back is what was written, tensor for tensor; a file that holds other tensors than its configuration
says, or options that would change the result, is refused, never read in part. No pickle is read.
Not covered: Houlsby adapters, for which PEFT has no format; they leave as tensors of the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from privacy.errors import DataError, PolicyError
from training.adapters import AdaLoraLinear, Adapted, AdapterKind, HoulsbyLinear, adapted_layers, apply_adapters

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {  # options that must stand at a value under which they do nothing
    "use_dora": (None, False),
    "use_rslora": (None, False),
    "use_qalora": (None, False),
    "use_bdlora": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "layers_to_transform": (None, []),
    "exclude_modules": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
}


def export_peft(model: nn.Module, folder: Path, base_name: str | None = None) -> dict[str, Tensor]:
    """Write the adapters of `model` into `folder` (made if missing); returns the tensors by their PEFT names.

    base_name: public name of the pretrained model. Raises PolicyError E-ADAPTER-006 for what PEFT has no format for.
    """
    layers = list(adapted_layers(model))
    if not layers or any(isinstance(layer, HoulsbyLinear) for _, layer in layers):
        raise PolicyError(
            "E-ADAPTER-006", "PEFT's file format holds LoRA and AdaLoRA, and the model has none", "Release the model's tensors"
        )
    first = layers[0][1]
    tensors = {f"{_PREFIX}{name}.{own}": t.cpu().contiguous() for name, layer in layers for own, t in _tensors(layer).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    config = _config(first, sorted(name for name, _ in layers), base_name)
    (folder / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return tensors


def import_peft(model: nn.Module, folder: Path) -> list[str]:
    """Apply the adapters of `folder` to a model without any; returns the names of the adapted layers.

    Raises DataError E-ADAPTER-007 (no adapter there, or it does not fit), PolicyError E-ADAPTER-008 (an option that is not
    supported), and those of `apply_adapters`.
    """
    try:
        config = json.loads((folder / _CONFIG).read_bytes())
        tensors = load_file(folder / _WEIGHTS)
        kind, rank = _kind(config), int(config["init_r"] if config["peft_type"] == "ADALORA" else config["r"])
        targets, alpha = [str(t) for t in config["target_modules"]], float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        raise _unfit("the folder holds no adapter in PEFT's format") from None
    for option, neutral in _NEUTRAL.items():
        if config.get(option) not in neutral:
            raise PolicyError("E-ADAPTER-008", f"the adapter uses PEFT's option {option}", "Save it without that option")
    names = apply_adapters(model, kind, rank, targets, alpha)
    expected = {f"{_PREFIX}{name}.{own}" for name, layer in adapted_layers(model) for own in _tensors(layer)}
    if expected != set(tensors):
        raise _unfit(f"it holds {len(tensors)} tensors, {len(expected ^ set(tensors))} of which are not those of this model")
    for name, layer in adapted_layers(model):
        _fill(layer, {own: tensors[f"{_PREFIX}{name}.{own}"] for own in _tensors(layer)})
    return names


def _tensors(layer: Adapted) -> dict[str, Tensor]:
    if isinstance(layer, AdaLoraLinear):
        scale = layer.scale.weight.detach().unsqueeze(1)
        return {"lora_A": layer.down.weight.detach(), "lora_B": layer.up.weight.detach(), "lora_E": scale}
    return {"lora_A.weight": layer.down.weight.detach(), "lora_B.weight": layer.up.weight.detach()}


def _fill(layer: Adapted, tensors: Mapping[str, Tensor]) -> None:
    for own, place in _tensors(layer).items():  # views of the parameters, so that copying fills them
        if place.shape != tensors[own].shape:
            raise _unfit("a tensor has another shape than the layer it is for")
        with torch.no_grad():
            place.copy_(tensors[own])


def _kind(config: Mapping[str, Any]) -> AdapterKind:
    kinds: dict[str, AdapterKind] = {"LORA": "lora", "ADALORA": "adalora"}
    return kinds[config["peft_type"]]


def _config(layer: Adapted, targets: list[str], base_name: str | None) -> dict[str, Any]:
    from training.adapters import _is_transposed

    common: dict[str, Any] = {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": _is_transposed(layer.base),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": layer.alpha,
        "lora_dropout": 0.0,
        "r": layer.rank,
        "target_modules": targets,
        "task_type": None,
    }
    if isinstance(layer, AdaLoraLinear):
        pruning = {"init_r": layer.rank, "target_r": layer.rank, "total_step": 1, "tinit": 0, "tfinal": 0}
        return {**common, **pruning, "r": 8, "peft_type": "ADALORA"}  # PEFT's default: it reads init_r here
    return {**common, "peft_type": "LORA"}


def _unfit(cause: str) -> DataError:
    return DataError("E-ADAPTER-007", f"the adapter can't be used: {cause}", "Give a folder that PEFT or Privet wrote for it")
