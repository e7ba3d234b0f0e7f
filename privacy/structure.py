"""Which part of a machine-written text is the value of which field: JSON at any depth of escaping, logfmt, key=value, headers,
`key: value`, SQL statements, database errors, dumps of objects, query strings, and CSV with its header line.

Guarantee: one pass without recursion over brackets or escapes, so nesting costs no stack; time grows with the length of the
text and never with its content; broken, cut and mixed texts are read as far as they go and never raise. Spans point into the
text as it stands, escapes included.
Assumption: a quote after n backslashes opens a string that ends at the next quote after n backslashes, which is what
escaping JSON in JSON gives (n = 0, 1, 3, 7 ...); an even surplus is a backslash of the value.
Not covered: XML, CSV whose header stands in another record, and values that a program wrote without their key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_VALUE = 4_096  # characters of one value; what is longer is a document and no field
_MOST_ELEMENTS = 256
_MOST_ROWS = 4_096
_MOST_NAME = 64
_MOST_DEPTH = 256  # of the stack of enclosing keys: deeper brackets are still read, without their path


@dataclass(frozen=True, slots=True)
class Field:
    """The value text[start:end] of `key`, which stands in `parent` (the enclosing key, or the name of the dumped object).

    kind: `string` (between quotes), `scalar` (a bare JSON or SQL value), `word` (bare, up to a space), `line` (may go on to the
    end of the region), `cell` (of a table), `query` (percent-encoded).
    """

    key: str
    parent: str
    start: int
    end: int
    kind: str


def fields(text: str) -> list[Field]:
    """Every field, in the order of the forms; one value may be read by more than one of them."""
    found = list(_quoted_keys(text)) if '"' in text or "'" in text else []
    found += _bare_keys(text)
    found += _database_errors(text)
    if "nto" in text or "NTO" in text:
        found += _inserts(text)
    if "\n" in text:
        found += _table(text)
    return found


# Keys in quotes: JSON, escaped JSON, dictionaries of Python and Ruby.

_TOKEN = re.compile(
    r"[}\]]|[{\[]|(?P<quote>\\{0,15}[\"'])(?P<key>[^\"'\\\n{}\[\]]{1,64}|(?:\\{1,16}u[0-9a-fA-F]{4}|[^\"'\\\n{}\[\]]){1,64})"
    r"(?P=quote)\s{0,4}(?::|=>?)\s{0,4}"
)
_NUMBER = re.compile(r"(?:-?[0-9][0-9.eE+-]{0,40}|\ue000)(?![0-9A-Za-z_])")  # or a number that was found already
_ESCAPED_END = re.compile(r"\\u[4-9][0-9a-fA-F]{3}\Z")  # a key in Han characters
_ESCAPED_UNIT = re.compile(r"\\{1,16}u([0-9a-fA-F]{4})")
_NAME_KEYS = frozenset({"name", "key", "field", "label", "param", "parameter", "attribute", "column", "property"})
_VALUE_KEYS = frozenset({"value", "val", "content", "text", "answer", "data"})


class _Above:
    """The keys that enclose the place where the reader is; bounded, however deep the brackets go."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._deeper = 0

    def open(self, key: str) -> None:
        if len(self._keys) < _MOST_DEPTH:
            self._keys.append(key)
        else:
            self._deeper += 1

    def close(self) -> None:
        if self._deeper:
            self._deeper -= 1
        elif self._keys:
            self._keys.pop()

    @property
    def nearest(self) -> str:
        """The key right above; a list hands on the key that it stands under."""
        return next((key for key in self._keys[:-4:-1] if key), "")


def _quoted_keys(text: str) -> Iterator[Field]:
    above = _Above()
    pending, named, at = "", "", 0
    while (token := _TOKEN.search(text, at)) is not None:
        at = begin = token.end()
        if token["key"] is None:
            if token.group() in "{[":
                above.open(pending)
            else:
                above.close()
            pending, named = "", ""
            continue
        key, parent = readable(token["key"]), above.nearest
        for start, end, kind in _json_values(text, at):
            at = end
            if key.lower() in _NAME_KEYS and kind == "string":
                named = text[start:end] if end - start <= _MOST_NAME and "\\" not in text[start:end] else ""
            elif named and key.lower() in _VALUE_KEYS:
                yield Field(named, parent, start, end, kind)
            yield Field(key, parent, start, end, kind)
        pending = key if at == begin else ""
        if at > begin and text[begin] == "[":  # its end is still to come
            above.open(key)


def readable(key: str) -> str:
    """A key with its `\\uXXXX` escapes resolved."""
    return _ESCAPED_UNIT.sub(lambda unit: chr(int(unit[1], 16)), key) if _ESCAPED_END.search(key) else key


_OPENING = re.compile(r"\\{0,15}[\"']\s{0,4}[{\[]")


def _opens(text: str, at: int) -> bool:
    """Whether a string starts here that holds a document of its own."""
    return _OPENING.match(text, at) is not None


_QUOTE = re.compile(r"(\\{0,15})([\"'`])")
_BETWEEN = re.compile(r"\s{0,4},\s{0,4}")


def _json_values(text: str, at: int) -> Iterator[tuple[int, int, str]]:
    """The scalar at `at`, or those of the list that starts there; a nested document yields nothing and is read as it comes."""
    if text[at : at + 1] == "[":
        inside = at + 1 + len(text[at + 1 : at + 5]) - len(text[at + 1 : at + 5].lstrip())
        for _ in range(_MOST_ELEMENTS):
            value = _json_scalar(text, inside)
            if value is None:
                return
            yield value
            after = value[1] + _closing(text, value[1])
            comma = _BETWEEN.match(text, after)
            if comma is None:
                return
            inside = comma.end()
        return
    value = _json_scalar(text, at)
    if value is not None:
        yield value


def _closing(text: str, end: int) -> int:
    quote = _QUOTE.match(text, end)
    return 0 if quote is None else len(quote.group())


def _json_scalar(text: str, at: int) -> tuple[int, int, str] | None:
    quote = _QUOTE.match(text, at)
    if quote is None:
        number = _NUMBER.match(text, at)
        return None if number is None else (at, number.end(), "scalar")
    if _opens(text, at):
        return None
    start = quote.end()
    return start, string_end(text, start, len(quote[1]), quote[2]), "string"


def string_end(text: str, start: int, level: int, sign: str, stop: int | None = None) -> int:
    """Where the string that opened with `level` backslashes and the quote `sign` ends: at its closing quote, or cut.

    stop: how far to look; without it, MOST_VALUE characters, and a doubled single quote is one of the value, as in SQL.
    """
    limit = min(len(text), start + MOST_VALUE) if stop is None else stop
    at = start
    while True:
        at = text.find(sign, at, limit)
        if at < 0:
            return limit
        run = at
        while run > start and text[run - 1] == "\\":
            run -= 1
        slashes = at - run
        if stop is None and sign == "'" and slashes == 0 and at > start and text[at + 1 : at + 2] == "'":
            at += 2
            continue
        if slashes % (2 * (level + 1)) == level:
            return at - level
        if slashes < level:
            return run
        at += 1


# Bare keys: logfmt, key=value, headers, `key: value`, query strings, dumps of objects, SQL conditions.

_PAIR = re.compile(
    r"(?<![0-9A-Za-z_.$@\"'\\-])(?P<key>[A-Za-z_][0-9A-Za-z_.-]{0,60}+|[\u4e00-\u9fff]{2,10}+)[\"'`\])]{0,2}"
    r"(?:\s{0,2}(?:=>|:=|[:=]=?)\s{0,2}|\s{1,2}(?:i?like|is)\s{1,2}(?='))(?![/=])",
    re.IGNORECASE,
)
_OBJECT = re.compile(r"([A-Za-z]\w{1,40})[({\[]\s{0,2}\Z")
_PHRASE = re.compile(r"[A-Za-z]{2,20} (?:[A-Za-z]{2,20} )?\Z")
_WORD_END = re.compile(r"[\s\"'`,;&|<>(){}\[\]]")
_LINE_END = re.compile(r"[\n\r\"{}<>|\t]|\\[nrt\"]")
MOST_LINE = 160


def _bare_keys(text: str) -> Iterator[Field]:
    pair = _PAIR.search(text)
    parent = ""
    while pair is not None:
        following = _PAIR.search(text, pair.end())
        key, at = pair["key"], pair.end()
        begin = pair.start()
        before = text[max(0, begin - 3) : begin]  # spares the search for what can't be there
        dumped = _OBJECT.search(text, max(0, begin - 44), begin) if before.rstrip()[-1:] in ("(", "{", "[") else None
        parent = dumped[1] if dumped else parent
        spoken = before[-1:] == " " and before[-2:-1].isalpha() and ":" in pair.group()
        phrase = _PHRASE.search(text, max(0, begin - 44), begin) if spoken else None
        key = phrase.group() + key if phrase else key
        quote = _QUOTE.match(text, at)
        if quote is not None:
            if not _opens(text, at):
                yield Field(key, parent, quote.end(), string_end(text, quote.end(), len(quote[1]), quote[2]), "string")
        elif text[at : at + 1] not in ("{", "["):
            stop = min(following.start() if following else len(text), at + MOST_VALUE)
            yield from _bare_value(text, key, parent, at, stop, text[pair.start() - 1 : pair.start()] in ("?", "&"))
        pair = following


def _bare_value(text: str, key: str, parent: str, at: int, stop: int, query: bool) -> Iterator[Field]:
    """The word after a separator, and the region up to the next key as far as it is one line."""
    end = _WORD_END.search(text, at, stop)
    word = end.start() if end else stop
    if query:
        if word > at:
            yield Field(key, parent, at, word, "query")
        return
    if word > at:
        yield Field(key, parent, at, word, "word")
    stop = min(stop, at + MOST_LINE)
    end = _LINE_END.search(text, at, stop)
    line = end.start() if end else stop
    while line > at and text[line - 1] in " ,;&)]":
        line -= 1
    if line > word:
        yield Field(key, parent, at, line, "line")


# Databases: INSERT with its columns, and the errors that quote a row.

_INSERT = re.compile(
    r"insert\s{1,4}into\s{1,4}[\w.`\"\[\]]{1,100}\s{0,4}\(([^()]{1,2000})\)\s{0,4}values\s{0,4}\(", re.IGNORECASE
)
_SQL_VALUE = re.compile(
    r"\s{0,4}(?:[eEnN]?'(?P<string>(?:[^'\\]|''|\\.){0,4000})'|(?P<bare>[^,()']{1,200}))\s{0,4}(?P<next>[,)])"
)
_NEXT_ROW = re.compile(r"\s{0,4},\s{0,4}\(")
_KEY_IS = re.compile(r"\bkey \(([^()]{1,200})\)=\(([^()\n]{1,400})\)", re.IGNORECASE)
_DUPLICATE = re.compile(r"duplicate entry '([^'\n]{1,200})' for key '([^'\n]{1,100})'", re.IGNORECASE)


def _inserts(text: str) -> Iterator[Field]:
    for insert in _INSERT.finditer(text):
        columns = [column.strip(' \t\r\n`"[]') for column in insert[1].split(",")]
        at, column = insert.end(), 0
        for _ in range(_MOST_ROWS):
            value = _SQL_VALUE.match(text, at)
            if value is None:
                break
            kind = "string" if value["string"] is not None else "bare"
            if column < len(columns):
                yield Field(columns[column], "", *value.span(kind), "string" if kind == "string" else "scalar")
            at, column = value.end(), column + 1
            if value["next"] == ")":
                row = _NEXT_ROW.match(text, at)
                if row is None:
                    break
                at, column = row.end(), 0


def _database_errors(text: str) -> Iterator[Field]:
    for error in _KEY_IS.finditer(text) if ")=(" in text else ():
        columns, values = error[1].split(","), error[2].split(",")
        at = error.start(2)
        if len(columns) == 1:
            yield Field(columns[0].strip(), "", *error.span(2), "cell")
        elif len(columns) == len(values):
            for column, value in zip(columns, values, strict=True):
                yield Field(column.strip(), "", at, at + len(value), "cell")
                at += len(value) + 1
    for error in _DUPLICATE.finditer(text) if "'" in text else ():
        yield Field(error[2].rsplit(".", 1)[-1], "", *error.span(1), "cell")


# Tables: CSV and its kin, when the header line stands above the rows.

_HEADER_CELL = re.compile(r"\s{0,4}[\"']?([A-Za-z_\u4e00-\u9fff][\w .()#/-]{0,40}?)[\"']?\s{0,4}")
_CELLS = {
    sign: re.compile(r"\s{0,4}(?:\"(?P<string>(?:[^\"]|\"\"){0,400})\"|(?P<bare>[^" + re.escape(sign) + r"\r\n]{0,400}))"
                     r"(?P<next>" + re.escape(sign) + r"|\r?\n|\r|\Z)")
    for sign in ",;\t|"
}  # fmt: skip


def _table(text: str) -> Iterator[Field]:
    """Rows under the first of the first three lines that reads as a header; a row with another number of cells ends them."""
    begin = 0
    for _ in range(3):
        stop = text.find("\n", begin)
        if stop < 0:
            return
        header = text[begin:stop].rstrip("\r")
        for sign in ",;\t|":
            columns = _columns(header, sign)
            if columns:
                yield from _rows(text, stop + 1, columns, _CELLS[sign])
                return
        begin = stop + 1


def _columns(header: str, sign: str) -> list[str]:
    if sign not in header or len(header) > 4_000:
        return []
    cells = [_HEADER_CELL.fullmatch(cell) for cell in header.split(sign)]
    return [cell[1] for cell in cells if cell is not None] if all(cells) and len(cells) < 200 else []


def _rows(text: str, at: int, columns: list[str], cell: re.Pattern[str]) -> Iterator[Field]:
    row: list[Field] = []
    while at < len(text) and len(row) < len(columns):
        value = cell.match(text, at)
        if value is None:
            return
        kind = "string" if value["string"] is not None else "bare"
        row.append(Field(columns[len(row)], "", *value.span(kind), "cell"))
        at = value.end()
        if value["next"] in ("\n", "\r\n", "\r", ""):
            if len(row) < len(columns):
                return
            yield from row
            row = []
