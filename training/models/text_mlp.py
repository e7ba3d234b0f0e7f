"""A small text classifier over hashed features, with a canary embedding that production runs carry and releases do not.

Guarantee: a unit's loss depends on that unit alone (no batch statistics), so its gradient is what clipping bounds.
"""

from __future__ import annotations

import torch
from opacus.grad_sample import register_grad_sampler
from torch import Tensor, nn

CANARY_PARAMETER = "canary.weight"


class HashedEmbedding(nn.Embedding):
    """An embedding whose per-unit gradients hold only the rows that the batch touches; the others are exactly zero.

    `touched`: int64 [rows], which rows those are, after each backward pass. A batch of chats touches a few hundred of
    thousands of buckets, so this is what makes a step cheap; norms and sums are those of the whole table.
    """

    def __init__(self, buckets: int, width: int) -> None:
        super().__init__(buckets, width)
        self.touched = torch.zeros(1, dtype=torch.int64)


@register_grad_sampler(HashedEmbedding)  # type: ignore[untyped-decorator]
def _touched_rows(layer: HashedEmbedding, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Per-unit gradient [units, touched rows, width]: the output gradients, summed by token id."""
    units, width = len(activations[0]), layer.embedding_dim
    layer.touched, rows = torch.unique(activations[0], return_inverse=True)
    gradient = backprops.new_zeros((units, len(layer.touched), width))
    where = rows.reshape(units, -1, 1).expand(-1, -1, width)
    return {layer.weight: gradient.scatter_add_(1, where, backprops.reshape(units, -1, width))}


class TextMlp(nn.Module):
    """Pooled feature embeddings, one hidden layer with a way past it, one output per label.

    tokens: int64 [units, records, tokens], 0 pads. cid: int64 [units], the canary of a unit, or `canaries` for none.
    Embeddings start small and the head large: with noise in every coordinate, what was random at the start stays noise
    (accuracy at epsilon 8 on 1,000 generated customers: 0.62 with the usual initial scales, 0.96 with these).
    """

    def __init__(self, labels: int, hash_buckets: int, embedding_width: int, canaries: int = 0) -> None:
        super().__init__()
        self.canaries = canaries
        self.embedding = HashedEmbedding(hash_buckets, embedding_width)
        self.hidden = nn.Linear(embedding_width, embedding_width)
        self.head = nn.Linear(embedding_width, labels)
        self.canary = nn.Embedding(canaries + 1, 1, padding_idx=canaries)
        with torch.no_grad():
            self.embedding.weight.mul_(0.05)
            self.head.weight.mul_(3.0)
            self.head.bias.zero_()
            self.canary.weight.zero_()

    def logits(self, tokens: Tensor) -> Tensor:
        """float32 [units, records, labels]."""
        # The mask zeroes the padding row's gradient too: per-unit gradients know no padding_idx.
        present = (tokens != 0).unsqueeze(-1).to(self.embedding.weight.dtype)
        total = (self.embedding(tokens) * present).sum(-2)
        pooled = total / present.sum(-2).clamp(min=1.0).sqrt()
        output: Tensor = self.head(pooled + torch.tanh(self.hidden(pooled)))
        return output

    def forward(self, tokens: Tensor, cid: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits(tokens), self.canary(cid).squeeze(-1)
