"""What two models and a lexicon say about one text, as findings: joined, trimmed and sifted by fixed rules.

Guarantee: a pure function of the text and of what the models said; offsets lie in the text; symbols, digits and everyday
words alone are never a name, however sure a model is.
Not covered: names that are everyday words, in lower case, without a cue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from privacy.findings import Finding
from privacy.recognizers import cues, spelling
from privacy.recognizers.lexicon import Lexicon
from privacy.recognizers.names import STOP_WORDS, SURNAMES, TALK_WORDS
from privacy.recognizers.rampart import CITY, STREET, ZIP, Word
from privacy.recognizers.spelling import WORD
from privacy.recognizers.view import word_set

VERSION = "1"
SECOND = "Rampart"
FIRST = "spaCy"
_REASON_FIRST = "the entity model decides; symbols, digits and everyday words are refused"
_REASON_SECOND = "the model of names and addresses decides; everyday words need a second sign"

_NAME_JOIN = re.compile(r"[ .'’‘-]{0,3}")
_PLACE_JOIN = re.compile(r"[\s,.;()/#'’-]{0,8}")
_SYMBOLS = re.compile(r"[0-9=_<>{}\[\]|\\@/\ue000]")
_TYPES = frozenset({"PERSON", "LOCATION", "ORGANIZATION", "NRP"})
_LEADING = re.compile(r"(?:(?:the|a|an|this|dear|hi|hello|hey)\s+)+", re.IGNORECASE)
_TRAILING = re.compile(r"(?:['’]s|[\s,.;:!?'\"’-])+\Z")
_TITLE_BEFORE = re.compile(
    r"(?<![A-Za-z])(?:mr|mrs|ms|miss|mx|dr|prof|professor|doctor|sir|madam|madame|herr|frau|mme)\.?\s{1,2}\Z", re.IGNORECASE
)
_DEGREE_AFTER = re.compile(r",?\s(?:MD|DDS|DVM|PhD|Ph\.D\.?|Jr\.?|Sr\.?|II|III|IV|Esq\.?|MBA|CPA|RN)(?![A-Za-z])")
_MAILS = ("mailcom", "gmail", "yahoocom", "hotmailcom", "mail.com")
STREET_WORD = re.compile(
    r"\b(?:street|str|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|place|square|sq|terrace|way|highway|hwy"
    r"|parkway|pkwy|circle|crescent|trail|close|plaza|nagar|colony|heights|gardens?|grove|broadway|box|apt|apartment|suite|flat"
    r"|unit|floor|block|house|door|corner|village|town|city|district)\b",
    re.IGNORECASE,
)
_NO_ENTITY = re.compile(r"[@#&;|/\\=<>{}\[\]_]|https?|\.(?:com|net|org)")
_TITLES = word_set("mr mrs ms miss mx dr prof professor sir madam madame herr frau mme")
# A number on the line of the address, with capitalised words between the two where they open the line.
_NUMBER_BEFORE = re.compile(
    r"(?<![0-9A-Za-z.,-])[0-9]{1,6}[A-Za-z]?,? (?:"
    + r"[A-Z\u00c0-\u00de][\w'’.-]{0,20} (?:de |la |da |do |du |von |van )?){0,2}\Z"
)
_NUMBER_AFTER = re.compile(r"[\s,]{1,3}[0-9]{1,6}(?:-[0-9]{1,4})?(?![0-9A-Za-z]|[.,-][0-9])")
_NUMBERISH = re.compile(r"[0-9][0-9A-Za-z-]{0,9}\Z")


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said about one text: entities of the first model (start, end, label), words of the second."""

    entities: Sequence[tuple[int, int, str]] = ()
    words: Sequence[Word] = ()


def findings_of(text: str, heard: Heard, lexicon: Lexicon) -> list[Finding]:
    """All candidates; overlaps are left to the one overlap rule."""
    cased = has_capitals(text)
    places = [cues.whole_block(text, f) if f.entity == "ADDRESS" else f for f in _places(text, heard.words, lexicon)]
    found = [*places, *_names(text, heard.words, lexicon, cased)]
    blocked = [(f.start, f.end) for f in places if f.entity == "ADDRESS"]
    for start, end, label in heard.entities:
        finding = _entity(text, start, end, label, lexicon, heard.words)
        if finding is not None and not _inside(finding, blocked):
            found.append(finding)
    found += spelling.lexical(text)
    if cased:
        found += spelling.opening_pair(text, found)
        found += spelling.capitals(text, found, lexicon)
    found += spelling.introduced(text, lexicon)
    found += spelling.odd_turn(text, lexicon)
    found += cues.by_cue(text, found, lexicon)
    return [with_title(text, f) if f.entity == "PERSON" else f for f in found]


def with_title(text: str, finding: Finding) -> Finding:
    """A title before a name and a degree after it belong to the mention."""
    before = _TITLE_BEFORE.search(text, max(0, finding.start - 24), finding.start)
    after = _DEGREE_AFTER.match(text, finding.end)
    start, end = before.start() if before else finding.start, after.end() if after else finding.end
    return Finding(start, end, "PERSON", finding.score, finding.recognizer, finding.version, finding.reason)


def has_capitals(text: str) -> bool:
    """Whether its author uses capitals to tell words apart: some word has one, and most do not."""
    words = WORD.findall(text)
    raised = sum(word[0].isupper() for word in words)
    return raised > 0 and (raised < len(words) * 0.7 or len(words) < 5)


def _places(text: str, words: Sequence[Word], lexicon: Lexicon) -> list[Finding]:
    """Runs of words of addresses, joined over punctuation, line ends and one number or short word in between."""
    found: list[Finding] = []
    run: list[Word] = []
    between: list[Word] = []
    for word in words:
        placed = word.place >= 0.4 and word.place > word.name
        if placed or (run and text[word.start : word.end].isspace()):
            if run and not _joined(text, run[-1], word, between):
                found += _place(text, run, lexicon)
                run = []
            run += [*between, word] if run else [word]
            between = []
        elif run:
            between.append(word)
            if len(between) > 3:
                found += _place(text, run, lexicon)
                run, between = [], []
    return found + (_place(text, run, lexicon) if run else [])


def _joined(text: str, last: Word, word: Word, between: Sequence[Word]) -> bool:
    """Whether what stands between two words of an address belongs to it."""
    position = last.end
    letters = 0
    for part in [*between, word]:
        if _PLACE_JOIN.fullmatch(text, position, part.start) is None:
            return False
        position = part.end
        value = text[part.start : part.end]
        if part is not word and value.isalnum() and _NUMBERISH.match(value) is None:
            if value.lower() in STOP_WORDS - {"of", "and", "the", "no", "street"} and part.place < 0.15:
                return False
            letters += 1
    return letters <= 1


def _place(text: str, run: Sequence[Word], lexicon: Lexicon) -> list[Finding]:
    words = [w for w in run if text[w.start].isalnum()]
    while words and _plain_end(text, words[-1], lexicon):
        words.pop()
    if not words:
        return []
    start, end = words[0].start, words[-1].end
    letters = [text[w.start : w.end] for w in words if text[w.start].isalpha()]
    if not any(len(w) > 1 for w in letters) or spelling.is_people(letters):
        return []
    street = sum(w.shares[STREET] for w in words) >= 0.5
    digits = any(c.isdigit() for c in text[start:end])
    odd = any(not lexicon.plain(w.lower()) or w[0].isupper() for w in letters)
    mean = sum(w.place for w in words) / len(words)
    if not odd and not (street and digits and len(words) > 2 and STREET_WORD.search(text, start, end)):
        return []
    if digits and not street and len(words) < 3 and not any(w.shares[CITY] + w.shares[ZIP] > 0.8 for w in words):
        return []
    if street and digits:
        start, end = _with_numbers(text, start, end)
    entity = "ADDRESS" if street and (digits or len(words) > 1) else "LOCATION"
    return [Finding(start, end, entity, round(0.55 + 0.25 * mean, 2), SECOND, VERSION, _REASON_SECOND)]


def _with_numbers(text: str, start: int, end: int) -> tuple[int, int]:
    """A number that touches the address on its line, or that alone follows it, is its house number or its code."""
    before = _NUMBER_BEFORE.search(text, max(0, start - 60), start)
    after = _NUMBER_AFTER.match(text, end)
    return before.start() if before else start, after.end() if after else end


def _plain_end(text: str, word: Word, lexicon: Lexicon) -> bool:
    value = text[word.start : word.end]
    return value.islower() and value in STOP_WORDS and word.place < 0.8


def _names(text: str, words: Sequence[Word], lexicon: Lexicon, cased: bool) -> list[Finding]:
    found: list[Finding] = []
    run: list[Word] = []
    for word in words:
        value = text[word.start : word.end]
        if not value[0].isalpha():
            continue
        fits = word.name >= 0.35 and word.name > word.place and not _common(value, word, lexicon, cased)
        if (
            not fits
            and run
            and value[:1].isupper()
            and word.name >= 0.1
            and _NAME_JOIN.fullmatch(text, run[-1].end, word.start)
        ):
            fits = not lexicon.plain(value.lower()) or len(value) == 1
        if fits:
            if run and _NAME_JOIN.fullmatch(text, run[-1].end, word.start) is None:
                found += _name(text, run, lexicon, cased)
                run = []
            run.append(word)
        elif run:
            found += _name(text, run, lexicon, cased)
            run = []
    return found + (_name(text, run, lexicon, cased) if run else [])


def _common(value: str, word: Word, lexicon: Lexicon, cased: bool) -> bool:
    """Whether the model calls an everyday word a name: lower case beside capitals, or of our closed lists."""
    lowered = value.lower()
    if lowered in TALK_WORDS or lowered in _TITLES or (lowered in STOP_WORDS and lowered not in SURNAMES):
        return not (cased and value[0].isupper() and len(value) > 3 and word.name > 0.9)
    if value.islower() and lexicon.plain(lowered):
        return cased or word.name < 0.6 or lowered.endswith(("ed", "ing", "ly"))
    return lowered.endswith(_MAILS)


def _name(text: str, run: Sequence[Word], lexicon: Lexicon, cased: bool) -> list[Finding]:
    start, end = run[0].start, run[-1].end
    values = [text[w.start : w.end] for w in run]
    best = max(w.name for w in run)
    odd = any(len(v) > 1 and not lexicon.plain(v.lower()) for v in values)
    if spelling.is_place(values):
        return []
    if len(text[start:end]) < 2 or _SYMBOLS.search(text, start, end):
        return []
    if not odd:
        raised = cased and all(v[0].isupper() for v in values)
        short = len(WORD.findall(text)) <= 4
        if not ((raised and best >= 0.8) or (best >= 0.8 and (short or len(values) > 1))):
            return []
    elif best < 0.5 and not (cased and values[0][0].isupper()):
        return []
    mean = sum(w.name for w in run) / len(run)
    return [Finding(start, end, "PERSON", round(0.5 + 0.25 * mean, 2), SECOND, VERSION, _REASON_SECOND)]


def _entity(text: str, start: int, end: int, label: str, lexicon: Lexicon, words: Sequence[Word]) -> Finding | None:
    entity = label
    if entity not in _TYPES:
        return None
    value = text[start:end].split("\n")[0]
    lead = _LEADING.match(value)
    if lead:
        start, value = start + lead.end(), value[lead.end() :]
    tail = _TRAILING.search(value)
    value = value[: tail.start()] if tail else value
    end = start + len(value)
    parts = WORD.findall(value)
    if len(value) < 2 or not parts or _NO_ENTITY.search(value) or (_SYMBOLS.search(value) and entity != "LOCATION"):
        return None
    plain = [lexicon.plain(part.lower()) for part in parts]
    if entity == "ORGANIZATION":
        if spelling.formal(parts) or (all(plain) and (len(parts) == 1 or not all(p[0].isupper() for p in parts))):
            return None
        score = 0.5
    else:
        if all(p.lower() in STOP_WORDS or p.lower() in TALK_WORDS for p in parts):
            return None
        if all(plain) and len(parts) == 1 and not value[0].isupper():
            return None
        score = 0.6
    return Finding(start, end, entity, score, FIRST, VERSION, _REASON_FIRST)


def _inside(finding: Finding, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= finding.start and finding.end <= end for start, end in spans)
