"""People: names by cue word and lexicon, ages that are told (English). Where they live: `recognizers.addresses`.

Not covered: a rare name alone in lower case without a cue; the language model of `privacy.detect` adds what it can.
"""

from __future__ import annotations

import re

from privacy.recognizers.names import AMBIGUOUS_NAMES, GIVEN_NAMES, STOP_WORDS, SURNAMES
from privacy.recognizers.spec import LEFT, Candidate, Recognizer, compiled
from privacy.recognizers.view import word_set

_LETTER = r"A-Za-z\u00c0-\u024f"
_WORD = r"[" + _LETTER + r"](?:[" + _LETTER + r"'’.-]{0,22}[" + _LETTER + r"])?\.?"
_WORDS = r"(" + _WORD + r"(?: {1,2}" + _WORD + r"){0,3})(?![" + _LETTER + r"0-9])"
_SPLIT = compiled(r"[" + _LETTER + r"'’.-]+")
_PARTICLES = word_set("al bin da de del della der di dos du el la le mac mc o san st van von y")
_NO_NAME_SUM = "no checksum in a name; "


def _trim_name(found: Candidate) -> tuple[int, int] | None:
    """Keep the words up to the first that cannot be part of a name."""
    start = end = found.start
    for match in _SPLIT.finditer(found.text, found.start, found.end):
        word = match.group().strip(".'’-").lower()
        if not word or (word in STOP_WORDS and word not in _PARTICLES) or len(word) > 22:
            break
        end = match.start() + len(match.group().rstrip(".-'’"))
        if match.group().endswith(".") and len(word) > 3:
            break  # a full stop, not an initial
    return (start, end) if end > start else None


def _parts(found: Candidate) -> list[str]:
    return [word.strip(".'’-") for word in found.value.split()]


def _capitals(words: list[str]) -> bool:
    return all(word[:1].isupper() for word in words if word.lower() not in _PARTICLES)


def _strong_cue(found: Candidate) -> float:
    words = _parts(found)
    return 0.75 if len(words[0]) > 1 or len(words) > 1 else 0.0


def _known(words: list[str]) -> bool:
    """A given name of the lexicon; an everyday word only with a surname or a capital beside it."""
    first = words[0].lower()
    if first not in GIVEN_NAMES:
        return False
    if first not in AMBIGUOUS_NAMES:
        return True
    return len(words) > 1 and (words[1].lower() in SURNAMES or _capitals(words))


def _weak_cue(found: Candidate) -> float:
    words = _parts(found)
    if _known(words):
        return 0.7
    return 0.6 if len(words) in (2, 3) and _capitals(words) and len(words[0]) > 1 else 0.0


def _trim_pair(found: Candidate) -> tuple[int, int] | None:
    kept = _trim_name(found)
    return kept if kept and " " in found.text[kept[0] : kept[1]] else None


def _pair(found: Candidate) -> float:
    words = _parts(found)
    first, last = words[0].lower(), words[-1].lower()
    if _capitals(words):
        return 0.65 if _known(words) or (last in SURNAMES and len(words[0]) > 1 and first.isalpha() and not found.log) else 0.0
    lower_case = first in GIVEN_NAMES and last in SURNAMES and not found.log
    return 0.55 if lower_case else 0.0


def _near_names(before: str, names: frozenset[str], after: str) -> tuple[re.Pattern[str], ...]:
    """Where a name of a lexicon stands, in patterns of a size that the multi-pattern engine takes."""
    listed = sorted(names)
    return tuple(compiled(before + "(?:" + "|".join(listed[i : i + 250]) + ")" + after) for i in range(0, len(listed), 250))


# Where `_pair` can say yes: a given name before a word, or a word before a surname; the second in conversation only.
_GIVEN_NEAR = _near_names(r"(?<![" + _LETTER + r"0-9_@/-])", GIVEN_NAMES, r"[.'’-]{0,2} [" + _LETTER + r"]")
_PAIR_NEAR = _GIVEN_NEAR + _near_names(r"[" + _LETTER + r"][.'’-]{0,2} ", SURNAMES, r"(?![" + _LETTER + r"0-9_@/])")


def _bare(found: Candidate) -> float:
    words = _parts(found)
    lowered = [word.lower() for word in words]
    if any(word in STOP_WORDS and word not in _PARTICLES for word in lowered):
        return 0.0
    if len(words) == 1:
        return 0.55 if lowered[0] in GIVEN_NAMES and lowered[0] not in AMBIGUOUS_NAMES else 0.0
    return 0.6 if lowered[0] in GIVEN_NAMES or lowered[-1] in SURNAMES or lowered[-1] in GIVEN_NAMES else 0.0


PEOPLE: tuple[Recognizer, ...] = (
    Recognizer(
        "person_cue",
        "PERSON",
        compiled(
            LEFT + r"(?:(?:first |last |full |sur|nick|maiden |middle |sure|cardholder |card holder "
            r"|account holder |contact |customer |recipient |display_|full_|first_|last_)?names?"
            r"(?:'s|\s{1,2}(?:is|was|are|on (?:the )?(?:card|account) is|:))?|call me|i go by)[\"']?[\s:=\"']{1,4}" + _WORDS
        ),
        0.75,
        _NO_NAME_SUM + "the cue word decides, everyday words are refused",
        group=1,
        trim=_trim_name,
        check=_strong_cue,
        words=("name", "call me", "i go by"),
    ),
    Recognizer(
        "person_weak_cue",
        "PERSON",
        compiled(
            LEFT + r"(?:i am|i'm|i’m|im|this is|it'?s|here is|speaking(?: is| to| with)?|spoke (?:to|with)"
            r"|regards,?|sincerely,?|cheers,?|thanks,?|thank you,?|hi|hello|hey|dear|from|for|to|with"
            r"|ask for|attn:?|cc:?|recipient:?|contact:?|signed,?|by)\s{1,2}" + _WORDS
        ),
        0.7,
        _NO_NAME_SUM + "a weak cue needs a name of the lexicon or two capitalised words",
        group=1,
        trim=_trim_name,
        check=_weak_cue,
        conversation_only=True,
    ),
    Recognizer(
        "person_title",
        "PERSON",
        compiled(
            LEFT
            + r"(?:mr|mrs|ms|miss|mx|dr|prof|professor|sir|madame|mme|herr|frau)\.?\s{1,2}(?-i:([A-Z\u00c0-\u00de]["
            + _LETTER
            + r"'’-]{1,22}(?: [A-Z\u00c0-\u00de]["
            + _LETTER
            + r"'’-]{1,22}){0,2}))"
        ),
        0.75,
        _NO_NAME_SUM + "a title before a capitalised word decides",
        group=1,
        trim=_trim_name,
        words=("mr", "ms", "miss", "mx", "dr", "prof", "sir", "mme", "madame", "herr", "frau"),
        conversation_only=True,
    ),
    Recognizer(
        "person_pair",
        "PERSON",
        compiled(r"(?<![" + _LETTER + r"0-9_@./-])(?=(" + _WORD + r" " + _WORD + r")(?![" + _LETTER + r"0-9_@/]))"),
        0.65,
        _NO_NAME_SUM + "given name and surname of the lexicon side by side",
        group=1,
        trim=_trim_pair,
        check=_pair,
        near=_PAIR_NEAR,
        near_log=_GIVEN_NEAR,
    ),
    Recognizer(
        "person_turn",
        "PERSON",
        compiled(
            r"\A\W{0,3}(?:(?:yes|ok|okay|sure|hi|hello|yeah|its|it's|it is|i am|i'm|im|this is|am)[ ,.!:]{1,3}){0,2}"
            + _WORDS
            + r"\W{0,3}\Z"
        ),
        0.55,
        _NO_NAME_SUM + "a turn that is nothing but a name of the lexicon answers a question for one",
        group=1,
        check=_bare,
        conversation_only=True,
    ),
    Recognizer(
        "person_before_number",
        "PERSON",
        compiled(
            r"\A\W{0,3}(?:(?:yes|ok|okay|sure|hi|hello)[ ,.!:]{1,3}){0,2}("
            + _WORD
            + r"(?: "
            + _WORD
            + r"){0,2}?)(?=[ ,]{1,3}(?:and |is |with )?(?:my |the )?(?:ssn"
            r"|social|account|acct|ac |card|credit|debit|[0-9]{3}|\ue000))"
        ),
        0.55,
        _NO_NAME_SUM + "a name of the lexicon that opens a turn of account details",
        group=1,
        check=_bare,
        conversation_only=True,
    ),
    Recognizer(
        "age_told",
        "AGE",
        compiled(
            LEFT + r"(?:turn(?:s|ed|ing)?|when (?:i|he|she|they|we|you) (?:was|were|turned)|(?:at|by) the age of"
            r"|birthday is (?:my|his|her))\s{1,2}([0-9]{1,3})(?![0-9A-Za-z%/:°]|[.,-][0-9])"
            r"(?!\s{1,2}(?!(?:and|next|in|this|on|last|today|tomorrow|yesterday|when|before|so|he|she|years?|yrs?)(?![A-Za-z]))[0-9A-Za-z])"
        ),
        0.7,
        "no checksum; the verb decides, nobody is older than 122",
        group=1,
        check=lambda found: 0.7 if 0 < int(found.value) <= 122 else 0.0,
        words=("turn", "when", "age of", "birthday"),
        digits=1,
        conversation_only=True,
    ),
)
