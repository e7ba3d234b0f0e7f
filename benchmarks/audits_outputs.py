"""What redaction of outputs is worth: leaks of streams over every cut in two and random cuts, what is held back, what it costs.

The texts are made up: English and Chinese words with three values each, of the kinds of every run (pipeline.canary_values);
half of them of the prototype's kinds only (mail, SSN, card, phone, IP address, resident number). A leak is half of a value or
more in what left; the naive way is the same redactor called on each chunk by itself.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.rows import Row
from pipeline.canary_values import KINDS
from pipeline.output_scan import Prompt, chunks, leaked_from
from privacy.detect import PatternDetector
from privacy.redact import OutputRedactor
from privacy.redact_stream import StreamRedactor

_WORDS = "the quick report shows that customer called about invoice and we replied on monday with offer for plan".split()  # noqa: SIM905
_HAN = "请帮我处理退款的问题谢谢昨天收到快递商品已经损坏希望尽快"
_PLAIN = ("EMAIL_ADDRESS", "US_SSN", "CREDIT_CARD", "PHONE_NUMBER", "IP_ADDRESS", "CN_RESIDENT_ID")
_TEXTS = 300


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    planted: tuple[Prompt, ...]


def rows(*, quick: bool = False) -> list[Row]:
    draw = random.Random(20261123)  # noqa: S311 (figures that can be had again)
    detector = PatternDetector(engine="python")
    whole = OutputRedactor(detector)
    texts = [_text(draw, plain=n % 2 == 0) for n in range(30 if quick else _TEXTS)]
    every = [*_random_cuts(texts, detector, whole, draw), *_two_way(texts, detector, whole, 5 if quick else 40)]
    return [Row("stream: made-up values planted", "values", sum(len(t.planted) for t in texts), goal=900), *every]


def _random_cuts(texts: Sequence[Text], detector: PatternDetector, whole: OutputRedactor, draw: random.Random) -> list[Row]:
    leaks = naive = other = missed = 0
    held, held_plain = list[int](), list[int]()
    slow, fast = list[float](), list[float]()
    for number, text in enumerate(texts):
        cut = chunks(text.text, draw, 7)
        begun = time.perf_counter()
        clean = whole.redact(text.text).text
        fast.append(time.perf_counter() - begun)
        redactor, parts = StreamRedactor(detector), list[str]()
        for chunk in cut:
            begun = time.perf_counter()
            parts.append(redactor.feed(chunk))
            slow.append(time.perf_counter() - begun)
            (held, held_plain)[number % 2 == 0].append(redactor.held)
        said = "".join([*parts, redactor.close()])
        leaks += _leaks(text, said, clean)
        missed += _leaks(text, clean)
        other += said != clean
        if number < 30:
            naive += _leaks(text, "".join(whole.redact(chunk).text for chunk in cut))
    of_naive = sum(len(t.planted) for t in texts[:30])
    both = sorted(held + held_plain)
    ratio = statistics.fmean(slow) / statistics.fmean(fast)
    return [
        Row("stream: leaks, random cuts of 1-7 characters", "values", leaks, goal=0, met=leaks == 0),
        Row("whole text: values that the detector itself missed", "values", missed),
        Row("stream: leaks of redaction chunk by chunk (the naive way)", "share", naive / of_naive),
        Row("stream: texts that differ from the whole text's", "share", other / len(texts)),
        Row("stream: held back, median", "chars", both[len(both) // 2]),
        Row("stream: held back, p99, the prototype's kinds", "chars", _p99(held_plain), 20, 40, _p99(held_plain) <= 40),
        Row("stream: held back, p99, every kind", "chars", _p99(held), None, 80, _p99(held) <= 80),
        Row("stream: held back, most", "chars", both[-1], 40, 80, both[-1] <= 80),
        Row("stream: time a chunk", "ms", 1000 * statistics.fmean(slow)),
        Row("stream: time a chunk, against one whole text", "ratio", ratio),
    ]


def _two_way(texts: Sequence[Text], detector: PatternDetector, whole: OutputRedactor, count: int) -> list[Row]:
    leaks = tried = other = 0
    for text in texts[:count]:
        clean = whole.redact(text.text).text
        for cut in range(1, len(text.text)):
            redactor = StreamRedactor(detector)
            said = redactor.feed(text.text[:cut]) + redactor.feed(text.text[cut:]) + redactor.close()
            tried += 1
            if said != clean:
                other += 1
                leaks += _leaks(text, said, clean)
    return [
        Row("stream: leaks, every cut in two", "values", leaks, goal=0, met=leaks == 0),
        Row("stream: cuts in two tried", "cuts", tried),
        Row("stream: cuts in two that differ from the whole text's", "share", other / tried),
    ]


def _leaks(text: Text, said: str, clean: str = "") -> int:
    """Values that stand in `said`; without those that the whole text's redaction, `clean`, lets through, too."""
    return sum(leaked_from(prompt, said) and not leaked_from(prompt, clean) for prompt in text.planted)


def _p99(held: Sequence[int]) -> int:
    return sorted(held)[math.ceil(0.99 * len(held)) - 1]


def _text(draw: random.Random, *, plain: bool) -> Text:
    language = "en" if draw.random() < 2 / 3 else "zh"
    kinds = [k for k in KINDS if k.language == language and (not plain or k.entity in _PLAIN)]
    parts, values = list[str](), list[str]()
    for _ in range(3):
        before, value, after = draw.choice(kinds).make(draw)
        words = " ".join(draw.choices(_WORDS, k=20)) if language == "en" else "".join(draw.choices(_HAN, k=24)) + "，"
        parts.append(f"{words} {before}{value}{after} ")
        values.append(value)
    text = "".join(parts).strip() + "."
    beside = text
    for value in values:
        beside = beside.replace(value, "\n")
    # `leaked_from` looks for parts of a value that do not stand in the text beside it.
    return Text(text, tuple(Prompt(f"{beside} {value}", value, False) for value in values))


if __name__ == "__main__":
    from benchmarks.rows import run_parts

    run_parts("audits", ("outputs",), __doc__)
