"""What the model says, redacted, with proof that redaction was at work: made-up personal data goes in, and none may come out.

Guarantee: every run plants fresh values of the kinds that personal data has, in English and Chinese, on prompts that hold no
data subject's text; each text is redacted as a whole and, cut at random places, as a stream; what survives either is counted
and the count decides. Values of listed secrets and of detectable kinds are counted alike.
Not covered: kinds that are not planted here. A classifier answers with a declared label only; the prompt is what could leak.
"""

from __future__ import annotations

import math
import random
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.canary_values import KINDS
from pipeline.slip_through import LEVEL, miss_bound
from privacy.canonical import Digest, Json
from privacy.errors import DataError
from privacy.recognizers.view import PLACEHOLDER

if TYPE_CHECKING:
    from privacy.redact import OutputRedactor, Redacted
    from privacy.redact_stream import StreamRedactor

LANGUAGES = ("en", "zh")  # of the planted values: a model may answer in a language that its policy doesn't name
_TEMPLATES = {
    "en": "please help me with {topic}, {before}{value}{after} thank you",
    "zh": "请帮我处理{topic}的问题，{before}{value}{after} 谢谢",
}
_PER_KIND = 4
_LISTED = 8  # listed secrets a language
_LONGEST_CHUNK = 16
_SENTENCE = (
    "The bound holds for values like the planted ones only: their kinds, forms and cues, in texts like the made-up ones here. "
    "Personal data of other forms may survive more often."
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """`value` is made up; `listed`: the redactor is told it, as it would be told a canary. kind: its type, or SECRET_LIST."""

    text: str
    value: str
    listed: bool
    kind: str = "SECRET_LIST"


@dataclass(frozen=True, slots=True)
class OutputScan:
    """rows: redacted prompt and answer, of the prompts that the model was asked. leaks, stream_leaks: planted values of which
    half or more is in what whole texts, and streams, let out. kinds: planted and leaked, by kind, both ways together. held:
    characters that streams kept back, a number a chunk.
    """

    rows: tuple[tuple[str, str], ...]
    planted: int
    leaks: int
    removed: Mapping[str, int]
    stream_leaks: int = 0
    streamed: int = 0
    kinds: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    held: tuple[int, ...] = ()

    @property
    def all_leaks(self) -> int:
        return self.leaks + self.stream_leaks

    def redaction_json(self, allowed: int, redactor: Digest | None = None) -> dict[str, Json]:
        kinds: dict[str, Json] = {k: {"planted": p, "leaks": n} for k, (p, n) in sorted(self.kinds.items())}
        return {
            "outputs": len(self.rows),
            "planted_values": self.planted,
            "leaks": self.leaks,
            "stream_planted_values": self.streamed,
            "stream_leaks": self.stream_leaks,
            "leaks_allowed": allowed,
            "miss_bound": miss_bound(self.leaks, self.planted, LEVEL) if self.planted else None,
            "stream_miss_bound": miss_bound(self.stream_leaks, self.streamed, LEVEL) if self.streamed else None,
            "level": LEVEL,
            "holds_for": _SENTENCE,
            "kinds": kinds,
            "held_back": _spread(self.held),
            "redactor": redactor,
            "removed": dict(sorted(self.removed.items())),
        }


def make_prompts(labels: Sequence[str], languages: Sequence[str] = LANGUAGES, per_kind: int = _PER_KIND) -> list[Prompt]:
    """`per_kind` prompts of each kind and language, and listed secrets, on the labels in turns; drawn anew on each call."""
    draw = random.SystemRandom()
    found = []
    for language in languages:
        made = [(k.entity, False, *k.make(draw)) for k in KINDS if k.language == language for _ in range(per_kind)]
        made += [("SECRET_LIST", True, "", f"canary {secrets.token_hex(8)}", "") for _ in range(_LISTED)]
        for number, (kind, listed, before, value, after) in enumerate(made):
            topic = labels[number % len(labels)].replace("_", " ")
            text = _TEMPLATES[language].format(topic=topic, before=before, value=value, after=after)
            found.append(Prompt(text, value, listed, kind))
    return found


def scan(
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    redactor: OutputRedactor,
    labels: Sequence[str] = (),
    stream: Callable[[], StreamRedactor] | None = None,
) -> OutputScan:
    """Redact each prompt, and the answer that the first of them got, and count what is left of the planted values.

    answers: of the first prompts; the others are there to measure the redactor. An answer that is none of `labels` is free
    text of a model: it is redacted, too, and withheld where it can't be shown to be clean (a model that writes nonsense is no
    fault of redaction). stream: makes a redactor for one stream. Raises DataError E-REDACT-001 and 003 from the redactors.
    """
    rows, removed, planted, leaked = [], Counter[str](), Counter[str](), Counter[str]()
    leaks = 0
    for number, prompt in enumerate(prompts):
        redacted = redactor.redact(prompt.text)
        removed.update(redacted.counts)
        texts = [redacted.text]
        if number < len(answers):
            answer = _answer(answers[number], labels, redactor, removed)
            rows.append((redacted.text, answer))
            texts.append(answer)
        slipped = any(leaked_from(prompt, text) for text in texts)
        leaks += slipped
        planted[prompt.kind] += 1
        leaked[prompt.kind] += slipped
    stream_leaks, held = _streamed(prompts, stream, leaked) if stream else (0, [])
    kinds = {kind: (count, leaked[kind]) for kind, count in planted.items()}
    streamed = len(prompts) if stream else 0
    return OutputScan(tuple(rows), len(prompts), leaks, removed, stream_leaks, streamed, kinds, tuple(held))


def _answer(answer: str, labels: Sequence[str], redactor: OutputRedactor, removed: Counter[str]) -> str:
    if answer in labels:
        return answer
    said = _redacted_or_withheld(answer, redactor)
    removed.update(said.counts)
    return said.text


def _streamed(prompts: Sequence[Prompt], stream: Callable[[], StreamRedactor], leaked: Counter[str]) -> tuple[int, list[int]]:
    """Leaks, and the characters that were held back after each chunk; adds to `leaked`."""
    draw, held, leaks = random.SystemRandom(), list[int](), 0
    for prompt in prompts:
        redactor, parts = stream(), list[str]()
        try:
            for chunk in chunks(prompt.text, draw):
                parts.append(redactor.feed(chunk))
                held.append(redactor.held)
            slipped = leaked_from(prompt, "".join([*parts, redactor.close()]))
        except DataError as error:
            if error.code != "E-REDACT-001":
                raise
            slipped = True  # it found the rest of a value whose first part had left: that can't be taken back
        leaks += slipped
        leaked[prompt.kind] += slipped
    return leaks, held


def chunks(text: str, draw: random.Random, longest: int = _LONGEST_CHUNK) -> list[str]:
    """The text, cut at random places."""
    found, place = [], 0
    while place < len(text):
        size = draw.randint(1, longest)
        found.append(text[place : place + size])
        place += size
    return found


def _spread(held: Sequence[int]) -> dict[str, Json]:
    """Median, 99 % quantile and most of a stream's held characters; empty without any."""
    if not held:
        return {}
    ordered = sorted(held)
    quantile = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return {"median": ordered[len(ordered) // 2], "p99": quantile, "most": ordered[-1], "chunks": len(ordered)}


def _redacted_or_withheld(text: str, redactor: OutputRedactor) -> Redacted:
    from privacy.redact import Redacted

    try:
        return redactor.redact(text)
    except DataError as error:
        if error.code != "E-REDACT-001":
            raise
        return Redacted("<withheld>")


def leaked_from(prompt: Prompt, said: str) -> bool:
    """Whether half of the value or more (at least four signs in a row) stands in `said`, and not in the prompt beside it.

    Spaces, case and dashes do not count, and nor do placeholders. A stream that lets go of the first part of a value and
    redacts the rest has leaked.
    """
    value, beside = _squeeze(prompt.value), _squeeze(prompt.text.replace(prompt.value, "\n"))
    rest = _squeeze(PLACEHOLDER.sub("\ue000", said))
    size = min(len(value), max(4, (len(value) + 1) // 2))
    parts = {value[at : at + size] for at in range(len(value) - size + 1)}
    return any(part in rest and part not in beside for part in parts)


def count_leaks(text: str, values: Sequence[str]) -> int:
    """How many of `values` stand in `text`, as they are or without case, spaces and dashes."""
    squeezed = _squeeze(text)
    return sum(value in text or _squeeze(value) in squeezed for value in values)


def _squeeze(text: str) -> str:
    return "".join(c for c in text.casefold() if c not in " \t\n-_.")
