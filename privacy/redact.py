"""Removes personal data and listed secrets from what a model says, or returns nothing at all.

Guarantee: the text of `Redacted` held no listed secret and no finding of the detector when it was checked after redaction; if
detector or check fails, an error is raised and no text is returned (fail closed).
Matching of secrets ignores case, spaces, dashes and full-width forms. The result holds counts by type, never a match.
Not covered: paraphrase, translation, and secrets cut into pieces across outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from privacy.deidentify import Deidentifier
from privacy.deidentify_guard import GuardedDetector, Spans
from privacy.detect import Detector, Finding, detect_language, resolve
from privacy.errors import DataError, UsageError
from privacy.recognizers.view import View, view_of

_SECRET = "SECRET"  # noqa: S105 (the name of a type)
_MIN_SECRET_SIGNS = 4
_IGNORED = frozenset(" \t\r\n-_.·")


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text that may leave, and how many findings of each type were removed from it."""

    text: str
    counts: dict[str, int] = field(default_factory=dict)


class OutputRedactor:
    """Redacts model outputs with the same recognizers as ingest, plus an exact list of secrets (canaries, planted values).

    secrets: each at least four letters or digits long, else UsageError E-REDACT-002: shorter ones would blank ordinary text.
    own: what knows surrogates and moved dates of the training data again; they are nobody's data, and stay.
    """

    def __init__(self, detector: Detector, secrets: Sequence[str] = (), own: Spans | None = None) -> None:
        self._detector = detector if own is None else GuardedDetector(detector, own)
        squeezed = {_squeeze(view_of(secret))[0] for secret in secrets}
        if any(len(secret) < _MIN_SECRET_SIGNS for secret in squeezed):
            raise UsageError(
                "E-REDACT-002",
                f"a secret to redact has under {_MIN_SECRET_SIGNS} letters or digits",
                "Remove it from the list, or list the longer value it is a part of",
            )
        self._secrets = tuple(sorted(squeezed, key=lambda secret: (-len(secret), secret)))
        self._apply = Deidentifier({}, "redact", bytes(16)).apply  # redaction uses no key

    def redact(self, text: str) -> Redacted:
        """Raises DataError E-REDACT-001 when the text can't be shown to be clean; it then must not be released."""
        try:
            secrets = resolve(text, self._find_secrets(text))
            kept, counts = self._apply(text, secrets)
            clean, found = self._apply(kept, self._detect(kept))
            residue = len(self._find_secrets(clean)) + len(self._detect(clean))
        except Exception as error:  # a detector that breaks must not let text through, whatever it raised
            raise _refusal(f"the output could not be searched ({type(error).__name__})") from None
        if residue:
            raise _refusal(f"{residue} findings were left after redaction")
        for entity, count in found.items():
            counts[entity] = counts.get(entity, 0) + count
        return Redacted(clean, counts)

    def _detect(self, text: str) -> list[Finding]:
        return self._detector.analyze_batch([text], detect_language(text))[0]

    def _find_secrets(self, text: str) -> list[Finding]:
        if not self._secrets:
            return []
        view = view_of(text)
        squeezed, positions = _squeeze(view)
        findings = []
        for secret in self._secrets:
            at = squeezed.find(secret)
            while at >= 0:
                start, end = view.original(positions[at], positions[at + len(secret) - 1] + 1)
                findings.append(Finding(start, end, _SECRET, 1.0, "secret_list", "1"))
                at = squeezed.find(secret, at + 1)
        return findings


def _squeeze(view: View) -> tuple[str, list[int]]:
    """The view in lower case without spaces and dashes, and the view offset of each sign left."""
    signs: list[str] = []
    positions: list[int] = []
    for index, char in enumerate(view.text):
        if char in _IGNORED:
            continue
        for sign in char.casefold():
            signs.append(sign)
            positions.append(index)
    return "".join(signs), positions


def _refusal(cause: str) -> DataError:
    return DataError("E-REDACT-001", cause, "Do not release this output; find out why with the detector named in the report")
