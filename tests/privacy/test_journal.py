"""The journal: every way to rewrite history, and which of them needs an anchor to be seen."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from privacy.canonical import canonical_json, digest_bytes
from privacy.errors import IntegrityError, PrivetError, UsageError
from privacy.journal import GENESIS, Entry, Journal, JournalState, parse_export, verify_entries, verify_journal
from privacy.signing import SigningKey

KEY, OTHER = SigningKey(b"k" * 32), SigningKey(b"o" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal.sqlite", KEY)
    for number in range(9):
        journal.append("stage", {"run": f"run{number // 3}", "number": number})
    return tmp_path / "journal.sqlite"


def rewrite(path: Path, statement: str, arguments: Sequence[object] = ()) -> None:
    """An attacker with the file: no trigger stops him."""
    connection = sqlite3.connect(path, isolation_level=None)
    for trigger in ("entry_update", "entry_delete"):
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    connection.execute(statement, arguments)
    connection.close()


def verified(path: Path, anchor: tuple[int, str] | None = None) -> JournalState:
    return verify_journal(path, KEY.public_hex, anchor)


def test_entries_come_back_in_order_and_verify(path: Path) -> None:
    entries = Journal(path, KEY).entries()
    assert [e.facts["number"] for e in entries] == list(range(9))
    assert entries[0].previous == GENESIS
    assert all(b.previous == a.digest for a, b in itertools.pairwise(entries))
    verify_entries(KEY.public_hex, entries)
    assert verified(path) == JournalState(9, entries[-1].digest)
    assert Journal(path, KEY).head() == entries[-1]
    assert Journal(path, KEY).entries(7) == entries[7:]
    assert [Entry.from_json(json.loads(canonical_json(e.to_json()))) for e in entries] == entries


def test_an_empty_journal_is_empty_and_nothing_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", KEY)
    assert journal.head() is None
    assert journal.entries() == []
    assert verified(tmp_path / "j.sqlite") == JournalState(0, None)
    with pytest.raises(IntegrityError, match="E-JOURNAL-005"):
        verified(tmp_path / "j.sqlite", (1, digest_bytes(b"")))


def test_sql_can_neither_change_nor_remove_an_entry(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("UPDATE entry SET body = x'00'", "DELETE FROM entry WHERE seq = 8"):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)
    connection.close()


def test_an_export_carries_the_chain_from_the_runs_start_to_the_head(path: Path) -> None:
    entries = parse_export(Journal(path, KEY).export("run1"))
    assert [e.seq for e in entries] == [3, 4, 5, 6, 7, 8]
    verify_entries(KEY.public_hex, entries)
    with pytest.raises(UsageError, match="E-JOURNAL-007"):
        Journal(path, KEY).export("run9")


def test_no_byte_of_an_export_is_free_to_change(path: Path) -> None:
    data = Journal(path, KEY).export("run2")
    for position in range(0, len(data), 3):
        altered = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(PrivetError):
            _verify_export(altered)


def _verify_export(data: bytes) -> None:
    verify_entries(KEY.public_hex, parse_export(data))


ATTACKS: dict[str, Callable[[list[Entry]], list[Entry]]] = {
    "removed from the middle": lambda e: e[:4] + e[5:],
    "doubled": lambda e: e[:4] + e[3:],
    "swapped": lambda e: [*e[:3], e[4], e[3], *e[5:]],
    "reversed": lambda e: e[::-1],
    "joined over a gap": lambda e: e[:2] + e[7:],
    "a start that claims to be the genesis": lambda e: [dataclasses.replace(e[3], previous=GENESIS)],
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_reordered_or_thinned_chain_is_refused(path: Path, attack: Callable[[list[Entry]], list[Entry]]) -> None:
    with pytest.raises(IntegrityError, match=r"E-JOURNAL-00[23]"):
        verify_entries(KEY.public_hex, attack(Journal(path, KEY).entries()))


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "release"), ("at", "2020-01-01T00:00:00.000+00:00"), ("seq", 7), ("facts", {"run": "run1", "number": 99}),
     ("previous", digest_bytes(b"x")), ("digest", digest_bytes(b"x"))],
)  # fmt: skip
def test_every_field_of_an_entry_is_bound(path: Path, field: str, value: object) -> None:
    entries = Journal(path, KEY).entries()
    forged = dataclasses.replace(entries[4], **{field: value})
    with pytest.raises(IntegrityError, match="E-JOURNAL-002"):
        verify_entries(KEY.public_hex, [*entries[:4], forged, *entries[5:]])
    if field == "digest":
        return
    redigested = dataclasses.replace(forged, digest=digest_bytes(forged.body))
    with pytest.raises(IntegrityError, match=r"E-JOURNAL-00[34]"):
        verify_entries(KEY.public_hex, [*entries[:4], redigested, *entries[5:]])


def test_another_keys_signature_and_no_signature_are_refused(path: Path) -> None:
    entries = Journal(path, KEY).entries()
    for signature in (entries[3].signature, "", "zz", "00" * 64, entries[4].signature.upper(), entries[4].signature + " "):
        forged = dataclasses.replace(entries[4], signature=signature)
        with pytest.raises(IntegrityError, match="E-JOURNAL-004"):
            verify_entries(KEY.public_hex, [*entries[:4], forged])
    with pytest.raises(IntegrityError, match="E-JOURNAL-004"):
        verify_entries(OTHER.public_hex, entries)


def test_a_signature_over_something_else_does_not_count_as_an_entry(path: Path) -> None:
    entry = Journal(path, KEY).entries()[4]
    forged = dataclasses.replace(entry, signature=KEY.sign(entry.body).hex())  # without the journal's label
    with pytest.raises(IntegrityError, match="E-JOURNAL-004"):
        verify_entries(KEY.public_hex, [forged])


def test_a_rewritten_file_is_refused(path: Path) -> None:
    body = Journal(path, KEY).entries()[4].body
    rewrite(path, "UPDATE entry SET body = ? WHERE seq = 4", (body.replace(b'"number":4', b'"number":5'),))
    with pytest.raises(IntegrityError, match=r"E-JOURNAL-00[34]"):
        verified(path)


def test_nobody_decides_by_an_entry_that_the_journals_key_did_not_sign(path: Path) -> None:
    """Stages ask the journal who was enrolled, what was validated and what was rejected."""
    warm = Journal(path, KEY)
    entry = warm.entries()[-1]
    body = entry.body.replace(b'"number"', b'"forged"')
    rewrite(path, "UPDATE entry SET body = ? WHERE seq = ?", (body, entry.seq))
    for journal in (warm, Journal(path, KEY)):
        with pytest.raises(IntegrityError, match="E-JOURNAL-004"):
            journal.entries()
    rewrite(path, "DELETE FROM entry WHERE seq = ?", (entry.seq,))
    rewrite(path, "DELETE FROM entry WHERE seq = 0")
    with pytest.raises(IntegrityError, match="E-JOURNAL-003"):
        warm.entries()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"seq":4}', b'{"seq": 4}', b"\xff"])
def test_a_row_of_junk_is_refused(path: Path, body: bytes) -> None:
    rewrite(path, "UPDATE entry SET body = ? WHERE seq = 4", (body,))
    with pytest.raises(IntegrityError, match="E-JOURNAL-001"):
        verified(path)


def test_a_journal_without_its_start_is_refused(path: Path) -> None:
    rewrite(path, "DELETE FROM entry WHERE seq < 3")
    with pytest.raises(IntegrityError, match="E-JOURNAL-003"):
        verified(path)


def test_a_cut_tail_is_seen_with_an_anchor_and_only_then(path: Path) -> None:
    head = Journal(path, KEY).head()
    assert head is not None
    rewrite(path, "DELETE FROM entry WHERE seq >= 7")
    assert verified(path).size == 7  # the limit that the module states
    with pytest.raises(IntegrityError, match="E-JOURNAL-005"):
        verified(path, (9, head.digest))


def test_history_rewritten_with_the_stolen_key_is_seen_with_an_anchor(path: Path, tmp_path: Path) -> None:
    head = Journal(path, KEY).head()
    assert head is not None
    forged = Journal(tmp_path / "forged.sqlite", KEY)
    for number in range(12):
        forged.append("stage", {"run": "clean", "number": number})
    assert verified(tmp_path / "forged.sqlite").size == 12
    with pytest.raises(IntegrityError, match="E-JOURNAL-005"):
        verified(tmp_path / "forged.sqlite", (9, head.digest))


def test_a_journal_that_went_on_still_fits_its_anchor(path: Path) -> None:
    anchor = verified(path)
    assert anchor.head is not None
    Journal(path, KEY).append("more", {})
    assert verified(path, (anchor.size, anchor.head)).size == 10


def test_nothing_is_built_on_a_forged_head(path: Path) -> None:
    body = Journal(path, KEY).entries()[8].body
    rewrite(path, "UPDATE entry SET body = ? WHERE seq = 8", (body.replace(b'"number":8', b'"number":9'),))
    with pytest.raises(IntegrityError, match="E-JOURNAL-004"):
        Journal(path, KEY).append("stage", {})
    with pytest.raises(IntegrityError, match="E-JOURNAL-004"):
        Journal(path, OTHER).append("stage", {})


def test_verifying_writes_nothing(path: Path) -> None:
    path.parent.chmod(0o500)
    before = sorted((p.name, p.read_bytes()) for p in path.parent.iterdir())
    try:
        verified(path)
    finally:
        path.parent.chmod(0o700)
    assert before == sorted((p.name, p.read_bytes()) for p in path.parent.iterdir())


@pytest.mark.parametrize("kind", ["", "Stage", "a b", "1", "a" * 65])
def test_a_malformed_kind_is_refused(path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match="E-JOURNAL-006"):
        Journal(path, KEY).append(kind, {})
    with pytest.raises(IntegrityError, match="E-CANON-001"):
        Journal(path, KEY).append("ok", {"x": float("nan")})
    assert verified(path).size == 9


def _append(path: Path, worker: int) -> None:
    journal = Journal(path, KEY)
    for number in range(15):
        journal.append("race", {"worker": worker, "number": number})


def test_racing_writers_make_one_chain(path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_append, args=(path, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert verified(path).size == 9 + 60
