"""What the model says, redacted, with proof that redaction was at work: made-up personal data goes in, and none may come out.

Guarantee: every run plants fresh values of the kinds that personal data has, on prompts that hold no data subject's text;
what survives redaction is counted and the count decides. Values of listed secrets and of detectable kinds are counted alike.
Not covered: kinds that are not planted here. A classifier answers with a declared label only; the prompt is what could leak.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privacy.canonical import Json, canonical_json
from privacy.errors import DataError

if TYPE_CHECKING:
    from privacy.redact import OutputRedactor, Redacted

_TEMPLATES = {
    "en": "please help me with {topic}, you can reach me at {value} today",
    "zh": "请帮我处理{topic}的问题，我的联系方式是 {value} ，谢谢",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """`value` is made up; `listed`: the redactor is told it, as it would be told a canary."""

    text: str
    value: str
    listed: bool


@dataclass(frozen=True, slots=True)
class OutputScan:
    """rows: redacted prompt and top-1 label. leaks: planted values found in the rendered table."""

    rows: tuple[tuple[str, str], ...]
    planted: int
    leaks: int
    removed: Mapping[str, int]

    def redaction_json(self, allowed: int) -> dict[str, Json]:
        return {
            "outputs": len(self.rows),
            "planted_values": self.planted,
            "leaks": self.leaks,
            "leaks_allowed": allowed,
            "removed": dict(sorted(self.removed.items())),
        }


def make_prompts(labels: Sequence[str], languages: Sequence[str]) -> list[Prompt]:
    """One prompt per label, language and kind of value; values are drawn anew on each call."""
    found = []
    for language in languages:
        for number, label in enumerate(labels):
            kinds = _made_up(language)
            value, listed = kinds[number % len(kinds)]
            found.append(Prompt(_TEMPLATES[language].format(topic=label.replace("_", " "), value=value), value, listed))
        for value, listed in _made_up(language):
            found.append(Prompt(_TEMPLATES[language].format(topic=labels[0].replace("_", " "), value=value), value, listed))
    return found


def scan(prompts: Sequence[Prompt], answers: Sequence[str], redactor: OutputRedactor, labels: Sequence[str] = ()) -> OutputScan:
    """Redact each prompt and count what is left of the planted values. Raises DataError E-REDACT-001 from the redactor.

    An answer that is none of `labels` is free text of a model: it is redacted, too, and withheld where it can't be shown to be
    clean (a model that writes nonsense is no fault of redaction).
    """
    rows, removed = [], Counter[str]()
    for prompt, answer in zip(prompts, answers, strict=True):
        redacted = redactor.redact(prompt.text)
        removed.update(redacted.counts)
        if answer not in labels:
            said = _redacted_or_withheld(answer, redactor)
            removed.update(said.counts)
            answer = said.text
        rows.append((redacted.text, answer))
    rendered = canonical_json([list(row) for row in rows]).decode()
    return OutputScan(tuple(rows), len(prompts), count_leaks(rendered, [p.value for p in prompts]), removed)


def _redacted_or_withheld(text: str, redactor: OutputRedactor) -> Redacted:
    from privacy.redact import Redacted

    try:
        return redactor.redact(text)
    except DataError:
        return Redacted("<withheld>")


def count_leaks(text: str, values: Sequence[str]) -> int:
    """How many of `values` stand in `text`, as they are or without case, spaces and dashes."""
    squeezed = _squeeze(text)
    return sum(value in text or _squeeze(value) in squeezed for value in values)


def _squeeze(text: str) -> str:
    return "".join(c for c in text.casefold() if c not in " \t\n-_.")


def _made_up(language: str) -> list[tuple[str, bool]]:
    """(value, listed) of each kind; valid check digits, so that a detector has no excuse."""
    user = f"{secrets.choice('abcdefgh')}{secrets.token_hex(3)}"
    address = ".".join(str(n) for n in (203, 0, 113, 1 + secrets.randbelow(254)))  # TEST-NET-3 of RFC 5737
    kinds = [
        (f"{user}@example.com", False),
        (_card(), False),
        (address, False),
        (f"canary {secrets.token_hex(8)}", True),
    ]
    if language == "zh":
        kinds += [(f"13{secrets.randbelow(10)}{secrets.randbelow(10**8):08d}", False), (_resident_id(), False)]
    return kinds


def _card() -> str:
    """A test card number with a valid Luhn digit."""
    digits = [4, *(secrets.randbelow(10) for _ in range(14))]
    doubled = [d if i % 2 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(digits)]
    number = "".join(map(str, digits)) + str(-sum(doubled) % 10)
    return " ".join(number[i : i + 4] for i in range(0, 16, 4))


def _resident_id() -> str:
    """A resident identity number with a valid check digit (GB 11643-1999)."""
    born = f"{1950 + secrets.randbelow(50)}{1 + secrets.randbelow(12):02d}{1 + secrets.randbelow(28):02d}"
    body = f"110101{born}{secrets.randbelow(1000):03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True))
    return body + "10X98765432"[total % 11]
