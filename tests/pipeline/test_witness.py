"""A second key, elsewhere: it cosigns what continues, refuses what does not, and a release that needs it waits for it."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest

from pipeline import release as releasing
from pipeline.release import ReleaseRefusal
from pipeline.verify import verify_bundle
from pipeline.witness import Witness
from privacy.checkpoint import (
    COSIGNATURE,
    Checkpoint,
    Note,
    NoteSignature,
    Verifier,
    WitnessRequest,
    cosignatures,
    open_checkpoint,
    sign_checkpoint,
)
from privacy.entries import journal_verifier
from privacy.errors import EnvironmentFault, GateClosed, IntegrityError, UsageError
from privacy.journal import Journal
from privacy.signing import Person, SigningKey, TrustRoot
from tests.worlds.bad_bundles import envelope, honest_votes
from tests.worlds.intruder import Intruder
from tests.worlds.release_world import World

KEY, OTHER, WITNESS = SigningKey(b"k" * 32), SigningKey(b"o" * 32), SigningKey(b"w" * 32)
LOG = journal_verifier(KEY.public_hex)
NAME = "witness.example/w1"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "j.sqlite", KEY)
    made.append_many([("stage", {"number": number}) for number in range(9)])
    return made


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "elsewhere", NAME, WITNESS)


def request(journal: Journal, since: int) -> str:
    point = journal.checkpoint()
    return WitnessRequest(since, journal.consistency_proof(since, point.size), point.note).format()


def test_a_witness_cosigns_what_continues(journal: Journal, witness: Witness) -> None:
    first = witness.cosign(request(journal, 0), LOG, 1000)
    assert cosignatures(first, [witness.verifier]) == {NAME: 1000}
    assert open_checkpoint(first, LOG).size == 9
    journal.append_many([("more", {})] * 5)
    second = witness.cosign(request(journal, 9), None, 1010)  # it knows the log by now
    assert (open_checkpoint(second, LOG).size, cosignatures(second, [witness.verifier])) == (14, {NAME: 1010})
    again = witness.cosign(journal.checkpoint().note, None, 1020)  # the same state needs no proof
    assert cosignatures(again, [witness.verifier]) == {NAME: 1020}
    assert witness.verifier.kind == COSIGNATURE


def test_the_time_of_a_witness_never_goes_back(journal: Journal, witness: Witness) -> None:
    witness.cosign(request(journal, 0), LOG, 1000)
    assert cosignatures(witness.cosign(journal.checkpoint().note, LOG, 10), [witness.verifier]) == {NAME: 1000}


def refused(witness: Witness, text: str, code: str, log: Verifier | None = None) -> None:
    kept = {p.name: p.read_bytes() for p in witness.folder.iterdir()}
    with pytest.raises((IntegrityError, UsageError), match=code):
        witness.cosign(text, log, 2000)
    assert {p.name: p.read_bytes() for p in witness.folder.iterdir()} == kept


def test_a_witness_refuses_a_rollback_and_a_fork(journal: Journal, witness: Witness, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "j.sqlite", tmp_path / "old.sqlite")
    journal.append_many([("more", {})] * 5)
    witness.cosign(request(journal, 0), LOG, 1000)
    old = Journal(tmp_path / "old.sqlite", KEY)
    refused(witness, request(old, 0), "E-WITNESS-002: ROLLBACK: the checkpoint has size 9 < 14")
    old.append_many([("other", {})] * 5)
    refused(witness, request(old, 9), "E-WITNESS-003: FORK: two signed roots at 14")
    old.append("more", {})
    refused(witness, WitnessRequest(14, old.consistency_proof(14, 15), old.checkpoint().note).format(), "E-WITNESS-004")


def test_a_witness_refuses_history_rewritten_with_the_stolen_key(journal: Journal, witness: Witness, tmp_path: Path) -> None:
    witness.cosign(request(journal, 0), LOG, 1000)
    attacker = Intruder(tmp_path / "j.sqlite")
    attacker.replace(4, attacker.body(4).replace(b'"number":4', b'"number":5'))
    attacker.sign_again(KEY)
    rewritten = Journal(tmp_path / "j.sqlite", KEY)
    rewritten.append("later", {})
    for proof in (rewritten.consistency_proof(9, 10), (), (b"\0" * 32,) * 3):
        refused(witness, WitnessRequest(9, proof, rewritten.checkpoint().note).format(), "E-WITNESS-004")


def test_a_proof_from_elsewhere_and_no_proof_are_told_what_is_needed(journal: Journal, witness: Witness) -> None:
    witness.cosign(request(journal, 0), LOG, 1000)
    journal.append("more", {})
    for text in (journal.checkpoint().note, request(journal, 4), request(journal, 0)):
        refused(witness, text, "E-WITNESS-005.*--since 9")


def test_a_first_request_begins_at_nothing(journal: Journal, witness: Witness) -> None:
    with pytest.raises(UsageError, match=r"E-WITNESS-005.*--since 0"):
        witness.cosign(request(journal, 4), LOG, 1000)


def test_who_a_log_is_must_be_said_once_and_stays(journal: Journal, witness: Witness) -> None:
    with pytest.raises(UsageError, match="E-WITNESS-001"):
        witness.cosign(request(journal, 0), None, 1000)
    with pytest.raises(IntegrityError, match="E-NOTE-003"):
        witness.cosign(request(journal, 0), Verifier(LOG.name, OTHER.public_hex), 1000)
    witness.cosign(request(journal, 0), LOG, 1000)
    refused(witness, journal.checkpoint().note, "E-WITNESS-007", Verifier(LOG.name, OTHER.public_hex))
    forged = sign_checkpoint(LOG.name, 9, journal.root(9), OTHER).note
    refused(witness, forged, "E-NOTE-003")
    with pytest.raises(UsageError, match="E-WITNESS-008"):
        Witness(witness.folder, NAME, KEY).cosign(journal.checkpoint().note, None, 1)


def test_one_witness_keeps_many_logs_apart(journal: Journal, witness: Witness, tmp_path: Path) -> None:
    another = Journal(tmp_path / "k.sqlite", OTHER)
    another.append("x", {})
    witness.cosign(request(journal, 0), LOG, 1)
    witness.cosign(request(another, 0), journal_verifier(OTHER.public_hex), 2)
    assert len(list(witness.folder.glob("*.json"))) == 2


def test_a_damaged_or_unwritable_state_is_not_taken_for_an_empty_one(journal: Journal, witness: Witness) -> None:
    witness.cosign(request(journal, 0), LOG, 1000)
    (path,) = witness.folder.glob("*.json")
    for data in (b"", b"{}", path.read_bytes()[:-1]):
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match="E-WITNESS-006"):
            witness.cosign(journal.checkpoint().note, LOG, 1001)
    blocked = Witness(witness.folder / path.name, NAME, WITNESS)  # a file where the folder should be
    with pytest.raises(EnvironmentFault, match="E-WITNESS-009"):
        blocked.cosign(journal.checkpoint().note, LOG, 1)


def test_nothing_leaves_before_the_state_is_on_disk(
    journal: Journal, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        with pytest.raises(EnvironmentFault, match="E-WITNESS-009"):
            witness.cosign(request(journal, 0), LOG, 1000)
    assert list(witness.folder.iterdir()) == []


def _race(folder: Path, text: str, results: multiprocessing.Queue[str]) -> None:
    try:
        results.put(Checkpoint.parse(Witness(folder, NAME, WITNESS).cosign(text, LOG, 1000)).root.hex())
    except (IntegrityError, UsageError) as error:
        results.put(error.code)


def test_two_histories_at_once_get_one_cosignature(witness: Witness, tmp_path: Path) -> None:
    forks = []
    for name in ("a", "b"):
        journal = Journal(tmp_path / f"{name}.sqlite", KEY)
        journal.append(name, {})
        forks.append(request(journal, 0))
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()  # type: ignore[assignment]
    workers = [context.Process(target=_race, args=(witness.folder, forks[n % 2], results)) for n in range(8)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert len({f for f in found if not f.startswith("E-")}) == 1
    assert found.count("E-WITNESS-003") == 4


# A release whose trust root names a witness


def carried(world: World, folder: Path) -> str:
    """To the witness and back; it has no home."""
    text = request(world.home.journal, 0)
    shutil.rmtree(folder, ignore_errors=True)
    witness = Witness(folder, NAME, world.witness_key)
    return witness.cosign(text, world.home.journal.verifier, int(world.now.timestamp()))


def test_a_release_waits_for_the_witness_that_the_trust_root_names(tmp_path: Path) -> None:
    world = World(tmp_path, witness=NAME)
    too_early = carried(world, tmp_path / "w")
    world.run().sign_quorum()
    witnesses = [Verifier(NAME, world.witness_key.public_hex, COSIGNATURE)]
    world.home.journal.accept(too_early, witnesses)  # it covers nothing of this run
    with pytest.raises(ReleaseRefusal) as caught:
        world.release()
    assert "E-CLAIM-021" in "\n".join(caught.value.details)
    world.home.journal.accept(carried(world, tmp_path / "w"), witnesses)
    result = verify_bundle(world.release().path, world.trust)
    assert (result.exit_code, result.failures) == (0, ())
    assert any(row.evidence == f"cosigned by {NAME}" for row in result.rows)


def test_a_release_under_another_history_of_the_journal_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline itself signs it: a later state that does not continue the bundle's, and a proof that shows nothing."""
    world = World(tmp_path).run().sign_quorum()
    own = world.home.journal.checkpoint()
    proof = world.home.journal.consistency_proof(own.size - 3, own.size)
    real = releasing.release_state
    forked = sign_checkpoint(own.origin, own.size + 5, b"\0" * 32, world.home.key)
    for name, point, path in (("a", forked, proof), ("b", forked, ()), ("c", own, ())):
        monkeypatch.setattr(releasing, "release_state", lambda *_, point=point, path=path: real(point, path))
        result = verify_bundle(world.force_bundle(tmp_path / name, lambda files: honest_votes(world, files)), world.trust)
        assert (result.exit_code, "E-CLAIM-011" in {row.code for row in result.failures}) == (4, True)


def test_your_trust_root_may_ask_for_more_witnesses_than_the_bundle_has(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    bundle = world.release().path
    asks = TrustRoot((*world.trust.people, Person(NAME, WITNESS.public_hex, ("witness",))))
    result = verify_bundle(bundle, asks)
    assert (result.exit_code, {row.code for row in result.failures}) == (3, {"E-CLAIM-021"})


def test_a_forged_cosignature_in_the_release_statement_breaks_its_integrity(tmp_path: Path) -> None:
    world = World(tmp_path, witness=NAME).run().sign_quorum()
    own = world.home.journal.checkpoint()
    note = Note.parse(own.note)
    known = Verifier(NAME, world.witness_key.public_hex, COSIGNATURE)
    forged = Note(note.text, (*note.signatures, NoteSignature(NAME, known.key_id, b"\0" * 72))).format()
    Intruder(world.home.path / "journal.sqlite")("INSERT INTO cosigned VALUES (?, ?)", (own.size, forged))
    with pytest.raises(ReleaseRefusal) as caught:
        world.release()
    assert "E-NOTE-002" in "\n".join(caught.value.details)


def test_a_witness_key_approves_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, witness=NAME).run()
    vote = envelope(world, world.witness_key, "privacy_officer")
    with pytest.raises(GateClosed, match="E-GATE-014"):
        world.home.approvals.add(vote, world.trust, world.now)
