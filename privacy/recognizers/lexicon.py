"""Which words are everyday English: those of the language model's own lemma tables and of the lexicons of `names`.

Guarantee: read from the installed model package; nothing is downloaded, and nothing comes from a data set.
Assumption: the tables (WordNet's, in lower case) also hold some surnames and places; a word of our name lexicons is never
everyday English here, and neither is a nationality.
Source: spaCy's rule lemmatizer tables (lemma_index, lemma_exc), which follow Princeton WordNet.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path

from privacy.recognizers.names import AMBIGUOUS_NAMES, GIVEN_NAMES, NATIONALITIES, PLACE_NAMES, STOP_WORDS, SURNAMES, TALK_WORDS

_ENDINGS = (
    ("'s", ""), ("’s", ""), ("ies", "y"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", ""), ("d", ""), ("ing", ""), ("ing", "e"),
    ("ily", "y"), ("ly", ""), ("er", ""), ("er", "e"), ("est", ""), ("n't", ""), ("'re", ""), ("'ve", ""), ("'ll", ""),
    ("less", ""), ("ness", ""), ("ment", ""), ("able", ""),
)  # fmt: skip
_SPOKEN = STOP_WORDS | TALK_WORDS
_OPENERS = (
    "ok", "okay", "hi", "hello", "hey", "yes", "no", "thanks", "thank", "good", "bye", "sure", "please", "sorry", "and", "not",
    "sir", "i", "my",
)  # fmt: skip
_PREFIXES = ("re", "un", "non", "pre", "over", "mis", "anti", "post")


class Lexicon:
    """Everyday English. `plain` is memoised: talk repeats its words."""

    def __init__(self, words: frozenset[str]) -> None:
        self._words = words
        self._known: dict[str, bool] = {}

    def plain(self, word: str) -> bool:
        """Whether this lower-case word, or the word it is a form of, is everyday English and nobody's name."""
        known = self._known.get(word)
        if known is None:
            if len(self._known) > 200_000:  # memory stays bounded whatever is read
                self._known.clear()
            known = self._known[word] = self._look_up(word)
        return known

    def _look_up(self, word: str) -> bool:
        if word in STOP_WORDS or word in TALK_WORDS:
            return True
        if word in GIVEN_NAMES or word in SURNAMES or word in NATIONALITIES or word in PLACE_NAMES:
            return False
        if word in self._words:
            return True
        for ending, instead in _ENDINGS:
            if word.endswith(ending) and len(word) - len(ending) > 1:
                stem = word[: -len(ending)] + instead
                if self._base(stem) or (len(stem) > 3 and stem[-1] == stem[-2] and self._base(stem[:-1])):
                    return True
        if self._glued(word):
            return True
        if "-" in word.strip("-"):
            return all(len(part) == 1 or self.plain(part) for part in word.split("-") if part)
        return any(word.startswith(p) and len(word) - len(p) > 3 and self._base(word[len(p) :]) for p in _PREFIXES)

    def _glued(self, word: str) -> bool:
        """Chat spellings: a word of talk stuck to the next one (`okthanks`), or drawn out (`byee`, `sooo`)."""
        short = re.sub(r"(.)\1+\Z", r"\1", word)
        if short != word and (short in STOP_WORDS or short in TALK_WORDS):
            return True
        return any(word.startswith(head) and len(word) - len(head) > 1 and word[len(head) :] in _SPOKEN for head in _OPENERS)

    def _base(self, word: str) -> bool:
        return (word in self._words or word in STOP_WORDS or word in TALK_WORDS) and not (
            (word in GIVEN_NAMES or word in SURNAMES) and word not in AMBIGUOUS_NAMES
        )


@lru_cache(maxsize=2)
def lexicon(model: str) -> Lexicon:
    """The lexicon of an installed English spaCy package; only the lists of `names` where it carries no tables."""
    words: set[str] = set()
    for path in _tables(model):
        from spacy.lookups import Lookups

        tables = Lookups().from_disk(path)
        for name in ("lemma_index", "lemma_exc"):
            if tables.has_table(name):
                for group in tables.get_table(name).values():
                    words.update(group)
    return Lexicon(frozenset(word for word in words if word.isascii() and len(word) > 1))


def _tables(model: str) -> list[Path]:
    spec = importlib.util.find_spec(model)
    if spec is None or spec.origin is None:
        return []
    return sorted(Path(spec.origin).parent.glob("*/lemmatizer/lookups"))[:1]
