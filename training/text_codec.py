"""Texts as tokens for a language model, and back: bytes, or the tokenizer that comes with public weights. Nothing is fitted.

Guarantee: a text becomes tokens by itself, by a public function. Tokens count from 1, since 0 pads; the keyed part of a
placeholder is dropped (`<PERSON_3fa9c1>` becomes `<PERSON>`), so that a model never learns or writes a pseudonym.
A control code is what stands before a text of a label; all have one length, so that they can be exchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from training.config import TrainingConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from training.pretrained import Pretrained

_PSEUDONYM = re.compile(r"<([A-Za-z][A-Za-z_]{1,40}?)_[0-9a-f]{4,16}>")
_BYTES = 256


class TextCodec(Protocol):
    """codes: by label, in the order of the policy. silent: tokens that are never written. vocabulary: one above the largest."""

    end: int
    vocabulary: int
    codes: list[list[int]]
    silent: list[int]

    def encode(self, text: str) -> list[int]:
        """At most max_tokens; the end token is the last one of a text that fits."""

    def decode(self, tokens: Sequence[int]) -> str: ...

    def characters(self, tokens: Sequence[int]) -> int:
        """Of the text that the tokens hold, the end counted as one."""


class ByteCodec:
    """UTF-8, byte b as token b + 1; then the end; then one token a label. 0 pads."""

    def __init__(self, labels: int, max_tokens: int) -> None:
        self.end = _BYTES + 1
        self.codes = [[self.end + 1 + label] for label in range(labels)]
        self.silent = [code for [code] in self.codes]
        self.vocabulary = self.end + 1 + labels
        self._most = max_tokens

    def encode(self, text: str) -> list[int]:
        return [*(byte + 1 for byte in plain(text).encode("utf-8", "replace")), self.end][: self._most]

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token - 1 for token in tokens if 0 < token <= _BYTES).decode("utf-8", "replace")

    def characters(self, tokens: Sequence[int]) -> int:
        return sum(token > 0 and (token > _BYTES or (token - 1) & 0xC0 != 0x80) for token in tokens)


class PretrainedCodec:
    """The tokenizer of public weights: its id i is token i + 1. A control code is the label's words, a colon and a new line."""

    def __init__(self, tokenizer: Tokenizer, begin: int | None, end: int, labels: Sequence[str], max_tokens: int) -> None:
        tokenizer.no_truncation()  # it would cut silently, and hide whether a text ended
        self._tokenizer, self._most = tokenizer, max_tokens
        self.end, self.vocabulary = end + 1, tokenizer.get_vocab_size() + 1
        codes = [self._ids(f"{label.replace('_', ' ')}:\n") for label in labels]
        longest, filler = max(map(len, codes)), self._ids("\n")[-1]
        lead = [] if begin is None else [begin + 1]
        self.codes = [lead + code + [filler] * (longest - len(code)) for code in codes]
        special = [i + 1 for i, token in tokenizer.get_added_tokens_decoder().items() if token.special]
        self.silent = sorted({*special} - {self.end})

    def _ids(self, text: str) -> list[int]:
        return [i + 1 for i in self._tokenizer.encode(text, add_special_tokens=False).ids]

    def encode(self, text: str) -> list[int]:
        return [*self._ids(plain(text)), self.end][: self._most]

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode([token - 1 for token in tokens if token > 0 and token != self.end])

    def characters(self, tokens: Sequence[int]) -> int:
        return len(self.decode(tokens)) + (self.end in tokens)


def plain(text: str) -> str:
    """Without the keyed part of placeholders."""
    return _PSEUDONYM.sub(lambda found: f"<{found[1]}>", text)


def codec_of(config: TrainingConfig) -> ByteCodec | PretrainedCodec:
    """Raises the codes of `training.pretrained.find_pretrained`."""
    recipe = config.recipe
    if recipe.pretrained is None:
        return ByteCodec(len(config.labels), recipe.max_tokens)
    from training.pretrained import find_pretrained

    return _pretrained(find_pretrained(recipe.pretrained, recipe.pretrained_digest), config.labels, recipe.max_tokens)


@lru_cache(maxsize=4)
def _pretrained(found: Pretrained, labels: tuple[str, ...], max_tokens: int) -> PretrainedCodec:
    from training.pretrained import load_tokenizer

    begin, end = (_first(found.folder, name) for name in ("bos_token_id", "eos_token_id"))
    if end is None:
        from privacy.errors import PolicyError

        raise PolicyError(
            "E-PRETRAINED-006",
            "the pretrained model names no token that ends a text (eos_token_id), so it can't learn where one ends",
            "Use a causal language model",
        )
    return PretrainedCodec(load_tokenizer(found, max_tokens), begin, end, labels, max_tokens)


def _first(folder: Path, name: str) -> int | None:
    value = json.loads((folder / "config.json").read_bytes()).get(name)
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) else None
