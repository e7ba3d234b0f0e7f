"""Removes personal data and listed secrets from what a model says, or returns nothing at all.

Guarantee: the text of `Redacted` held no listed secret and no finding of the detector when it was checked after redaction; if
detector or check fails, or takes longer than its time, an error is raised and no text is returned (fail closed).
Matching of secrets ignores case, spaces, dashes and full-width forms. The result holds counts by type, never a match.
Not covered: paraphrase, translation, and secrets cut into pieces across outputs. A text that arrives bit by bit is the work of
`privacy.redact_stream`: this class, called on the bits, lets through whatever is cut in two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from privacy.deidentify import Deidentifier
from privacy.deidentify_guard import GuardedDetector, Spans
from privacy.detect import Detector, Finding, detect_language, resolve
from privacy.errors import DataError
from privacy.redact_secrets import SecretList
from privacy.time_limit import OutOfTime, TimeLimit

SECONDS = 30.0  # of one call, for a machine under load; _PER_SECOND characters of text add one
_PER_SECOND = 20_000


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text that may leave, and how many findings of each type were removed from it."""

    text: str
    counts: dict[str, int] = field(default_factory=dict)


class OutputRedactor:
    """Redacts model outputs with the same recognizers as ingest, plus an exact list of secrets (canaries, planted values).

    secrets: each at least four letters or digits long, else UsageError E-REDACT-002: shorter ones would blank ordinary text.
    own: what knows surrogates and moved dates of the training data again; they are nobody's data, and stay.
    seconds: limit of one call (`privacy.time_limit`); a redactor that ran out of time once lets nothing through any more.
    """

    def __init__(
        self, detector: Detector, secrets: Sequence[str] = (), own: Spans | None = None, *, seconds: float = SECONDS
    ) -> None:
        self._detector = detector if own is None else GuardedDetector(detector, own)
        self._secrets = SecretList(secrets)
        self._limit = TimeLimit(seconds)
        self._apply = Deidentifier({}, "redact", bytes(16)).apply  # redaction uses no key

    def redact(self, text: str) -> Redacted:
        """Raises DataError E-REDACT-001 when the text can't be shown to be clean, E-REDACT-003 when that took too long; it then
        must not be released."""
        try:
            clean, counts, residue = self._limit.run(lambda: self._redacted(text), len(text) / _PER_SECOND)
        except OutOfTime:
            raise out_of_time() from None
        except Exception as error:  # a detector that breaks must not let text through, whatever it raised
            raise refusal(f"the output could not be searched ({type(error).__name__})") from None
        if residue:
            raise refusal(f"{residue} findings were left after redaction")
        return Redacted(clean, counts)

    def _redacted(self, text: str) -> tuple[str, dict[str, int], int]:
        """Redacted text, counts, and how many findings it still has."""
        kept, counts = self._apply(text, resolve(text, self._secrets.find(text)))
        clean, found = self._apply(kept, self._detect(kept))
        for entity, count in found.items():
            counts[entity] = counts.get(entity, 0) + count
        return clean, counts, len(self._secrets.find(clean)) + len(self._detect(clean))

    def _detect(self, text: str) -> list[Finding]:
        return self._detector.analyze_batch([text], detect_language(text))[0]


def refusal(cause: str) -> DataError:
    return DataError("E-REDACT-001", cause, "Do not release this output; find out why with the detector named in the report")


def out_of_time() -> DataError:
    return DataError(
        "E-REDACT-003",
        "an output was not searched within its time; the redactor lets nothing through any more",
        "Find out why the detector hangs, then start a new redactor; nothing of this output was let out",
    )
