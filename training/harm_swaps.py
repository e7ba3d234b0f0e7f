"""Counterfactual swaps: does the answer to a made-up text change when nothing but a term of identity does?

Guarantee: the texts are made of the policy's public labels, our sentences and listed terms, so the figures are post-processing
of the model and within its privacy claim. A text counts as changed when any two terms of its group get different answers.
Not covered: groups and words that are not listed; people who are not named by a word but by a name, a dialect or a place; harm
that is alike for all. That no answer changed shows nothing about texts of another kind.
Source: counterfactual token fairness, Garg et al. 2019 (1809.10610).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.canonical import Json
from training.harm_groups import down, up, wilson
from training.harm_terms import CONTROL, TEMPLATES, TERMS

_LABELS = 3  # that texts are made of, evenly over the label set: more would say little more and take longer
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class SwapText:
    """One text in the wordings of a group's terms."""

    group: str
    wordings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SwapFigures:
    """changed: share of texts whose answer a swap changes. score_gap: mean over texts of the spread of the probability of the
    answer that is likeliest over all terms. untouched: share of texts whose scores don't move at all, since the model does not
    read the term or gives it no weight."""

    texts: int
    changed: float
    interval: tuple[float, float]
    score_gap: float
    untouched: float

    def to_json(self) -> dict[str, Json]:
        return {
            "texts": self.texts,
            "changed_rate": up(self.changed),
            "interval": [down(self.interval[0]), up(self.interval[1])],
            "score_gap": up(self.score_gap),
            "untouched": down(self.untouched),
        }


def swap_texts(
    labels: Sequence[str], languages: Sequence[str], more: Mapping[str, Sequence[str]] | None = None
) -> list[SwapText]:
    """Every sentence of ours with every group of terms, for some of the labels. more: further terms by group, added to ours
    in the language that they are written in (Chinese where they hold a Chinese character, else English)."""
    topics = [_topic(label) for label in _some(labels)]
    found = []
    for language in languages:
        for group, terms in _terms(language, more or {}).items():
            for template in TEMPLATES[language]:
                found += [SwapText(group, tuple(template.format(term=term, topic=topic) for term in terms)) for topic in topics]
    return found


def swap_figures(texts: Sequence[SwapText], scores: npt.NDArray[np.float32], level: float) -> dict[str, SwapFigures]:
    """By group of terms, and under "" for all of them but the control.

    scores: float32 [wordings, labels], the wordings of all texts one after the other. level: of the two-sided interval.
    """
    if len(scores) != sum(len(text.wordings) for text in texts):
        raise ValueError("there must be one row of scores for each wording")
    seen = [(text.group, *_compared(part)) for text, part in zip(texts, _parts(texts, scores), strict=True)]
    groups = {group for group, *_ in seen}
    chosen = {"": [s for s in seen if s[0] != CONTROL], **{g: [s for s in seen if s[0] == g] for g in sorted(groups)}}
    return {group: _figures(rows, level) for group, rows in chosen.items() if rows}


def _figures(rows: Sequence[tuple[str, bool, float, bool]], level: float) -> SwapFigures:
    count, changed = len(rows), sum(row[1] for row in rows)
    return SwapFigures(
        count,
        changed / count,
        wilson(changed / count, count, level),
        sum(row[2] for row in rows) / count,
        sum(row[3] for row in rows) / count,
    )


def _compared(scores: npt.NDArray[np.float32]) -> tuple[bool, float, bool]:
    """(the answer changes, spread of the likeliest answer's probability, nothing moves); scores [terms, labels] of one text."""
    if not np.isfinite(scores).all():
        raise ValueError("the model's scores are not finite")
    exact = scores.astype(np.float64)
    likely = np.exp(exact - exact.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    answer = likely[:, int(likely.mean(0).argmax())]
    changed = len(set(scores.argmax(1).tolist())) > 1
    return changed, float(answer.max() - answer.min()), bool((scores == scores[:1]).all())


def _parts(texts: Sequence[SwapText], scores: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    start = 0
    for text in texts:
        yield scores[start : start + len(text.wordings)]
        start += len(text.wordings)


def _terms(language: str, more: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    found = dict(TERMS[language])
    for group, terms in more.items():
        ours = tuple(term for term in terms if bool(_HAN.search(term)) == (language == "zh"))
        joined = tuple(dict.fromkeys((*found.get(group, ()), *ours)))
        if len(joined) > 1:
            found[group] = joined
    return found


def _some(labels: Sequence[str]) -> list[str]:
    places = np.unique(np.linspace(0, len(labels) - 1, min(_LABELS, len(labels))).round().astype(int))
    return [labels[place] for place in places]


def _topic(label: str) -> str:
    """A label's words: "a<div>b_c" is "a b c"."""
    return " ".join(re.findall(r"[^\W_]+", re.sub(r"<[^<>]*>", " ", label))) or label
