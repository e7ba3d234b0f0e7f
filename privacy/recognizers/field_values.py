"""What values look like under a field name: one check a type, each a closed shape or a lexicon.

Assumption: the key has spoken already (`privacy.recognizers.keys`), so a check refuses what can't be of the type and proves
nothing; weakly named values need a lexicon, a neighbour or the key above them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from privacy.recognizers.accounts import account_like
from privacy.recognizers.keys import ROLES
from privacy.recognizers.names import AMBIGUOUS_NAMES, GIVEN_NAMES, PLACE_NAMES, STOP_WORDS, SURNAMES
from privacy.recognizers.spec import looks_like_epoch, luhn
from privacy.recognizers.view import word_set
from privacy.structure import Field

# Said in the place of a value, whatever the key: absence, states, type names, samples of a template.
NOTHING = word_set(
    """
    null none nil true false yes no na n/a undefined unknown empty missing required optional invalid valid default any all
    string str int integer varchar text char bool boolean float double number date datetime timestamp uuid object array list
    json blob bytes test tests example sample dummy todo tbd redacted hidden masked removed deleted hash hashed encrypted nan
    not-set unset unspecified anonymous system auto automatic disabled enabled on off ok error failed failure success pending
    active inactive incorrect wrong expired mismatch changed reset denied rejected accepted too cannot can't must should is was
    not the a an and or for of to in value key name field column type
    无 空 未知 未填写 暂无 默认 必填 错误 不能为空 未设置 不正确 已修改 无效
    """
)


@dataclass(slots=True)
class Value:
    """A field with its value as people read it. `siblings`: whether other fields of the text are personal by a strong name."""

    field: Field
    text: str
    weak: bool
    siblings: bool
    plain: bool  # whether `text` is the span itself, character by character

    @property
    def digits(self) -> str:
        return "".join(c for c in self.text if c in "0123456789")

    @property
    def closed(self) -> bool:
        """Whether the form of the text says where the value ends."""
        return self.field.kind != "line"


Check = Callable[[Value], int]  # how many characters from the start are the value; 0 for "not this type"


def shape(pattern: str, digits: int = 0, most: int = 64) -> Check:
    """A value of this shape with at least so many digits; in an open region, as much of its beginning as has the shape."""
    expression = re.compile(pattern)

    def length(value: Value) -> int:
        match = expression.match(value.text) if value.field.kind == "line" else expression.fullmatch(value.text)
        if match is None or match.end() > most:
            return 0
        return match.end() if sum(c in "0123456789" for c in match.group()) >= digits else 0

    return length


# Names

_NAME_WORD = r"[^\W\d_](?:[^\W\d_]|['’.-](?=[^\W\d_]|$)|['’.-](?= ))*"
_NAME = re.compile(_NAME_WORD + r"(?:,? {1,2}" + _NAME_WORD + r"){0,5}")
_HAN_NAME = re.compile(r"[\u4e00-\u9fff]{2,4}(?:·[\u4e00-\u9fff]{1,8})?")
_UPPER_START = re.compile(
    _NAME_WORD + r"(?: (?:[A-Z\u00c0-\u00de]|(?:de|van|von|da|del|der|di|la|bin|al|dos) )" + r"[^\W\d_'’.-]?[\w'’.-]*){0,3}"
)


def name_value(value: Value) -> int:
    text = value.text
    if value.field.kind == "line":
        return _open_name(value)
    match = _NAME.fullmatch(text.strip())
    if match is None or len(text) > 64:
        return 0
    words = [word.strip(".,'’-").lower() for word in text.split()]
    if value.field.kind == "query" and len(words) == 1 and len(words[0]) < 3:
        return 0
    if value.weak and not _named(value, words):
        return 0
    return len(text) if any(len(word) > 1 or not word.isascii() for word in words) else 0


def _open_name(value: Value) -> int:
    """Of `Alice Smith logged in`, the name: a word and those with a capital that follow it."""
    han = _HAN_NAME.match(value.text)
    if han:
        return 0 if value.weak else han.end()
    match = _UPPER_START.match(value.text)
    if match is None or (value.weak and not value.field.parent and not match.group()[0].isupper()):
        return 0
    words = [word.strip(".,'’-").lower() for word in match.group().split()]
    if words[0] in NOTHING or (words[0] in STOP_WORDS and words[0] not in GIVEN_NAMES):
        return 0
    return match.end() if len(words) > 1 and (not value.weak or _named(value, words)) else 0


def _named(value: Value, words: list[str]) -> bool:
    """Whether a field that is only called `name` or `customer` holds a person's."""
    han = _HAN_NAME.fullmatch(value.text)
    if any(role in ROLES for role in re.findall(r"[a-z]+", _spaced(value.field.parent))):
        return bool(han) or words[0] not in STOP_WORDS or words[0] in GIVEN_NAMES
    if han:
        return value.siblings or value.field.key.endswith("户名")
    known = (words[0] in GIVEN_NAMES and (len(words) > 1 or words[0] not in AMBIGUOUS_NAMES)) or (
        len(words) > 1 and words[-1] in SURNAMES
    )
    if known and not (len(words) == 1 and words[0] in PLACE_NAMES):
        return True
    return value.siblings and len(words) in (2, 3, 4) and not any(word in STOP_WORDS for word in words)


def _spaced(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).replace("_", " ").lower()


# Places

_NOT_PLACE = re.compile(
    r"[a-z][a-z0-9+.-]{1,12}://|[\w.%+-]+@|0x|[0-9a-f.:]{3,45}(?:/[0-9]{1,3})?\Z|[\w-]+(?:\.[\w-]+)+(?::[0-9]+)?\Z|/|[A-Za-z]:\\",
    re.I,
)
_HAN_PLACE = re.compile(r"[省市区县镇乡村路街道巷弄号室栋楼幢座]")
_CLAUSE = re.compile(r"  |[;|]| (?:- |is |was |not |for |failed |and ){1}|\. (?=[A-Z])")


def address_value(value: Value) -> int:
    text = value.text
    if value.field.kind == "line":
        cut = _CLAUSE.search(text)
        text = text[: cut.start()] if cut else text
        text = text.rstrip(" ,.")
    if not 4 <= len(text) <= 240 or _NOT_PLACE.match(text):
        return 0
    han = _HAN_PLACE.search(text)
    words = text.split()
    letters = sum(c.isalpha() for c in text)
    number = any(c in "0123456789" for c in text)
    if han and letters >= 4:
        return len(text)
    if value.weak or value.field.kind in ("line", "word"):
        return len(text) if number and len(words) > 2 and letters > 4 else 0
    return len(text) if len(words) > 1 and letters > 3 else 0


_CITY = re.compile(r"[^\W\d_][^\W\d_.'’-]{0,20}(?:[ .'’-]{1,2}[^\W\d_.'’-]{1,20}){0,4}")
_POST_CODE = re.compile(r"(?=[^ ]{0,8}[0-9])[0-9A-Za-z]{2,6}(?:[ -][0-9A-Za-z]{2,4})?")


def location_value(value: Value) -> int:
    text = value.text
    if re.search(r"(?:zip|post|plz|邮)", value.field.key, re.IGNORECASE):
        match = _POST_CODE.match(text) if value.field.kind == "line" else _POST_CODE.fullmatch(text)
        return match.end() if match and len(match.group()) > 3 else 0
    if not value.closed or _CITY.fullmatch(text) is None:
        return 0
    return len(text) if text[0].isupper() or not text.isascii() else 0


_DEGREE = re.compile(r"-?[0-9]{1,3}\.[0-9]{3,15}")
_POSITION = re.compile(r"[\[(]?-?[0-9]{1,3}\.[0-9]{2,15}[°NSEW]{0,2} ?[,; /] ?-?[0-9]{1,3}\.[0-9]{2,15}[°NSEW]{0,2}[\])]?")


def degree_value(value: Value) -> int:
    return len(value.text) if _DEGREE.fullmatch(value.text) and abs(float(value.text)) <= 180 else 0


def position_value(value: Value) -> int:
    match = _POSITION.match(value.text)
    if match:
        return match.end()
    return degree_value(value) if value.field.kind == "scalar" else 0


# Dates, numbers

_DATE = re.compile(
    r"(?:[0-9]{1,4}[-/. 年][0-9]{1,2}[-/. 月][0-9]{1,4}日?(?:[T ][0-9:.]{4,15}(?:Z|[+-][0-9:]{4,5})?)?"
    r"|[0-9]{1,2}(?:st|nd|rd|th)?[ -][A-Za-z]{3,9}\.?,?[ -][0-9]{2,4}|[A-Za-z]{3,9}\.? [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{4}"
    r"|(?:18|19|20)[0-9]{2}(?:[-/]?[0-9]{2}){0,2}|(?:19|20)[0-9]{2}年(?:[0-9]{1,2}月)?|[0-9]{8}|-?[0-9]{9,13})(?![0-9A-Za-z])"
)


def birth_value(value: Value) -> int:
    match = _DATE.match(value.text)
    return match.end() if match and (value.field.kind == "line" or match.end() == len(value.text)) else 0


def age_value(value: Value) -> int:
    if value.field.kind not in ("string", "scalar", "cell") or not re.fullmatch(r"[0-9]{1,3}", value.text):
        return 0
    return len(value.text) if 0 < int(value.text) <= 122 else 0


_PHONE = re.compile(
    r"(?:tel:|sip:)?[+(]{0,2}[0-9](?:[ ().*/xX-]{0,3}[0-9*]){5,17}(?:[ ,;]{0,2}(?:x|ext\.?|#) ?[0-9]{1,6})?", re.I
)


def phone_value(value: Value) -> int:
    match = _PHONE.match(value.text)
    if match is None or (value.closed and match.end() != len(value.text)):
        return 0
    return match.end() if 6 <= sum(c in "0123456789*" for c in match.group()) <= 21 else 0


_GROUPED = re.compile(r"[0-9](?:[ -]?[0-9]){11,18}(?![0-9A-Za-z])")
_TAIL_OF_CARD = re.compile(r"(?:[*xX•.]{1,4}[ -]?){1,4}[0-9]{4}(?:[ -][0-9]{4})?|[0-9]{4,6}[*xX]{4,12}[0-9]{4}")


def card_value(value: Value) -> int:
    match = _GROUPED.match(value.text)
    if match and (match.end() == len(value.text) or not value.closed):
        digits = "".join(c for c in match.group() if c in "0123456789")
        return match.end() if luhn(digits) or not looks_like_epoch(digits) else 0
    if _TAIL_OF_CARD.fullmatch(value.text):
        return len(value.text)
    last_four = re.search(r"4$|four$", value.field.key, re.IGNORECASE)
    return len(value.text) if last_four and re.fullmatch(r"[0-9]{4}", value.text) else 0


def account_value(value: Value) -> int:
    if not value.closed or not re.fullmatch(r"[A-Za-z]{0,6}[ -]?[0-9*][0-9A-Za-z* /-]{2,32}", value.text):
        return 0
    digits = value.digits
    if value.weak and (value.field.kind == "word" or len(digits) < 7 or looks_like_epoch(digits)):
        return 0
    return len(value.text) if len(digits) >= 4 else 0


def resident_value(value: Value) -> int:
    return len(value.text) if re.fullmatch(r"[0-9]{17}[0-9Xx]|[0-9]{15}|[0-9]{3,6}\*{6,14}[0-9Xx]{2,4}", value.text) else 0


def national_value(value: Value) -> int:
    if resident_value(value) or not value.closed:
        return 0
    return (
        len(value.text)
        if re.fullmatch(r"[0-9A-Za-z]{1,12}(?:[ ./-]?[0-9A-Za-z]{1,12}){0,4}", value.text) and len(value.digits) >= 7
        else 0
    )


def plate_value(value: Value) -> int:
    if (
        not re.fullmatch(r"[0-9A-Z\u4e00-\u9fff]{1,4}(?:[ ·.-]?[0-9A-Z\u4e00-\u9fff]{1,6}){0,3}", value.text)
        or len(value.text) > 12
    ):
        return 0
    return len(value.text) if len(value.digits) >= 1 and len(value.text) >= 4 else 0


def no_han(check: Check) -> Check:
    return lambda value: 0 if re.search(r"[\u4e00-\u9fff]", value.text) else check(value)


def with_han(check: Check) -> Check:
    return lambda value: check(value) if re.search(r"[\u4e00-\u9fff]", value.text) else 0


# Accounts and secrets

_HANDLE = re.compile(r"(?:[0-9A-Za-z_.-]{1,32}\\{1,8})?[\w][\w.@+$'-]{0,63}")


def username_value(value: Value) -> int:
    """Bare words after `=` and `:` are left to the rule that knows session logs."""
    text = value.text
    if value.field.kind not in ("string", "cell"):
        return 0
    if _HANDLE.fullmatch(text):
        return len(text) if account_like(text) else 0
    words = text.split()
    name = 1 < len(words) < 4 and _NAME.fullmatch(text) and words[0].lower() in GIVEN_NAMES
    return len(text) if name else 0


def password_value(value: Value) -> int:
    text = value.text
    if not value.closed or not 2 <= len(text) <= 256:
        return 0
    if re.search(r"(?:^|[^a-z])(?:pin|pass|pw)(?:[^a-z]|$)|(?i:pincode)", _spaced(value.field.key)) and text.isdigit():
        return len(text) if 4 <= len(text) <= 12 and "pin" in value.field.key.lower() else 0
    if value.field.kind == "scalar":
        return len(text) if len(text) > 3 else 0
    strange = any(not c.isalpha() for c in text)
    if value.field.kind == "word":
        return len(text) if strange and len(text) > 3 and not text.endswith(":") else 0
    if " " in text and not any(c.isdigit() for c in text):
        return 0  # a sentence about passwords
    return len(text)


def secret_value(value: Value) -> int:
    text = value.text
    if not value.closed or " " in text.strip() or len(text) > 4_000:
        return 0
    code = re.search(r"(?:cvv|cvc|otp|code|验证码|安全码|动态码)[0-9]?$", value.field.key, re.IGNORECASE)
    if code:
        return len(text) if re.fullmatch(r"[0-9]{3,8}|[0-9A-Za-z]{4,8}(?:-[0-9A-Za-z]{4,8}){1,7}", text) else 0
    if text.isdigit() or len(text) < 8 or value.field.kind == "scalar":
        return 0
    digits = sum(c.isdigit() for c in text)
    mixed = text.lower() != text and text.upper() != text
    return len(text) if (digits >= 2 and len(set(text)) >= 6) or (mixed and len(text) >= 20) else 0
