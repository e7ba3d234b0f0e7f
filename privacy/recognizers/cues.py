"""What the words around say in talk: who somebody works for, where they live or go, lists of names, addresses in lines.

Guarantee: a pure function of the text, the lexicon and what was found before; offsets lie in the text; what a finding already
covers is not named again. Every pattern is bounded.
Assumption: scores are low, so that a model that is sure of another type decides.
Not covered: organisations and places that are everyday words in lower case; cues in other languages than English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from privacy.findings import Finding
from privacy.recognizers.lexicon import Lexicon
from privacy.recognizers.names import GIVEN_NAMES, NATIONALITIES, STOP_WORDS, SURNAMES, TALK_WORDS
from privacy.recognizers.spelling import WORD, formal

VERSION = "1"
_REASON_EMPLOYER = "words of work or of a company around the name decide"
_REASON_WHERE = "a word of living, going or coming before the name decides"
_REASON_FORM = "the legal form after the name decides"
_REASON_CARD = "a line between a name and an address, as on a card or in a signature"
_REASON_LIST = "words of no dictionary in a row of three, as names are listed"
_REASON_MILITARY = "no checksum; the form of US military mail decides (APO, FPO, DPO and AA, AE or AP)"
_REASON_SPEAKER = "a name or a word of no dictionary where somebody is spoken to, or speaks, at the start of a line"

_EMPLOYER_BEFORE = re.compile(
    r"(?<![A-Za-z])(?:(?:work(?:s|ed|ing)?|employed|job|position|role|intern(?:ship|ed)?|career|freelanc(?:e|ed|ing)) "
    r"(?:for|at|with|by)|(?:ceo|cto|cfo|coo|(?:co-?)?founder|president|vice president|chair(?:man|woman|person)?|employee|owner"
    r"|spokes(?:man|woman|person)|shareholder|subsidiary|division|headquarters|offices?|address|branch|customer|client"
    r"|acquisition) (?:of|at)|joined|acquired by|supporting|support) (?:the )?(?=\S)",
    re.IGNORECASE,
)
_EMPLOYER_AFTER = re.compile(
    r"(?:['’]s)? (?:(?:head)?offices?|headquarters|hq|plant|factory|branch|warehouse|spokes(?:man|woman|person)|employees?"
    r"|staff"
    r"|(?:invested|acquired|hired|announced|launched|operates|manufactures|employs)(?![A-Za-z])"
    r"|is an? (?:[a-z-]{2,16} ){0,4}(?:company|firm|agency|bank|start-?up|provider|manufacturer|retailer|corporation|business"
    r"|charity|nonprofit|organi[sz]ation|brand|consultancy|maker|publisher|institution))(?![A-Za-z])",
    re.IGNORECASE,
)
_WHERE_BEFORE = re.compile(
    r"(?<![A-Za-z])(?:(?:born|raised|grew up|lives?|living|lived|resid(?:e|es|ed|ing)|based|located|situated|stationed"
    r"|stay(?:s|ed|ing)?|settled|visit(?:s|ed|ing)?) (?:in|near)|(?:mov(?:e|es|ed|ing)|relocat(?:e|es|ed|ing)|flew|fly|flying"
    r"|travel(?:s|l?ed|l?ing)?|going|went|drove|driving|trip|flight|emigrated|back|sailed|arrived)(?: here| back| over)?"
    r" (?:to|from|in|at)|(?:comes?|came|coming|originally|hails?|is|am|are|was|were|i['’]?m|he['’]s|she['’]s) from"
    r"|(?:city|town|village|county|province|region|suburb|island) of|(?:home|birth) ?(?:town|place|city)(?: is| of| in)?"
    r"|i['’]?(?: a)?m (?:currently )?in) (?=\S)",
    re.IGNORECASE,
)
_RAISED = r"[A-Z\u00c0-\u00de\u0386-\u03ab0-9][\w'’&.∆-]{0,30}"
_RAISED_RUN = re.compile(
    _RAISED
    + r"(?:(?: (?:of|and|&|for|de|la|du|del|do|da|di|el|van|von|der|den|i|y|et|am|an|sur|upon) | )"
    + _RAISED
    + r"){0,5}"
)
_LOWER_RUN = re.compile(r"[^\W_][\w'’&.-]{1,30}(?: [^\W\d_][\w'’&.-]{1,30}){0,3}")
_LOWER_FORM = re.compile(r",? (?:inc|llc|ltd|gmbh|plc|corp|llp|pty)(?![\w])\.?")
_OPENS = re.compile(r"\s{0,3}([^\W\d_]{2,20})(?: is from |, (?:can|could|will|would) (?:i|you|we|u) )", re.IGNORECASE)
_CARD_LINE = re.compile(r"(?:\A|\n)([^\n]{0,60})\n[ \t]{0,4}([^\n:?!;@0-9]{2,48})\n\s{0,4}\Z")
_THREE = re.compile(r"(?<![\w-])([^\W\d_]{3,20}), ([^\W\d_]{3,20}),? and ([^\W\d_]{3,20})(?![\w-])")
_MILITARY = re.compile(
    r"(?:(?<![A-Za-z0-9])(?:USS|USNS|USNV|USCGC|HMS|PSC|CMR|Unit) [^\n,]{1,40}[\n,]\s{0,3}(?:Box [0-9]{1,5}[\n,]\s{0,3})?)?"
    r"(?<![A-Za-z])[AFD]PO,? A[AEP],? [0-9]{5}(?:-[0-9]{4})?(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"(?:\A|\n)[ \t]{0,4}([^\W\d_]{2,20}): ?\\?[\"“]")
_LINE = re.compile(r"[,. ]{0,3}\n[ \t]{0,8}(?:\n[ \t]{0,8})?(?:, ?)?([^\n]{1,48})")
_LINE_WORD = re.compile(
    r"[(]?[A-Z\u00c0-\u00de\u0386-\u03ab0-9][^!?;]{0,30}|of|and|the|de|la|du|del|do|da|di|el|van|von|der|den|nan|&"
)
_CODE_LAST = re.compile(r"[0-9]{4,6}(?:-[0-9]{4})?[.,]?\Z")
_LINE_HEAD = re.compile(r"(?:\A|\n)[ \t]{0,8}([0-9]{1,6}[A-Za-z]?,? (?:[^\W_][^\n,:!?]{0,20} ){0,4})\Z")


def by_cue(text: str, found: Sequence[Finding], lexicon: Lexicon) -> list[Finding]:
    """Organisations and places that nothing in `found` spoke of, military addresses, listed names, speakers."""
    taken = [(f.start, f.end) for f in found]
    cased = not text.islower()
    fresh = [
        Finding(*m.span(), "ADDRESS", 0.78, "address_military", VERSION, _REASON_MILITARY)
        for m in (_MILITARY.finditer(text) if "po" in text.lower() else ())
    ]
    spans = [
        *((s, "ORGANIZATION", "employer", _REASON_EMPLOYER) for s in _employers(text, lexicon, cased)),
        *((s, "ORGANIZATION", "employer_line", _REASON_CARD) for s in _card_lines(text, found)),
        *((s, "ORGANIZATION", "company_form_lower", _REASON_FORM) for s in _lower_companies(text, lexicon)),
        *((s, "LOCATION", "place_cue", _REASON_WHERE) for s in _after(_WHERE_BEFORE, text, lexicon, cased)),
        *((s, "PERSON", "names_listed", _REASON_LIST) for s in _listed(text, lexicon)),
        *((s, "PERSON", "speaker", _REASON_SPEAKER) for s in _speakers(text, lexicon)),
    ]
    for (start, end), entity, name, reason in spans:
        if start < end and not any(a < end and start < b for a, b in taken):
            taken.append((start, end))
            fresh.append(Finding(start, end, entity, 0.44, name, VERSION, reason))
    return fresh


def whole_block(text: str, finding: Finding) -> Finding:
    """An address over lines, up to the line that ends in a postal code; its house number where the line opens with one."""
    end, position = finding.end, finding.end
    lower = text.islower()
    for _ in range(5):
        match = _LINE.match(text, position)
        words = match.group(1).split() if match else []
        if not match or len(words) > 7 or not all(_LINE_WORD.fullmatch(w) or (lower and w not in STOP_WORDS) for w in words):
            break
        position = match.end(1)
        if words and _CODE_LAST.search(words[-1]):
            end = match.start(1) + len(match.group(1).rstrip(" .,"))
    head = _LINE_HEAD.search(text, max(0, finding.start - 90), finding.start)
    return finding._replace(start=head.start(1) if head else finding.start, end=end)


def _employers(text: str, lexicon: Lexicon, cased: bool) -> Iterator[tuple[int, int]]:
    yield from _after(_EMPLOYER_BEFORE, text, lexicon, cased)
    for match in _EMPLOYER_AFTER.finditer(text):
        yield _before(text, match.start(), lexicon, cased)


def _card_lines(text: str, found: Sequence[Finding]) -> Iterator[tuple[int, int]]:
    """The line before one that opens with an address, if it is not the first."""
    for finding in found:
        if finding.entity == "ADDRESS":
            match = _CARD_LINE.search(text, max(0, finding.start - 120), finding.start)
            if match and len(match.group(2).split()) <= 6 and match.group(1).strip():
                yield match.start(2), match.start(2) + len(match.group(2).rstrip(" ,."))


def _lower_companies(text: str, lexicon: Lexicon) -> Iterator[tuple[int, int]]:
    """In texts without capitals, the words before a legal form, back to one of talk."""
    for match in _LOWER_FORM.finditer(text) if text.islower() else ():
        start, end = _before(text, match.start(), lexicon, cased=False, odd=True)
        if start < end:
            yield start, match.end()


def _after(cue: re.Pattern[str], text: str, lexicon: Lexicon, cased: bool) -> Iterator[tuple[int, int]]:
    for match in cue.finditer(text):
        if cased:
            run = _RAISED_RUN.match(text, match.end())
            if run and _names_something(run.group(), lexicon):
                yield run.start(), run.start() + len(run.group().rstrip(".,'’"))
        elif text.islower():
            run = _LOWER_RUN.match(text, match.end())
            if run:
                yield _odd_run(text, run.start(), run.end(), lexicon)


def _names_something(value: str, lexicon: Lexicon) -> bool:
    words = WORD.findall(value)
    if not words or formal(words) or all(w.lower() in NATIONALITIES for w in words):
        return False
    return any(not lexicon.plain(w.lower()) for w in words) or len(words) > 1 or value.isupper() or len(words[0]) > 3


def _odd_run(text: str, start: int, end: int, lexicon: Lexicon) -> tuple[int, int]:
    """The words from `start` up to the first of talk, if one of them is of no dictionary; else an empty span."""
    odd, last = False, start
    for match in WORD.finditer(text, start, end):
        word = match.group().rstrip(".'’")
        if word in STOP_WORDS or word in TALK_WORDS or (last > start and match.start() != last + 1):
            break
        odd = odd or (len(word) > 2 and not lexicon.plain(word))
        last = match.start() + len(word)
        if last < match.end():
            break
    return (start, last) if odd else (start, start)


def _before(text: str, end: int, lexicon: Lexicon, cased: bool, odd: bool = False) -> tuple[int, int]:
    """The run of words that ends here: with capitals, or in lower case back to a word of talk."""
    start = end
    for match in reversed(list(WORD.finditer(text, max(0, end - 60), end))):
        word = match.group()
        gap = text[match.end() : start]
        if start != end and gap not in (" ", " & "):
            break
        if start == end and gap:
            break
        if word.lower() in STOP_WORDS or word.lower() in TALK_WORDS or (cased and not word[0].isupper()):
            break
        start, odd = match.start(), odd or (len(word) > 2 and (cased or not lexicon.plain(word.lower())))
    if cased:
        return (start, end) if start < end and _names_something(text[start:end], lexicon) else (end, end)
    return (start, end) if odd and text.islower() else (end, end)


def _listed(text: str, lexicon: Lexicon) -> Iterator[tuple[int, int]]:
    for match in _THREE.finditer(text):
        words = [word.lower() for word in match.groups()]
        known = [word in GIVEN_NAMES or word in SURNAMES or not lexicon.plain(word) for word in words]
        raised = all(word[0].isupper() for word in match.groups())
        if not any(word in STOP_WORDS or word in TALK_WORDS or word in NATIONALITIES for word in words) and (
            all(known) or (raised and sum(known) > 1) or (any(w in SURNAMES for w in words) and sum(known) > 1)
        ):
            yield from (match.span(group) for group in (1, 2, 3))


def _speakers(text: str, lexicon: Lexicon) -> Iterator[tuple[int, int]]:
    opening = _OPENS.match(text)
    if opening and (opening.group(1).lower() in GIVEN_NAMES or not lexicon.plain(opening.group(1).lower())):
        yield opening.span(1)
    for match in _SPEAKER.finditer(text):
        word = match.group(1).lower()
        if not lexicon.plain(word) and word not in NATIONALITIES:
            yield match.span(1)
