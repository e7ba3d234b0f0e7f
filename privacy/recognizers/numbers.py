"""Numbers and dates that only their surroundings make personal: accounts, orders, customers, dates of birth.

None of these has a checksum: every issuer numbers as it likes. A cue word, a neighbour that was found already, or a turn of
a conversation that holds nothing else must speak for them; in machine-written lines the weaker rules are off.
"""

from __future__ import annotations

from privacy.recognizers.spec import FILLER, KEY, LEFT, RIGHT, SEP, Candidate, Check, Recognizer, compiled

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
DATE = (
    r"(?:[0-9]{1,4}[/.-][0-9]{1,2}[/.-][0-9]{1,4}|[0-9]{1,2}(?:st|nd|rd|th)?(?: of)? "
    + _MONTH
    + r",? [0-9]{2,4}|"
    + _MONTH
    + r" [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{2,4}|[0-9]{4}年[0-9]{1,2}月(?:[0-9]{1,2}[日号]?)?|[0-9]{8})"
)
_CODE = r"#?([0-9A-Za-z]{0,6}-?[0-9][0-9A-Za-z]{0,20}(?:-[0-9A-Za-z]{1,14}){0,4})"
_NO_UNIT = r"(?![0-9A-Za-z]|[.,][0-9]| ?(?:dollars?|usd|rupees|euros?|am|pm|items?|days?|times)(?![a-z]))"


_KEYED_END = r"(?:[=:#][\s\"'\\(\[#]{0,4}|(?:ids?|no|num|numbers?|nr)\.?\s)"
_KEYED = compiled(_KEYED_END + r"\Z")
_HOST_TAIL = compiled(r"(?:-[0-9A-Za-z]{1,20}){0,6}\.[A-Za-z]")
_UNIT = compiled(r"[ ,]{0,2}(?:bytes?|[kmg]i?b|ms|s|sec|secs|seconds|pages?|entries|rows|times|items?|%)(?![0-9A-Za-z])")
_ACCOUNT_WORD = compiled(r"acc(?:oun)?t|acct|iban|routing|sort.?code|(?:policy|loan|bank|insurance).{0,3}(?:no|num|id|acc)")


def _machine_says_so(found: Candidate) -> bool:
    """In a machine's line a cue is a key: the value follows `=`, `:` or `#`, is no quantity and no part of a host name."""
    return (
        _KEYED.search(found.before(8)) is not None
        and _HOST_TAIL.match(found.text, found.end) is None
        and _UNIT.match(found.text, found.end) is None
    )


def _code(found: Candidate) -> float:
    """A cued code: at least three digits, and a lone year is a year."""
    digits = found.digits
    if len(digits) < 3 or (found.value.isdigit() and len(digits) == 4 and digits[:2] in ("19", "20")):
        return 0.0
    if found.log and not _machine_says_so(found):
        return 0.0
    return 0.7


_TRADE_WORD = compiled(r"(?:orders?|invoice|parcel|shipment|booking|reservation) #?\Z")


def _order(found: Candidate) -> float:
    """A shop's own lines say "order 0000152641 placed": the word for a trade and eight digits need no sign between them."""
    if found.log and len(found.digits) >= 8 and _TRADE_WORD.search(found.before(16)):
        return 0.7
    return 0.0 if found.log and len(found.digits) < 4 else _code(found)


def _account(found: Candidate) -> float:
    if found.log and not (_machine_says_so(found) and _ACCOUNT_WORD.search(found.before(40))):
        return 0.0
    return 0.7 if len(found.digits) >= 3 else 0.0


def _age(found: Candidate) -> float:
    """Ages of caches and of objects are quantities of a machine; nobody is older than 122."""
    if not 0 < int(found.value) <= 122:
        return 0.0
    if _AGE_OF_THING.search(found.before(24)) or _AGE_UNIT.match(found.text, found.end):
        return 0.0
    return 0.7


_AGE_OF_THING = compiled(r"(?:max|min|s-max|cache|stale|entry|object|file|log|key|session|queue)[_ -]?age[\s:=\"']{0,5}\Z")
_AGE_UNIT = compiled(r" ?(?:ms|s|sec|secs|seconds|min|mins|minutes|h|hours?|d|days?|weeks?|%)(?![A-Za-z])")


def _cued(name: str, entity: str, cue: str, words: tuple[str, ...], check: Check = _code) -> Recognizer:
    return Recognizer(
        name,
        entity,
        compiled(KEY + cue + FILLER + _CODE + RIGHT),
        0.7,
        "no checksum: every issuer numbers as it likes; the cue word decides",
        group=1,
        check=check,
        words=words,
        digits=3,
        version="2",
        near_log=(compiled(KEY + cue + FILLER + _KEYED_END + r"#?[0-9A-Za-z]{0,6}-?[0-9]"),),  # as `_machine_says_so` asks
    )


def _number_only(found: Candidate) -> tuple[int, int] | None:
    start = found.start
    while start < found.end and found.text[start] not in "0123456789":
        start += 1
    return (start, found.end) if start < found.end else None


NUMBERS: tuple[Recognizer, ...] = (
    _cued(
        "account_cue",
        "ACCOUNT_NUMBER",
        r"(?:accounts?|acct|a/c|ac|acc|checking|savings?|loan|policy|routing|sort code|iban|insurance|bank)",
        ("acc", "a/c", "ac ", "checking", "saving", "loan", "policy", "routing", "sort", "iban", "insurance", "bank"),
        _account,
    ),
    Recognizer(
        "ending_in",
        "ACCOUNT_NUMBER",
        compiled(
            LEFT + r"(?:end(?:s|ing)? (?:in|with)|last (?:four|4|five|5)(?: digits?)?(?: (?:is"
            r"|are|of it is|being))?|final digits)[\s:]{1,3}([0-9]{3,6})" + RIGHT
        ),
        0.65,
        "no checksum in a part of a number; the phrase decides",
        group=1,
        words=("end", "last", "final"),
        digits=3,
    ),
    _cued(
        "order_cue",
        "ORDER_NUMBER",
        r"(?:orders?|invoice|ticket|case|tracking|booking|reservation|confirmation"
        r"|reference|ref|shipment|parcel|return|rma|report|claim|receipt)",
        (
            "order",
            "invoice",
            "ticket",
            "case",
            "track",
            "book",
            "reserv",
            "confirm",
            "ref",
            "ship",
            "parcel",
            "return",
            "rma",
            "report",
            "claim",
            "receipt",
        ),
        _order,
    ),
    _cued(
        "customer_cue",
        "CUSTOMER_NUMBER",
        r"(?:customer|client|member(?:ship)?|subscriber|employee|patient|student|loyalty)",
        ("customer", "client", "member", "subscriber", "employee", "patient", "student", "loyalty"),
    ),
    Recognizer(
        "coded_number",
        "ORDER_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z_.-])(?:ORD|INV|ORDER|CUST|CN|TKT|RMA|PO|SO)-?#?(?:[0-9]{4}-)?[0-9]{4,12}(?![0-9A-Za-z_-])",
            ignore_case=False,
        ),
        0.6,
        "no checksum; a published-style prefix with four or more digits",
        digits=4,
    ),
    Recognizer(
        "birth_cue",
        "DATE_OF_BIRTH",
        compiled(
            KEY + r"(?:d\.?o\.?b\.?|date[ _-]?of[ _-]?birth|birth[ _-]?(?:da(?:te|y)|dt|year)|bday|born|year of birth"
            r"|geburtsdatum)[\"']?"
            + FILLER
            + r"[\"']?("
            + DATE
            + r"(?:T[0-9:.]{5,15}(?:Z|[+-][0-9:]{4,5})?)?|(?:19|20)[0-9]{2}(?![-/.][0-9]))"
            + RIGHT
        ),
        0.85,
        "no checksum; the cue word decides, other dates are left alone",
        group=1,
        words=("dob", "d.o.b", "do.b", "d.ob", "birth", "born", "bday", "geburt"),
        digits=2,
        version="2",
    ),
    Recognizer(
        "age_cue",
        "AGE",
        compiled(KEY + r"(?:aged?|age is|age|年龄|岁数)(?:[\s:=]{1,3}|" + SEP + r")([0-9]{1,3})(?![0-9A-Za-z]|[.,:][0-9])"),
        0.7,
        "no checksum; the cue word decides, ages of caches are refused",
        group=1,
        check=_age,
        words=("age", "年龄", "岁数"),
        digits=1,
    ),
    Recognizer(
        "age_years",
        "AGE",
        compiled(
            LEFT
            + r"([0-9]{1,3})(?=[ -]?(?:(?:years?|yrs?)[ -](?:old|of age)|y/o|yo)(?![A-Za-z])|[ -]year[ -]olds?(?![A-Za-z]))"
        ),
        0.7,
        "no checksum; the phrase decides",
        group=1,
        check=lambda found: 0.7 if 0 < int(found.value) <= 122 else 0.0,
        words=("old", "of age", "y/o", "yo"),
        digits=1,
    ),
    Recognizer(
        "bare_number",
        "ACCOUNT_NUMBER",
        compiled(
            r"\A[^0-9A-Za-z]{0,5}(?:(?:yes|ok|okay|sure|its?|it's|is|number"
            r"|no)[ ,:]{1,3}){0,4}([0-9](?:[ .-]?[0-9]){3,24}(?:(?: and "
            r"|, ?| & | )[0-9](?:[ .-]?[0-9]){3,24}){0,3}|[0-9][ .]?[0-9]{1,6} ?e ?\+?1[0-9])[^0-9A-Za-z]{0,5}\Z"
        ),
        0.5,
        "no checksum: a turn that is nothing but a number (or one that a spreadsheet has rounded) answers a question for one",
        group=1,
        digits=4,
        conversation_only=True,
    ),
    Recognizer(
        "number_beside_finding",
        "ACCOUNT_NUMBER",
        compiled(
            r"\ue000[ ,]{1,3}(?:(?:and|with|is|&|to|for|no|number|other|the|its|my)[ :]{1,2}){0,3}([0-9]{4,19})"
            + _NO_UNIT
            + r"|(?<![0-9A-Za-z$€£.,])(?=[0-9]{4,19}(?:,| and| &| to)? \ue000)([0-9]{4,19})"
        ),
        0.5,
        "no checksum; a number joined to personal data already found belongs to it",
        trim=_number_only,
        check=_code,
        digits=4,
        conversation_only=True,
    ),
    Recognizer(
        "number_before_cue",
        "ACCOUNT_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z$€£.,/-])([0-9]{4,19})(?= (?:is |this is |as |for )?(?:my |the |your )?(?:last (?:four"
            r"|4) |first |second )?(?:ssn|social|account|acct|a/c|ac|card|savings|checking)(?![a-z]))"
        ),
        0.55,
        "no checksum; the cue word follows",
        group=1,
        check=_code,
        words=("ssn", "social", "acc", "a/c", "ac", "card", "saving", "checking"),
        digits=4,
        conversation_only=True,
    ),
    Recognizer(
        "transfer_pair",
        "ACCOUNT_NUMBER",
        compiled(r"(?<![A-Za-z])(?:from|to) (?=([0-9]{4,19})(?![0-9A-Za-z.,]|[ ]?(?:dollars?|usd|rupees|euros?|am|pm)))"),
        0.45,
        "no checksum; money goes from number to number in a turn that speaks of a transfer",
        group=1,
        check=lambda found: 0.45 if compiled(r"transfer|send|wire|move").search(found.before(120) + found.after(120)) else 0.0,
        words=("transfer", "send", "wire", "move"),
        digits=4,
        conversation_only=True,
    ),
    Recognizer(
        "long_number",
        "ACCOUNT_NUMBER",
        compiled(r"(?<![0-9A-Za-z.,_$€£¥/-])[0-9]{8,24}(?![0-9A-Za-z_/-]|[.,][0-9])"),
        0.45,
        "no checksum: eight or more digits in a row in a conversation identify something",
        check=lambda found: 0.0 if found.counted() else 0.45,
        digits=8,
        conversation_only=True,
    ),
)
