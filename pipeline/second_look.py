"""Another model reads a sample of the de-identified texts: names that it still sees are counted.

Guarantee: the model is Rampart, read alone and at its own threshold, not through the rules by which protect joined it with the
other model; placeholders, surrogates and moved dates are no names; what comes out is counts. Nothing is downloaded.
Assumption: the sample (uniform, drawn anew) stands for the whole. Not covered: Chinese, machine-written lines, and what both
models miss; a count here is a hint for a person, for the model errs in both directions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipeline.treatment import own_spans_of
from privacy.canonical import Scalar
from privacy.recognizers.view import PLACEHOLDER, looks_like_log, script_language

if TYPE_CHECKING:
    from privacy.policy import Policy
    from privacy.recognizers.rampart import Word

_SAMPLE = 200
_MOST_SIGNS = 600  # of a text that are read
_SURE = 0.9
_WORD = re.compile(r"[^\W\d_]{2,}")


class Reader(Protocol):
    """A model that gives the words of a text with the share of it being a name."""

    def read(self, texts: Sequence[str]) -> list[list[Word]]: ...


@dataclass(frozen=True, slots=True)
class SecondLook:
    """texts: how many were read; flagged: in how many a name was seen; is_there: whether the model is installed."""

    texts: int
    flagged: int
    is_there: bool

    def facts(self) -> dict[str, Scalar]:
        return {"second_look_texts": self.texts, "second_look_flagged": self.flagged}


def second_look(texts: Sequence[object], policy: Policy, reader: Callable[[], Reader | None] | None = None) -> SecondLook:
    """Reads at most 200 texts. Without the model, or where the policy has it off, none."""
    if policy.pii.second_look == "off" or policy.pii.entities.get("PERSON") == "keep":
        return SecondLook(0, 0, False)
    model = (reader or _rampart)()
    if model is None:
        return SecondLook(0, 0, False)
    talk = [t[:_MOST_SIGNS] for t in texts if isinstance(t, str) and script_language(t) == "en" and not looks_like_log(t)]
    sample = talk if len(talk) <= _SAMPLE else random.SystemRandom().sample(talk, _SAMPLE)
    own = own_spans_of(policy)
    flagged = 0
    for text, words in zip(sample, model.read(sample) if sample else [], strict=True):
        spans = [m.span() for m in PLACEHOLDER.finditer(text)] + [s[:2] for s in (own(text) if own else ())]
        flagged += any(_is_name(text, word, spans) for word in words)
    return SecondLook(len(sample), flagged, True)


def _is_name(text: str, word: Word, spans: Sequence[tuple[int, int]]) -> bool:
    from privacy.recognizers.names import STOP_WORDS, TALK_WORDS

    said = text[word.start : word.end].lower()
    return (
        word.name >= _SURE
        and _WORD.fullmatch(said) is not None
        and said not in STOP_WORDS
        and said not in TALK_WORDS
        and all(word.end <= start or word.start >= end for start, end in spans)
    )


def _rampart() -> Reader | None:
    from privacy.recognizers.rampart import Rampart, available

    return Rampart() if available() else None
