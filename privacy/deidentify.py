"""Replaces findings by typed placeholders; what was found does not survive, and a second pass changes nothing.

Guarantee: every span handed in is replaced as its treatment says; `keep` alone leaves the text. A placeholder follows the
closed grammar `<TYPE>`, `<TYPE_hex6>` or `<TYPE:detail>` that detectors never search, so de-identification is idempotent.
Pseudonyms are keyed (HMAC-SHA-256, cut to 24 bits): stable for one key, useless without it; two values may share one.
Not covered: this is pseudonymisation, not anonymisation; text around the placeholders may still point to a person.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from privacy.entities import ENTITY_TYPES
from privacy.errors import DataError, PolicyError
from privacy.recognizers.view import FALLBACK_TYPE

if TYPE_CHECKING:
    from privacy.detect import Finding

TREATMENTS = ("redact", "mask", "pseudonym", "generalise", "keep")
_TAIL_TYPES = frozenset({"CREDIT_CARD", "CN_BANK_CARD", "PHONE_NUMBER", "IBAN", "ACCOUNT_NUMBER", "ORDER_NUMBER"})
_TAIL_MIN_SIGNS = 10  # a tail of four is shown only when at least six signs stay hidden
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {m: i for i, m in enumerate(_MONTH_NAMES, start=1)}


class Deidentifier:
    """Applies one treatment an entity type.

    treatments: entity type -> redact | mask | pseudonym | generalise | keep. default: for types not listed; may not be `keep`.
    pseudonym_key: at least 16 bytes, secret; the same key gives the same pseudonyms.
    Raises PolicyError E-DEID-001 for an unknown treatment, E-DEID-002 for a default of keep or a short key.
    """

    def __init__(self, treatments: Mapping[str, str], default: str, pseudonym_key: bytes) -> None:
        unknown = sorted({*treatments.values(), default} - set(TREATMENTS))
        if unknown:
            raise PolicyError("E-DEID-001", "a treatment of personal data is unknown", f"Use one of {', '.join(TREATMENTS)}")
        if default == "keep" or len(pseudonym_key) < 16:
            raise PolicyError(
                "E-DEID-002",
                "the de-identifier was given a default of keep or a key of under 16 bytes",
                "Set pii.default to a treatment that acts and derive the key from the keyring",
            )
        self._treatments = dict(treatments)
        self._default = default
        self._key = pseudonym_key

    def apply(self, text: str, findings: Sequence[Finding]) -> tuple[str, dict[str, int]]:
        """De-identified text, and how many findings of each entity type were treated (kept ones included).

        findings: offsets of `text`, without overlaps. Raises DataError E-DEID-003 otherwise.
        """
        pieces: list[str] = []
        counts: dict[str, int] = {}
        position = 0
        for finding in sorted(findings, key=lambda f: f.start):
            if not position <= finding.start < finding.end <= len(text):
                raise DataError(
                    "E-DEID-003",
                    "findings overlap or lie outside their text",
                    "Pass the findings of exactly this text, as the detector resolved them",
                )
            pieces.append(text[position : finding.start])
            pieces.append(self._replacement(finding.entity, text[finding.start : finding.end]))
            counts[finding.entity] = counts.get(finding.entity, 0) + 1
            position = finding.end
        pieces.append(text[position:])
        return "".join(pieces), counts

    def _replacement(self, entity: str, value: str) -> str:
        treatment = self._treatments.get(entity, self._default)
        kind = entity if entity in ENTITY_TYPES else FALLBACK_TYPE
        if treatment == "keep":
            return value
        if treatment == "pseudonym":
            return f"<{kind}_{self._pseudonym(entity, value)}>"
        detail = ""
        if treatment == "mask":
            detail = _tail(entity, value)
        elif treatment == "generalise":
            detail = _general(entity, value)
        return f"<{kind}:{detail}>" if detail else f"<{kind}>"

    def _pseudonym(self, entity: str, value: str) -> str:
        folded = re.sub(r"[\s\-().]+", "", unicodedata.normalize("NFKC", value)).casefold()
        return hmac.new(self._key, f"{entity}\0{folded}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:6]


def _tail(entity: str, value: str) -> str:
    """`*` and the last four signs where that is usual and enough stays hidden, else `*`."""
    signs = [c for c in value if c.isascii() and c.isalnum()]
    return "*" + "".join(signs[-4:]) if entity in _TAIL_TYPES and len(signs) >= _TAIL_MIN_SIGNS else "*"


def _general(entity: str, value: str) -> str:
    """A coarser value: month of a date, network of an address, ten-year band of an age; empty when there is none."""
    text = unicodedata.normalize("NFKC", value).strip()
    if entity in ("DATE_OF_BIRTH", "DATE_TIME"):
        return _month(text)
    if entity == "IP_ADDRESS":
        return _network(text)
    if entity == "AGE":
        found = re.search(r"[0-9]{1,3}", text)
        if found:
            low = min(int(found.group()) // 10 * 10, 90)
            return f"{low}-{low + 9}" if low < 90 else "90-130"
    return ""


def _network(text: str) -> str:
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return ""
    return str(ipaddress.ip_network(f"{address}/{24 if address.version == 4 else 48}", strict=False))


def _month(text: str) -> str:
    """Year and month; the year alone where day and month can't be told apart."""
    year = re.search(r"(?<![0-9])(?:18|19|20)[0-9]{2}(?![0-9])", text) or re.match(r"(?:18|19|20)[0-9]{2}(?=[0-9]{4}$)", text)
    if year is None:
        return ""
    word = re.search(r"[A-Za-z]{3}", text)
    if word and word.group().lower() in _MONTHS:
        return f"{year.group()}-{_MONTHS[word.group().lower()]:02d}"
    iso = re.match(r"[0-9]{4}[-/.年]?([0-9]{1,2})[-/.月]?", text) if text.startswith(year.group()) else None
    if iso and 1 <= int(iso.group(1)) <= 12:
        return f"{year.group()}-{int(iso.group(1)):02d}"
    return year.group()
