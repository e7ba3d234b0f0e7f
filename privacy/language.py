"""The language lane: what models of language add to the patterns, in talk: names, places, addresses, organisations.

Two models read a text at most: Rampart (optional), and where it left odd words unexplained spaCy's entity pipe, through
Presidio's NLP engine. A gate skips what cannot hold a name, a place or an address: everyday words alone, without a cue. The
loss of both rules is measured (tests/privacy/test_language_sets.py), not assumed; `gated=False` is without them.
Guarantee: offsets are of the original text (models see its normalised view); a model that fails is an error, never silence;
a text is read the same way in any batch.
Not covered: names that are everyday words in lower case, in a sentence, without a cue; machine-written lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privacy.errors import EnvironmentFault, PrivetError
from privacy.findings import Finding
from privacy.recognizers import opinions
from privacy.recognizers.lexicon import Lexicon, lexicon
from privacy.recognizers.names import AMBIGUOUS_NAMES, GIVEN_NAMES, STOP_WORDS, SURNAMES, TALK_WORDS
from privacy.recognizers.opinions import STREET_WORD, Heard
from privacy.recognizers.rampart import VERSION as RAMPART_VERSION
from privacy.recognizers.rampart import Rampart, Word, speakable
from privacy.recognizers.spelling import VERSION as SPELLING_VERSION
from privacy.recognizers.spelling import WORD, listed, odd_turn
from privacy.recognizers.view import View, view_of

if TYPE_CHECKING:
    from presidio_analyzer.nlp_engine import NlpEngine

VERSION = "3"
_BATCH = 256
_PIECE = 8_000  # characters that a model reads at once; longer texts are cut at white space
_TURN_WORDS = 4
_CUE = re.compile(
    r"\b(?:i am|i'm|i’m|im|this is|it is|its|it's|name|names|called|call me|myself|mr|mrs|ms|dr|miss|sir|attn|regards|sincerely"
    r"|cheers|from|with|by|for|dear|hi|hello|hey|ask|contact)\b[\s:,.]{1,3}[a-z]",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"[0-9]")
_RAISE = re.compile(r"(?<![a-z'])[a-z]")
_SPOKEN = STOP_WORDS | TALK_WORDS
_NAMES = GIVEN_NAMES | SURNAMES | AMBIGUOUS_NAMES
_ENDS = '.!?:;\n"“”(*•-\ue000'
_SAID = 0.5  # what the second model must say of a word for the first not to be asked about it


@dataclass(frozen=True, slots=True)
class _Piece:
    """A run of a text's view; `asked`: its characters and which models read them."""

    index: int
    view: View
    offset: int
    asked: tuple[str, bool, bool]


class LanguageLane:
    """`first`: Presidio's NLP engine, entity pipe only. `second`: Rampart, or None to do without. `gated`: False to measure."""

    def __init__(self, first: NlpEngine, second: Rampart | None, words: Lexicon, *, gated: bool = True) -> None:
        self._first = first
        self._second = second
        self._lexicon = words
        self._gated = gated

    @property
    def facts(self) -> list[str]:
        """Everything here that decides what is found, for the detector's version."""
        second = RAMPART_VERSION if self._second is not None else "no second model"
        return [VERSION, opinions.VERSION, SPELLING_VERSION, second, str(self._gated)]

    def read(self, texts: Sequence[str], known: Sequence[Sequence[Finding]] | None = None) -> list[list[Finding]]:
        """Candidates of each text: valid offsets, overlaps not resolved. Raises EnvironmentFault E-DETECT-008.

        known: what the patterns found; a strange word inside it is no reason to ask a model.
        """
        pieces: list[_Piece] = []
        heard: dict[tuple[str, bool, bool], Heard] = {}
        for index, text in enumerate(texts):
            view = view_of(speakable(text))
            rest = _rest(text, view, known[index] if known is not None else ())
            for offset, body in _pieces(view.text):
                piece = _Piece(index, view, offset, (body, *self.wants(body, rest[offset : offset + len(body)])))
                heard[piece.asked] = Heard()
                pieces.append(piece)
        self._hear(heard)
        found: list[list[Finding]] = [[] for _ in texts]
        read: dict[tuple[str, bool, bool], list[Finding]] = {}
        for piece in pieces:
            candidates = read.get(piece.asked)
            if candidates is None:
                candidates = opinions.findings_of(piece.asked[0], heard[piece.asked], self._lexicon)
                read[piece.asked] = candidates
            found[piece.index] += [_placed(f, piece.view, piece.offset) for f in candidates]
        for index, findings in enumerate(known or ()):
            titled = [opinions.with_title(texts[index], f) for f in findings if f.entity == "PERSON"]
            found[index] += [f for f in titled if f not in findings]
        return found

    def wants(self, text: str, rest: str | None = None) -> tuple[bool, bool]:
        """Whether the first and the second model are to read a text (a view's): the gate.

        rest: the text with what the patterns found blanked out.
        """
        if not self._gated:
            return True, True
        seen = text if rest is None else rest
        words = WORD.findall(seen)
        if not words:
            return False, False
        if odd_turn(text, self._lexicon):
            return False, False  # it is a finding already, and no model knows more about a lone name
        if self._odd(seen):
            return not text.islower(), True
        lowered = [word.lower() for word in words]
        bare = len(words) <= _TURN_WORDS and not any(w in STOP_WORDS or w in TALK_WORDS for w in lowered)
        place = _DIGIT.search(text) is not None and STREET_WORD.search(text) is not None
        return False, bare or place or self._cued(text)

    def _odd(self, text: str) -> bool:
        """Whether a word is of no dictionary, or has a capital that neither a sentence nor its spelling explains.

        Places and peoples of the closed lists are found without a model; abbreviations of up to four letters name nobody.
        """
        plain, cased = self._lexicon.plain, not text.isupper()
        for match in WORD.finditer(text):
            word = match.group()
            if len(word) < 2:
                continue
            lowered = word.lower()
            name = lowered in _NAMES
            if not name and (listed(lowered) or (cased and len(word) < 5 and word.isupper())):
                continue
            if not plain(lowered):
                return True
            if word[0].isupper() and (name or lowered not in _SPOKEN) and not _opens(text, match.start()):
                return True
        return False

    def _cued(self, text: str) -> bool:
        for match in _CUE.finditer(text):
            word = WORD.match(text, match.end() - 1)
            if word is not None:
                lowered = word.group().lower()
                if lowered not in STOP_WORDS and lowered not in TALK_WORDS and (lowered in GIVEN_NAMES or lowered in SURNAMES):
                    return True
        return False

    def _hear(self, heard: dict[tuple[str, bool, bool], Heard]) -> None:
        """Fill `heard`, whose keys say which model is to read which text."""
        first = [body for body, one, _ in heard if one]
        second = [body for body, _, two in heard if two]
        words: dict[str, list[Word]] = {}
        try:
            if self._second is not None:
                words = dict(zip(second, self._second.read(second), strict=True))
                first = [body for body in first if not self._gated or self._odd(_unsaid(body, words.get(body, ())))]
            entities = self._entities(first)
            if self._second is None:
                entities.update(self._raised([body for body in second if body not in entities]))
        except PrivetError:
            raise
        except Exception as error:
            raise EnvironmentFault(
                "E-DETECT-008",
                f"a language model failed ({type(error).__name__})",
                "Run again; if it fails again, reinstall the pinned dependencies (make setup)",
            ) from None
        for asked in heard:
            body, one, two = asked
            raised = two and self._second is None
            heard[asked] = Heard(entities.get(body, ()) if one or raised else (), words.get(body, ()) if two else ())

    def _entities(self, bodies: list[str]) -> dict[str, list[tuple[int, int, str]]]:
        found: dict[str, list[tuple[int, int, str]]] = {}
        for body, artifacts in self._first.process_batch(bodies, "en", batch_size=_BATCH):
            found[body] = [(e.start_char, e.end_char, e.label_) for e in artifacts.entities]
        return found

    def _raised(self, bodies: list[str]) -> dict[str, list[tuple[int, int, str]]]:
        """Without a second model: short turns in lower case are shown to the first with capitals, which it needs."""
        short = [body for body in bodies if body.isascii() and body.islower() and body.count(" ") < 2 * _TURN_WORDS]
        shown = {_RAISE.sub(lambda match: match.group().upper(), body): body for body in short}
        names = self._entities(list(shown))
        return {shown[raised]: [e for e in entities if e[2] == "PERSON"] for raised, entities in names.items()}


def language_lane(model: str, engine: NlpEngine, *, second: bool, gated: bool = True) -> LanguageLane:
    """The lane of an installed spaCy package. Raises EnvironmentFault E-DETECT-006 when `second` is asked for and not there."""
    return LanguageLane(engine, Rampart() if second else None, lexicon(model), gated=gated)


def _unsaid(text: str, words: Sequence[Word]) -> str:
    """The text without the words that the second model calls parts of names and addresses."""
    signs = list(text)
    for word in words:
        if word.name + word.place >= _SAID:
            signs[word.start : word.end] = " " * (word.end - word.start)
    return "".join(signs)


def _opens(text: str, start: int) -> bool:
    """Whether a sentence may start here, so that a capital says nothing."""
    before = text[max(0, start - 4) : start].rstrip(" \t")
    return not before or before[-1] in _ENDS


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """(offset, text) of runs of at most _PIECE characters, cut at white space where there is any."""
    start = 0
    while start < len(text):
        end = min(start + _PIECE, len(text))
        if end < len(text):
            cut = max(text.rfind(" ", start + _PIECE // 2, end), text.rfind("\n", start + _PIECE // 2, end))
            end = cut + 1 if cut > 0 else end
        yield start, text[start:end]
        start = end


def _rest(text: str, view: View, known: Sequence[Finding]) -> str:
    """The view with known findings as spaces; the view itself where its offsets are not those of the text."""
    if not known or len(view.text) != len(text):
        return view.text
    signs = list(view.text)
    for finding in known:
        signs[finding.start : finding.end] = " " * (finding.end - finding.start)
    return "".join(signs)


def _placed(finding: Finding, view: View, offset: int) -> Finding:
    start, end = view.original(finding.start + offset, finding.end + offset)
    return Finding(start, end, finding.entity, finding.score, finding.recognizer, finding.version, finding.reason)
