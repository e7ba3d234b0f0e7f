"""What may pass from task to task: references and small scalars. Decided by prefix and exact form, never by alphabet.

Guarantee: what `check_handover` lets through is a digest, a name of a closed list with a digest behind it, a word of a
closed list, or a number of at most seven digits; a record, a sentence, an e-mail address, a telephone number, a card or an
identity number is none of these. What is refused is not quoted: the error names the Python type alone.
Not covered: somebody who wants to smuggle (bits can be hidden in any digest); what a task prints or raises.
"""

from __future__ import annotations

import math
import re

from privacy.errors import UsageError

_HEX = "[0-9a-f]"
# A digest is 64 digits long and a ledger key 32: telephone, card and identity numbers are hexadecimal too, but shorter.
_REFERENCE = re.compile(
    rf"(?:(?:run|report|bundle|sealed|manifest|request):)?sha256:{_HEX}{{64}}|ledger:train-{_HEX}{{32}}(?:\.[1-9][0-9]{{0,2}})?"
)
WORDS = frozenset({"passed", "failed", "not_evaluated", "approve", "reject", "skipped"})
RETURN_KEY = "return_value"
_LARGEST = 10**7
_DIGITS = 7
_MOST_REFERENCES = 1000


def is_reference(value: object) -> bool:
    """Whether a string has the whole form of a reference, e.g. sha256:… or ledger:train-…."""
    return type(value) is str and _REFERENCE.fullmatch(value) is not None


def check_handover(key: object, value: object) -> None:
    """Raises UsageError E-XCOM-001 (value) or E-XCOM-002 (key); neither is quoted.

    A list of references passes too, as one task per reference is how work is spread; at most 1000.
    """
    if type(key) is not str or key != RETURN_KEY:  # a name chosen at run time could be anybody's
        raise UsageError(
            "E-XCOM-002",
            "a task handed over a value under a name of its own; only return values pass",
            "Return one reference; write what belongs together to the store and return its digest",
        )
    if not (_is_scalar(value) or _is_reference_list(value)):
        raise UsageError(
            "E-XCOM-001",
            f"a task handed over a value of type {_type_name(value)} that is neither a reference nor a small scalar",
            "Write it to the store and return its digest; Airflow keeps what tasks return in the clear",
        )


def _is_scalar(value: object) -> bool:
    # By exact type: a subclass of str or int may carry, or print, something else.
    if value is None or type(value) is bool or is_reference(value):
        return True
    if type(value) is str:
        return value in WORDS
    if type(value) is int:
        return abs(value) < _LARGEST
    return type(value) is float and _is_small(value)


def _is_small(value: float) -> bool:
    return math.isfinite(value) and abs(value) < _LARGEST and float(f"{value:.{_DIGITS}g}") == value


def _is_reference_list(value: object) -> bool:
    return type(value) is list and len(value) <= _MOST_REFERENCES and all(map(is_reference, value))


def _type_name(value: object) -> str:
    """Names of built-in types only: a class can be named after anything."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else "another class"
