"""Made-up data that a shipped policy can read: `privet logs example POLICY FOLDER`. Nothing is downloaded, nobody is in it.

Guarantee: the same seed writes the same bytes. Not covered: real data is harder; figures on this say nothing about yours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.logs import LogSpec, generate_logs, write_gzip
from privacy.errors import UsageError

if TYPE_CHECKING:
    from privacy.policy import Policy

_CHAT_FIELDS = {"subject": "customer", "label": "intent", "text": "text"}


@dataclass(frozen=True, slots=True)
class Example:
    """planted: made-up personal data that must not be found in a home later."""

    records: int
    planted: list[str]


def make_example(policy: Policy, folder: Path, units: int, seed: int) -> Example:
    """Write made-up records of `units` privacy units into `folder`, in the form that the policy's source declares.

    Raises UsageError E-LOGS-002 for a policy whose kind of data nobody makes up.
    """
    if units < 1:
        raise UsageError("E-LOGS-001", "the example makes no record", "Ask for at least one unit")
    if (texts := _texts(policy, folder, units, seed)) is not None:
        return texts
    name = next((f"{stem}.jsonl.gz" for stem in _stems(policy) if _matches(policy, f"{stem}.jsonl.gz")), None)
    if policy.source.format != "jsonl" or name is None:
        raise _unknown("its source is not jsonl, or its files have names of their own")
    if policy.recipe.model not in ("image_cnn", "two_tower"):
        return _chats(policy, folder, units, seed)
    lines, planted = [], []
    for line, values in _records(policy, units, seed):
        lines.append(line)
        planted += values
    folder.mkdir(parents=True, exist_ok=True)
    write_gzip(folder / name, lines)
    return Example(len(lines), list(dict.fromkeys(planted)))


def _records(policy: Policy, units: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    fields, recipe = policy.source.fields, policy.recipe
    if fields.record_id is None or fields.keep or fields.time:
        raise _unknown("it reads other fields than a subject, a record id, a label and a text or image")
    names = {"subject": fields.subject, "record_id": fields.record_id, "label": fields.label}
    if recipe.catalogue is not None and len(fields.text) == 1:
        from pipeline.example_choices import choice_records

        return choice_records(seed, units, recipe.catalogue, {**names, "text": fields.text[0]})
    if recipe.image_size is not None and fields.image is not None and not fields.text:
        from pipeline.example_images import DIGITS, digit_records

        if set(policy.expectations.labels) <= set(DIGITS):
            return digit_records(seed, units, recipe.image_size, policy.expectations.labels, {**names, "image": fields.image})
    raise _unknown("pictures are made up of digits only, choices with one text each")


def _texts(policy: Policy, folder: Path, units: int, seed: int) -> Example | None:
    """A bank's chats or opinions, where the policy's fields and labels are theirs."""
    from pipeline.example_texts import BANK_INTENTS, OPINIONS, bank_rows, opinion_records

    fields, labels, separator = policy.source.fields, policy.expectations.labels, policy.recipe.label_separator
    if (fields.subject, fields.label, *fields.text) == ("conversationId", "intent", "utterance"):
        if policy.source.format != "tsv" or not _matches(policy, "train.tsv") or not set(labels) >= BANK_INTENTS:
            raise _unknown("its file, format or intents are not those of the generated bank chats")
        rows = list(bank_rows(seed, units))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.tsv").write_text("".join("\t".join(row) + "\n" for row, _ in rows), encoding="utf-8")
        return Example(len(rows) - 1, _distinct(planted for _, planted in rows))
    if separator is None or fields.record_id is None or len(fields.text) != 1:
        return None
    if policy.source.format != "jsonl" or not _matches(policy, "posts-00.jsonl.gz") or fields.keep or fields.time:
        raise _unknown("its files or fields are not those of the generated opinions")
    if not {tuple(label.split(separator, 1)) for label in labels} <= OPINIONS:
        raise _unknown("its topics and sentiments are not those of the generated opinions")
    names = {"subject": fields.subject, "record_id": fields.record_id, "label": fields.label, "text": fields.text[0]}
    records = list(opinion_records(seed, units, labels, separator, names))
    folder.mkdir(parents=True, exist_ok=True)
    write_gzip(folder / "posts-00.jsonl.gz", [line for line, _ in records])
    return Example(len(records), _distinct(planted for _, planted in records))


def _distinct(planted: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(value for values in planted for value in values))


def _chats(policy: Policy, folder: Path, units: int, seed: int) -> Example:
    """The generator of the demo, whose field names and labels the policy must use."""
    from pipeline.log_phrases import INTENTS

    fields = policy.source.fields
    own = {"subject": fields.subject, "label": fields.label, "text": "".join(fields.text)}
    if own != _CHAT_FIELDS or not set(INTENTS) <= set(policy.expectations.labels):
        raise _unknown("its fields or labels are not those of the generated chats")
    made = generate_logs(folder, LogSpec(seed=seed, customers=units, languages=policy.languages))
    return Example(made.records, made.planted)


def _stems(policy: Policy) -> tuple[str, ...]:
    return {"image_cnn": ("images-00",), "two_tower": ("choices-00",)}.get(policy.recipe.model, ("chats-en-00", "chats-zh-00"))


def _matches(policy: Policy, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in policy.source.files)


def _unknown(why: str) -> UsageError:
    return UsageError("E-LOGS-002", f"no data is made up for this policy: {why}", "Give it a folder of your own data")
