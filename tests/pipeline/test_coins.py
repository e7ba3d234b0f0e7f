"""Coins of canaries: drawn by an auditor before, used once, and never by whoever trains."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import audit_case, coins
from pipeline.audit_claim import read_claim
from pipeline.audit_conformance import _reveal_verdict
from pipeline.cli import main
from pipeline.coin_claims import USED, coins_envelope, coins_fault, commitment_of, open_coins
from pipeline.coins import DRAWN, claim, draw, opening_of, retire, sets
from pipeline.home import Home, add_person, withdraw_person
from pipeline.stage import StageOutput, StageResult, run_stage
from pipeline.train import train
from privacy.canonical import canonical_json
from privacy.errors import GateClosed, IntegrityError, UsageError
from privacy.signing import Person, SigningKey
from tests.pipeline.training_world import SETTINGS, TrainingWorld
from training.canaries import CanaryCoins

CANARIES = 120
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> TrainingWorld:
    """A home whose auditor keeps their key elsewhere: nothing is drawn by itself."""
    world = TrainingWorld(tmp_path)
    withdraw_person(world.home, "demo_auditor")
    return world


def auditor(world: TrainingWorld, name: str = "alan", *roles: str) -> SigningKey:
    key = SigningKey.generate()
    add_person(world.home, Person(name, key.public_hex, roles or ("auditor",)))
    return key


def trained(world: TrainingWorld) -> StageResult:
    return train(world.ctx, world.protect.digest, world.approve())


@given(st.lists(st.booleans(), min_size=1, max_size=70), st.binary(min_size=32, max_size=32))
def test_what_is_revealed_opens_the_commitment_and_nothing_else_does(drawn: list[bool], salt: bytes) -> None:
    made = CanaryCoins(np.array(drawn), salt)
    revealed = opening_of(made)
    assert commitment_of(revealed) == made.commitment
    flipped = CanaryCoins(~made.coins, salt)
    assert commitment_of(opening_of(flipped)) != made.commitment
    assert commitment_of({**revealed, "salt": "00" * 31}) is None
    assert commitment_of({**revealed, "more": 1}) is None


@pytest.mark.parametrize("drawn", ["ff", "f1", "zz", "", "f0f0", "F0"])
def test_an_opening_has_one_spelling(drawn: str) -> None:
    """Four canaries: the last four bits of the byte are zero."""
    assert commitment_of({"canaries": 4, "drawn": "f0", "salt": "00" * 32}) is not None
    assert commitment_of({"canaries": 4, "drawn": drawn, "salt": "00" * 32}) is None


def test_without_coins_nothing_is_reserved(world: TrainingWorld) -> None:
    use = world.approve()
    with pytest.raises(GateClosed, match="E-AUDIT-010") as refused:
        train(world.ctx, world.protect.digest, use)
    assert "privet audit coins" in refused.value.remedy
    assert str(CANARIES) in refused.value.remedy
    assert world.home.ledger.scopes() == []
    assert not [e for e in world.home.journal.entries() if e.kind in (USED, "budget_reserved")]


def test_a_training_takes_the_first_set_of_its_size_and_names_who_drew_it(world: TrainingWorld) -> None:
    key = auditor(world)
    draw(world.home, "alan", key, 1, 40, NOW)  # for another policy
    first, second = draw(world.home, "alan", key, 2, CANARIES, NOW)
    result = trained(world)
    assert result.manifest.facts["canary_commitment"] == first
    entries = world.home.journal.entries()
    used = next(e for e in entries if e.kind == USED)
    lease = next(e for e in entries if e.kind == "budget_reserved")
    assert used.seq < lease.seq
    assert used.facts["ledger_key"] == result.manifest.facts["ledger_key"]
    envelope = world.home.store.read_plain(result.manifest.outputs["coins"])
    drawn = open_coins(envelope, world.home.trust)
    assert (drawn.signer.name, drawn.commitment, drawn.canaries) == ("alan", first, CANARIES)
    assert [s.used for s in sets(world.home)] == [False, True, False]
    assert coins.left(sets(world.home)) == {40: 1, CANARIES: 1}
    # What was used is destroyed; what was not is still sealed there.
    held = {p.stem for p in (world.home.path / "coins").glob("*.json")}
    assert first.removeprefix("sha256:") not in held
    assert second.removeprefix("sha256:") in held


def test_the_coins_are_on_disk_as_ciphertext_only(world: TrainingWorld) -> None:
    key = auditor(world)
    draw(world.home, "alan", key, 1, CANARIES, NOW)
    ours = claim(world.ctx, "train-a", True).coins
    packed, secret = np.packbits(ours.coins).tobytes(), ours.salt
    for path in world.home.path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert packed not in data
            assert packed.hex().encode() not in data
            assert secret not in data
            assert secret.hex().encode() not in data


def test_a_set_serves_one_training_also_when_many_ask_at_once(world: TrainingWorld) -> None:
    key = auditor(world)
    draw(world.home, "alan", key, 6, CANARIES, NOW)
    got: list[str] = []
    refused: list[str] = []

    def ask(number: int) -> None:
        own = world.context(home=Home.open(world.home.path), run_id=f"run-{number}")
        try:
            got.append(claim(own, f"train-{number}", False).coins.commitment)
        except GateClosed as error:
            refused.append(error.code)

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(got) == len(set(got)) == 6
    assert refused == ["E-AUDIT-010"] * 2


def test_a_training_killed_before_its_first_lease_gets_its_set_again_and_later_another(world: TrainingWorld) -> None:
    key = auditor(world)
    draw(world.home, "alan", key, 3, CANARIES, NOW)
    first = claim(world.ctx, "train-a", True).coins.commitment
    assert claim(world.ctx, "train-a", True).coins.commitment == first
    assert claim(world.ctx, "train-b", True).coins.commitment != first
    # Steps were leased: whoever saw them may know the coins by now.
    assert claim(world.ctx, "train-a", False).coins.commitment != first
    with pytest.raises(GateClosed, match="E-AUDIT-010"):
        claim(world.ctx, "train-c", True)


def test_a_killed_training_goes_on_with_its_own_coins(world: TrainingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import train as stage

    key = auditor(world)
    draw(world.home, "alan", key, 2, CANARIES, NOW)
    use = world.approve()

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_output", killed)
    with pytest.raises(KeyboardInterrupt):
        train(world.ctx, world.protect.digest, use)
    monkeypatch.undo()
    result = train(world.ctx, world.protect.digest, use)
    assert [e.facts["commitment"] for e in world.home.journal.entries() if e.kind == USED] == [
        result.manifest.facts["canary_commitment"]
    ]


def test_a_withdrawn_auditor_vouches_for_nothing(world: TrainingWorld) -> None:
    draw(world.home, "alan", auditor(world), 2, CANARIES, NOW)
    withdraw_person(world.home, "alan")
    with pytest.raises(GateClosed, match="2 sets of 120 coins are left, and none"):
        claim(world.ctx, "train-a", True)


def test_who_asks_for_the_training_does_not_draw_its_coins(world: TrainingWorld) -> None:
    draw(world.home, "alan", auditor(world, "alan", "auditor", "engineer"), 1, CANARIES, NOW)
    with pytest.raises(GateClosed, match="E-AUDIT-010"):
        claim(world.context(requested_by="alan"), "train-a", True)
    assert claim(world.ctx, "train-a", True).coins.commitment


def test_only_an_auditor_with_their_own_key_draws(world: TrainingWorld) -> None:
    key, home = auditor(world), world.home
    for name, wrong in (
        ("alan", SigningKey.generate()),
        ("nobody", key),
        ("demo_steward", home.identity("demo_steward")),
        ("privet-pipeline", home.key),
    ):
        with pytest.raises(UsageError, match="E-AUDIT-011"):
            draw(home, name, wrong, 1, CANARIES, NOW)
    for count, canaries in ((0, CANARIES), (1, 5), (10_000, CANARIES)):
        with pytest.raises(UsageError, match="E-AUDIT-012"):
            draw(home, "alan", key, count, canaries, NOW)
    assert sets(home) == []


def test_coins_that_the_pipeline_slipped_in_are_not_taken(world: TrainingWorld) -> None:
    """The trainer holds the pipeline's key, and can write to the journal; it can't sign as an auditor."""
    home, own = world.home, CanaryCoins(np.ones(CANARIES, dtype=np.bool_), bytes(32))
    ref = home.store.put_sealed(canonical_json(opening_of(own)), dataset="audit", path="coins/x", data_class="coins")
    coins._pointer(home, own.commitment).write_bytes(canonical_json(ref.to_json()))
    envelope = coins_envelope(home.key, home.key.public_hex, own.commitment, CANARIES, NOW)
    facts = {"commitment": own.commitment, "canaries": CANARIES, "drawn_by": "alan"}
    home.journal.append(DRAWN, {**facts, "envelope": coins.keep_envelope(home, envelope)})
    with pytest.raises(GateClosed, match="E-AUDIT-010"):
        claim(world.ctx, "train-a", True)


def test_another_sets_coins_in_the_place_of_one_are_refused(world: TrainingWorld) -> None:
    first, second = draw(world.home, "alan", auditor(world), 2, CANARIES, NOW)
    coins._pointer(world.home, first).write_bytes(coins._pointer(world.home, second).read_bytes())
    with pytest.raises(IntegrityError, match="E-AUDIT-013"):
        claim(world.ctx, "train-a", True)


def test_an_auditor_enrolled_past_the_journal_is_nobody(world: TrainingWorld) -> None:
    draw(world.home, "alan", auditor(world), 1, CANARIES, NOW)
    trust = json.loads((world.home.path / "trust.json").read_bytes())
    trust["people"].append(
        {"name": "zed", "public_hex": SigningKey.generate().public_hex, "roles": ["auditor"], "custody": "own"}
    )
    (world.home.path / "trust.json").write_bytes(canonical_json(trust))
    with pytest.raises(IntegrityError, match="E-TRUST-003"):
        claim(world.ctx, "train-a", True)


def test_a_set_is_retired_once(world: TrainingWorld) -> None:
    (commitment,) = draw(world.home, "alan", auditor(world), 1, CANARIES, NOW)
    retire(world.home, commitment)
    retire(world.home, commitment)
    retire(world.home, None)
    with pytest.raises(GateClosed, match="E-AUDIT-010"):
        claim(world.ctx, "train-a", True)


def test_unused_coins_outlive_a_sweep_of_the_store(world: TrainingWorld) -> None:
    draw(world.home, "alan", auditor(world), 1, CANARIES, NOW)
    again = world.context(home=Home.open(world.home.path))
    assert claim(again, "train-a", True).coins.commitment


def test_a_demo_home_draws_by_itself_and_says_so(tmp_path: Path) -> None:
    world = TrainingWorld(tmp_path)
    result = trained(world)
    drawn = open_coins(world.home.store.read_plain(result.manifest.outputs["coins"]), world.home.trust)
    assert (drawn.signer.name, drawn.signer.custody) == ("demo_auditor", "demo")
    verdict = reveal(world, result)
    assert verdict[0] == "passed"
    assert "demo_auditor, a demo identity" in verdict[1]


def test_a_policy_may_leave_the_drawing_to_the_pipeline_and_it_shows(tmp_path: Path) -> None:
    world = TrainingWorld(tmp_path, audit={**SETTINGS["audit"], "coins": "pipeline"})  # type: ignore[dict-item]
    withdraw_person(world.home, "demo_auditor")
    result = trained(world)
    assert sets(world.home) == []
    outcome, reason = reveal(world, result)
    assert outcome == "passed"
    assert "the pipeline drew the coins itself" in reason


def test_the_audit_refuses_coins_that_nobody_else_vouches_for(tmp_path: Path) -> None:
    world = TrainingWorld(tmp_path)
    result = trained(world)
    commitment = str(result.manifest.facts["canary_commitment"])
    home, engineer = world.home, world.home.identity("demo_engineer")
    forged = {
        "E-COINS-002: the pipeline": coins_envelope(home.key, home.key.public_hex, commitment, CANARIES, NOW),
        "E-COINS-002: the requester": coins_envelope(engineer, home.key.public_hex, commitment, CANARIES, NOW),
        "E-COINS-003: the signed": signed_by_auditor(home, "sha256:" + "1" * 64, home.key.public_hex, CANARIES),
        "E-COINS-003: the coins were drawn for another number": signed_by_auditor(home, commitment, home.key.public_hex, 40),
        "E-COINS-003: the coins were drawn for another pipeline": signed_by_auditor(home, commitment, "ab" * 32, CANARIES),
        "E-SIGN-002": coins_envelope(SigningKey.generate(), home.key.public_hex, commitment, CANARIES, NOW),
    }
    for said, envelope in forged.items():
        outcome, reason = reveal(world, result, envelope)
        assert outcome == "failed"
        assert said in reason
    assert reveal(world, result, b"")[0] == "failed"  # no such output at all


def signed_by_auditor(home: Home, commitment: str, pipeline: str, canaries: int) -> bytes:
    return coins_envelope(home.identity("demo_auditor"), pipeline, commitment, canaries, NOW)


def reveal(world: TrainingWorld, result: StageResult, envelope: bytes | None = None) -> tuple[str, str]:
    """The audit's verdict; with another envelope in the place of the run's own (none at all for an empty one)."""
    from dataclasses import replace

    outputs = dict(result.manifest.outputs)
    if envelope is not None:
        outputs.pop("coins")
    if envelope:
        outputs["coins"] = world.home.store.put_plain(envelope, dataset="t", path="coins", data_class="evidence")
    manifest = replace(result.manifest, outputs=outputs)
    claimed = read_claim(world.home.store.read_plain(manifest.outputs["trace"]))
    trail = audit_case._open_trail(world.ctx, manifest, claimed)
    verdict = _reveal_verdict(world.ctx, manifest, result.digest, trail)
    return verdict.outcome, verdict.reason


def test_the_rule_in_words(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home", demo_identities=True)
    own = home.key.public_hex

    def fault(key: SigningKey, mode: str = "auditor", requested_by: str = "demo_engineer") -> str | None:
        drawn = open_coins(coins_envelope(key, own, "sha256:" + "2" * 64, 40, NOW), home.trust)
        return coins_fault(drawn, mode, requested_by, own, 40)  # type: ignore[arg-type]

    audits = home.identity("demo_auditor")
    assert fault(audits) is None
    assert "requester" in str(fault(audits, requested_by="demo_auditor"))
    assert "no auditor" in str(fault(home.identity("demo_steward")))
    assert "itself" in str(fault(home.key))
    assert fault(home.key, "pipeline") is None
    assert "did not" in str(fault(audits, "pipeline"))


def test_a_statement_about_something_else_is_no_statement_about_coins(tmp_path: Path) -> None:
    from privacy.signing import make_statement, seal_envelope

    home = Home.create(tmp_path / "home", demo_identities=True)
    other = seal_envelope(
        make_statement({"coins": "sha256:" + "2" * 64}, "https://privet.dev/predicate/audit/v1", {}), home.key
    )
    with pytest.raises(IntegrityError, match="E-COINS-001"):
        open_coins(other, home.trust)


def test_the_command_draws_and_lists(world: TrainingWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.home import write_key_file

    key, home = auditor(world), ["--home", str(world.home.path)]
    write_key_file(tmp_path / "alan.key", key)
    assert main(["audit", "coins", "--list", *home]) == 0
    assert "privet audit coins --as NAME" in capsys.readouterr().out
    ask = ["audit", "coins", "--as", "alan", "--key", str(tmp_path / "alan.key"), "--count", "3", "--canaries", "120"]
    assert main([*ask, *home]) == 0
    assert "drew 3 sets of 120 coins, signed by alan; 3 are left" in capsys.readouterr().out
    claim(world.ctx, "train-a", True)
    assert main(["audit", "coins", "--list", *home]) == 0
    assert capsys.readouterr().out == "2 unused sets of 120 coins\n"
    assert main(["audit", "coins", "--list", "--json", *home]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["used"] for row in rows] == [True, False, False]
    assert main(["audit", "coins", "--as", "alan", *home]) == 2


def test_a_set_that_another_run_committed_to_is_seen_in_the_bundle(tmp_path: Path) -> None:
    """Two trainings under one commitment: the second could pick its scores after the first was revealed."""
    from tests.worlds.release_world import COINS_COMMITMENT, World

    world = World(tmp_path)
    run_stage(world.ctx, "aside", {}, lambda: StageOutput({}))  # the run's entries begin here
    world.home.journal.append(USED, {"run": "run-1", "ledger_key": "train-0", "commitment": COINS_COMMITMENT})
    rows = {row.claim: row for row in verified(world, tmp_path)}
    row = rows["canary coins committed before training"]
    assert (row.outcome, row.code) == ("failed", "E-COINS-005")


def verified(world: object, path: Path) -> tuple[object, ...]:
    from pipeline.verify import verify_bundle
    from tests.worlds.bad_bundles import honest_votes
    from tests.worlds.release_world import World

    assert isinstance(world, World)
    world.run()
    folder = world.force_bundle(path / "bundle", lambda files: honest_votes(world, files))
    return verify_bundle(folder, world.trust, world.now).rows
