"""A small text classifier over hashed features, with a canary embedding that production runs carry and releases do not.

Guarantee: a unit's loss depends on that unit alone (no batch statistics), so its gradient is what clipping bounds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CANARY_PARAMETER = "canary.weight"


class TextMlp(nn.Module):
    """Mean of feature embeddings, one hidden layer, one output per label.

    tokens: int64 [units, records, tokens], 0 pads. cid: int64 [units], the canary of a unit, or `canaries` for none.
    """

    def __init__(self, labels: int, hash_buckets: int, embedding_width: int, canaries: int = 0) -> None:
        super().__init__()
        self.canaries = canaries
        self.embedding = nn.Embedding(hash_buckets, embedding_width)
        self.hidden = nn.Linear(embedding_width, embedding_width)
        self.head = nn.Linear(embedding_width, labels)
        self.canary = nn.Embedding(canaries + 1, 1, padding_idx=canaries)
        nn.init.zeros_(self.canary.weight)

    def logits(self, tokens: Tensor) -> Tensor:
        """float32 [units, records, labels]."""
        # The mask zeroes the padding row's gradient too: Opacus ignores padding_idx when it scatters.
        present = (tokens != 0).unsqueeze(-1).to(self.embedding.weight.dtype)
        total = (self.embedding(tokens) * present).sum(-2)
        pooled = total / present.sum(-2).clamp(min=1.0).sqrt()
        output: Tensor = self.head(torch.tanh(self.hidden(pooled)))
        return output

    def forward(self, tokens: Tensor, cid: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits(tokens), self.canary(cid).squeeze(-1)
