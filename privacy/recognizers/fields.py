"""The field name as evidence: a value is personal because of the key it stands under, if it also looks the part.

Guarantee: `privacy.structure` reads the view, so findings depend on nothing else and de-identifying twice changes nothing;
empty values, booleans, states, templates and type names are refused under every key.
Assumption: no field name has a checksum, and a system may call anything anything: values are checked by shape, weak names
(`name`, `address`, `account`) by a lexicon, their neighbours or the key above them.
Not covered: keys outside the lexicon (`privacy.recognizers.keys`); miss mining names them, a policy pattern adds them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_plus

from privacy.recognizers.field_values import (
    NOTHING,
    Check,
    Value,
    account_value,
    address_value,
    age_value,
    birth_value,
    card_value,
    degree_value,
    location_value,
    name_value,
    national_value,
    no_han,
    password_value,
    phone_value,
    plate_value,
    position_value,
    resident_value,
    secret_value,
    shape,
    username_value,
    with_han,
)
from privacy.recognizers.keys import KEYS, NAME_TAIL, kind_of, near_names
from privacy.recognizers.spec import Recognizer, compiled
from privacy.recognizers.view import MASK, View
from privacy.structure import Field, fields

_REASON = "field name: the key decides, and the value has the shape of its type; no checksum in a field name"
_CACHED_SIZE = 100_000
_VERSION = "1-" + hashlib.sha256(repr(sorted(KEYS.items())).encode()).hexdigest()[:8]  # a changed lexicon is another detector

_TEMPLATE = re.compile(
    r"[%$#]?[{(<\[][^{}]{0,60}[})>\]]|%[-0-9.]{0,6}[a-z]|[:$@?][A-Za-z0-9_]{0,40}|[*.xX#?_ -]{1,40}|\$\{.{0,60}"
)
_ESCAPE = re.compile(r"\\{1,16}(?:u([0-9a-fA-F]{4})|[nrtbf])|'(?=')|\\(?=['\"])")  # of JSON and of SQL
_ALNUM = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True)
class FieldRule(Recognizer):
    """A recognizer that reads fields. `near` says in which texts that may be worth the while."""

    kinds: tuple[str, ...] = ()
    length: Check = lambda value: 0

    def idle(self, view: View) -> bool:
        """All rules of fields are looked for by the same patterns; where no field has a name of the lexicon all are idle."""
        return not _values(view.text)

    def confirm(
        self, view: View, low: int = 0, high: int | None = None, end: int | None = None
    ) -> list[tuple[int, int, float]]:
        """All fields of the view, wherever the faster engine saw the name of one."""
        values = _values(view.text)
        if values.keys().isdisjoint(self.kinds):
            return []
        found: dict[tuple[int, int], float] = {}
        for kind in self.kinds:
            for value in values.get(kind, ()):
                size = self.length(value)
                if size > 0:
                    start = value.field.start
                    stop = start + size if value.plain else value.field.end
                    found[start, min(stop, value.field.end)] = self.score
        return [(start, stop, score) for (start, stop), score in sorted(found.items())]


_Values = dict[str, list[Value]]  # by kind


def _values(text: str) -> _Values:
    return _cached_values(text) if len(text) < _CACHED_SIZE else _read_values(text)


def _read_values(text: str) -> _Values:
    named = [(field, kind, weak) for field in fields(text) for kind, weak in (kind_of(field.key),) if kind]
    if not named:
        return {}
    strong = {kind for _, kind, weak in named if not weak}
    siblings = not strong.isdisjoint(_TELLING)
    values: _Values = {}
    for field, kind, weak in named:
        value = _value(text, field, weak, siblings)
        if value is not None:
            values.setdefault(kind, []).append(value)
    return values


_TELLING = frozenset({"person", "phone", "email", "birth", "ssn", "resident id", "card", "passport", "mrn"})
_cached_values = lru_cache(maxsize=2)(_read_values)  # one text is asked about by several rules, one after the other


def _value(text: str, field: Field, weak: bool, siblings: bool) -> Value | None:
    start, end = field.start, field.end
    while start < end and text[start] in " \t":
        start += 1
    while end > start and text[end - 1] in " \t.":
        end -= 1
    raw = text[start:end]
    read = raw
    if field.kind == "query":
        read = unquote_plus(raw, errors="replace")
    elif "\\" in raw or "''" in raw:
        read = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else " " if m.group()[-1].isalpha() else "", raw)
    if MASK in raw:
        read = read.replace(MASK, " ")
    bare = read.strip()
    if not _ALNUM.search(bare) or bare.lower() in NOTHING or _TEMPLATE.fullmatch(bare):
        return None
    return Value(Field(field.key, field.parent, start, end, field.kind), read, weak, siblings, len(read) == len(raw))


# Where reading the fields of a text may be worth the while: one list for all rules, so that the multi-pattern engine looks
# for it once. It matches wherever a field is read whose name `kind_of` knows (both ask for NAME_TAIL).
# Names of accounts count before a quote or a list only: bare ones are left to the rule that knows session logs.
_NEXT = r"[\"'`\\\])]{0,18}\s{0,4}(?:[:=]|i?like\s|is\s|,\s{0,4}[\"'\\])"
_NEXT_QUOTED = r"[\"'`\\\])]{0,18}\s{0,4}(?:(?:[:=]{1,2}>?|i?like|is)\s{0,4}(?:\[|\\{0,16}[\"'`])|,\s{0,4}[\"'\\])"
_PART = 64  # names of one gate: larger expressions take the engine long to compile


def _gates() -> tuple[re.Pattern[str], ...]:
    quoted = near_names(("username",))
    others = near_names(tuple(kind for kind in KEYS if kind not in ("username", "ip")))
    parts = [others[i : i + _PART] for i in range(0, len(others), _PART)]
    return (
        *(compiled(r"(?:" + "|".join(part) + ")" + NAME_TAIL + _NEXT) for part in parts),
        compiled(r"(?:" + "|".join(quoted) + ")" + NAME_TAIL + _NEXT_QUOTED),
        compiled(r"[,;\t|][^\n]{0,4000}\n"),
        compiled(r"insert\s{1,4}into\s|key \([^()]{1,200}\)=\(|duplicate entry '"),
        compiled(r"\\u[4-9][0-9a-f]{3}\\{0,16}[\"']\s{0,4}[:=]"),
    )


_GATES = _gates()
_FIRST_WORDS = {name.lstrip("*").split(" ")[0] for kind, names in KEYS.items() if kind != "ip" for name in names}
_WORDS = (*sorted(_FIRST_WORDS), "\\u", "insert", "key", "entry", "\n")


def _rule(name: str, entity: str, kinds: str, length: Check, score: float = 0.87) -> FieldRule:
    return FieldRule(
        f"key:{name}",
        entity,
        _GATES[0],
        score,
        _REASON,
        near=_GATES,
        words=_WORDS,
        kinds=tuple(kinds.split(",")),
        length=length,
        version=_VERSION,
    )


_PASSPORT = r"[0-9A-Za-z]{6,14}(?![0-9A-Za-z])|[0-9A-Za-z]{1,4}[- ][0-9]{4,10}"
_SOCIAL = r"[0-9*xX]{2,3}[- ]?[0-9*xX]{2,4}[- ]?[0-9]{3,7}|[0-9]{4}|[A-Za-z]{2} ?(?:[0-9]{2} ?){3}[A-Za-z]?"

FIELDS: tuple[Recognizer, ...] = (
    _rule("person", "PERSON", "person", name_value),
    _rule("phone", "PHONE_NUMBER", "phone", phone_value),
    _rule("email", "EMAIL_ADDRESS", "email", shape(r"[^\s@%,;<>()\"']{1,64}(?:@|%40)[^\s@,;<>()\"']{2,255}", most=330)),
    _rule("address", "ADDRESS", "address", address_value, 0.86),
    _rule("location", "LOCATION", "location", location_value, 0.8),
    _rule("birth", "DATE_OF_BIRTH", "birth", birth_value),
    _rule("age", "AGE", "age", age_value, 0.8),
    _rule("username", "USERNAME", "username", username_value, 0.82),
    _rule("password", "PASSWORD", "password", password_value, 0.89),
    _rule("secret", "SECRET", "secret", secret_value, 0.88),
    _rule("card", "CREDIT_CARD", "card", card_value),
    _rule("bank-card", "CN_BANK_CARD", "bank card", card_value),
    _rule("iban", "IBAN", "iban", shape(r"[A-Za-z]{2}[0-9]{2}(?:[ -]?[0-9A-Za-z]){8,30}", 8)),
    _rule("account", "ACCOUNT_NUMBER", "account", account_value, 0.8),
    _rule("ssn", "US_SSN", "ssn", shape(_SOCIAL, 4)),
    _rule("passport", "PASSPORT_NUMBER", "passport", shape(_PASSPORT, 2)),
    _rule("licence", "DRIVER_LICENSE", "licence", shape(r"[0-9A-Za-z]{1,16}(?:[ .-]?[0-9A-Za-z*]{1,16}){0,5}", 4, 24)),
    _rule("resident-id", "CN_RESIDENT_ID", "resident id", resident_value),
    _rule("national-id", "PERSONAL_DATA", "resident id", national_value, 0.8),
    _rule("sim", "PERSONAL_DATA", "imsi", shape(r"[0-9]{14,22}")),
    _rule("plate", "LICENSE_PLATE", "plate", no_han(plate_value)),
    _rule("plate-cn", "CN_LICENSE_PLATE", "plate", with_han(plate_value)),
    _rule("record", "MEDICAL_RECORD_NUMBER", "mrn", shape(r"[#0-9A-Za-z](?:[0-9A-Za-z]|[-/.](?=[0-9A-Za-z])){2,40}", 3)),
    _rule("nhs", "NHS_NUMBER", "nhs", shape(r"[0-9]{3}[- ]?[0-9]{3}[- ]?[0-9]{4}")),
    _rule("npi", "US_NPI", "npi", shape(r"[0-9]{10}")),
    _rule("customer", "CUSTOMER_NUMBER", "customer", shape(r"[#0-9A-Za-z](?:[0-9A-Za-z]|[-_/.](?=[0-9A-Za-z])){2,40}", 3), 0.8),
    _rule("imei", "IMEI", "imei", shape(r"[0-9]{2}-?[0-9]{6}-?[0-9]{6}-?[0-9]{0,2}|[0-9A-Fa-f]{14}")),
    _rule("position", "GPS_LOCATION", "position", position_value),
    _rule("degree", "GPS_LOCATION", "degree", degree_value),
)  # fmt: skip
