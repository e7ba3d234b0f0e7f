"""The journal on both grounds: every way to rewrite history, and which of them needs an anchor to be seen."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.canonical import Json, canonical_json
from privacy.checkpoint import COSIGNATURE, Verifier, cosign, cosignatures, open_checkpoint, sign_checkpoint
from privacy.database import Place
from privacy.entries import (
    Entry,
    journal_verifier,
    make_body,
    make_entry,
    open_bodies,
    parse_export,
    verify_export,
)
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError
from privacy.journal import Journal
from privacy.journal_audit import Anchor, JournalState, verify_journal
from privacy.merkle import EMPTY_ROOT, Frontier, leaf_hash, verify_consistency, verify_inclusion
from privacy.signing import SigningKey
from tests.worlds.intruder import Intruder

KEY, OTHER, WITNESS = SigningKey(b"k" * 32), SigningKey(b"o" * 32), SigningKey(b"w" * 32)
LOG = journal_verifier(KEY.public_hex)
W1 = Verifier("witness.example/w1", WITNESS.public_hex, COSIGNATURE)


@pytest.fixture
def journal(place: Place) -> Journal:
    """Nine entries, most of them appended one by one."""
    made = Journal(place, KEY)
    for number in range(6):
        made.append("stage", {"run": f"run{number // 3}", "number": number})
    made.append_many([("stage", {"run": "run2", "number": number}) for number in range(6, 9)])
    return made


def verified(place: Place, *anchors: Anchor) -> JournalState:
    return verify_journal(place, KEY.public_hex, anchors)


def anchor(journal: Journal) -> Anchor:
    checkpoint = journal.checkpoint()
    return Anchor(checkpoint.size, checkpoint.root, "what was noted")


# What it is


def test_entries_come_back_in_order_and_give_the_signed_root(journal: Journal, place: Place) -> None:
    entries = Journal(place, KEY).entries()
    assert [e.facts["number"] for e in entries] == list(range(9))
    assert [e.seq for e in entries] == list(range(9))
    tree = Frontier().extended([leaf_hash(e.body) for e in entries])
    checkpoint = journal.checkpoint()
    assert (checkpoint.size, checkpoint.root) == (9, tree.root())
    assert open_checkpoint(checkpoint.note, LOG) == checkpoint
    state = verified(place)
    assert (state.size, state.root, state.checkpoints) == (9, checkpoint.root_digest, 7)
    assert state.at == entries[-1].at
    assert Journal(place, KEY).head() == entries[-1]
    assert Journal(place, KEY).entries(7) == entries[7:]
    assert [make_entry(canonical_json(json.loads(e.body)), e.seq) for e in entries] == entries


def test_an_empty_journal_is_empty_and_nothing_else(place: Place) -> None:
    journal = Journal(place, KEY)
    assert (journal.head(), journal.entries(), journal.append_many([])) == (None, [], [])
    assert verified(place) == JournalState(0, "sha256:" + EMPTY_ROOT.hex(), None, 0, {})
    assert open_checkpoint(journal.checkpoint().note, LOG).size == 0
    with pytest.raises(IntegrityError, match="E-JOURNAL-010"):
        verified(place, Anchor(1, b"\0" * 32, "elsewhere"))


def test_two_homes_have_two_logs() -> None:
    assert journal_verifier(KEY.public_hex).name != journal_verifier(OTHER.public_hex).name


def test_proofs_are_those_of_the_tree(journal: Journal) -> None:
    bodies = [e.body for e in journal.entries()]
    for size in range(1, 10):
        root = journal.root(size)
        for seq in range(size):
            assert verify_inclusion(leaf_hash(bodies[seq]), seq, size, journal.inclusion_proof(seq, size), root)
        for old in range(size):
            assert verify_consistency(old, size, journal.consistency_proof(old, size), journal.root(old), root)
    for ask in (
        lambda: journal.inclusion_proof(9, 9),
        lambda: journal.inclusion_proof(0, 10),
        lambda: journal.consistency_proof(3, 10),
        lambda: journal.consistency_proof(5, 4),
        lambda: journal.root(10),
    ):
        with pytest.raises(UsageError, match="E-JOURNAL-008"):
            ask()


def test_a_batch_is_one_checkpoint_and_an_append_of_one_is_an_append(journal: Journal, place: Place) -> None:
    added = journal.append_many([("more", {"n": n}) for n in range(600)])
    assert [e.seq for e in added] == list(range(9, 609))
    assert added == Journal(place, KEY).entries(9)
    assert verified(place).checkpoints == 8
    assert journal.append("last", {}) == Journal(place, KEY).entries()[-1]


def test_a_batch_is_written_as_a_whole_or_not_at_all(journal: Journal, place: Place) -> None:
    before = verified(place)
    for bad in (("Bad Kind", {}), ("ok", {"x": float("nan")}), ("ok", {"x": "y" * (1 << 20)})):
        with pytest.raises(PrivetError, match=r"E-JOURNAL-006|E-CANON-001"):
            journal.append_many([("fine", {"n": 1}), bad])
    assert verified(place) == before


@pytest.mark.parametrize("kind", ["", "Stage", "a b", "1", "a" * 65, 'a"', "a\n"])
def test_a_malformed_kind_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E-JOURNAL-006"):
        Journal(tmp_path / "j.sqlite", KEY).append(kind, {})


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), _JSON, max_size=4), st.booleans())
def test_the_quick_spelling_of_an_entry_is_the_canonical_one(facts: dict[str, Json], behind: bool) -> None:
    at, clock = "2026-01-02T03:04:05.678+00:00", "2025-01-02T03:04:05.678+00:00" if behind else None
    body = make_body(7, at, "kind", facts, clock)
    entry = make_entry(body, 7)
    assert entry.body == body == canonical_json(entry.to_json())
    assert open_bodies([body], 7) == [(at, "kind", entry.facts, clock)]


def test_bodies_that_only_make_sense_when_glued_together_are_refused() -> None:
    """Two texts that are no entries, but are the list of two entries once they are joined with a comma."""
    at = "2026-01-02T03:04:05.678+00:00"
    first = make_body(0, at, "kind", {"l": [{"seq": 0}, {"seq": 1}]}, None)
    second = make_body(1, at, "kind", {}, None)
    glued = first + b"," + second
    for cut in [i for i in range(len(glued)) if glued[i : i + 1] == b","]:
        parts = [glued[:cut], glued[cut + 1 :]]
        if parts != [first, second]:
            with pytest.raises(IntegrityError, match="E-JOURNAL-001"):
                open_bodies(parts, 0)
    assert len(open_bodies([first, second], 0)) == 2


_AT = "2026-01-02T03:04:05.678+00:00"
_BODY = make_body(3, _AT, "kind", {"n": 1}, None)


@pytest.mark.parametrize("body", [
    _BODY.replace(b":1", b": 1"), _BODY + b" ", b" " + _BODY, _BODY.replace(b'"n":1', b'"n":1,"n":1'),
    _BODY.replace(b'"n":1', b'"n":NaN'), _BODY.replace(b'"n":1', b'"n":1e999'), _BODY.replace(b'"n":1', b'"n":1.00'),
    _BODY.replace(b'"n":1', b'"n":"\\u0041"'), _BODY.replace(b'"n":1', b'"n":"\\ud800"'),
    _BODY.replace(b'"seq":3', b'"seq":3.0'),
    _BODY.replace(b'"seq":3', b'"seq":true'), _BODY.replace(b'"seq":3', b'"seq":4'), _BODY.replace(b"{\"n\":1}", b"[]"),
    _BODY.replace(b'"kind":"kind"', b'"kind":"Kind"'), _BODY.replace(b"+00:00", b"+01:00"), _BODY.replace(b"03:04", b"3:04"),
    _BODY.replace(b'"seq":3', b'"seq":3,"zeal":1'), _BODY.replace(b'"at"', b'"clock":null,"at"'),
    b'{"kind":"kind",' + _BODY[1:].replace(b',"kind":"kind"', b""),
    _BODY.replace(b'"n":1', b'"n":' + b"[" * 5000 + b"]" * 5000),
    make_body(3, _AT, "kind", {"n": 1}, _AT).replace(b'"clock":"2026', b'"clock":"26'),
])  # fmt: skip
def test_an_entry_has_one_spelling(body: bytes) -> None:
    assert make_entry(_BODY, 3).facts == {"n": 1}
    for ask in (lambda: make_entry(body, 3), lambda: open_bodies([body], 3), lambda: open_bodies([_BODY, body], 2)):
        with pytest.raises(IntegrityError, match="E-JOURNAL-001"):
            ask()


# The clock


def test_a_clock_that_is_set_back_neither_backdates_an_entry_nor_stops_the_pipeline(place: Place) -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    shown = [now, now + timedelta(hours=1), now - timedelta(days=400), now + timedelta(hours=2)]
    clock = iter(shown)
    journal = Journal(place, KEY, lambda: next(clock))
    for number in range(4):
        journal.append("tick", {"number": number})
    entries = journal.entries()
    assert [e.at[:16] for e in entries] == ["2026-05-01T12:00", "2026-05-01T13:00", "2026-05-01T13:00", "2026-05-01T14:00"]
    assert [e.clock for e in entries] == [None, None, "2025-03-27T12:00:00.000+00:00", None]
    assert verified(place).size == 4


# Somebody with the database and without the key


def test_sql_can_neither_change_nor_remove_what_was_written(journal: Journal, place: Place) -> None:
    honest_client = Intruder(place, drop_triggers=False)
    for statement in (
        "UPDATE entry SET body = body WHERE seq = 1",
        "DELETE FROM entry WHERE seq = 8",
        "UPDATE checkpoint SET note = '' WHERE size = 9",
        "DELETE FROM checkpoint WHERE size = 9",
        "UPDATE frontier SET size = 1",
        "DELETE FROM frontier",
    ):
        with pytest.raises(Exception, match="append-only"):
            honest_client(statement)
    assert verified(place).size == 9


def _edited(attacker: Intruder) -> None:
    attacker.replace(4, attacker.body(4).replace(b'"number":4', b'"number":5'))


def _edited_first(attacker: Intruder) -> None:
    attacker.replace(0, attacker.body(0).replace(b'"number":0', b'"number":9'))


def _edited_last(attacker: Intruder) -> None:
    attacker.replace(8, attacker.body(8).replace(b'"number":8', b'"number":7'))


def _removed(attacker: Intruder) -> None:
    attacker("DELETE FROM entry WHERE seq = 4")


def _removed_start(attacker: Intruder) -> None:
    attacker("DELETE FROM entry WHERE seq < 3")


def _removed_and_renumbered(attacker: Intruder) -> None:
    _removed(attacker)
    attacker.renumber()


def _removed_renumbered_and_cut_to_fit(attacker: Intruder) -> None:
    _removed_and_renumbered(attacker)
    attacker.cut(5)


def _reordered(attacker: Intruder) -> None:
    """What happened in one entry and in the next, the other way round; numbers and times stay in order."""
    third, fourth = attacker.body(3), attacker.body(4)
    attacker.replace(3, third.replace(b'"number":3', b'"number":4'))
    attacker.replace(4, fourth.replace(b'"number":4', b'"number":3'))


def _swapped_rows(attacker: Intruder) -> None:
    third, fourth = attacker.body(3), attacker.body(4)
    attacker.replace(3, fourth)
    attacker.replace(4, third)


def _backdated(attacker: Intruder) -> None:
    body = attacker.body(4)
    attacker.replace(4, body.replace(body[7:17], b"2020-01-01"))


def _doubled(attacker: Intruder) -> None:
    attacker("INSERT INTO entry VALUES (9, ?)", (attacker.body(8).replace(b'"seq":8}', b'"seq":9}'),))


def _before_the_first(attacker: Intruder) -> None:
    attacker("INSERT INTO entry VALUES (-1, ?)", (attacker.body(0),))


def _edited_checkpoint(attacker: Intruder) -> None:
    attacker("UPDATE checkpoint SET note = replace(note, '9', '8') WHERE size = 9")


def _moved_checkpoint(attacker: Intruder) -> None:
    attacker("DELETE FROM checkpoint WHERE size = 5")
    attacker("UPDATE checkpoint SET size = 5 WHERE size = 4")


def _checkpoint_of_a_foreign_key(attacker: Intruder) -> None:
    note = sign_checkpoint(LOG.name, 9, b"\0" * 32, OTHER).note
    attacker("UPDATE checkpoint SET note = ? WHERE size = 9", (note,))


def _all_signed_by_a_foreign_key(attacker: Intruder) -> None:
    _edited(attacker)
    attacker.sign_again(OTHER)


def _cut_and_checkpoints_left(attacker: Intruder) -> None:
    attacker("DELETE FROM entry WHERE seq >= 7")


def _all_entries_gone(attacker: Intruder) -> None:
    attacker("DELETE FROM entry")


def _checkpoints_gone(attacker: Intruder) -> None:
    attacker("DELETE FROM checkpoint")


def _newest_checkpoint_gone(attacker: Intruder) -> None:
    attacker("DELETE FROM checkpoint WHERE size = 9")


def _edited_frontier(attacker: Intruder) -> None:
    attacker("UPDATE frontier SET nodes = ?", (b"\0" * 32,))


def _junk(body: bytes) -> Callable[[Intruder], None]:
    return lambda attacker: attacker.replace(4, body)


ATTACKS: dict[str, tuple[Callable[[Intruder], None], str]] = {
    "an entry edited": (_edited, "E-JOURNAL-002"),
    "the first entry edited": (_edited_first, "E-JOURNAL-002"),
    "the newest entry edited": (_edited_last, "E-JOURNAL-002"),
    "an entry removed": (_removed, "E-JOURNAL-003"),
    "the start removed": (_removed_start, "E-JOURNAL-003"),
    "removed and renumbered": (_removed_and_renumbered, "E-JOURNAL-010"),
    "removed, renumbered, cut to fit": (_removed_renumbered_and_cut_to_fit, "E-JOURNAL-002"),
    "two entries reordered": (_reordered, "E-JOURNAL-002"),
    "two rows swapped": (_swapped_rows, "E-JOURNAL-001"),
    "an entry backdated": (_backdated, "E-JOURNAL-013"),
    "an entry added without a checkpoint": (_doubled, "E-JOURNAL-012"),
    "an entry before the first": (_before_the_first, "E-JOURNAL-003"),
    "a checkpoint edited": (_edited_checkpoint, "E-JOURNAL-004"),
    "a checkpoint under another size": (_moved_checkpoint, "E-JOURNAL-014"),
    "a checkpoint of a foreign key": (_checkpoint_of_a_foreign_key, "E-JOURNAL-004"),
    "everything signed by a foreign key": (_all_signed_by_a_foreign_key, "E-JOURNAL-004"),
    "the tail cut, its checkpoints left": (_cut_and_checkpoints_left, "E-JOURNAL-010"),
    "all entries gone": (_all_entries_gone, "E-JOURNAL-010"),
    "all checkpoints gone": (_checkpoints_gone, "E-JOURNAL-012"),
    "the newest checkpoint gone": (_newest_checkpoint_gone, "E-JOURNAL-012"),
    "the frontier edited": (_edited_frontier, "E-JOURNAL-015"),
    **{f"junk {body!r}": (_junk(body), "E-JOURNAL-001") for body in (b"", b"{}", b"[]", b'{"seq":4}', b"\xff", b"NaN")},
}


@pytest.mark.parametrize(("attack", "code"), ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attacker_without_the_key_is_found_out(
    attack: Callable[[Intruder], None], code: str, journal: Journal, place: Place
) -> None:
    known = journal.entries()
    attack(Intruder(place))
    with pytest.raises(IntegrityError, match=code):
        verified(place)
    # Whoever read the journal before decides by what was true then; whoever reads it now is told, or reads the truth.
    for reader in (journal, Journal(place, KEY)):
        with suppress(IntegrityError):
            assert reader.entries() == known


READ_BY_APPEND = ["the newest entry edited", "the tail cut, its checkpoints left", "an entry added without a checkpoint",
                  "a checkpoint of a foreign key", "all entries gone", "all checkpoints gone", "the frontier edited",
                  "everything signed by a foreign key"]  # fmt: skip


@pytest.mark.parametrize("name", READ_BY_APPEND)
def test_nothing_is_built_on_a_forged_head(name: str, journal: Journal, place: Place) -> None:
    ATTACKS[name][0](Intruder(place))
    for writer in (journal, Journal(place, KEY)):
        with pytest.raises(IntegrityError, match=r"E-JOURNAL-0(02|04|10|12)"):
            writer.append("stage", {})
        with pytest.raises(IntegrityError, match=r"E-JOURNAL-0(02|04|10|12)"):
            writer.checkpoint()


def test_an_append_does_not_launder_an_entry_that_was_edited_before(journal: Journal, place: Place) -> None:
    _edited(Intruder(place))
    journal.append("later", {})
    with pytest.raises(IntegrityError, match="E-JOURNAL-002"):
        verified(place)
    with pytest.raises(IntegrityError, match="E-JOURNAL-002"):
        Journal(place, KEY).entries()


def test_a_journal_of_another_key_is_not_continued(journal: Journal, place: Place) -> None:
    for ask in (lambda: Journal(place, OTHER).append("x", {}), lambda: Journal(place, OTHER).entries()):
        with pytest.raises(IntegrityError, match="E-JOURNAL-004"):
            ask()
    with pytest.raises(IntegrityError, match="E-JOURNAL-004"):
        verify_journal(place, OTHER.public_hex)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE entry SET body = CAST(body AS TEXT) WHERE seq = 4", "E-JOURNAL-001"),
        ("UPDATE entry SET body = 1.5 WHERE seq = 4", "E-JOURNAL-001"),
        ("UPDATE entry SET body = 90000000000 WHERE seq = 4", "E-JOURNAL-001"),  # bytes(that) would be 84 GiB of zeros
        ("UPDATE entry SET body = 90000000000 WHERE seq = 8", "E-JOURNAL-001"),
        ("UPDATE checkpoint SET note = CAST(note AS BLOB)", "E-JOURNAL-014"),
        ("UPDATE checkpoint SET note = CAST(note AS BLOB) WHERE size = 9", "E-JOURNAL-014"),
        ("UPDATE frontier SET nodes = 90000000000", "E-JOURNAL-015"),
        ("UPDATE frontier SET nodes = CAST('x' AS TEXT)", "E-JOURNAL-015"),
        ("UPDATE frontier SET size = 'nine'", "E-JOURNAL-015"),
    ],
)
def test_a_value_of_another_type_is_no_defect_of_ours(statement: str, code: str, tmp_path: Path) -> None:
    """SQLite keeps any type in any column."""
    path = tmp_path / "journal.sqlite"
    journal = Journal(path, KEY)
    journal.append_many([("tick", {"number": number}) for number in range(9)])
    Intruder(path)(statement)
    with pytest.raises(IntegrityError, match=code):
        verify_journal(path, KEY.public_hex)
    if "seq = 4" not in statement:
        with pytest.raises(IntegrityError, match=r"E-JOURNAL-0(01|02|14)"):
            Journal(path, KEY).append("x", {})
    if "frontier" not in statement:
        with pytest.raises(IntegrityError, match=code):
            Journal(path, KEY).entries()


# Somebody who can make it fit: with the database alone (cut, roll back) or with the stolen key (rewrite)


def _cut(attacker: Intruder) -> None:
    attacker.cut(6)


def _rewritten(attacker: Intruder) -> None:
    _edited(attacker)
    attacker.sign_again(KEY)


def _thinned(attacker: Intruder) -> None:
    _removed_and_renumbered(attacker)
    attacker.sign_again(KEY)


UNSEEN: dict[str, tuple[Callable[[Intruder], None], str]] = {
    "tail and checkpoints cut": (_cut, "E-JOURNAL-010"),
    "rewritten and signed again": (_rewritten, "E-JOURNAL-011"),
    "thinned and signed again": (_thinned, "E-JOURNAL-010"),
}


def test_a_process_that_only_appends_is_an_anchor_too(journal: Journal, place: Place) -> None:
    attacker = Intruder(place)
    attacker.cut(6)
    for ask in (lambda: journal.append("x", {}), journal.checkpoint, journal.head, journal.entries):
        with pytest.raises(IntegrityError, match="TRUNCATED: the journal has size 6 < 9, which this process has seen"):
            ask()
    Journal(place, KEY).append_many([("another", {}) for _ in range(5)])  # a history of its own, longer than the true one
    with pytest.raises(IntegrityError, match="FORK: two roots at 9"):
        journal.entries()


@pytest.mark.parametrize(("attack", "code"), UNSEEN.values(), ids=UNSEEN.keys())
def test_what_can_not_be_seen_from_inside_is_seen_with_an_anchor(
    attack: Callable[[Intruder], None], code: str, journal: Journal, place: Place
) -> None:
    noted = anchor(journal)
    journal.entries()
    attack(Intruder(place))
    assert verified(place).size in (6, 8, 9)  # the limit that the module states
    with pytest.raises(IntegrityError, match=code):
        verified(place, noted)
    with pytest.raises(IntegrityError, match=code):  # a process that was running is an anchor, too
        journal.entries()


def test_the_whole_database_rolled_back_is_seen_with_an_anchor(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    journal = Journal(path, KEY)
    journal.append("one", {})
    old = path.read_bytes()
    journal.append("two", {})
    noted = anchor(journal)
    path.write_bytes(old)
    assert verified(path).size == 1
    with pytest.raises(IntegrityError, match="E-JOURNAL-010: TRUNCATED: the journal has size 1 < 2"):
        verified(path, noted)


def test_history_rewritten_with_the_stolen_key_is_a_fork(journal: Journal, place: Place) -> None:
    noted = anchor(journal)
    _rewritten(Intruder(place))
    Journal(place, KEY).append_many([("more", {}) for _ in range(5)])
    assert verified(place).size == 14
    with pytest.raises(IntegrityError, match="FORK: two roots at 9"):
        verified(place, noted)


def test_a_checkpoint_of_another_history_left_among_the_stored_ones_is_a_fork(journal: Journal, place: Place) -> None:
    attacker = Intruder(place)
    (note,) = attacker("SELECT note FROM checkpoint WHERE size = 6")[0]
    attacker.replace(2, attacker.body(2).replace(b'"number":2', b'"number":7'))
    attacker.sign_again(KEY)
    attacker("INSERT INTO checkpoint VALUES (6, ?)", (note,))
    with pytest.raises(IntegrityError, match="FORK: two roots at 6"):
        verified(place)


def test_a_journal_that_went_on_still_fits_its_anchor(journal: Journal, place: Place) -> None:
    noted = anchor(journal)
    journal.append("more", {})
    state = verified(place, noted, Anchor(0, EMPTY_ROOT, "the beginning"))
    assert state.size == 10
    assert state.anchored_at == {9: journal.entries()[8].at}


# Witnesses


def test_what_a_witness_cosigned_is_kept_and_joined(journal: Journal) -> None:
    second = Verifier("witness.example/w2", OTHER.public_hex, COSIGNATURE)
    note = journal.checkpoint().note
    assert journal.cosigned(0, [W1]) is None
    kept = journal.accept(cosign(note, W1.name, WITNESS, 100), [W1])
    assert cosignatures(kept.note, [W1]) == {W1.name: 100}
    journal.append("later", {})
    assert journal.cosigned(9, [W1]) == kept
    assert journal.cosigned(10, [W1]) is None
    assert journal.cosigned(9, [W1, second]) is None
    journal.accept(cosign(note, second.name, OTHER, 101), [W1, second])
    both = journal.cosigned(9, [W1, second])
    assert both is not None
    assert cosignatures(both.note, [W1, second]) == {W1.name: 100, second.name: 101}


def test_a_cosigned_checkpoint_that_is_not_of_this_history_is_refused(journal: Journal) -> None:
    for size, root, code in ((9, b"\0" * 32, "E-JOURNAL-011"), (12, b"\0" * 32, "E-JOURNAL-010")):
        note = cosign(sign_checkpoint(LOG.name, size, root, KEY).note, W1.name, WITNESS, 1)
        with pytest.raises(IntegrityError, match=code):
            journal.accept(note, [W1])
    with pytest.raises(UsageError, match="E-JOURNAL-017"):
        journal.accept(journal.checkpoint().note, [W1])
    with pytest.raises(UsageError, match="E-JOURNAL-017"):
        journal.accept(cosign(journal.checkpoint().note, W1.name, OTHER, 1), [W1])
    foreign = cosign(sign_checkpoint(LOG.name, 9, journal.root(9), OTHER).note, W1.name, WITNESS, 1)
    with pytest.raises(IntegrityError, match="E-NOTE-003"):
        journal.accept(foreign, [W1])


def test_signature_lines_of_strangers_can_not_make_what_is_kept_unreadable(journal: Journal) -> None:
    """64 lines are the most that a note may have; two notes of one checkpoint are joined."""
    note = cosign(journal.checkpoint().note, W1.name, WITNESS, 100)
    lines = [f"\u2014 stranger.{n} {base64.b64encode(bytes(9)).decode()}\n" for n in range(124)]
    kept = journal.accept(note + "".join(lines[:62]), [W1])
    with pytest.raises(IntegrityError, match="E-NOTE-001"):
        journal.accept(note + "".join(lines[62:]), [W1])
    assert journal.cosigned(9, [W1]) == kept


# Exports


def test_an_export_carries_everything_from_the_runs_start_to_the_head(journal: Journal) -> None:
    export = parse_export(journal.export("run1"))
    assert [e.seq for e in export.entries] == [3, 4, 5, 6, 7, 8]
    assert export.before.size == 3
    checkpoint = verify_export(export, LOG)
    assert (checkpoint.size, checkpoint.root) == (9, journal.root(9))
    assert parse_export(export.to_bytes()) == export
    with pytest.raises(UsageError, match="E-JOURNAL-007"):
        journal.export("run9")


def _swap(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    return (*entries[:2], entries[3], entries[2], *entries[4:])


EXPORT_ATTACKS: dict[str, tuple[Mapping[str, object], str]] = {
    "removed from the middle": ({"entries": lambda e: e[:2] + e[3:]}, "E-JOURNAL-003"),
    "swapped": ({"entries": _swap}, "E-JOURNAL-003"),
    "doubled": ({"entries": lambda e: e[:2] + e[1:]}, "E-JOURNAL-003"),
    "tail cut": ({"entries": lambda e: e[:-1]}, "E-JOURNAL-010"),
    "tail grown": ({"entries": lambda e: (*e, replace(e[-1], seq=9))}, "E-JOURNAL-012"),
    "backdated": ({"entries": lambda e: (*e[:-1], replace(e[-1], at="2020-01-01T00:00:00.000+00:00"))}, "E-JOURNAL-013"),
    "another frontier": ({"before": lambda f: Frontier(f.size, (b"\0" * 32, *f.nodes[1:]))}, "E-JOURNAL-002"),
    "no frontier": ({"before": lambda f: Frontier()}, "E-JOURNAL-003"),
    "no checkpoint": ({"checkpoint": lambda c: ""}, "E-NOTE-001"),
    "another checkpoint": ({"checkpoint": lambda c: sign_checkpoint(LOG.name, 9, b"\0" * 32, KEY).note}, "E-JOURNAL-002"),
    "a foreign checkpoint": ({"checkpoint": lambda c: sign_checkpoint(LOG.name, 9, b"\0" * 32, OTHER).note}, "E-NOTE-003"),
}


@pytest.mark.parametrize(("changes", "code"), EXPORT_ATTACKS.values(), ids=EXPORT_ATTACKS.keys())
def test_a_changed_export_is_refused(changes: Mapping[str, Callable[[object], object]], code: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", KEY)
    journal.append_many([("stage", {"run": f"run{n // 3}", "number": n}) for n in range(9)])
    export = parse_export(journal.export("run1"))
    changed = replace(export, **{name: change(getattr(export, name)) for name, change in changes.items()})
    with pytest.raises(IntegrityError, match=code):
        verify_export(changed, LOG)


def test_no_byte_of_an_export_is_free_to_change(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", KEY)
    journal.append_many([("stage", {"run": f"run{n // 3}", "number": n}) for n in range(9)])
    data = journal.export("run2")
    for position in range(len(data)):
        altered = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(PrivetError):
            verify_export(parse_export(altered), LOG)


@pytest.mark.parametrize("field", ["seq", "at", "kind", "facts"])
def test_every_field_of_an_entry_is_bound(field: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", KEY)
    journal.append_many([("stage", {"run": "run1", "number": n}) for n in range(5)])
    value = json.loads(journal.export("run1"))
    other = {"seq": 3, "at": "2099-01-01T00:00:00.000+00:00", "kind": "release", "facts": {"run": "run1", "number": 99}}
    value["entries"][4][field] = other[field]
    with pytest.raises(IntegrityError, match=r"E-JOURNAL-00[23]"):
        verify_export(parse_export(canonical_json(value)), LOG)


# The cache


def test_a_second_look_verifies_only_what_is_new(journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import privacy.journal as module

    seen: list[int] = []
    real = module.open_bodies
    monkeypatch.setattr(module, "open_bodies", lambda bodies, start: seen.append(len(bodies)) or real(bodies, start))
    journal.entries()
    Journal(place, KEY).append("elsewhere", {})
    assert len(journal.entries()) == 10
    assert len(journal.entries(4)) == 6
    assert seen == [9, 1]


def test_a_refused_look_leaves_the_cache_as_it_was(journal: Journal, place: Place) -> None:
    known = journal.entries()
    Journal(place, KEY).append("honest", {"n": 1})
    attacker = Intruder(place)
    honest = attacker.body(9)
    attacker.replace(9, honest.replace(b'"n":1', b'"n":2'))
    with pytest.raises(IntegrityError, match="E-JOURNAL-002"):
        journal.entries()
    attacker.replace(9, honest)
    assert journal.entries()[:9] == known
    assert len(journal.entries()) == 10


# Many at once, and the end of a process


def _append(place: Place, worker: int) -> None:
    journal = Journal(place, KEY)
    for number in range(15):
        journal.append_many([("race", {"worker": worker, "number": number})] * (1 + number % 3))


def test_racing_writers_make_one_history(journal: Journal, place: Place) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_append, args=(place, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    assert [w.exitcode for w in workers] == [0, 0, 0, 0]
    assert verified(place).size == 9 + 4 * 30
    assert len(journal.entries()) == 9 + 4 * 30


def test_threads_of_one_journal_see_no_false_alarm(journal: Journal, place: Place) -> None:
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(12):
                journal.append("thread", {"n": number})
                journal.entries()
                journal.checkpoint()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert verified(place).size == 9 + 48


def _append_for_ever(place: Place) -> None:
    journal = Journal(place, KEY)
    for _ in range(100_000):
        journal.append_many([("batch", {"n": n}) for n in range(50)])


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_whole_batches(place: Place) -> None:
    fork = multiprocessing.get_context("fork")
    Journal(place, KEY)
    before = 0
    for attempt in range(12):
        process = fork.Process(target=_append_for_ever, args=(place,))
        process.start()
        time.sleep(0.15 + 0.013 * attempt)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        state = verified(place)
        assert state.size % 50 == 0
        assert state.size >= before
        before = state.size
        Journal(place, KEY).entries()
    assert before > 0


@pytest.mark.parametrize("statement", ["INSERT INTO checkpoint", "INSERT INTO frontier", "INSERT INTO entry"])
def test_a_fault_in_the_middle_of_an_append_leaves_the_old_state(
    statement: str, journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    before = verified(place)
    real = journal._database

    class Failing:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        @contextmanager
        def transaction(self):  # type: ignore[no-untyped-def]
            with real.transaction() as connection:

                class Statements:
                    def execute(self, sql: str, params: object = ()) -> object:
                        if sql.startswith(statement):
                            raise EnvironmentFault("E-DB-001", "the disk is full", "Free some space")
                        return connection.execute(sql, params)  # type: ignore[arg-type]

                yield Statements()

    journal._database = Failing()  # type: ignore[assignment]
    with pytest.raises(EnvironmentFault, match="E-DB-001"):
        journal.append_many([("x", {})] * 3)
    assert verified(place) == before
    journal._database = real
    journal.append("x", {})
    assert verified(place).size == 10


def test_verifying_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "j.sqlite"
    Journal(path, KEY).append("x", {})
    before = sorted((p.name, p.read_bytes()) for p in folder.iterdir() if p.is_file())
    folder.chmod(0o500)
    try:
        assert verified(path).size == 1
    finally:
        folder.chmod(0o700)
    assert before == sorted((p.name, p.read_bytes()) for p in folder.iterdir() if p.is_file())
