"""Makes replacements fit the format of the text they go into, so that what was valid before is valid after.

Guarantee: in a JSON object or array (at any depth of escaping, in a log line or alone) a replacement keeps the document valid
and its shape the same: a number becomes a string unless its replacement is a number, escapes are never cut, quotes in the
replacement are escaped, and a span that crosses values is replaced value by value. In SQL a bare number becomes a literal
and quotes are doubled; in logfmt a word that became several is quoted; in CSV a replacement brings no new column.
Every letter and digit of every span is replaced; a span may grow to the end of its number or escape. Linear, no recursion.
Assumption: a text that opens with `[` is JSON only as a whole; one bare value alone is talk, not JSON.
Not covered: documents inside a string when a span runs from another value into them (the outer one stays valid); XML, formats
whose values a placeholder's `<` breaks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from privacy.structure import string_end

Edit = tuple[int, int, str]  # start, end, replacement

_OBJECT = re.compile(r"(?:\[\s{0,8})?\{\s{0,8}(?:(\\{0,15})([\"'])|\})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SIMPLE = re.compile(
    r"(?P<space>(?:\s|\\{1,15}[nrt])+)|(?P<open>[{\[])|(?P<close>[}\]])|(?P<sep>[,:])|(?P<scalar>[-+]?[0-9A-Za-z][0-9A-Za-z.+-]*)"
)
_QUOTE = re.compile(r"(\\{0,15})([\"'])")
_NESTED = re.compile(r"(?:\s|\\{1,15}[nrt]){0,8}[{\[]")
_MOST_LEVELS = 4


@dataclass(frozen=True, slots=True)
class _Token:
    """A string between its quotes, or a bare value, of a document whose quotes stand behind `level` backslashes."""

    start: int
    end: int
    string: bool
    level: int
    sign: str


def fit(text: str, edits: Sequence[Edit]) -> list[Edit]:
    """The edits, one for one, adjusted to the format around them. `edits`: sorted, without overlaps; so is the result."""
    if not edits:
        return []
    touched = _touched(text, edits) if "{" in text or "[" in text else {}
    fitted: list[Edit] = []
    position = 0
    for index, (start, end, replacement) in enumerate(edits):
        start = max(start, position)  # the one before may have grown to the end of its number or escape
        choices = touched.get(index)
        if start >= end:
            edit = (start, start, "")
        elif replacement == text[start:end]:
            edit = (start, end, replacement)  # kept
        elif choices:
            edit = _in_documents(text, start, end, replacement, choices)
        else:
            edit = _in_line(text, start, end, replacement)
        edit = (max(edit[0], position), max(edit[1], position), edit[2])
        fitted.append(edit)
        position = edit[1]
    return fitted


# Which tokens of documents each edit touches.


def _touched(text: str, edits: Sequence[Edit]) -> dict[int, tuple[list[_Token], list[_Token]]]:
    """For each edit the tokens it touches: with documents inside strings read too, and those of the outermost alone."""
    touched: dict[int, tuple[list[_Token], list[_Token]]] = {}
    queue = [(0, len(text), 0, '"', 0)]  # a stretch of text, and how deep its documents are escaped
    while queue:
        begin, stop, level, sign, depth = queue.pop()
        first = _first_after(edits, begin)
        for token in _documents(text, begin, stop, level, sign):
            while first < len(edits) and edits[first][1] <= token.start:
                first += 1
            if first == len(edits) or edits[first][0] >= stop:
                break
            nested = False
            index = first
            while index < len(edits) and edits[index][0] < token.end:
                if not nested and token.string and depth < _MOST_LEVELS and _NESTED.match(text, token.start, token.end):
                    nested = True
                    queue.append((token.start, token.end, 2 * token.level + 1, token.sign, depth + 1))
                held, outermost = touched.setdefault(index, ([], []))
                if depth == 0:
                    outermost.append(token)
                held.append(token)
                index += 1
    return {index: (_innermost(held), outermost) for index, (held, outermost) in touched.items()}


def _innermost(tokens: list[_Token]) -> list[_Token]:
    """In order, without the strings that hold others: what is read inside a string knows better."""
    kept: list[_Token] = []
    for token in sorted(tokens, key=lambda token: (token.start, -token.end)):
        while kept and kept[-1].string and kept[-1].start <= token.start and token.end <= kept[-1].end:
            kept.pop()
        kept.append(token)
    return kept


def _first_after(edits: Sequence[Edit], begin: int) -> int:
    low, high = 0, len(edits)
    while low < high:
        middle = (low + high) // 2
        if edits[middle][1] <= begin:
            low = middle + 1
        else:
            high = middle
    return low


def _documents(text: str, begin: int, stop: int, level: int, sign: str) -> Iterator[_Token]:
    """The strings and bare values of all documents in a stretch."""
    opening = _NESTED.match(text, begin, stop)
    at = begin
    while opening is not None:  # documents from the beginning on, one after the other
        start = opening.end() - 1
        end = _whole(text, start, stop, level, sign)
        if end < 0:
            break
        yield from _tokens(text, start, end, level, sign)
        at = end
        opening = _NESTED.match(text, at, stop)
    while (found := _OBJECT.search(text, at, stop)) is not None:
        inner = len(found[1]) if found[1] is not None else level
        at = found.start()
        for token in _tokens(text, at, stop, inner, found[2] or sign):
            at = token.end
            yield token
        at = max(at, found.end())


def _whole(text: str, start: int, stop: int, level: int, sign: str) -> int:
    """Where the document that starts here ends; -1 when it doesn't."""
    depth = 0
    at = start
    while at < stop:
        kind, _, at = _next(text, at, stop, level, sign)
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
            if depth == 0:
                return at
        elif not kind:
            return -1
    return -1


def _tokens(text: str, start: int, stop: int, level: int, sign: str) -> Iterator[_Token]:
    """Strings and bare values from an opening bracket on, until it is closed or something else than JSON stands there."""
    depth = 0
    at = start
    while at < stop:
        kind, begin, end = _next(text, at, stop, level, sign)
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
            if depth <= 0:
                return
        elif kind == "scalar":
            yield _Token(begin, end, False, level, sign)
        elif kind == "string":
            quote = level + 1
            closed = text.startswith("\\" * level + text[begin + level], end - quote) and end - quote >= begin + quote
            yield _Token(begin + quote, end - quote if closed else end, True, level, text[begin + level])
        elif not kind:
            return
        at = end


def _next(text: str, at: int, stop: int, level: int, sign: str) -> tuple[str, int, int]:
    """Kind, start and end of the next token; no kind when there is none."""
    quote = _QUOTE.match(text, at, stop)
    if quote is not None:
        if len(quote[1]) != level or (quote[2] != sign and level):
            return "", at, stop
        end = string_end(text, quote.end(), level, quote[2], stop)
        closed = text.startswith(quote.group(), end) and end + len(quote.group()) <= stop
        return "string", at, end + len(quote.group()) if closed else stop
    simple = _SIMPLE.match(text, at, stop)
    return ("", at, stop) if simple is None else (simple.lastgroup or "", at, simple.end())


# What becomes of one edit.

_BETWEEN = re.compile(r"(?:[\s{}\[\],:\"']|\\{1,15}[nrt]?)*")
_NOT_BETWEEN = re.compile(r"[^\s{}\[\],:\"']")


def _in_documents(text: str, start: int, end: int, replacement: str, choices: Sequence[Sequence[_Token]]) -> Edit:
    """With documents inside strings, else the outermost alone; what a span covers beyond its document is left out."""
    for tokens in choices:
        begin, stop, pieces = _in_document(text, start, end, replacement, [token for token in tokens if token.end > start])
        if all(map(_BETWEEN.fullmatch, pieces[::2])):
            break
    else:
        pieces[::2] = [_NOT_BETWEEN.sub("", piece) for piece in pieces[::2]]
    return begin, stop, "".join(pieces)


def _in_document(text: str, start: int, end: int, replacement: str, tokens: Sequence[_Token]) -> tuple[int, int, list[str]]:
    """Where to write, and what: brackets and commas between tokens, and the tokens, in turn."""
    pieces: list[str] = []
    if not tokens:
        return start, end, [text[start:end]]  # brackets and commas only
    first, last = tokens[0], tokens[-1]
    begin, stop = start, end
    if start >= first.start:
        begin = _left(text, start, first) if first.string else first.start
    if end <= last.end:
        stop = _right(text, end, last) if last.string else last.end
    position = begin
    for token in tokens:
        pieces += [text[position : token.start], _written(replacement, text, token)]
        position = token.end
    pieces.append(text[position:stop])
    return begin, stop, pieces


def _written(replacement: str, text: str, token: _Token) -> str:
    escaped = _escaped(replacement, token)
    if token.string:
        return escaped
    if _NUMBER.fullmatch(replacement) and _NUMBER.fullmatch(text, token.start, token.end):
        return replacement
    quote = "\\" * token.level + token.sign
    return quote + escaped + quote


def _escaped(replacement: str, token: _Token) -> str:
    if replacement.isascii() and not any(c in "\"'\\" or c < " " for c in replacement):
        return replacement
    level = token.level
    while level >= 0:
        replacement = json.dumps(replacement, ensure_ascii=False)[1:-1]
        level = (level - 1) // 2 if level else -1
    return replacement.replace('\\"', '"').replace("'", "\\'") if token.sign == "'" else replacement


_CUT_UNIT = re.compile(r"(\\+)u[0-9a-fA-F]{0,3}\Z")


def _left(text: str, start: int, token: _Token) -> int:
    """`start`, or the beginning of the escape that it would cut."""
    unit = 2 * (token.level + 1)
    slashes = _run_before(text, start, token.start)
    if slashes:
        return start - slashes if slashes % unit else start
    cut = _CUT_UNIT.search(text, max(token.start, start - 24), start)
    return cut.start() if cut and len(cut[1]) % unit else start


def _right(text: str, end: int, token: _Token) -> int:
    """`end`, or the end of the escape that it would cut."""
    unit = 2 * (token.level + 1)
    slashes = _run_before(text, end, token.start)
    if slashes:
        after = end
        while after < token.end and text[after] == "\\":
            after += 1
        if not (slashes + after - end) % unit:
            return after
        return min(token.end, after + (5 if text[after : after + 1] == "u" else 1))
    cut = _CUT_UNIT.search(text, max(token.start, end - 24), end)
    return min(token.end, cut.end(1) + 5) if cut and len(cut[1]) % unit else end


def _run_before(text: str, at: int, low: int) -> int:
    run = at
    while run > low and text[run - 1] == "\\":
        run -= 1
    return at - run


_SQL = re.compile(
    r"(?:insert\s+into|update\s+\S+\s+set|delete\s+from|select\s.{1,400}?\sfrom|values\s*\(|where\s)", re.IGNORECASE
)
_BARE = re.compile(r"[-+.0-9]*")
_BEFORE_BARE = re.compile(r"(?:[=(,<>]|\b(?:like|in|between|and|values)\b)\s{0,8}\Z", re.IGNORECASE)
_AFTER_BARE = re.compile(r"\s{0,8}(?:[,);]|\Z|\s(?:and|or|order|limit|group|returning|where|on|between)\b)", re.IGNORECASE)
_GAP = re.compile(r"[\s,;|&]|\Z")


def _in_line(text: str, start: int, end: int, replacement: str) -> Edit:
    """In SQL, logfmt and CSV."""
    if text[start] in "-+.0123456789" and _SQL.search(text, 0, 4_096) is not None:
        low, high = start, end
        while low > 0 and start - low < 64 and text[low - 1] in "-+.0123456789":
            low -= 1
        tail = _BARE.match(text, end, min(len(text), end + 64))
        high = tail.end() if tail else end
        if (
            _BARE.fullmatch(text, low, high)
            and _BEFORE_BARE.search(text, max(0, low - 24), low)
            and _AFTER_BARE.match(text, high)
        ):
            return low, high, replacement if _NUMBER.fullmatch(replacement) else "'" + replacement.replace("'", "''") + "'"
    if "'" in replacement and _SQL.search(text, 0, 4_096) is not None:
        return start, end, replacement.replace("'", "''")
    old = text[start:end]
    if old.count('"') % 2 or sum(map(old.count, "{[")) != sum(map(old.count, "}]")):
        core = old.strip('{}[]",: ')  # halves of pairs belong to the format
        if core:
            start += old.index(core)
            end = start + len(core)
            return start, end, replacement
    if "," in replacement and "," not in old and _alone(text, start, end):
        replacement = replacement.replace(",", "")
    if " " in replacement and " " not in old and text[start - 1 : start] == "=" and _GAP.match(text, end):
        return start, end, '"' + replacement.replace('"', "'") + '"'
    return start, end, replacement


def _alone(text: str, start: int, end: int) -> bool:
    """Whether the span is a whole cell of a row."""
    return text[start - 1 : start] in ("", ",", "\n") and text[end : end + 1] in ("", ",", "\n", "\r") and "," in text
