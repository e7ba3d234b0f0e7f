"""How well a language model knows secrets of digits: their rank among all that could have been, as bits of exposure.

Guarantee: of n digits, all 10^n candidates are scored where the tokenizer writes a digit as one token and the work is
affordable: the rank is exact, and the exposure of a secret that the model never saw is exactly that of a uniform rank (mean
1.44 bits), whatever the model. Candidates that score alike share their rank, so a model that says nothing exposes nothing.
Elsewhere the rank is among fresh random candidates: exposure is then never above `most`, log2 of their number plus one.
Not covered: secrets of another form or place. A low exposure of a poor model says little: look at its utility, too.
Source: Carlini et al., "The Secret Sharer", USENIX Security 2019, definition 5 (exposure) and section 4 (exact and sampled).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from training.config import TrainingConfig
from training.models.causal_lm import CausalLm
from training.text_codec import TextCodec, codec_of

FloatArray = npt.NDArray[np.float64]
NULL_MEAN_BITS = 1 / math.log(2)  # of a uniform rank
_ROWS_AT_ONCE = 1000
_MOST_CANDIDATES = 10**7
_MOST_WORK = 2e13  # tokens times parameters, of an exact rank
_SAMPLED = (1 << 12, 1 << 16)  # least and most candidates of a sampled rank


@dataclass(frozen=True, slots=True)
class Exposure:
    """bits: log2 of the number of candidates less log2 of the rank, of each secret. most: no secret can show more.

    exact: whether every candidate was scored. candidates: how many were.
    """

    bits: tuple[float, ...]
    most: float
    exact: bool
    candidates: int


@torch.no_grad()
def exposures(
    model: CausalLm, config: TrainingConfig, label: int, before: str, found: Sequence[str], resolution: float = 0.0
) -> Exposure:
    """Exposure of each of `found`: strings of digits, all of one length, that stand after `before` in a text of `label`.

    resolution: bits that a sampled rank must be able to tell, as far as 65,536 candidates can.
    Raises ValueError where the model's scores are no numbers.
    """
    digits = len(found[0])
    if any(len(one) != digits or not one.isascii() or not one.isdigit() for one in found):
        raise ValueError("secrets must be digits, all of one length")
    was = model.training
    model.eval()
    try:
        signs = _digit_tokens(codec_of(config), before, found)
        work = sum(p.numel() for p in model.parameters()) * (10**digits - 1) / 9
        if signs is not None and 10**digits <= _MOST_CANDIDATES and work <= _MOST_WORK:
            scores = digit_scores(model, label, *signs, digits)
            own = scores[[int(one) for one in found]]
            return Exposure(_bits(scores, own, among=True), math.log2(len(scores)), True, len(scores))
        count = min(_SAMPLED[1], max(_SAMPLED[0], math.ceil(2**resolution)))
        others = [f"{secrets.randbelow(10**digits):0{digits}d}" for _ in range(count)]
        scores = _text_scores(model, config, label, before, [*others, *found])
        return Exposure(_bits(scores[:count], scores[count:], among=False), math.log2(count + 1), False, count)
    finally:
        model.train(was)


def digit_scores(model: CausalLm, label: int, before: Sequence[int], signs: Sequence[int], digits: int) -> FloatArray:
    """float64 [10^digits]: log-likelihood, in nats, of each number's digits after the tokens `before`.

    signs: the tokens of 0 to 9. A tree over the digits: each prefix is run through the model once, and is shared below it.
    """
    device = next(model.parameters()).device
    tokens = torch.tensor(list(signs), device=device)

    def grow(rows: torch.Tensor, state: object, so_far: torch.Tensor, left: int) -> Iterator[torch.Tensor]:
        logits, after = model.following(rows, state)
        each = logits.double().log_softmax(-1)[:, tokens]
        totals = (so_far[:, None] + each).flatten()
        if left == 1:
            yield totals.cpu()
            return
        for start in range(0, len(totals), _ROWS_AT_ONCE):
            chosen = torch.arange(start, min(start + _ROWS_AT_ONCE, len(totals)), device=device)
            parents = chosen // 10
            longer = torch.cat([rows[parents], tokens[chosen % 10, None]], 1)
            yield from grow(longer, model.branch(after, parents), totals[chosen], left - 1)

    first = torch.cat([model.codes[label].to(device), torch.tensor(list(before), dtype=torch.int64, device=device)])[None]
    with torch.no_grad():
        found: FloatArray = torch.cat(
            list(grow(first, None, torch.zeros(1, dtype=torch.float64, device=device), digits))
        ).numpy()
    return found


def _digit_tokens(codec: TextCodec, before: str, found: Sequence[str]) -> tuple[list[int], list[int]] | None:
    """Tokens of `before` and of 0 to 9 after it; None where the tokenizer joins digits to each other or to `before`."""
    digits = len(found[0])
    tokens = {sign: _tokens(codec, before + sign * digits) for sign in "0123456789"}
    prefix = tokens["0"][:-digits]
    signs = {sign: made[-1] for sign, made in tokens.items()}
    tried = [*found, *_numbers_tried(digits)]
    known = all(
        _tokens(codec, before + one) == [*prefix, *(signs[sign] for sign in one)]
        for one in (*tried, *(s * digits for s in signs))
    )
    return (prefix, [signs[sign] for sign in "0123456789"]) if known else None


def _numbers_tried(digits: int) -> list[str]:
    """Numbers of mixed digits on which a tokenizer is tried: every pair of neighbours stands in one of them."""
    pairs = "".join(f"{one}{other}" for one in range(10) for other in range(10))
    return [(pairs + pairs)[start : start + digits] for start in range(len(pairs))]


def _tokens(codec: TextCodec, text: str) -> list[int]:
    """Without the end."""
    tokens = codec.encode(text)
    return tokens[:-1] if tokens[-1] == codec.end else tokens


def _text_scores(model: CausalLm, config: TrainingConfig, label: int, before: str, found: Sequence[str]) -> FloatArray:
    """float64 [found]: log-likelihood, in nats, of each whole text, as its own tokens."""
    codec, device, scores = codec_of(config), next(model.parameters()).device, []
    texts = [_tokens(codec, before + one) for one in found]
    for start in range(0, len(texts), 256):
        part = texts[start : start + 256]
        rows = torch.zeros(len(part), max(map(len, part)), dtype=torch.int64)
        for row, text in zip(rows, part, strict=True):
            row[: len(text)] = torch.tensor(text)
        labels = torch.full((len(part), 1), label, device=device)
        with torch.no_grad():
            mean = model.record_losses(rows[:, None].to(device), labels)[:, 0].double().cpu().numpy()
        scores.append(-mean * np.array([len(text) for text in part]))
    return np.concatenate(scores)


def _bits(scores: FloatArray, own: FloatArray, *, among: bool) -> tuple[float, ...]:
    """Exposure of each of `own`; among: whether they are themselves in `scores`. Equals share the middle of their ranks."""
    if not (np.isfinite(scores).all() and np.isfinite(own).all()):
        raise ValueError("the scores of the model are no finite numbers")
    ordered = np.sort(scores)
    above = len(ordered) - np.searchsorted(ordered, own, "right")
    equal = len(ordered) - above - np.searchsorted(ordered, own, "left") - (1 if among else 0)
    ranks = 1 + above + equal / 2
    return tuple((math.log2(len(ordered) + (0 if among else 1)) - np.log2(ranks)).tolist())
