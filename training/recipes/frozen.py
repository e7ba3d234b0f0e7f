"""Text through the frozen lower part of a pretrained encoder: tokens, and what is computed from them once.

Guarantee: every record is mapped by itself, by public weights and a public tokenizer; nothing is fitted. What is returned is
as private as the records: `pipeline.prefix_cache` keeps it sealed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from privacy.canonical import Json
from privacy.errors import EnvironmentFault
from training.config import TrainingConfig
from training.data import Record, UnitData, build_units
from training.models.text_encoder import PretrainedBody, keep_below
from training.models.text_head import mean_of, unit_length
from training.pretrained import Pretrained, find_pretrained, load_body, load_tokenizer

_PLACEHOLDER = re.compile(r"<([A-Za-z][A-Za-z_]{1,40}?)(?:_[0-9a-f]{4,16})?(?::([^<>]{0,40}))?>")
_CELLS = 1 << 14  # token positions that run through the encoder at once
_VERSION = 1  # of what is computed here; a change makes sealed caches void

Rows = Callable[[Mapping[str, Tensor]], Tensor]


def plain_text(text: str) -> str:
    """Placeholders of de-identified values in words that an encoder knows: `<CREDIT_CARD_3fa9c1>` is "credit card"."""
    return _PLACEHOLDER.sub(lambda found: found[1].replace("_", " ").lower(), text)


def public_weights(config: TrainingConfig) -> Pretrained:
    """The pretrained weights that the policy names. Raises the codes of `find_pretrained`."""
    assert config.recipe.pretrained is not None
    return find_pretrained(config.recipe.pretrained, config.recipe.pretrained_digest)


def encode_tokens(grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
    """tokens int32 [units, max_records, max_tokens]: 1 + the tokenizer's ids, special ones included; 0 pads."""
    length = config.recipe.max_tokens
    tokenizer = load_tokenizer(public_weights(config), length)

    def tokens(record: Record) -> dict[str, np.ndarray]:
        return {"tokens": np.array(tokenizer.encode(plain_text(record.text)).ids, dtype=np.int32) + 1}

    return build_units(grouped, config.labels, config.max_records, tokens, {"tokens": ((length,), np.int32)}, ("tokens",))


def features(data: UnitData, config: TrainingConfig) -> UnitData:
    """features float16 [units, max_records, width]: mean state of the last layer, of length 1."""
    found = public_weights(config)
    body = _frozen_body(found, 0)

    def pooled(inputs: Mapping[str, Tensor]) -> Tensor:
        return unit_length(mean_of(*body(inputs)))

    result = np.zeros((*data.labels.shape, found.width), dtype=np.float16)
    for at, value in _rows(data, pooled):
        result[at] = value
    return UnitData(data.units, {"features": result}, data.labels)


def states(data: UnitData, config: TrainingConfig) -> UnitData:
    """states float16 [units, max_records, time, width] below the last `top_layers` layers, beside the tokens.

    time: of the longest record. Raises EnvironmentFault E-ENCODER-003 when they would not fit into half of the memory.
    """
    found, top = public_weights(config), config.recipe.top_layers
    assert top is not None
    body = _frozen_body(found, top)
    tokens = np.ascontiguousarray(data.inputs["tokens"][:, :, : max(1, int(data.lengths.max(initial=1)))])
    needed = 2 * tokens.size * found.width
    if needed > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2:
        raise EnvironmentFault(
            "E-ENCODER-003",
            f"what the frozen layers give would take {needed >> 30} GiB",
            "Lower recipe.max_tokens or privacy_unit.max_records, or leave recipe.top_layers out",
        )

    def masked(inputs: Mapping[str, Tensor]) -> Tensor:
        given, present = body(inputs)
        kept: Tensor = given * present.unsqueeze(-1)
        return kept

    result = np.zeros((*tokens.shape, found.width), dtype=np.float16)
    for at, value in _rows(UnitData(data.units, {"tokens": tokens}, data.labels, ("tokens",)), masked):
        result[at[0], at[1], : value.shape[1]] = value
    return UnitData(data.units, {"tokens": tokens, "states": result}, data.labels, ("tokens", "states"))


def name_vectors(names: Sequence[str], config: TrainingConfig) -> Tensor:
    """float32 [names, width]: what the encoder makes of public names, less their mean, each of length 1."""
    return _name_vectors(public_weights(config), tuple(names), config.recipe.max_tokens)


def frozen_part(config: TrainingConfig) -> dict[str, Json] | None:
    """All that decides what `features` or `states` gives for a record; None where nothing is frozen and worth keeping."""
    recipe = config.recipe
    if recipe.trains != "head" and recipe.top_layers is None:
        return None
    return {
        "version": _VERSION,
        "pretrained_digest": public_weights(config).digest,
        "trains": "head" if recipe.trains == "head" else "top",
        "top_layers": recipe.top_layers,
        "max_tokens": recipe.max_tokens,
        "max_records": config.max_records,
        "labels": list(config.labels),
    }


@lru_cache(maxsize=2)
def _frozen_body(found: Pretrained, top: int) -> PretrainedBody:
    """Never trained, so one is enough."""
    body = PretrainedBody(load_body(found), found.model_type, found.pad_id)
    if top:
        keep_below(body, top)
    return body.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=8)
def _name_vectors(found: Pretrained, names: tuple[str, ...], max_tokens: int) -> Tensor:
    tokenizer, body = load_tokenizer(found, max_tokens), _frozen_body(found, 0)
    device = next(body.parameters()).device
    rows = []
    for name in names:
        words = " ".join(re.findall(r"[^\W_]+", re.sub(r"<[^<>]*>", " ", name))).lower()  # "a<div>b_c" is "a b c"
        tokens = torch.tensor(tokenizer.encode(words or name).ids, device=device) + 1
        with torch.no_grad():
            rows.append(mean_of(*body({"tokens": tokens.view(1, 1, -1)})).cpu())
    vectors = unit_length(torch.cat(rows))
    return unit_length(vectors - vectors.mean(0))


def _rows(data: UnitData, run: Rows) -> list[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """(units, records) of each batch and what `run` gave for them, longest first, each batch cut to its longest record."""
    where = np.nonzero(data.present)
    lengths = data.lengths[where]
    order = np.argsort(-lengths, kind="stable")
    device = "cuda" if torch.cuda.is_available() else "cpu"  # where `_frozen_body` is
    found = []
    start = 0
    while start < len(order):
        length = int(lengths[order[start]])
        part = order[start : start + max(1, _CELLS // length)]
        start += len(part)
        at = (where[0][part], where[1][part])
        tokens = torch.from_numpy(data.inputs["tokens"][at][:, None, :length].astype(np.int64))
        with torch.no_grad():
            found.append((at, run({"tokens": tokens.to(device)}).half().cpu().numpy()))
    return found
