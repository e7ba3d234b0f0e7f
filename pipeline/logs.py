"""Generates raw logs full of invented personal data, with the ground truth of where it stands: `privet logs generate`.

Guarantee: the same spec writes the same bytes; every planted number passes its checksum; `truth/` is not matched by the globs
of a source (`chats-*.jsonl.gz`, `app-*.log.gz`), and holds plaintext, so the folder as a whole belongs to the landing area.
Not covered: real customers are more varied; figures on these logs say nothing about figures on yours.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from pipeline.log_people import DISTINCTIVE, SLOT_TYPES, Person, make_person
from pipeline.log_phrases import AMBIGUOUS, APP_MESSAGES, CLOSERS, CORES, DETAILS, FILLS, INTENTS, OPENERS
from privacy.errors import UsageError

# A `source.pattern` that reads the application logs: subject user, label level, text message.
APP_LOG_PATTERN = r"^(?P<time>\S+) (?P<level>[A-Z]+) (?P<service>[a-z]+) user=(?P<user>\S+) (?P<message>.*)$"
_START = datetime(2026, 3, 1, tzinfo=UTC)
_SHARDS = 2
_SLOT = re.compile(r"\{([a-z_0-9]+)\}")
_SERVICES = ("auth", "shop", "mail", "billing")


@dataclass(frozen=True, slots=True)
class LogSpec:
    """What to generate. turns_per_customer: inclusive bounds. bad_lines: broken records mixed into the chats."""

    seed: int
    customers: int
    turns_per_customer: tuple[int, int] = (2, 6)
    app_lines: int = 0
    languages: tuple[str, ...] = ("en", "zh")
    bad_lines: int = 0


@dataclass(frozen=True, slots=True)
class GeneratedLogs:
    """files: in the order written, truth excluded. records: good chat records and application log lines."""

    files: tuple[Path, ...]
    truth_path: Path
    records: int
    planted: list[str]


@dataclass(frozen=True, slots=True)
class _Text:
    """A text and where its personal data stands: (start, end, type, slot)."""

    text: str
    spans: tuple[tuple[int, int, str, str], ...]


@dataclass(slots=True)
class _Truth:
    """Collects ground truth and the values that were really written."""

    rows: list[str] = field(default_factory=list)
    planted: dict[str, None] = field(default_factory=dict)  # a dict keeps the order: the list must be deterministic

    def add(self, record: str, lang: str, made: _Text) -> None:
        spans = []
        for start, end, entity, slot in made.spans:
            value = made.text[start:end]
            spans.append({"start": start, "end": end, "type": entity, "value": value})
            if slot in DISTINCTIVE:
                self.planted[value] = None
        self.rows.append(json.dumps({"record": record, "lang": lang, "spans": spans}, ensure_ascii=False))


def generate_logs(folder: Path, spec: LogSpec) -> GeneratedLogs:
    """Write the logs of `spec` into `folder` (made if missing) and return what was written.

    Raises UsageError E-LOGS-001 for a spec that makes no record.
    """
    low, high = spec.turns_per_customer
    if spec.customers < 1 or not 1 <= low <= high or not spec.languages or set(spec.languages) - set(FILLS):
        raise UsageError(
            "E-LOGS-001",
            "the log specification makes no record or names an unknown language",
            f"Ask for at least one customer and turn, in {' or '.join(sorted(FILLS))}",
        )
    random = Random(spec.seed)  # noqa: S311 (invented data must be reproducible)
    truth = _Truth()
    people = [make_person(random, n, spec.languages[n % len(spec.languages)]) for n in range(spec.customers)]
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    records = 0
    for language in spec.languages:
        chats = _chats([p for p in people if p.language == language], spec, random, truth)
        records += len(chats)
        bad = spec.bad_lines // len(spec.languages) + (language == spec.languages[0]) * (spec.bad_lines % len(spec.languages))
        files += _write_shards(folder, f"chats-{language}", ".jsonl.gz", _with_bad_lines(chats, bad, random))
    if spec.app_lines:
        lines = _app_lines(people, spec.app_lines, random, truth)
        records += len(lines)
        files += _write_shards(folder, "app", ".log.gz", lines)
    truth_path = folder / "truth" / "spans.jsonl.gz"
    write_gzip(truth_path, truth.rows)
    return GeneratedLogs(tuple(files), truth_path, records, list(truth.planted))


def _chats(people: Sequence[Person], spec: LogSpec, random: Random, truth: _Truth) -> list[str]:
    rows: list[tuple[datetime, str]] = []
    for person in people:
        # A person comes back for a few matters only, so intents repeat within a unit, as they do in life.
        matters = random.sample(INTENTS, k=3)
        at = _START + timedelta(seconds=random.randrange(60 * 86_400))
        for turn in range(random.randint(*spec.turns_per_customer)):
            intent = random.choice(matters)
            made = _turn(person, intent, random)
            message_id = f"m{person.customer[2:]}-{turn}"
            truth.add(message_id, person.language, made)
            truth.planted[person.customer] = None
            at += timedelta(seconds=random.randrange(20, 40_000))
            record = {
                "message_id": message_id,
                "customer": person.customer,
                "time": at.isoformat(),
                "channel": random.choice(("chat", "chat", "email", "app")),
                "lang": person.language,
                "text": made.text,
                "intent": intent,
            }
            rows.append((at, json.dumps(record, ensure_ascii=False)))
    return [row for _, row in sorted(rows)]


def _turn(person: Person, intent: str, random: Random) -> _Text:
    """Opener, core, details and closer, each but the core by chance; 3 % of turns say nothing of their intent."""
    language = person.language
    core = random.choice((AMBIGUOUS if random.random() < 0.03 else {language: CORES[language][intent]})[language])
    if language == "en":
        core = _typo(core, random) if random.random() < 0.1 else core
        core = core.lower() if random.random() < 0.3 else core[0].upper() + core[1:]
    end = random.choice((".", "!", "", "...") if language == "en" else ("。", "！", "", "，"))
    parts = [core + end if core[-1] not in "?？" else core]
    if random.random() < 0.35:
        parts.insert(0, random.choice(OPENERS[language]))
    if random.random() < 0.5:
        parts += random.sample(DETAILS[language], k=random.choice((1, 1, 2)))
    if random.random() < 0.25:
        parts.append(random.choice(CLOSERS[language]))
    return _fill((" " if language == "en" else "").join(parts), person, random)


def _typo(text: str, random: Random) -> str:
    """Swap two neighbouring letters of one long word, never inside a slot."""
    words = [m.span() for m in re.finditer(r"(?<![{\w])[a-z]{5,}(?![}\w])", text)]
    if not words:
        return text
    start, end = random.choice(words)
    at = random.randrange(start, end - 1)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _fill(template: str, person: Person, random: Random) -> _Text:
    pieces: list[str] = []
    spans: list[tuple[int, int, str, str]] = []
    position = length = 0
    for match in _SLOT.finditer(template):
        literal = template[position : match.start()]
        slot = match.group(1)
        value = person.values[slot] if slot in SLOT_TYPES else random.choice(FILLS[person.language][slot])
        pieces += [literal, value]
        length += len(literal)
        if slot in SLOT_TYPES:
            spans.append((length, length + len(value), SLOT_TYPES[slot], slot))
        length += len(value)
        position = match.end()
    return _Text("".join([*pieces, template[position:]]), tuple(spans))


def _app_lines(people: Sequence[Person], count: int, random: Random, truth: _Truth) -> list[str]:
    at = _START
    lines = []
    for number in range(count):
        at += timedelta(milliseconds=random.randrange(50, 90_000))
        person = random.choice(people)
        level = random.choices(tuple(APP_MESSAGES), weights=(6, 3, 2))[0]
        head = f"{at.isoformat(timespec='milliseconds')} {level} {random.choice(_SERVICES)} user={{user}} "
        made = _fill(head + random.choice(APP_MESSAGES[level]), person, random)
        truth.add(f"app:{number}", "en", made)
        lines.append(made.text)
    return lines


def _with_bad_lines(rows: Sequence[str], count: int, random: Random) -> list[str]:
    """Mix in what a reader must refuse, never as the first line: broken JSON, a repeated key, NUL, no subject, a list."""
    mixed = list(rows)
    for number in range(count):
        donor = json.loads(rows[random.randrange(len(rows))])
        whole = json.dumps({**donor, "message_id": f"bad-{number}"}, ensure_ascii=False)
        bad = (
            whole[: len(whole) // 2],
            whole[:-1] + ', "text": "again"}',
            whole.replace('"text": "', '"text": "\\u0000', 1),
            json.dumps({k: v for k, v in donor.items() if k != "customer"}, ensure_ascii=False),
            "[1, 2, 3]",
        )[number % 5]
        mixed.insert(random.randrange(1, len(mixed) + 1), bad)
    return mixed


def _write_shards(folder: Path, stem: str, suffix: str, rows: Sequence[str]) -> list[Path]:
    size = max(1, -(-len(rows) // _SHARDS))
    paths = []
    for shard in range(_SHARDS):
        path = folder / f"{stem}-{shard:02d}{suffix}"
        write_gzip(path, rows[shard * size : (shard + 1) * size])
        paths.append(path)
    return paths


def write_gzip(path: Path, rows: Iterable[str]) -> None:
    """Without file name and time in the header, so that equal content is equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed:
        packed.writelines((row + "\n").encode("utf-8") for row in rows)
    path.write_bytes(buffer.getvalue())
