"""A list of secrets (canaries, planted values) and where they stand in a text, or may be about to stand.

Guarantee: a secret is found by its letters and digits alone, whatever their case, accents and forms (composed or not, full
width, look-alikes of Latin letters), and whatever stands between them that is no letter or digit; `pending` is at or before
the start of every secret that the end of the text cuts off.
Not covered: secrets with other letters between, said backwards, or spelled out; look-alikes that Unicode does not fold (0 and
O, negative circles).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from privacy.detect import Finding
from privacy.errors import UsageError
from privacy.recognizers.view import View, all_latin, view_of

SECRET = "SECRET"  # noqa: S105 (the name of a type)
_MIN_SIGNS = 4


class SecretList:
    """Each secret at least four letters or digits long, else UsageError E-REDACT-002: shorter ones would blank plain text."""

    def __init__(self, secrets: Sequence[str]) -> None:
        squeezed = {_squeeze(view_of(secret))[0] for secret in secrets}
        if any(len(secret) < _MIN_SIGNS for secret in squeezed):
            raise UsageError(
                "E-REDACT-002",
                f"a secret to redact has under {_MIN_SIGNS} letters or digits",
                "Remove it from the list, or list the longer value it is a part of",
            )
        self._secrets = tuple(sorted(squeezed, key=lambda secret: (-len(secret), secret)))
        self._begun = frozenset(secret[:size] for secret in squeezed for size in range(1, len(secret)))
        self._longest = max(map(len, squeezed), default=0)

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def find(self, text: str) -> list[Finding]:
        if not self._secrets:
            return []
        view = view_of(text)
        squeezed, positions = _squeeze(view)
        findings = []
        for secret in self._secrets:
            at = squeezed.find(secret)
            while at >= 0:
                start, end = view.original(positions[at], positions[at + len(secret) - 1] + 1)
                while end < len(text) and unicodedata.combining(text[end]):
                    end += 1  # the accent of its last letter
                findings.append(Finding(start, end, SECRET, 1.0, "secret_list", "1"))
                at = squeezed.find(secret, at + 1)
        return findings

    def pending(self, text: str, low: int) -> int:
        """The lowest offset from `low` on where a secret may have begun that `text` does not finish; else len(text)."""
        if not self._secrets or low >= len(text):
            return len(text)
        return max(low, self._pending(text))

    def _pending(self, text: str) -> int:
        view = view_of(text)
        squeezed, positions = _squeeze(view)
        for size in range(min(self._longest - 1, len(squeezed)), 0, -1):
            if squeezed[-size:] in self._begun:
                return view.original(positions[-size], positions[-size] + 1)[0]
        return len(text)


def _squeeze(view: View) -> tuple[str, list[int]]:
    """The letters and digits of the view, folded, and the view offset of each."""
    signs: list[str] = []
    positions: list[int] = []
    for index, char in enumerate(view.text):
        for sign in _folded(char):
            signs.append(sign)
            positions.append(index)
    return "".join(signs), positions


@lru_cache(maxsize=65_536)
def _folded(char: str) -> str:
    """Accents and jamo apart, look-alikes in Latin, in one case, and nothing that is no letter or digit."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", all_latin(char)).casefold() if sign.isalnum())
