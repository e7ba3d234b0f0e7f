"""How recognizers see a text: normalised, with placeholders collapsed, and every offset traceable to the original.

Guarantee: a placeholder or an already found span is one MASK character, and the rest depends on the text between two of them
alone: NFKC of each character, digits of any script to ASCII, dashes to `-`, signs without width and combining marks dropped,
Cyrillic and Greek look-alikes to Latin where they stand in a word with Latin letters or in a mail address. So the view of a
de-identified text equals the view of the original with its findings blocked, which is what makes de-identification idempotent.
Not covered: look-alikes outside the table, words written in look-alikes alone, letters drawn with other letters (`rn` for `m`).
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from privacy.entities import ENTITY_TYPES


def word_set(text: str) -> frozenset[str]:
    """The words of a lexicon written as running text."""
    return frozenset(text.split())


MASK = "\ue000"  # private use: neither alphanumeric nor space, so no rule can match across it
FALLBACK_TYPE = "PERSONAL_DATA"

# A placeholder names a type of the closed list; text that merely looks like `<SOMETHING>` is searched as usual.
_DETAIL = (
    r"(?:\*[0-9A-Za-z]{0,4}|[0-9]{4}(?:-[0-9]{2})?|[0-9]{1,3}-[0-9]{1,3}|[0-9a-f.:]{3,39}/[0-9]{1,3}"
    r"|-?[0-9]{1,2}\.[0-9],-?[0-9]{1,3}\.[0-9]|[A-Z]{2}-[A-Z]{1,2})"
)
_DIGITS = r"(?:_[0-9a-f]{6}(?:[0-9a-f]{10})?)?"  # of a pseudonym in a text, or in a column
PLACEHOLDER = re.compile(r"<(?:" + "|".join(sorted(ENTITY_TYPES)) + r")" + _DIGITS + r"(?::" + _DETAIL + r")?>")

# Signs that are drawn without width: soft hyphen, joiners, marks of direction, variation selectors, tags.
_WIDTHLESS = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\U000e0000-\U000e01ef\u0300-\u036f\u20d0-\u20ff]"
)
_DASHES = frozenset("\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d")
# Letters of other scripts that are drawn like Latin ones (after Unicode UTS 39, the single-letter cases).
_ALIKE = dict(
    zip(
        "аеорсухіѕјԛԝһԁӏвкмнтАВЕКМНОРСТХІЅЈԚԜҺӀУαεικνορτυχγΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
        "aeopcyxisjqwhdlbkmhtABEKMHOPCTXISJQWHIYaeiknoptuxyABEZHIKMNOPTYX",
        strict=True,
    )
)
_ALIKE_TABLE = str.maketrans(_ALIKE)
_ALIKE_ANY = re.compile("[" + "".join(_ALIKE) + "]")
_WORD_RUN = re.compile(r"[^\W\d_]{2,}")
_MAIL_RUN = re.compile(r"[\w.%+-]{1,100}@[\w.-]{1,255}")
_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]")
_LOG_HEAD = re.compile(
    r"\s{0,3}(?:<[0-9]{1,3}>(?:1 )?|#[0-9]{1,9} )?(?:\[?[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[ T][0-9]{2}:[0-9]{2}"
    r"|[A-Z][a-z]{2} {1,2}[0-9]{1,2} [0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} |\[[0-9]{1,2}/[A-Z][a-z]{2}/[0-9]{4}|[0-9]{6} [0-9]{6} "
    r"|[0-9]{2}[/.-][0-9]{2}[/.-](?:[0-9]{2}){1,2} [0-9]{2}:|\[?[0-9]{2}:[0-9]{2}:[0-9]{2}[.,\] ]"
    r"|\[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL|SEVERE)\b|[IWEF][0-9]{4} [0-9]{2}:"
    r"|[0-9]{10}\.[0-9]{3} "
    r"|(?:-|[A-Z]{4,12}) [0-9]{9,} |[0-9a-f.:]{3,39} \S{1,64} \S{1,64} \[|CEF:[0-9]|[VDIWEF]/[A-Za-z.]{2,40}[( ]"
    r"|at [\w.$<>]{3,200}\(|File \"|Caused by: |Exception in thread |Traceback |INSERT INTO |SELECT .{1,200} FROM "
    r"|UPDATE \w+ SET )"
)
_JSON_KEY = re.compile(r'\\{0,3}"[\w.@-]{1,40}\\{0,3}"\s{0,2}:')
_JSON_LOG = re.compile(
    r'"(?:ts|time|timestamp|@timestamp|level|severity|lvl|logger|event|host|hostname|service|pid|thread)\\{0,3}"'
)
_KEY_VALUE = re.compile(r"(?<![0-9A-Za-z_])[A-Za-z_][A-Za-z0-9_.-]{0,30}=(?=[^\s=])")
_LOG_BODY = re.compile(
    r"[a-z]\w{1,30}(?:\.[A-Za-z]\w{1,30}){2,}|\b\w{1,20}\[[0-9]{1,7}\]:|/[a-z]{2,12}/[a-z0-9_]{1,20}/|\bHTTP/1"
)


class View:
    """A searchable form of one text; what few rules ask for (case, digits, script, origin) is worked out on demand.

    `pieces` maps back: (view start, original start, original end, whether sign for sign); None means that all signs are their
    own form, and only the spans of `masked` (sorted) were collapsed.
    `log`: whether a machine wrote the text; handed in for a window of a longer text, else read off the text.
    """

    __slots__ = ("_digits", "_han", "_log", "_lower", "_masked", "_pieces", "text")

    def __init__(
        self,
        text: str,
        pieces: Sequence[tuple[int, int, int, bool]] | None = None,
        log: bool | None = None,
        masked: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.text = text
        self._pieces = pieces
        self._masked = masked
        self._log = log
        self._lower: str | None = None
        self._digits = -1
        self._han: bool | None = None

    @property
    def shifts(self) -> bool:
        """Whether offsets of the view may differ from those of the original."""
        return self._pieces is not None or bool(self._masked)

    @property
    def lower(self) -> str:
        if self._lower is None:
            self._lower = self.text.lower()
        return self._lower

    @property
    def digits(self) -> int:
        """How many ASCII digits the text has."""
        if self._digits < 0:
            self._digits = sum(map(self.text.count, "0123456789"))
        return self._digits

    @property
    def han(self) -> bool:
        if self._han is None:
            self._han = has_han(self.text)
        return self._han

    @property
    def log(self) -> bool:
        if self._log is None:
            self._log = looks_like_log(self.text)
        return self._log

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Original offsets of view span [start, end), start < end."""
        if self._pieces is None:
            if not self._masked:
                return start, end
            self._pieces = _plain_pieces(self._masked)
        first = self._pieces[bisect_right(self._pieces, start, key=_view_start) - 1]
        last = self._pieces[bisect_right(self._pieces, end - 1, key=_view_start) - 1]
        return (
            first[1] + start - first[0] if first[3] else first[1],
            last[1] + end - last[0] if last[3] else last[2],
        )


def _view_start(piece: tuple[int, int, int, bool]) -> int:
    return piece[0]


def _plain_pieces(masked: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, bool]]:
    """The pieces of a text in which only spans were collapsed; the last runs to the end of the text."""
    pieces = []
    position = length = 0
    for start, end in masked:
        if start > position:
            pieces.append((length, position, start, True))
            length += start - position
        pieces.append((length, start, end, False))
        length += 1
        position = end
    pieces.append((length, position, position, True))
    return pieces


def view_of(text: str, blocked: Iterable[tuple[int, int]] = (), log: bool | None = None) -> View:
    """View of `text` with every placeholder and every span of `blocked` (sorted or not, no overlaps) collapsed to MASK."""
    spans = sorted([*blocked, *(m.span() for m in PLACEHOLDER.finditer(text))] if "<" in text else blocked)
    plain = text.isascii()
    if not spans and plain:
        return View(text, None, log)
    if plain and "<" not in text:
        spans = sorted(spans)
        ends = [0, *(end for _, end in spans)]
        parts = [text[end:start] for end, (start, _) in zip(ends, spans, strict=False)]
        return View(MASK.join([*parts, text[ends[-1] :]]), None, log, spans)
    signs: list[str] = []
    pieces: list[tuple[int, int, int, bool]] = []
    position = length = 0
    for start, end in [*spans, (len(text), len(text))]:
        if start > position:
            length = _fold_into(text, position, start, plain, signs, pieces, length)
        if end > start:
            signs.append(MASK)
            pieces.append((length, start, end, False))
            length += 1
        position = max(position, end)
    return View("".join(signs), pieces, log)


def _fold_into(
    text: str, start: int, stop: int, plain: bool, signs: list[str], pieces: list[tuple[int, int, int, bool]], length: int
) -> int:
    """Append the folded text[start:stop] and its pieces; the new length of the view."""
    part = text[start:stop]
    if plain or part.isascii():
        signs.append(part)
        pieces.append((length, start, stop, True))
        return length + len(part)
    folded = part.translate(_FOLDS)
    if _FOLDS.uneven.isdisjoint(part):
        signs.append(_unmask_alike(folded))
        pieces.append((length, start, stop, True))
        return length + len(folded)
    begin = length
    same_from = 0  # the run of signs since here folds sign for sign
    for index, char in enumerate(part):
        if char not in _FOLDS.uneven:
            continue
        if index > same_from:
            pieces.append((length, start + same_from, start + index, True))
            length += index - same_from
        width = len(_FOLDS[ord(char)])
        if width:
            pieces.append((length, start + index, start + index + 1, False))
            length += width
        same_from = index + 1
    if len(part) > same_from:
        pieces.append((length, start + same_from, stop, True))
    signs.append(_unmask_alike(folded))
    return begin + len(folded)


def _unmask_alike(folded: str) -> str:
    """Look-alike letters as the Latin ones they imitate, in words that mix scripts and in mail addresses; same length."""
    if _ALIKE_ANY.search(folded) is None:
        return folded

    def latin(match: re.Match[str]) -> str:
        run = match.group()
        return run.translate(_ALIKE_TABLE) if _LATIN.search(run) else run

    if "@" in folded:
        folded = _MAIL_RUN.sub(latin, folded)
    return _WORD_RUN.sub(latin, folded)


def all_latin(text: str) -> str:
    """The text with every look-alike as the Latin letter it imitates, wherever it stands; same length."""
    return text if text.isascii() or _ALIKE_ANY.search(text) is None else text.translate(_ALIKE_TABLE)


class _Folds(dict[int, str]):
    """Code point to its folded form, worked out once; `uneven` holds the characters whose form is not one sign long."""

    def __init__(self) -> None:
        super().__init__()
        self.uneven: set[str] = set()

    def __missing__(self, code: int) -> str:
        char = chr(code)
        folded = self[code] = _fold(char)
        if len(folded) != 1:
            self.uneven.add(char)
        return folded


_FOLDS = _Folds()


def _fold(char: str) -> str:
    if char.isascii():
        return char
    if _WIDTHLESS.match(char):
        return ""
    if char in _DASHES:
        return "-"
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    if char in "\u0130\u0131":  # the dotted and the dotless i, which ignoring case would otherwise mix with `i`
        return "I" if char == "\u0130" else "i"
    return unicodedata.normalize("NFKC", char)


def looks_like_log(text: str) -> bool:
    """Whether a machine wrote this line: loose rules for conversation are off then, because counters are not people."""
    if _LOG_HEAD.match(text, 0, 400):
        return True
    head = text[:400]
    if head.lstrip()[:1] in ("{", "["):
        keys = len(_JSON_KEY.findall(head))
        return keys >= 2 and _JSON_LOG.search(head) is not None
    pairs = len(_KEY_VALUE.findall(head))
    return pairs >= 2 or (pairs >= 1 and _LOG_BODY.search(head) is not None) or len(_LOG_BODY.findall(head)) >= 2


def has_han(text: str) -> bool:
    return not text.isascii() and _HAN.search(text) is not None


def script_language(text: str) -> str:
    """`zh` when Han characters make up a quarter or more of its letters, else `en`; placeholders do not count."""
    if text.isascii():
        return "en"
    bare = PLACEHOLDER.sub(" ", text)
    han = len(_HAN.findall(bare))
    return "zh" if han and han * 3 >= len(_LATIN.findall(bare)) else "en"
