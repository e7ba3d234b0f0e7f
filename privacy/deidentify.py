"""Replaces findings as the policy says; what was found does not survive, and a second pass changes nothing.

Guarantee: every span handed in is replaced as its treatment says; `keep` alone leaves the text. A placeholder follows the
closed grammar `<TYPE>`, `<TYPE_hex6>` or `<TYPE:detail>` that detectors never search. A surrogate and a moved date are known
again by their mark (`privacy.surrogate`, `privacy.dateshift`): before one is written it is read back in its place, and where it
would not be known a pseudonym placeholder stands instead. So de-identification is idempotent, with the detector of `guard`.
There is no map from replacement to value anywhere: the way back is the vault's sealed original.
Not covered: this is pseudonymisation, not anonymisation; text around the replacements may still point to a person.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Final

from privacy.dateshift import MAX_RANGE, DateOrder, DateShift
from privacy.deidentify_guard import GuardedDetector, Spans, outside
from privacy.entities import DATE_TYPES, ENTITY_TYPES, SURROGATE_TYPES
from privacy.errors import DataError, PolicyError
from privacy.fitting import Edit, fit
from privacy.generalise import general
from privacy.pseudonyms import Pseudonyms
from privacy.recognizers.view import FALLBACK_TYPE
from privacy.surrogate import Marks, Surrogates

if TYPE_CHECKING:
    import pyarrow as pa

    from privacy.detect import Detector, Finding

TREATMENTS: Final = ("redact", "mask", "pseudonym", "surrogate", "generalise", "date_shift", "keep")
_TAIL_TYPES = frozenset({"CREDIT_CARD", "CN_BANK_CARD", "PHONE_NUMBER", "IBAN", "ACCOUNT_NUMBER", "ORDER_NUMBER"})
_TAIL_MIN_SIGNS = 10  # a tail of four is shown only when at least six signs stay hidden


class Deidentifier:
    """Applies one treatment an entity type.

    treatments: entity type -> one of TREATMENTS. default: for types not listed; it may be neither `keep` nor `date_shift`, and
    where `surrogate` has no form for a type or a value, a pseudonym placeholder stands.
    pseudonym_key: at least 16 bytes, secret; the same key and domain give the same pseudonyms, surrogates and shifts.
    mark_key: by which surrogates are known again; need not be secret, and is made from the secret one unless handed in.
    date_shift_days, date_order: see `privacy.dateshift`. `own_spans(text)`: (start, end, type) of what we wrote, sorted.
    Raises PolicyError E-DEID-001 for an unknown treatment, E-DEID-002 for a default that can't be one or a short key,
    E-DEID-004 for a type that its treatment can't be applied to, E-DEID-006 for a range of the date shift.
    """

    def __init__(
        self,
        treatments: Mapping[str, str],
        default: str,
        pseudonym_key: bytes,
        *,
        domain: str = "",
        mark_key: bytes | None = None,
        date_shift_days: int = 182,
        date_order: DateOrder | None = None,
    ) -> None:
        _check(treatments, default, pseudonym_key)
        self._treatments = dict(treatments)
        self._default = default
        key = hmac.digest(pseudonym_key, b"privet/domain\0" + domain.encode(), "sha256") if domain else pseudonym_key
        self._pseudonyms = Pseudonyms(pseudonym_key, domain)
        mark = mark_key or hmac.digest(key, b"privet/surrogate mark", "sha256")
        used = {*treatments.values(), default}
        surrogates = Surrogates(hmac.digest(key, b"privet/surrogate", "sha256"), Marks(mark))
        dates = DateShift(hmac.digest(key, b"privet/date shift", "sha256"), date_shift_days, date_order)
        self._surrogates = surrogates if "surrogate" in used else None
        self._dates = dates if "date_shift" in used else None
        self.own_spans = own_spans_by(mark, surrogates="surrogate" in used, dates="date_shift" in used)

    @property
    def by_subject(self) -> bool:
        """Whether a replacement depends on whose text it stands in."""
        return self._surrogates is not None or self._dates is not None

    def apply(self, text: str, findings: Sequence[Finding], subject: str = "") -> tuple[str, dict[str, int]]:
        """De-identified text, and how many findings of each entity type were treated (kept ones included).

        findings: offsets of `text`, without overlaps; what lies on a surrogate or moved date of ours is left alone.
        subject: whose text it is; it tells surrogates and shifts of different people apart. Raises DataError E-DEID-003.
        """
        _check_offsets(text, findings)
        if not self.by_subject:
            ordered = _sorted(findings)
            plain = [self._placeholder(f.entity, text[f.start : f.end]) for f in ordered]
            return self._joined(text, ordered, _fitted(text, ordered, plain))
        counted = outside(_sorted(findings), self.own_spans(text))
        made = [self._realistic(f.entity, text[f.start : f.end], subject) for f in counted]
        while True:
            chosen = [m or self._placeholder(f.entity, text[f.start : f.end]) for m, f in zip(made, counted, strict=True)]
            edits = _fitted(text, counted, chosen)
            result, counts = self._joined(text, counted, edits)
            unknown = self._unknown(result, edits, chosen, made)
            if not unknown:
                return result, counts
            for place in unknown:  # at least one fewer each time
                made[place] = None

    def guard(self, detector: Detector) -> Detector:
        """The detector to use with this de-identifier: it leaves what we wrote alone."""
        return GuardedDetector(detector, self.own_spans) if self.by_subject else detector

    def pseudonyms(self, values: pa.Array, entity: str) -> pa.Array:
        """Pseudonyms of a column, see `privacy.pseudonyms.Pseudonyms.array`."""
        return self._pseudonyms.array(values, entity if entity in ENTITY_TYPES else FALLBACK_TYPE)

    def day(self, day: date, subject: str) -> date | None:
        """A day of the subject's, moved like the dates of the texts where these are moved; None where it can't be."""
        return day if self._dates is None else self._dates.day(day, subject)

    def _joined(self, text: str, findings: Sequence[Finding], edits: Sequence[Edit]) -> tuple[str, dict[str, int]]:
        pieces: list[str] = []
        counts: dict[str, int] = {}
        position = 0
        for finding, (start, end, replacement) in zip(findings, edits, strict=True):
            pieces += [text[position:start], replacement]
            counts[finding.entity] = counts.get(finding.entity, 0) + 1
            position = end
        pieces.append(text[position:])
        return "".join(pieces), counts

    def _unknown(self, result: str, edits: Sequence[Edit], chosen: Sequence[str], made: Sequence[str | None]) -> list[int]:
        """Places of surrogates and dates that the result does not show as ours, from their first sign to their last."""
        spans = self.own_spans(result)
        unknown, shift, at = [], 0, 0
        for place, (begin, stop, written) in enumerate(edits):
            inside = written.find(chosen[place])  # the format may have put quotes around it
            start = begin + shift + inside
            end = start + len(chosen[place])
            shift += len(written) - (stop - begin)
            if made[place] is None:
                continue
            if inside < 0:
                unknown.append(place)
                continue
            while at < len(spans) and spans[at][1] <= start:
                at += 1
            if at == len(spans) or spans[at][0] > start or spans[at][1] < end:
                unknown.append(place)
        return unknown

    def _realistic(self, entity: str, value: str, subject: str) -> str | None:
        treatment = self._treatments.get(entity, self._default)
        if treatment == "surrogate" and self._surrogates:
            return self._surrogates.of(entity, value, subject)
        if treatment == "date_shift" and self._dates:
            return self._dates.of(value, subject)
        return None

    def _placeholder(self, entity: str, value: str) -> str:
        treatment = self._treatments.get(entity, self._default)
        kind = entity if entity in ENTITY_TYPES else FALLBACK_TYPE
        if treatment == "keep":
            return value
        if treatment in ("pseudonym", "surrogate"):
            return f"<{kind}_{self._pseudonyms.of(entity, value)}>"
        detail = ""
        if treatment == "mask":
            detail = _tail(entity, value)
        elif treatment == "generalise":
            detail = general(entity, value)
        return f"<{kind}:{detail}>" if detail else f"<{kind}>"


def own_spans_by(mark_key: bytes, *, surrogates: bool, dates: bool) -> Spans:
    """What knows surrogates and moved dates again without the secret key: for those who check, and may open nothing."""
    marks = Marks(mark_key)
    shift = DateShift(b"", MAX_RANGE)  # a moved date is known by its year

    def spans(text: str) -> list[tuple[int, int, str]]:
        moved = shift.spans(text) if dates else []
        made = marks.spans(text) if surrogates else []
        return sorted([*moved, *(s for s in made if all(s[1] <= d[0] or s[0] >= d[1] for d in moved))]) if moved else made

    return spans


def surrogate_mark(dataset: str, domain: str) -> bytes:
    """The mark key of a domain of a dataset. It is public: it recognises surrogates, and leads to no value."""
    return hashlib.sha256(f"privet/surrogate mark\0{dataset}\0{domain}".encode()).digest()


def unsuited(entity: str, treatment: str) -> bool:
    """Whether a treatment has no meaning for a type."""
    return (treatment == "surrogate" and entity not in SURROGATE_TYPES) or (
        treatment == "date_shift" and entity not in DATE_TYPES
    )


def _check(treatments: Mapping[str, str], default: str, key: bytes) -> None:
    if {*treatments.values(), default} - set(TREATMENTS):
        raise PolicyError("E-DEID-001", "a treatment of personal data is unknown", f"Use one of {', '.join(TREATMENTS)}")
    if default in ("keep", "date_shift") or len(key) < 16:
        raise PolicyError(
            "E-DEID-002",
            f"the de-identifier was given a default of {default}, or a key of under 16 bytes",
            "Set pii.default to a treatment that acts on every type and derive the key from the keyring",
        )
    if wrong := sorted(entity for entity, treatment in treatments.items() if unsuited(entity, treatment)):
        raise PolicyError(
            "E-DEID-004", f"{wrong[0]} can't be treated by {treatments[wrong[0]]}", "See docs/policy.md for the types of each"
        )


def _check_offsets(text: str, findings: Sequence[Finding]) -> None:
    position = 0
    for finding in _sorted(findings):
        if not position <= finding.start < finding.end <= len(text):
            raise DataError(
                "E-DEID-003",
                "findings overlap or lie outside their text",
                "Pass the findings of exactly this text, as the detector resolved them",
            )
        position = finding.end


def _fitted(text: str, findings: Sequence[Finding], chosen: Sequence[str]) -> list[Edit]:
    """What to write where, in the format of the text: a replaced number of a JSON document becomes a string, and so on."""
    return fit(text, [(f.start, f.end, replacement) for f, replacement in zip(findings, chosen, strict=True)])


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: f.start)


def _tail(entity: str, value: str) -> str:
    """`*` and the last four signs where that is usual and enough stays hidden, else `*`."""
    signs = [c for c in value if c.isascii() and c.isalnum()]
    return "*" + "".join(signs[-4:]) if entity in _TAIL_TYPES and len(signs) >= _TAIL_MIN_SIGNS else "*"
