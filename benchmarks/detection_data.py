"""The sets that detection is measured on, with gold spans, in halves: `dev` to write rules with, `scored` to be judged by.

Guarantee: a template, a conversation, a system or a carrier lies wholly in one half, and in the same half on every machine.
  presidio  presidio_research, both files; split by a hash of the template with its values and its punctuation removed.
  multidogo finance and airline; dev is train.tsv + dev.tsv, scored is test.tsv (no conversation is in two files).
  resume    ResumeNER names in Chinese; split by a hash of the sentence.
  wnut17    persons in social posts; dev is the training file, scored the test file. Measure only.
  loghub    raw logs without gold; dev: Linux, OpenSSH, HDFS, Apache; scored: BGL, Hadoop, Spark, Zookeeper. Measure only.
  generated structural values in carriers of tests/worlds/detection_world.py; dev and held-out carriers.
Assumption: gold is what its authors marked. `neutral` spans are neither asked for nor held against a finding that touches them.
Not covered: MultiDoGO marks a value by what was asked in the turn before, so some of its spans can't be told from one turn.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

HALVES = ("dev", "scored")
LOGHUB = {"dev": ("Linux", "OpenSSH", "HDFS", "Apache"), "scored": ("BGL", "Hadoop", "Spark", "Zookeeper")}
_MULTIDOGO_FILES = {"dev": ("train", "dev"), "scored": ("test",)}
_WNUT_FILES = {"dev": "wnut17train.conll", "scored": "emerging.test.annotated"}

# Gold labels to the kinds that both sides' findings are mapped to as well (detection_score.KIND). None: neutral.
_PRESIDIO_KINDS: dict[str, str | None] = {
    "PERSON": "PERSON", "STREET_ADDRESS": "PLACE", "ADDRESS": "PLACE", "LOCATION": "PLACE", "GPE": "PLACE", "ZIP_CODE": "PLACE",
    "ORGANIZATION": "ORGANIZATION", "CREDIT_CARD": "CARD", "DATE_TIME": "DATE", "AGE": "DATE", "PHONE_NUMBER": "PHONE",
    "NRP": "NRP", "EMAIL_ADDRESS": "EMAIL", "DOMAIN_NAME": "URL", "IBAN_CODE": "IBAN", "US_SSN": "SSN", "IP_ADDRESS": "IP",
    "US_DRIVER_LICENSE": "DRIVER_LICENSE", "TITLE": None, "PREFIX": None,
}  # fmt: skip
_SLOT_KINDS = {
    "name": "PERSON", "address": "PLACE", "card_number": "CARD", "ssn": "SSN", "account_number": "ACCOUNT",
    "target_account_number": "ACCOUNT", "phone_number": "PHONE", "email_address": "EMAIL",
    "booking_confirmation_number": "BOOKING",
}  # fmt: skip
_DIGIT_SLOTS = {"CARD", "SSN", "ACCOUNT", "PHONE"}


@dataclass(frozen=True, slots=True)
class Span:
    """Gold: personal data of `kind` at text[start:end]."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Example:
    """A text with its gold; `origin` names the group that is not split: a template, a conversation, a system, a carrier."""

    text: str
    spans: tuple[Span, ...]
    origin: str
    neutral: tuple[Span, ...] = ()


def load(name: str, half: str, data: Path) -> list[Example]:
    """All examples of one half of a set. Raises FileNotFoundError where `data` lacks it, KeyError for an unknown set."""
    if half not in HALVES:
        raise KeyError(half)
    return list(SETS[name](data, half))


def half_of(key: str) -> str:
    """The half of a group; a hash, so that it is the same everywhere and nobody chose it."""
    return HALVES[hashlib.sha256(b"privet detection split 1\0" + key.encode()).digest()[0] & 1]


def template_key(masked: str) -> str:
    """What makes two templates one: letters in lower case, every placeholder a `#`, nothing else."""
    return " ".join(re.findall(r"[^\W\d_]+|#", re.sub(r"\{\{?[^{}]*\}\}?", "#", masked).lower()))


def presidio(data: Path, half: str) -> Iterator[Example]:
    for file in ("synth_dataset_v2", "generated_large"):
        for record in json.loads((data / "presidio_research" / f"{file}.json").read_text("utf-8")):
            key = template_key(record["masked"])
            if half_of(key) != half:
                continue
            spans: list[Span] = []
            neutral: list[Span] = []
            for span in record["spans"]:
                kind = _PRESIDIO_KINDS[span["entity_type"]]
                gold = Span(span["start_position"], span["end_position"], kind or "NEUTRAL")
                (neutral if kind is None else spans).append(gold)
            yield Example(record["full_text"], tuple(sorted(spans, key=_by_start)), key, tuple(neutral))


def multidogo(data: Path, half: str) -> Iterator[Example]:
    """Customer turns. A run of words with one label is one span; a number slot without a digit (on "is", "e") is none."""
    for domain in ("finance", "airline"):
        for file in _MULTIDOGO_FILES[half]:
            with (data / "multidogo" / domain / f"{file}.tsv").open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                    text, labels = row["utterance"] or "", (row["slot-labels"] or "").split(" ")
                    if len(text.split(" ")) == len(labels):
                        yield slot_example(text, labels, str(row["conversationId"]))


def slot_example(text: str, labels: Sequence[str], origin: str) -> Example:
    """Character spans of slot labels, one a word of `text.split(" ")`."""
    spans: list[Span] = []
    neutral: list[Span] = []
    for start, end, label in _runs(text.split(" "), labels):
        kind = _SLOT_KINDS.get(label)
        words = text[start:end]
        if kind is None or (kind in _DIGIT_SLOTS and not any(c.isdigit() for c in words)) or not words.strip():
            neutral.append(Span(start, end, "NEUTRAL"))
        else:
            spans.append(Span(start, end, kind))
    return Example(text, tuple(spans), origin, tuple(neutral))


def _runs(words: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(start, end, label) of each run of equal labels, spaces between its words included."""
    position, start, end, current = 0, 0, 0, "O"
    for word, label in zip([*words, ""], [*labels, "O"], strict=True):
        if label != current:
            if current not in ("O", ""):
                yield start, end, current
            start, current = position, label
        end = position + len(word)
        position = end + 1


def resume(data: Path, half: str) -> Iterator[Example]:
    for rows in _sentences(data / "resume_ner_zh" / "dev.char.bmes"):
        text = "".join(sign for sign, _ in rows)
        if half_of(text) == half:
            yield Example(text, tuple(_bmes(rows, "NAME", "PERSON")), text)


def _bmes(rows: Sequence[tuple[str, str]], label: str, kind: str) -> Iterator[Span]:
    start = 0
    for index, (_, tag) in enumerate(rows):
        if tag in (f"B-{label}", f"S-{label}"):
            start = index
        if tag in (f"E-{label}", f"S-{label}"):
            yield Span(start, index + 1, kind)


def wnut17(data: Path, half: str) -> Iterator[Example]:
    """Words joined by one space; every other named thing is neutral."""
    for number, rows in enumerate(_sentences(data / "wnut17" / _WNUT_FILES[half])):
        text = " ".join(word for word, _ in rows)
        spans: list[Span] = []
        neutral: list[Span] = []
        position = 0
        open_label = ""
        for word, tag in rows:
            label = tag[2:]
            target = spans if label == "person" else neutral
            if tag.startswith("I-") and label == open_label and target:
                target[-1] = Span(target[-1].start, position + len(word), target[-1].kind)
            elif tag != "O":
                target.append(Span(position, position + len(word), "PERSON" if label == "person" else "NEUTRAL"))
            open_label = label
            position += len(word) + 1
        yield Example(text, tuple(spans), f"{half} {number}", tuple(neutral))


def _sentences(path: Path) -> Iterator[list[tuple[str, str]]]:
    """Groups of (token, tag) lines between blank lines; a token with several tags keeps the first."""
    rows: list[tuple[str, str]] = []
    for line in [*path.read_text("utf-8").split("\n"), ""]:
        parts = line.split()
        if len(parts) >= 2:
            rows.append((parts[0], parts[-1].split(",")[0]))
        elif rows:
            yield rows
            rows = []


def loghub(data: Path, half: str) -> Iterator[Example]:
    for system in LOGHUB[half]:
        for line in (data / "loghub" / system / f"{system}_2k.log").read_text("utf-8", "replace").splitlines():
            yield Example(line, (), system)


def generated(data: Path, half: str, *, each: int = 40, seed: int = 3) -> Iterator[Example]:
    """`each` values of every type in carriers of that half, then as many lines without personal data as there are types."""
    from tests.worlds.detection_world import lines

    for line in lines("dev" if half == "dev" else "held_out", each=each, seed=seed):
        yield Example(line.text, tuple(Span(s.start, s.end, s.kind) for s in line.spans), line.carrier)


def spread(examples: Sequence[_T], count: int) -> list[_T]:
    """`count` examples at even distances: no draw, so both sides and every run read the same ones."""
    if count >= len(examples):
        return list(examples)
    return [examples[index * len(examples) // count] for index in range(count)]


def _by_start(span: Span) -> int:
    return span.start


SETS: dict[str, Callable[[Path, str], Iterable[Example]]] = {
    "presidio": presidio, "multidogo": multidogo, "resume": resume, "wnut17": wnut17, "loghub": loghub,
    "generated": partial(generated),
}  # fmt: skip
