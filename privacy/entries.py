"""Entries of the journal as bytes, and a run of them cut out so that it can be checked far from its database.

Guarantee: an entry has exactly one spelling, so its leaf hash binds every field; an export that `verify_export` accepts
is a run without a gap, begins where its frontier ends, and is what the checkpoint's signer signed.
Not covered: what came before the export, beyond that it is part of the same tree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from privacy.canonical import Digest, Json, canonical_json, parse_canonical
from privacy.checkpoint import Checkpoint, Verifier, open_checkpoint
from privacy.errors import IntegrityError, PrivetError, UsageError
from privacy.merkle import Frontier, leaf_hash
from privacy.signing import key_id

ORIGIN_PREFIX = "privet.dev/journal/"
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", re.ASCII)  # one width, so order of text is order of time
_FACTS_LIMIT = 1 << 20
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Entry:
    """`digest` is the leaf hash of the canonical JSON of {seq, at, kind, facts}, and `clock` where there is one.

    clock: what the machine's clock showed, when that was earlier than the entry before; `at` never goes back.
    """

    seq: int
    at: str
    kind: str
    facts: Mapping[str, Json]
    digest: Digest
    clock: str | None = None

    @property
    def body(self) -> bytes:
        return canonical_json(self.to_json())

    def to_json(self) -> dict[str, Json]:
        value: dict[str, Json] = {"seq": self.seq, "at": self.at, "kind": self.kind, "facts": dict(self.facts)}
        return value if self.clock is None else {**value, "clock": self.clock}


def make_body(seq: int, at: str, kind: str, facts: Mapping[str, Json], clock: str | None) -> bytes:
    """The canonical JSON of an entry. Raises UsageError E-JOURNAL-006, IntegrityError E-CANON-001.

    Put together from its parts, as most of the time of a batch would go into encoding; the tests compare it with the encoder.
    """
    told = canonical_json(facts)
    if not _KIND.fullmatch(kind) or len(told) > _FACTS_LIMIT:
        raise UsageError("E-JOURNAL-006", "a journal entry has a malformed kind or facts over 1 MiB", "Report this as a defect")
    late = b"" if clock is None else b'"clock":"%s",' % clock.encode()
    return b'{"at":"%s",%s"facts":%s,"kind":"%s","seq":%d}' % (at.encode(), late, told, kind.encode(), seq)


def open_bodies(bodies: Sequence[bytes], start: int) -> list[tuple[str, str, dict[str, Json], str | None]]:
    """(at, kind, facts, clock) of stored entries from `start` on. Raises IntegrityError E-JOURNAL-001 as `open_body` does.

    They are encoded again as one list. Each body was parsed as one whole object, and no JSON object begins another one, so
    a list of the same bytes means that each body has its one spelling.
    """
    try:
        values = [_value(body) for body in bodies]
        if canonical_json(values) == b"[%s]" % b",".join(bodies):
            return [_fields(value, seq) for seq, value in enumerate(values, start)]
    except (ValueError, RecursionError, PrivetError):
        pass
    return [open_body(body, seq) for seq, body in enumerate(bodies, start)]  # names the one at fault


def open_body(body: bytes, seq: int) -> tuple[str, str, dict[str, Json], str | None]:
    """(at, kind, facts, clock). Raises IntegrityError E-JOURNAL-001 unless this is the one spelling of entry `seq`."""
    try:
        value = _value(body)
        # Encoding it again must give the same bytes: that also rules out doubled keys, NaN and lone surrogates.
        if canonical_json(value) == body:
            return _fields(value, seq)
    except (ValueError, RecursionError, PrivetError):
        pass
    raise malformed()


def _value(body: bytes) -> Json:
    text = body.decode()
    value, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError("not one value")
    return value  # type: ignore[no-any-return]


def _fields(value: Json, seq: int) -> tuple[str, str, dict[str, Json], str | None]:
    try:
        if isinstance(value, dict) and type(value["seq"]) is int and value["seq"] == seq:
            at, kind, facts, clock = value["at"], value["kind"], value["facts"], None
            if len(value) == 5:
                clock = value["clock"]
                _require(_TIME.fullmatch(clock) is not None)
            _require(len(value) == (4 if clock is None else 5) and isinstance(facts, dict))
            _require(_TIME.fullmatch(at) is not None and _KIND.fullmatch(kind) is not None)
            return at, kind, facts, clock
    except (KeyError, TypeError):
        pass
    raise malformed()


def _require(holds: bool) -> None:
    if not holds:
        raise malformed()


def make_entry(body: bytes, seq: int) -> Entry:
    at, kind, facts, clock = open_body(body, seq)
    return Entry(seq, at, kind, facts, leaf_digest(body), clock)


def leaf_digest(body: bytes) -> Digest:
    return "sha256:" + leaf_hash(body).hex()


def journal_verifier(public_hex: str) -> Verifier:
    """Who signs the checkpoints of a home's journal: the origin carries the key, so no two homes share one."""
    return Verifier(ORIGIN_PREFIX + key_id(public_hex), public_hex)


@dataclass(frozen=True, slots=True)
class Export:
    """Entries from the first of `run` to the checkpoint's size, and the frontier of all entries before them."""

    run: str
    before: Frontier
    checkpoint: str
    entries: tuple[Entry, ...]

    def to_bytes(self) -> bytes:
        frontier: Json = {"size": self.before.size, "nodes": [n.hex() for n in self.before.nodes]}
        listed: list[Json] = [e.to_json() for e in self.entries]
        parts: dict[str, Json] = {"journal": 2, "run": self.run, "frontier": frontier, "entries": listed}
        return canonical_json({**parts, "checkpoint": self.checkpoint})


def parse_export(data: bytes) -> Export:
    """Unverified; the first entry belongs to its run. Raises IntegrityError E-JOURNAL-001 or E-CANON."""
    match parse_canonical(data):
        case {
            "journal": int(layout),
            "run": str(run),
            "frontier": {"size": int(size), "nodes": list(nodes), **more},
            "checkpoint": str(checkpoint),
            "entries": list(listed),
            **rest,
        } if layout == 2 and not rest and not more and type(size) is int:
            entries = tuple(_exported(value) for value in listed)
            if entries and entries[0].facts.get("run") == run:
                return Export(run, _frontier(size, nodes), checkpoint, entries)
    raise malformed()


def verify_export(export: Export, log: Verifier) -> Checkpoint:
    """The checkpoint, when the log's key signed exactly the tree that frontier and entries give.

    Raises IntegrityError E-JOURNAL-002 (altered), 003 (gap), 010 (entries are missing at the end), 012 (entries that the
    checkpoint does not cover), E-NOTE-001 to 003 (the checkpoint itself).
    """
    checkpoint = open_checkpoint(export.checkpoint, log)
    for expected, entry in enumerate(export.entries, export.before.size):
        if entry.seq != expected:
            raise gap(expected)
    refuse_backdated(export.entries)
    size = export.before.size + len(export.entries)
    if size < checkpoint.size:
        raise truncated(size, checkpoint.size, "its checkpoint")
    if size > checkpoint.size:
        raise unsigned_tail(checkpoint.size, size)
    tree = export.before.extended(bytes.fromhex(e.digest.removeprefix("sha256:")) for e in export.entries)
    if tree.root() != checkpoint.root:
        raise altered(export.before.size, size)
    return checkpoint


def refuse_backdated(entries: Sequence[Entry], last_at: str = "") -> None:
    for entry in entries:
        if entry.at < last_at:
            raise backdated(entry.seq)
        last_at = entry.at


def malformed() -> IntegrityError:
    return IntegrityError("E-JOURNAL-001", "a journal entry is malformed", "Restore the journal from its backup")


def altered(start: int, end: int) -> IntegrityError:
    return IntegrityError(
        "E-JOURNAL-002",
        f"the journal was altered: its entries {start} to {end - 1} do not give the root that its key signed",
        "Restore the journal; find out who could write it",
    )


def gap(seq: int) -> IntegrityError:
    return IntegrityError(
        "E-JOURNAL-003", f"the journal has a gap: entry {seq} is missing or out of order", "Restore the journal from its backup"
    )


def truncated(size: int, signed: int, by: str) -> IntegrityError:
    return IntegrityError(
        "E-JOURNAL-010",
        f"TRUNCATED: the journal has size {size} < {signed}, which {by} has seen",
        "Its newest entries were cut off, or an old copy was put in its place: restore it, and keep this copy as evidence",
    )


def fork(size: int, by: str) -> IntegrityError:
    return IntegrityError(
        "E-JOURNAL-011",
        f"FORK: two roots at {size}, the journal's own and that of {by}",
        "History was rewritten with the journal's key: keep both as evidence, and treat that key as stolen",
    )


def unsigned_tail(signed: int, size: int) -> IntegrityError:
    return IntegrityError(
        "E-JOURNAL-012",
        f"the journal has an unsigned tail: entries {signed} to {size - 1} stand under no checkpoint",
        "They were not written by the pipeline: find out who could write the database",
    )


def backdated(seq: int) -> IntegrityError:
    return IntegrityError(
        "E-JOURNAL-013", f"journal entry {seq} is dated before the one in front of it", "It was backdated: restore the journal"
    )


def _exported(value: Json) -> Entry:
    body = canonical_json(value)
    seq = value.get("seq") if isinstance(value, Mapping) else None
    if type(seq) is not int:
        raise malformed()
    return make_entry(body, seq)


def _frontier(size: int, nodes: Sequence[Json]) -> Frontier:
    try:
        found = Frontier(size, tuple(bytes.fromhex(str(node)) for node in nodes))
        if [n.hex() for n in found.nodes] == nodes:
            return found
    except ValueError:
        pass
    raise malformed()
