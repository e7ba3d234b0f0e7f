"""What spelling alone says in talk: capitals where none belong, legal forms, nationalities, countries, a turn of odd words.

Guarantee: a pure function of the text and the lexicon; offsets lie in the text.
Assumption: scores are low, so that a model or a rule with a cue decides wherever one speaks.
Not covered: names that are everyday words, in lower case; headlines, where every word has a capital.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from privacy.findings import Finding
from privacy.recognizers.lexicon import Lexicon
from privacy.recognizers.names import GIVEN_NAMES, NATIONALITIES, PLACE_NAMES, STOP_WORDS, SURNAMES, TALK_WORDS
from privacy.recognizers.view import word_set

VERSION = "2"
WORD = re.compile(r"[^\W\d_](?:[\w'’.-]*\w)?")
_REASON_LEXICON = "a capitalised word of no dictionary, or a place or people of the closed lists"
_REASON_FORM = "the legal form after the name decides"
_REASON_TURN = "a short turn of words that no dictionary holds answers a question for a name"

_REASON_INTRODUCED = "words of no dictionary after an introduction"
_REASON_NUMBERED = "a turn that is a number and words of no dictionary answers a question for an address"
_INTRODUCED = re.compile(
    r"(?:\A|(?<=[\s,.]))(?:i am|i'm|im|this is|it's|its|it is|myself|me is|name) "
    r"([a-z]{3,20})(?: [a-z]{1,20})?(?=[ .,!]{0,3}\Z)"
)
_NUMBERED = re.compile(
    r"[ .,]{0,3}(?:no |door |number |flat |house )?[0-9]{1,5}[a-z]?,? ([a-z]{2,20}(?: [a-z]{1,20}){0,4})[ .,]{0,3}\Z"
)

_WORDS_TOO = word_set(
    "polish pole poles dane danes turk finn swede scot jain thai slovak latino orthodox methodist arab kurd romani maori"
)
_AT = re.compile(r"(?:in|at|to|from|near|of|via|around|visit|visiting|leave|leaving|reach)\s+(?:the\s+)?\Z", re.IGNORECASE)
_CONTRACTED = re.compile(r"(?:['’](?:s|m|ll|re|ve|d|t))?[.'’-]*\Z")
_LOWER_BEFORE = re.compile(r"(?<![A-Za-z])(?:[a-z]{2,}|The|a),? \Z")
_PAIR = re.compile(
    r"(?:\A|[.!?\n]\s{0,2})((?:[A-Z][\w'’&-]{1,20} ){1,3}(?:(?:of|and|&|for) )?[A-Z][\w'’&-]{2,20})(?= [a-z]|['’]s )"
)
_COMMA_BEFORE = re.compile(r"[\w.'’)], \Z")
_COMPANY_OR_PLACE = word_set("airlines airline airways air bank insurance")
# Words that are written with a capital without being anybody's: forms of address, offices, things of law and of shops.
_CAPITALISED = word_set(
    """
    account address agreement app application article bank bill branch business card cash certificate christmas city code
    company council country court credit customer debit department director easter email english extension federal form
    general god government house insurance internet invoice item king lady lord manager member minister model number office
    officer order page park part password payment plan policy premium president prince princess product program queen receipt
    reference royal sale school section serial service state store street support system tax team terms ticket title transfer
    union university user version web website world
    """
)
_CAPITAL = r"[A-Z\u00c0-\u00de0-9][\w'’&.-]{0,24}"
_COMPANY = re.compile(
    r"(?<![\w@/.-])" + _CAPITAL + r"(?: (?:of |& |the )?" + _CAPITAL + r"){0,4},? "
    r"(?:Inc|LLC|Ltd|Limited|Corp|Corporation|Company|Co|PLC|Plc|LLP|LP|GmbH|AG|SE|SA|S\.A|SpA|BV|B\.V|NV|AB|Oy|AS|ApS|Pty|KG"
    r"|SARL|Group|Holdings|Partners|Associates|Bank|Foundation|Institute|University|College|Hospital|Airlines|Airways|Industries"
    r"|Systems|Technologies|Solutions|Services|Software|Consulting|Insurance|Pharmaceuticals|Enterprises|Ventures|Capital|Media"
    r"|Labs|and Sons|& Sons|& Co|and Company|Agency|Association|Society|Union)(?:\.(?=\s|,|;|\Z)|(?![\w]))"
)
_ALSO_NAMES = GIVEN_NAMES | SURNAMES
_NOT_ALONE = _ALSO_NAMES | word_set(
    "chile jersey niger mali phoenix queens salem sofia nice guinea reading mobile orlando valencia"
)
_TWO_WORDS = """
    united states of america;united states;united kingdom;united arab emirates;great britain;northern ireland;new zealand
    new york;new jersey;new delhi;new mexico;new hampshire;new south wales;saudi arabia;south africa;south korea
    south sudan;south carolina;south dakota;north korea;north macedonia;north carolina;north dakota;czech republic
    dominican republic;costa rica;puerto rico;el salvador;sri lanka;hong kong;papua new guinea;cape verde;sierra leone
    ivory coast;burkina faso;bosnia and herzegovina;trinidad and tobago;antigua and barbuda;saint lucia
    saint kitts and nevis;saint vincent and the grenadines;marshall islands;solomon islands;cayman islands;faroe islands
    isle of man;san marino;san francisco;san diego;san jose;san antonio;los angeles;las vegas;salt lake city;kansas city
    west virginia;rhode island;rio de janeiro;sao paulo;buenos aires;mexico city;cape town;tel aviv;kuala lumpur;abu dhabi
    st louis;st petersburg
    american samoa;antigua and barbuda;bosnia & herzegovina;bouvet island;british indian ocean territory;british virgin islands
    brunei darussalam;cape verde islands;central african republic;christmas island;cocos (keeling) islands;cocos islands
    cook islands;cote d'ivoire;côte d'ivoire;czech republic;democratic republic of the congo;east timor;timor-leste
    equatorial guinea;falkland islands;falkland islands (malvinas);french guiana;french polynesia;french southern territories
    guinea-bissau;heard island and mcdonald islands;holy see;holy see (vatican city state);vatican city;vatican city state
    islamic republic of iran;iran (islamic republic of);kingdom of the netherlands;korea (north);korea (south)
    kyrgyz republic;lao people's democratic republic;libyan arab jamahiriya;macedonia (former yugoslav republic of)
    netherlands antilles;new caledonia;norfolk island;northern mariana islands;northern cyprus;outer mongolia
    palestinian territory;palestinian territories;people's republic of china;pitcairn islands;republic of china
    republic of ireland;republic of korea;republic of moldova;republic of the congo;russian federation;saint barthelemy
    saint helena;saint martin;saint pierre and miquelon;saint vincent;sao tome and principe;slovak republic
    south georgia and the south sandwich islands;svalbard and jan mayen;svalbard & jan mayen islands;syrian arab republic
    swaziland;the bahamas;the gambia;the netherlands;the philippines;timor leste;tokelau;trinidad & tobago
    turks and caicos islands;united republic of tanzania;united states minor outlying islands;united states virgin islands
    us virgin islands;u.s. virgin islands;viet nam;wallis and futuna;wallis and futuna islands;western sahara;western samoa
    åland islands;aland islands;channel islands;canary islands;hawaiian islands;british columbia;nova scotia
    new brunswick;newfoundland and labrador;prince edward island;western australia;south australia;northern territory
    district of columbia;tamil nadu;uttar pradesh;west bengal;andhra pradesh;madhya pradesh;santa cruz;san salvador
    santo domingo;santiago de compostela;santa fe;santa monica;fort worth;fort lauderdale;long beach;virginia beach
    colorado springs;oklahoma city;new orleans;el paso;san bernardino;palo alto;the hague;addis ababa;ho chi minh city
    port au prince;port moresby;port louis;porto alegre;belo horizonte;nizhny novgorod;st. petersburg;st. louis;quezon city
    quebec city;guatemala city;panama city;kuwait city;ulan bator;nova iguacu;dar es salaam;phnom penh;novi sad
"""
_PHRASES: dict[str, list[str]] = {}
for _phrase in sorted({name.strip() for name in _TWO_WORDS.replace("\n", ";").split(";")} - {""}, key=len, reverse=True):
    _PHRASES.setdefault(re.split(r"[^\w]", _phrase)[0], []).append(_phrase)
_ALONE = PLACE_NAMES - _NOT_ALONE
_LETTERS = re.compile(r"(?<![\w@.-])[^\W\d_]+")
_WITHIN = re.compile(r"[\w@]|\.[a-z]")


def lexical(text: str) -> list[Finding]:
    """Companies by legal form, places of the closed list, nationalities (`polish` only with a capital)."""
    found = [
        Finding(m.start(), m.end(), "ORGANIZATION", 0.76, "company_form", VERSION, _REASON_FORM)
        for m in _COMPANY.finditer(text)
    ]
    found += [Finding(*span, "LOCATION", 0.64, "place_lexicon", VERSION, _REASON_LEXICON) for span in _listed_places(text)]
    talk = text.islower()
    for match in WORD.finditer(text):
        word = match.group().lower().removesuffix("'s")
        lower = talk and word not in _WORDS_TOO
        if (lower or match.group()[0].isupper()) and (word in NATIONALITIES or word.removesuffix("s") in NATIONALITIES):
            found.append(Finding(*match.span(), "NRP", 0.62, "nationality", VERSION, _REASON_LEXICON))
    return found


def listed(word: str) -> bool:
    """Whether `lexical` finds this lower-case word alone, as a place or a people."""
    return word in _ALONE or word in NATIONALITIES or word.removesuffix("s") in NATIONALITIES


def _listed_places(text: str) -> Iterator[tuple[int, int]]:
    """Countries, regions and large cities of the closed lists, of one word or of several."""
    reach = 0
    for match in _LETTERS.finditer(text):
        start, end = match.span()
        word = match.group().lower()
        for phrase in _PHRASES.get(word, ()):
            if text[start : start + len(phrase)].lower() == phrase and not _WITHIN.match(text, start + len(phrase)):
                end = start + len(phrase)
                break
        else:
            if word not in _ALONE or _WITHIN.match(text, end):
                continue
        if start >= reach:
            reach = end
            yield start, end


def is_place(words: Sequence[str]) -> bool:
    """Whether these words are places of the closed list and no names."""
    lowered = [word.lower() for word in words]
    return all(word in PLACE_NAMES for word in lowered) and not any(word in _ALSO_NAMES for word in lowered)


def is_people(words: Sequence[str]) -> bool:
    """Whether these words are nationalities."""
    return all(word.lower().removesuffix("s") in NATIONALITIES or word.lower() in NATIONALITIES for word in words)


def formal(words: Sequence[str]) -> bool:
    """Whether every one of these words is one of talk, or one that a form writes with a capital."""
    return all(word.lower() in _CAPITALISED or word.lower() in STOP_WORDS or word.lower() in TALK_WORDS for word in words)


def capitals(text: str, found: Sequence[Finding], lexicon: Lexicon) -> list[Finding]:
    """Capitalised words of no dictionary, or in an odd place, that nothing in `found` spoke of; neighbours are one."""
    spans: list[tuple[int, int]] = []
    for start, end in _odd_capitals(text, found, lexicon):
        if spans and text[spans[-1][1] : start] == " ":
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return [Finding(a, b, _kind(text, a), 0.42, "unknown_word", VERSION, _REASON_LEXICON) for a, b in spans]


def opening_pair(text: str, found: Sequence[Finding]) -> list[Finding]:
    """Two to five words with capitals, none of them of talk, that open a sentence before a word without one."""
    pairs = []
    for match in _PAIR.finditer(text):
        start, end = match.span(1)
        words = WORD.findall(match.group(1))
        if any(a < end and start < b for a, b in ((f.start, f.end) for f in found)) or len(words) < 2:
            continue
        said = [word.lower() for word in words if word[0].isupper()]
        if not any(word in STOP_WORDS or word in TALK_WORDS or word in _CAPITALISED or word in NATIONALITIES for word in said):
            pairs.append(Finding(start, end, "ORGANIZATION", 0.42, "opening_words", VERSION, _REASON_LEXICON))
    return pairs


def _kind(text: str, start: int) -> str:
    return "LOCATION" if _AT.search(text, max(0, start - 16), start) else "PERSON"


def _odd_capitals(text: str, found: Sequence[Finding], lexicon: Lexicon) -> Iterator[tuple[int, int]]:
    taken = [(f.start, f.end) for f in found]
    words = WORD.findall(text)
    headline = sum(word[0].isupper() for word in words) > 0.4 * len(words) and len(words) > 4
    for match in WORD.finditer(text):
        start, end = match.span()
        value = match.group()
        if not value[0].isupper() or len(value) < 3 or (value.isupper() and len(value) < 6):
            continue
        if any(a < end and start < b for a, b in taken) or _attached(text, start, end):
            continue
        base = _CONTRACTED.sub("", value.lower())
        if len(base) < 3 or base in NATIONALITIES or "." in base or any(c.isdigit() for c in base):
            continue
        known = lexicon.plain(value.lower()) or lexicon.plain(base)
        if known and (base != value.lower() or headline or not _out_of_place(text, match, base)):
            continue
        yield start, start + len(base)


def _attached(text: str, start: int, end: int) -> bool:
    """Whether the word is a part of a tag, a handle, a path or a key."""
    return (start > 0 and text[start - 1] in "@#/_&") or text[end : end + 1] in ("@", "/", "_", "=")


def _out_of_place(text: str, match: re.Match[str], base: str) -> bool:
    """Whether an everyday word has a capital where none belongs: after a word in lower case, and not one of talk."""
    if base in STOP_WORDS or base in TALK_WORDS or base in _CAPITALISED or match.group().isupper():
        return False
    return (
        _LOWER_BEFORE.search(text, max(0, match.start() - 24), match.start()) is not None
        or _COMMA_BEFORE.search(text, max(0, match.start() - 3), match.start()) is not None
    )


def introduced(text: str, lexicon: Lexicon) -> list[Finding]:
    """The odd words after "i am" or "this is" that end a turn in lower case, and those after a number that opens one."""
    found = []
    match = _INTRODUCED.search(text)
    if match and not lexicon.plain(match.group(1)) and not (match.group(1) in NATIONALITIES or match.group(1) in PLACE_NAMES):
        found.append(Finding(match.start(1), match.end(), "PERSON", 0.5, "person_introduced", VERSION, _REASON_INTRODUCED))
    match = _NUMBERED.match(text)
    if match:
        words = match.group(1).split()
        odd = any(len(word) > 3 and not lexicon.plain(word) for word in words)
        if odd and not any(word in STOP_WORDS or word in TALK_WORDS for word in words):
            start = text.index(text.strip(" .,")[0])
            found.append(Finding(start, match.end(1), "ADDRESS", 0.45, "address_numbered_turn", VERSION, _REASON_NUMBERED))
    return found


def odd_turn(text: str, lexicon: Lexicon) -> list[Finding]:
    """A turn of one to three words in lower case, none of them of talk and one of no dictionary."""
    stripped = text.strip(" .,!?")
    words = stripped.split()
    if not 1 <= len(words) <= 3 or not stripped.islower() or not all(w.isalpha() and len(w) < 20 for w in words):
        return []
    unknown = [w for w in words if len(w) > 1 and not lexicon.plain(w)]
    if not unknown or any(w in STOP_WORDS or w in TALK_WORDS or w in NATIONALITIES or w in _COMPANY_OR_PLACE for w in words):
        return []
    if len(words) == 1 and len(words[0]) < 3:
        return []
    start = text.index(stripped)
    return [Finding(start, start + len(stripped), "PERSON", 0.45, "person_unknown_turn", VERSION, _REASON_TURN)]
