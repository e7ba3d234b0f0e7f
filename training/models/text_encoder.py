"""Transformer encoders over privacy units: any Hugging Face encoder from a local folder, or a small one from scratch.

Guarantee: a unit's loss depends on that unit alone. One record is one row: attention never crosses records, position ids are
expanded to every row, so that their embedding has per-unit gradients, and pads are neither attended to nor pooled.
Not covered: encoders that add one tensor made of parameters to all rows (relative position biases of MPNet or DeBERTa): their
trained bias has no per-unit gradient, and the preflight refuses them by its brute force.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.errors import PolicyError
from training.models.text_head import Encoding, LabelHead, SplitHead, mean_of, unit_length


@dataclass(frozen=True, slots=True)
class Family:
    """Where the parts of an encoder lie: the embeddings, the list of layers, and what comes after the last one."""

    embeddings: str
    layers: str
    last: str | None = None


_FAMILIES = {
    "bert": Family("embeddings", "encoder.layer"),
    "roberta": Family("embeddings", "encoder.layer"),
    "xlm-roberta": Family("embeddings", "encoder.layer"),
    "camembert": Family("embeddings", "encoder.layer"),
    "electra": Family("embeddings", "encoder.layer"),
    "distilbert": Family("embeddings", "transformer.layer"),
    "modernbert": Family("embeddings", "layers", "final_norm"),
}
_OWN_POSITIONS = ("roberta", "xlm-roberta", "camembert")  # counted from the pads by the model itself, row by row


class Through(nn.Module):
    """Stands where a layer was: hands its first argument on. What the network reads off the layer is kept (its kind, say)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.__dict__.update({name: value for name, value in vars(layer).items() if not name.startswith("_")})

    def forward(self, states: Tensor, *others: Any, **named: Any) -> Tensor:
        return states


class Given(nn.Module):
    """Stands where the embeddings were: hands out states that were computed before."""

    def __init__(self) -> None:
        super().__init__()
        self.states: Tensor | None = None

    def forward(self, *others: Any, **named: Any) -> Tensor:
        assert self.states is not None
        return self.states


class PretrainedBody(nn.Module):
    """A Hugging Face encoder. Its token i is token i + 1 here, so that 0 can pad.

    inputs: `tokens` int [units, records, time]; and `states` [units, records, time, width] once the lower part is cut off.
    """

    def __init__(self, network: nn.Module, model_type: str, pad_id: int) -> None:
        super().__init__()
        self.network, self.model_type, self.pad_id = network, model_type, pad_id
        self.given: Given | None = None
        takes = inspect.signature(network.forward).parameters
        self.positions = "position_ids" in takes and model_type not in _OWN_POSITIONS

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """States [rows, time, width] and which of them are of a token, bool [rows, time]; rows are units * records."""
        tokens = inputs["tokens"].flatten(0, 1).long()
        present = tokens != 0
        attended = present.clone()
        attended[:, 0] = True  # a row without tokens looks at its first pad: a softmax over nothing is not a number
        named: dict[str, Tensor] = {
            "input_ids": torch.where(present, tokens - 1, self.pad_id),
            "attention_mask": attended.long(),
        }
        if self.positions:
            named["position_ids"] = torch.arange(tokens.shape[1], device=tokens.device).repeat(len(tokens), 1)
        if self.given is not None:
            self.given.states = inputs["states"].flatten(0, 1).to(next(self.network.parameters()).dtype)
        try:
            states: Tensor = self.network(**named).last_hidden_state
        finally:
            if self.given is not None:
                self.given.states = None
        return states, present


def keep_below(body: PretrainedBody, top: int) -> PretrainedBody:
    """Only embeddings and all but the last `top` layers, in place: its states are what `keep_top` takes."""
    family, layers = _layers(body, top)
    for number in range(len(layers) - top, len(layers)):
        layers[number] = Through(layers[number])
    if family.last is not None:
        _put(body.network, family.last, Through(body.network.get_submodule(family.last)))
    return body


def keep_top(body: PretrainedBody, top: int) -> PretrainedBody:
    """Only the last `top` layers, in place, under their own names: the rest is handed in as `states`."""
    family, layers = _layers(body, top)
    body.given = Given()
    _put(body.network, family.embeddings, body.given)
    for number in range(len(layers) - top):
        layers[number] = Through(layers[number])
    return body


def _layers(body: PretrainedBody, top: int) -> tuple[Family, nn.ModuleList]:
    family = _FAMILIES.get(body.model_type)
    if family is None:
        raise PolicyError(
            "E-ENCODER-001",
            f"it is not known where a model of type {body.model_type} can be cut, so its lower layers can't be kept apart",
            f"Leave recipe.top_layers out, or use one of {', '.join(sorted(_FAMILIES))}",
        )
    layers = body.network.get_submodule(family.layers)
    assert isinstance(layers, nn.ModuleList)
    if top > len(layers):
        raise PolicyError(
            "E-ENCODER-002", f"recipe.top_layers is {top}, and the model has {len(layers)} layers", "Lower recipe.top_layers"
        )
    return family, layers


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)


class ScratchBody(nn.Module):
    """A small pre-norm Transformer over hashed words. heads must divide width.

    inputs: `tokens` int [units, records, time], below `buckets`, 0 pads at the end, at most `max_tokens`.
    """

    def __init__(self, buckets: int, max_tokens: int, width: int, layers: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(buckets, width), nn.Embedding(max_tokens, width)
        self.layers = nn.ModuleList(ScratchLayer(width, heads, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        with torch.no_grad():  # what is random at the start stays noise: see TextMlp
            self.tokens.weight.mul_(0.1)
            self.places.weight.mul_(0.02)

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """As PretrainedBody."""
        tokens = inputs["tokens"].flatten(0, 1).long()
        present = tokens != 0
        attended = present.clone()
        attended[:, 0] = True
        places = torch.arange(tokens.shape[1], device=tokens.device).repeat(len(tokens), 1)
        # Masked, because a pad's row of the table would get a gradient: per-unit gradients know no padding_idx.
        states = (self.tokens(tokens) + self.places(places)) * present.unsqueeze(-1)
        for layer in self.layers:
            states = layer(states, attended[:, None, None, :])
        return self.last(states), present


class ScratchLayer(nn.Module):
    """Attention and a hidden layer of four times the width, each behind a LayerNorm, each with a way past it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.output, self.wide, self.narrow = nn.Linear(width, width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, attended: Tensor) -> Tensor:
        rows, time, width = states.shape
        seen = self.before(states)
        query, key, value = (part(seen).view(rows, time, self.heads, -1).transpose(1, 2) for part in self._parts())
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attended)
        states = states + self.dropout(self.output(mixed.transpose(1, 2).reshape(rows, time, width)))
        found: Tensor = states + self.dropout(self.narrow(functional.gelu(self.wide(self.between(states)))))
        return found

    def _parts(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        return self.query, self.key, self.value


class TextEncoder(Encoding):
    """A body, the mean of its states, and a head of one score per label."""

    def __init__(self, body: PretrainedBody | ScratchBody, head: LabelHead | SplitHead, dropout: float = 0.0) -> None:
        super().__init__()
        self.body, self.dropout, self.head = body, nn.Dropout(dropout), head

    def pooled(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float [units * records, width]."""
        return mean_of(*self.body(inputs))

    def vectors(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return unit_length(self.pooled(inputs)).view(*inputs["tokens"].shape[:2], -1)

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float [units, records, labels]."""
        scores: Tensor = self.head(self.dropout(self.pooled(inputs)))
        return scores.view(*inputs["tokens"].shape[:2], -1)
