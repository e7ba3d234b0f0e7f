"""What detection may have missed: token shapes and field names that stand in many people's de-identified text.

Guarantee: a value is never shown: of a token only its shape (A for a letter, 9 for a digit, signs between them), and only
shapes and field names that at least `least` subjects have; a field name is a plain ASCII word. Each comes with one line for
the policy, whose example is made up from the shape, so a steward adds the missing pattern by pasting it.
Assumption: that many subjects share a name or a shape says that it is of the system, not of a person.
Not covered: what fewer subjects have; words without digits; whether a shape is personal data is for a person to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from privacy.canonical import Digest, Json, is_digest
from privacy.errors import UsageError
from privacy.recognizers.view import PLACEHOLDER

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.deidentify_guard import Spans

_TOKEN = re.compile(r"(?<![0-9A-Za-z_])[0-9A-Za-z](?:[0-9A-Za-z]|[-_./:#@+](?=[0-9A-Za-z])){3,39}(?![0-9A-Za-z_])")
_KEY = re.compile(
    r"(?<![0-9A-Za-z_.-])[\"']?([A-Za-z][A-Za-z0-9_.-]{1,30})[\"']?\s{0,2}[=:]\s{0,2}[\"']?([^\s\"'<>{}\[\],;=:]{2,60})"
)
_DULL = re.compile(
    r"[0-9]{1,4}|[0-9]{1,2}[:.][0-9]{2}(?:[:.][0-9]{2,3})?|[0-9]{4}-[0-9]{2}(?:-[0-9]{2})?|[0-9]{1,2}/[0-9]{1,2}/[0-9]{2,4}"
    r"|[0-9]{1,3}(?:st|nd|rd|th|ms|am|pm|gb|mb|kb|px|km|kg|hz)|[0-9]{1,6}\.[0-9]{1,6}",
    re.IGNORECASE,
)
_SAMPLES = {"A": "ABCDEFGHJKLMNPQRSTUVWXYZ", "9": "1234567890"}
DEFAULT_LEAST = 5
_MOST_ROWS = 40


@dataclass(frozen=True, slots=True)
class Mined:
    """One thing that was kept in many texts. `shape`: of a token, or the name of a field whose value was kept."""

    kind: Literal["shape", "field"]
    shape: str
    records: int
    subjects: int
    policy_line: str

    def to_json(self) -> dict[str, Json]:
        return {
            "kind": self.kind,
            "shape": self.shape,
            "records": self.records,
            "subjects": self.subjects,
            "policy_line": self.policy_line,
        }


@dataclass(slots=True)
class _Seen:
    records: int = 0
    subjects: set[str] = field(default_factory=set)


def mine(rows: Iterable[tuple[str, Sequence[str]]], own: Spans | None = None, least: int = DEFAULT_LEAST) -> list[Mined]:
    """rows: (subject, texts) of each record. own: finds our surrogates, which are left out. Most subjects first."""
    if least < 2:
        raise UsageError("E-MINE-001", "a shape of one subject was asked for", "Ask for at least 2 subjects")
    seen: dict[tuple[Literal["shape", "field"], str], _Seen] = {}
    for subject, texts in rows:
        here: set[tuple[Literal["shape", "field"], str]] = set()
        for text in texts:
            bare = _bare(text, own)
            here |= {("shape", found) for found in _shapes(bare)} | {("field", found) for found in _fields(bare)}
        for key in here:
            counted = seen.setdefault(key, _Seen())
            counted.records += 1
            counted.subjects.add(subject)
    found = [
        Mined(kind, shape, counted.records, len(counted.subjects), _line(kind, shape))
        for (kind, shape), counted in seen.items()
        if len(counted.subjects) >= least
    ]
    return sorted(found, key=lambda m: (-m.subjects, -m.records, m.kind, m.shape))[:_MOST_ROWS]


def mine_dataset(home: Home, what: str, least: int = DEFAULT_LEAST) -> tuple[Digest, list[Mined]]:
    """what: manifest digest of protect, or the path of a policy file (then its newest protected dataset).

    Raises UsageError E-MINE-002 when there is none, E-READ-001, DataError E-READ-002.
    """
    from pipeline.lineage import Lineage
    from pipeline.read import read_protected
    from pipeline.treatment import own_spans_of

    lineage = Lineage.read(home)
    digest = what if is_digest(what) else _newest(lineage.manifests, what)
    manifest = None if digest is None else lineage.manifests.get(digest)
    if digest is None or manifest is None:
        raise UsageError(
            "E-MINE-002",
            "there is no protected dataset under that digest or policy",
            "Run protect first, or see privet journal show",
        )
    policy = lineage.policies.get(manifest.policy_digest)
    table = read_protected(home, manifest)
    names = ["text", *(policy.source.fields.keep if policy else ())]
    columns = [table[name].to_pylist() for name in names]
    rows = zip(table["unit"].to_pylist(), ([t or "" for t in texts] for texts in zip(*columns, strict=True)), strict=True)
    return digest, mine(rows, own_spans_of(policy) if policy else None, least)


def _newest(manifests: Mapping[Digest, object], path: str) -> Digest | None:
    from pathlib import Path

    from pipeline.stage import Manifest
    from privacy.policy_file import load_policy

    name = load_policy(Path(path)).dataset
    found = [d for d, m in manifests.items() if isinstance(m, Manifest) and m.stage == "protect" and m.dataset == name]
    return found[-1] if found else None


def _bare(text: str, own: Callable[[str], list[tuple[int, int, str]]] | None) -> str:
    """The text without what Privet wrote."""
    for start, end, _ in reversed(own(text) if own else []):
        text = f"{text[:start]} {text[end:]}"
    return PLACEHOLDER.sub(" ", text)


def _shapes(text: str) -> set[str]:
    found = set()
    for token in _TOKEN.findall(text):
        if any(c.isdigit() for c in token) and not _DULL.fullmatch(token):
            found.add("".join("9" if c.isdigit() else "A" if c.isalpha() else c for c in token))
    return found


def _fields(text: str) -> set[str]:
    return {name for name, value in _KEY.findall(text) if not _DULL.fullmatch(value)}


def _line(kind: str, shape: str) -> str:
    """One entry of pii.patterns; the type is a proposal."""
    if kind == "field":
        name = re.sub(r"[^a-z0-9_]", "_", shape.lower()).strip("_")[:50] or "field"
        pattern = rf"{re.escape(shape)}[\"']?\s{{0,2}}[=:]\s{{0,2}}[\"']?[0-9A-Za-z_.@+-]{{2,60}}"
        return _yaml(f"kept_{name}", pattern, f"{shape}=AB12345")
    pattern = "".join(_repeat(sign, len(list(run))) for sign, run in groupby(shape))
    counts = {"A": 0, "9": 0}
    example = ""
    for sign in shape:
        if sign in counts:
            example += _SAMPLES[sign][counts[sign] % len(_SAMPLES[sign])]
            counts[sign] += 1
        else:
            example += sign
    name = re.sub(r"[^a9]+", "_", shape.lower())[:50].strip("_")
    return _yaml(f"shape_{name}", pattern, example)


def _repeat(sign: str, count: int) -> str:
    if sign not in _SAMPLES:
        return re.escape(sign * count)
    return ("[A-Za-z]" if sign == "A" else "[0-9]") + (f"{{{count}}}" if count > 1 else "")


def _yaml(name: str, pattern: str, example: str) -> str:
    quoted = pattern.replace("'", "''")
    return f"{name}: {{entity: CUSTOMER_NUMBER, pattern: '{quoted}', examples: ['{example}']}}"
