"""A recommender of two towers: a user from the user's own history, an item from the public text of a public catalogue.

Guarantee: a unit is a user, and its loss depends on that user's records alone: the softmax goes over the public catalogue,
never over what other users of the batch chose (in-batch negatives would make one user's gradient depend on others).
Both towers end linear, so the item tower can be moved to the user's side: <user, W item> = <W' user, item>. No tensor made of
parameters is shared by users then, and every user's gradient is exact.
Popularity is a weight per item that is trained with the rest, by the same clipped and noised sums: nothing more is spent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from training.models.base import UnitModel


class TwoTower(UnitModel):
    """catalogue: float [items, features], public. width: numbers of a user.

    inputs: `items` int [units, records], 1 + index of the chosen item, 0 for none; `tokens` int [units, records, time], hashed
    words of the record, 0 pads. A record is scored from the unit's *other* records: neither its item nor its words are used.
    """

    def __init__(self, catalogue: Tensor, hash_buckets: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        items, features = catalogue.shape
        self.catalogue = catalogue  # public and constant: not a parameter, and no part of what is released
        self.words = nn.Embedding(hash_buckets, width)
        self.taste = nn.Linear(features, width)
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.item = nn.Linear(width, features, bias=False)
        self.popularity = nn.Linear(1, items, bias=False)
        with torch.no_grad():  # what is random at the start stays noise: see TextMlp
            self.words.weight.mul_(0.05)
            self.popularity.weight.zero_()

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float [units, records, items]."""
        user = self.users(inputs)
        one = user.new_ones((*user.shape[:2], 1))
        scores: Tensor = self.item(user) @ self.catalogue.to(user.dtype).T + self.popularity(one)
        return scores

    def users(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float [units, records, width]: the user as known without that record."""
        items, tokens = inputs["items"].long(), inputs["tokens"].long()
        kind = self.words.weight.dtype
        chosen = (items != 0).to(kind).unsqueeze(-1)
        liked = self.catalogue.to(kind)[(items - 1).clamp(min=0)] * chosen
        written = (tokens != 0).to(kind).unsqueeze(-1)
        said = (self.words(tokens) * written).sum(-2) / written.sum(-2).clamp(min=1.0).sqrt()
        others = (chosen.sum(1, keepdim=True) - chosen).clamp(min=1.0)
        known = torch.tanh(self.taste(_without_own(liked) / others) + _without_own(said * chosen) / others)
        # Nothing is known of a user with one record: then popularity speaks alone.
        has_history = (chosen.sum(1, keepdim=True) - chosen > 0).to(kind)
        user: Tensor = (known + self.hidden(self.dropout(known))) * has_history
        return user

    def item_vectors(self) -> Tensor:
        """float [items, width]: what a recommender stores and compares users with."""
        return (self.catalogue.to(self.item.weight.dtype) @ self.item.weight).detach()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.catalogue = fn(self.catalogue)
        return self


def _without_own(rows: Tensor) -> Tensor:
    """For each record the sum over the unit's other records; rows: [units, records, ...]."""
    return rows.sum(1, keepdim=True) - rows
