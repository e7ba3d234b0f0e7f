"""Language models that write texts of a label: a small GPT over bytes from scratch, or public weights from a folder.

Guarantee: a unit's loss depends on that unit alone. One record is one sequence: no two records and no two units ever share one,
so attention can't cross them; position ids are expanded to every sequence, so that their embedding has per-unit gradients.
Pads stand at the end, where causal attention hides them from what comes before; they have no loss.
Source: a label as a prefix that steers what is written ("control code"), Yue et al. 2023 (2210.14348).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data import IGNORED
from training.models.base import UnitModel, mean_over_records

_Seen = tuple[Tensor, Tensor]
_LOGITS_AT_ONCE = 1 << 25  # numbers, when every label is tried


class CausalLm(UnitModel):
    """What both forms share. Tokens count from 1, so that 0 can pad; every control code has the same number of them.

    codes: the tokens of each label's control code. end: the token that ends a text. silent: tokens that are never written.
    inputs: `tokens` int [units, records, time]: the text and the end token, without the control code.
    """

    def __init__(self, codes: Sequence[Sequence[int]], end: int, silent: Sequence[int] = ()) -> None:
        super().__init__()
        if len({len(code) for code in codes}) != 1 or not codes[0]:
            raise ValueError("control codes must have the same length, at least one token")
        self.codes = torch.tensor(codes, dtype=torch.int64)  # public and constant: no buffer, no part of what is released
        self.end, self.silent = end, torch.tensor(sorted({0, *silent}), dtype=torch.int64)

    def scores(self, tokens: Tensor) -> Tensor:
        """[rows, time, 1 + vocabulary] for the token after each of tokens [rows, time]; a pad is never likely."""
        raise NotImplementedError

    def record_losses(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """[units, records]: mean cross entropy of a text's tokens after its label's control code, in nats; 0 without a text."""
        units, records, time = tokens.shape
        rows = tokens.reshape(units * records, time).long()
        code = self.codes.to(rows.device)[labels.reshape(-1).clamp(min=0)]
        logits = self.scores(torch.cat([code, rows], 1)[:, :-1])[:, code.shape[1] - 1 :]
        logits = logits if logits.dtype.itemsize >= 4 else logits.float()
        target = rows.masked_fill(rows == 0, IGNORED)
        each = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none", ignore_index=IGNORED)
        written = (rows != 0).to(each.dtype)
        return (each.view_as(written).sum(1) / written.sum(1).clamp(min=1.0)).view(units, records)

    def losses(self, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        return mean_over_records(self.record_losses(inputs["tokens"], labels), labels)

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float [units, records, labels]: how likely each label's control code makes the text (mean log-likelihood)."""
        tokens = inputs["tokens"]
        tried = [torch.full(tokens.shape[:2], label, device=tokens.device) for label in range(len(self.codes))]
        return torch.stack([-self.record_losses(tokens, label) for label in tried], -1)

    @torch.no_grad()
    def generate(
        self, label: int, count: int, length: int, generator: torch.Generator, temperature: float = 1.0, top_k: int = 50
    ) -> list[list[int]]:
        """`count` texts as tokens without the end, each of at most `length`, after the control code of `label`.

        Drawn from the `top_k` likeliest tokens at each place. What is written may repeat what the model learnt: it is
        covered by the model's privacy claim and by nothing more, and has to be redacted.
        """
        device = next(self.parameters()).device
        rows = self.codes[label].to(device).repeat(count, 1)
        state: Any = None
        done = torch.zeros(count, dtype=torch.bool, device=device)
        written: list[Tensor] = []
        for _ in range(length):
            scores, state = self.following(rows, state)
            drawn = self._draw(scores.float(), generator, temperature, top_k)
            done |= drawn == self.end
            if bool(done.all()):
                break
            drawn = torch.where(done, self.end, drawn)
            written.append(drawn)
            rows = torch.cat([rows, drawn[:, None]], 1)
        texts = torch.stack(written, 1).tolist() if written else [[] for _ in range(count)]
        return [text[: text.index(self.end)] if self.end in text else text for text in texts]

    def following(self, rows: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Scores after the last token of each row, and what makes the next call on the same rows, longer, cheaper."""
        return self.scores(rows)[:, -1], None

    def branch(self, state: Any, rows: Tensor) -> Any:
        """The state of a new call whose row i goes on from row rows[i] of the call that gave `state`, which stays usable."""
        return None

    def _draw(self, scores: Tensor, generator: torch.Generator, temperature: float, top_k: int) -> Tensor:
        scores = scores.index_fill(1, self.silent.to(scores.device), -math.inf)
        best, where = scores.topk(min(top_k, scores.shape[1] - len(self.silent)), 1)
        # Drawn on the CPU, so that one seed gives one text on every machine.
        chosen = torch.multinomial((best / temperature).softmax(1).cpu(), 1, generator=generator)
        return where.gather(1, chosen.to(where.device)).squeeze(1)


class SmallGpt(CausalLm):
    """A GPT from scratch whose head is its embedding table (one tied tensor). heads must divide width."""

    def __init__(
        self,
        vocabulary: int,
        codes: Sequence[Sequence[int]],
        end: int,
        silent: Sequence[int],
        max_tokens: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(codes, end, silent)
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(max_tokens + len(codes[0]), width)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        with torch.no_grad():
            self.tokens.weight.normal_(std=0.02)
            self.places.weight.normal_(std=0.02)
            for block in self.blocks:
                block.shrink(math.sqrt(2 * layers))  # type: ignore[operator]

    def scores(self, tokens: Tensor) -> Tensor:
        rows, time = tokens.shape
        places = torch.arange(time, device=tokens.device).repeat(rows, 1)  # never [1, time]: it would mix units
        states = self.tokens(tokens) + self.places(places)
        for block in self.blocks:
            states = block(states)
        found: Tensor = self.head(self.last(states))
        return found

    def following(self, rows: Tensor, state: Any) -> tuple[Tensor, Any]:
        past: Sequence[_Seen | None] = state or [None] * len(self.blocks)
        done = 0 if past[0] is None else past[0][0].shape[2]
        places = torch.arange(done, rows.shape[1], device=rows.device).repeat(len(rows), 1)
        states, seen = self.tokens(rows[:, done:]) + self.places(places), []
        for block, before in zip(self.blocks, past, strict=True):
            states, now = block.step(states, before)  # type: ignore[operator]
            seen.append(now)
        return self.head(self.last(states[:, -1])), seen

    def branch(self, state: Any, rows: Tensor) -> Any:
        return [(key[rows], value[rows]) for key, value in state]


class _Block(nn.Module):
    """Pre-norm attention and a hidden layer of four times the width."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def shrink(self, factor: float) -> None:
        """What goes back into the stream of states, so that it does not grow with the number of layers."""
        for way_back in (self.out, self.down):
            way_back.weight.div_(factor)

    def forward(self, states: Tensor) -> Tensor:
        return self.step(states, None)[0]

    def step(self, states: Tensor, past: _Seen | None) -> tuple[Tensor, _Seen]:
        """past: keys and values [rows, heads, time, width / heads] of the tokens before `states`; None where there are none."""
        rows, time, width = states.shape
        parts = self.mixed(self.before(states)).view(rows, time, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mask = None
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
            mask = torch.ones(time, key.shape[2], dtype=torch.bool, device=states.device).tril(key.shape[2] - time)
        seen = functional.scaled_dot_product_attention(query, key, value, mask, is_causal=past is None)
        states = states + self.dropout(self.out(seen.transpose(1, 2).reshape(rows, time, width)))
        after: Tensor = states + self.dropout(self.down(functional.gelu(self.up(self.between(states)))))
        return after, (key, value)


class PretrainedLm(CausalLm):
    """A Hugging Face causal language model (Llama and GPT-2 family). Its token i is token i + 1 here."""

    def __init__(self, network: nn.Module, codes: Sequence[Sequence[int]], end: int, silent: Sequence[int]) -> None:
        super().__init__(codes, end, silent)
        self.network = network

    def scores(self, tokens: Tensor) -> Tensor:
        rows, time = tokens.shape
        places = torch.arange(time, device=tokens.device).repeat(rows, 1)
        logits = self.network(input_ids=(tokens - 1).clamp(min=0), position_ids=places, use_cache=False).logits
        return functional.pad(logits, (1, 0), value=-1e4)

    def following(self, rows: Tensor, state: Any) -> tuple[Tensor, Any]:
        done = 0 if state is None else state.get_seq_length()
        places = torch.arange(done, rows.shape[1], device=rows.device).repeat(len(rows), 1)
        ids = (rows[:, done:] - 1).clamp(min=0)
        found = self.network(input_ids=ids, position_ids=places, past_key_values=state, use_cache=True)
        return functional.pad(found.logits[:, -1], (1, 0), value=-1e4), found.past_key_values

    def branch(self, state: Any, rows: Tensor) -> Any:
        grown = copy.deepcopy(state)
        grown.batch_select_indices(rows)
        return grown
