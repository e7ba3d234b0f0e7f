"""A GRU or LSTM over hashed words, written with Linear layers so that every unit's gradient is exact.

Guarantee: a unit's loss depends on that unit alone; a pad neither moves the state nor gets a gradient.
A recurrent layer of torch hides its steps from per-unit gradients. Here the inputs of all steps go through one Linear at once
and the state goes through another, which is used again at every step; both are layers whose clipped sums are exact.
Source: GRU, Cho et al. 2014 (1406.1078) in the form of torch.nn.GRU; LSTM, Hochreiter and Schmidhuber 1997.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from training.models.base import UnitModel


class Recurrent(nn.Module):
    """One recurrent layer. gates: three for a GRU, four for an LSTM."""

    def __init__(self, cell: Literal["gru", "lstm"], before: int, width: int) -> None:
        super().__init__()
        self.cell, self.width = cell, width
        gates = 3 if cell == "gru" else 4
        self.from_input = nn.Linear(before, gates * width)
        self.from_state = nn.Linear(width, gates * width)
        if cell == "lstm":
            with torch.no_grad():  # forget gate open at the start, Gers et al. 2000
                self.from_input.bias[width : 2 * width] = 1.0

    def forward(self, steps: Tensor, present: Tensor) -> Tensor:
        """States [rows, time, width] of steps [rows, time, before]; where `present` [rows, time, 1] is 0 the state stays."""
        projected = self.from_input(steps)
        state = memory = steps.new_zeros((len(steps), self.width))
        found = []
        for number in range(steps.shape[1]):
            moved, remembered = self._step(projected[:, number], state, memory)
            here = present[:, number]
            state, memory = state + here * (moved - state), memory + here * (remembered - memory)
            found.append(state)
        return torch.stack(found, 1)

    def _step(self, projected: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        recurrent = self.from_state(state)
        if self.cell == "gru":
            reset_x, update_x, new_x = projected.chunk(3, -1)
            reset_h, update_h, new_h = recurrent.chunk(3, -1)
            new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
            update = torch.sigmoid(update_x + update_h)
            return new + update * (state - new), memory
        take, forget, new, give = (projected + recurrent).chunk(4, -1)
        memory = torch.sigmoid(forget) * memory + torch.sigmoid(take) * torch.tanh(new)
        return torch.sigmoid(give) * torch.tanh(memory), memory


class TextRnn(UnitModel):
    """Embedding, recurrent layers, mean of the last layer's states, one output per label.

    inputs: `tokens` int [units, records, time], 0 pads at the end.
    """

    def __init__(
        self, labels: int, hash_buckets: int, width: int, layers: int, cell: Literal["gru", "lstm"], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(hash_buckets, width)
        self.layers = nn.ModuleList(Recurrent(cell, width, width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, labels)
        with torch.no_grad():  # what is random at the start stays noise: see TextMlp
            self.embedding.weight.mul_(0.1)
            self.head.weight.mul_(3.0)
            self.head.bias.zero_()

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float32 [units, records, labels]."""
        tokens = inputs["tokens"].long()
        units, records, time = tokens.shape
        tokens = tokens.reshape(units * records, time)
        present = (tokens != 0).unsqueeze(-1).to(self.embedding.weight.dtype)
        steps = self.embedding(tokens) * present
        for layer in self.layers:
            steps = layer(self.dropout(steps), present)
        pooled = (steps * present).sum(1) / present.sum(1).clamp(min=1.0)
        scores: Tensor = self.head(pooled)
        return scores.view(units, records, -1)
