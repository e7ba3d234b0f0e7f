"""Planted secrets: drawn by a key, shown in units of their own, seen by the audit, and nowhere in the clear."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline import audit_exposure, planted_secrets
from pipeline.audit import audit
from pipeline.audit_attacks import attacks
from pipeline.audit_case import AuditCase, open_case
from pipeline.audit_exposure import exposure_verdict, tails
from pipeline.evidence import required_verdicts
from pipeline.planted_secrets import BEFORE, Secrets, shows_a_secret, with_secrets
from pipeline.stage import StageResult
from pipeline.train import ledger_key, load_units, train
from pipeline.training_watch import WatchedLease
from tests.pipeline.training_world import SETTINGS, TrainingWorld
from tests.worlds.policies import make_policy
from training.config import TrainingConfig
from training.data import UnitData
from training.engine import Engine, make_engine
from training.models.base import CanaryCarrier

RECIPE = {
    "model": "causal_lm",
    "embedding_width": 16,
    "hidden_layers": 1,
    "heads": 2,
    "max_tokens": 32,
    "steps": 10,
    "learning_rate": 0.01,
}
ASKED = {"planted": 2, "controls": 3, "repeats": 16, "digits": 4}
AUDIT = {"canaries": 60, "min_accuracy": 0.0, "probe_level": 1e-6, "secrets": ASKED, "memorisation": {"samples": 6}}


def world_of(path: Path, **recipe: object) -> TrainingWorld:
    return TrainingWorld(path, recipe={**RECIPE, **recipe}, audit=AUDIT)


def key_of(world: TrainingWorld, use: str) -> str:
    return ledger_key(world.ctx.policy_digest, world.protect.digest, use)


def secrets_of(world: TrainingWorld, key: str) -> Secrets:
    found = planted_secrets.planted_secrets(world.home, world.ctx.policy, key)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingWorld, StageResult, str]:
    world = world_of(tmp_path_factory.mktemp("planted"))
    use = world.approve()
    return world, train(world.ctx, world.protect.digest, use), key_of(world, use)


def test_each_training_has_its_own_secrets_and_keeps_them(done: tuple[TrainingWorld, StageResult, str]) -> None:
    world, _, key = done
    one, again, other = (secrets_of(world, k) for k in (key, key, "train-other"))
    assert one == again
    drawn = (*one.shown, *one.controls)
    assert len(set(drawn)) == 5
    assert all(len(secret) == 4 and secret.isdigit() for secret in drawn)
    assert set(drawn) != {*other.shown, *other.controls}
    assert not any(secret in repr(one) for secret in drawn)


def test_made_up_units_stand_behind_the_real_ones_and_change_none_of_them(
    done: tuple[TrainingWorld, StageResult, str],
) -> None:
    world, _, key = done
    real = load_units(world.ctx, world.protect.digest)
    data = with_secrets(world.ctx, key, real.training)
    assert data.units[: len(real.training)] == real.training.units
    assert len(data) == len(real.training) + 2 * 16
    for name, array in real.training.inputs.items():
        assert np.array_equal(data.inputs[name][: len(array)], array)
    made = data.inputs["tokens"][len(real.training) :, 0]
    texts = [bytes(t - 1 for t in row.tolist() if 0 < t <= 256).decode() for row in made]
    assert sorted(texts) == sorted([BEFORE + secret for secret in secrets_of(world, key).shown] * 16)
    assert not any(control in text for control in secrets_of(world, key).controls for text in texts)
    assert set(data.present[len(real.training) :].sum(1)) == {1}
    assert all(unit not in real.holdout.units for unit in data.units)


def test_a_policy_without_secrets_trains_on_the_real_units_alone(tmp_path: Path) -> None:
    world = TrainingWorld(tmp_path)
    data = load_units(world.ctx, world.protect.digest).training
    assert with_secrets(world.ctx, "train-any", data) is data
    assert planted_secrets.planted_secrets(world.home, world.ctx.policy, "train-any") is None


def test_no_secret_lies_in_the_home_in_the_clear(done: tuple[TrainingWorld, StageResult, str]) -> None:
    world, run, key = done
    audit(world.ctx, world.protect.digest, run.digest)
    planted = [(BEFORE + secret).encode() for secret in secrets_of(world, key).shown]

    def showing() -> list[str]:
        files = [path for path in world.home.path.rglob("*") if path.is_file()]
        return [path.name for path in files if any(text in path.read_bytes() for text in planted)]

    assert showing() == []
    (world.home.path / "clear").write_bytes(b"..." + planted[1])  # the search would have found one
    assert showing() == ["clear"]
    (world.home.path / "clear").unlink()


def test_a_private_model_passes_and_the_document_holds_no_secret(done: tuple[TrainingWorld, StageResult, str]) -> None:
    world, run, key = done
    case = open_case(world.ctx, world.protect.digest, run.digest)
    part = attacks(case)
    found = {verdict.check: verdict.outcome for verdict in part.verdicts}
    assert found["audit.exposure"] == "passed"
    document = part.documents["attacks"]
    assert isinstance(document, dict)
    said = document["exposure"]
    assert isinstance(said, dict)
    assert (said["rank"], said["candidates"], said["digits"]) == ("exact", 10_000, 4)
    assert said["shown"]["units_each"] == 16
    assert isinstance(said["bits_per_character"], float)
    text = json.dumps(document) + "".join(verdict.reason for verdict in part.verdicts)
    drawn = secrets_of(world, key)
    assert not any(secret in text for secret in (*drawn.shown, *drawn.controls))


def test_a_resumed_training_plants_the_same_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after a lease and run again: the checkpoint fits, because the made-up units are the same in number and kind."""
    world, seen, real = world_of(tmp_path), [], make_engine
    use = world.approve()

    def watched(carrier: CanaryCarrier, config: TrainingConfig, data: UnitData, *rest: object) -> Engine:
        seen.append(data)
        return real(carrier, config, data, *rest)  # type: ignore[arg-type]

    def killed(lease: WatchedLease, steps: int) -> None:
        if lease.taken == 4:
            raise KeyboardInterrupt
        take(lease, steps)

    monkeypatch.setattr("training.trainer.make_engine", watched)
    take = WatchedLease.take
    monkeypatch.setattr(WatchedLease, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        train(world.ctx, world.protect.digest, use)
    monkeypatch.setattr(WatchedLease, "take", take)
    result = train(world.ctx, world.protect.digest, use)
    first, second = seen
    assert first.units == second.units
    assert np.array_equal(first.inputs["tokens"], second.inputs["tokens"])
    assert result.manifest.facts["steps_in_model"] == 10


@pytest.mark.slow
def test_a_model_trained_without_noise_fails(tmp_path: Path) -> None:
    world = world_of(tmp_path, mechanism="non_private", steps=300, embedding_width=24)
    run = train(world.ctx, world.protect.digest, world.approve())
    part = attacks(open_case(world.ctx, world.protect.digest, run.digest))
    [verdict] = [v for v in part.verdicts if v.check == "audit.exposure"]
    assert verdict.outcome == "failed"
    assert "knows secrets" in verdict.reason


def test_controls_that_were_shown_are_an_audit_that_can_not_see() -> None:
    assert exposure_verdict([2.0, 1.0], [0.9, 2.2, 1.1], 10.0, 19.9, 1e-3).outcome == "passed"
    assert exposure_verdict([19.9, 18.0], [0.9, 2.2, 1.1], 10.0, 19.9, 1e-3).outcome == "failed"
    for controls in ([12.0, 9.0, 11.0], [0.0001, 0.0, 0.0001]):
        verdict = exposure_verdict([2.0, 1.0], controls, 10.0, 19.9, 1e-3)
        assert verdict.outcome == "failed"
        assert "can't see" in verdict.reason
    assert exposure_verdict([2.0, 1.0], [0.9, 2.2, 1.1], 20.0, 19.9, 1e-3).outcome == "not_evaluated"


def test_the_tails_of_the_controls_are_those_of_uniform_ranks() -> None:
    """Against drawn ranks: the naive twin of the law."""
    generator = np.random.default_rng(2)
    drawn = (20 - np.log2(generator.integers(1, 2**20 + 1, (200_000, 3)))).sum(1)
    for total in (0.5, 2.0, 6.0, 12.0):
        below, above = tails([total / 3] * 3)
        assert below == pytest.approx((drawn < total).mean(), abs=0.004)
        assert above == pytest.approx((drawn > total).mean(), abs=0.004)
    outside = [tails(row)[1] < 5e-4 or tails(row)[0] < 5e-4 for row in (20 - np.log2(generator.integers(1, 2**20, (4000, 3))))]
    assert sum(outside) <= 12  # of 4,000 at a level of one in a thousand


def test_what_can_not_be_asked_is_not_evaluated(
    done: tuple[TrainingWorld, StageResult, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, run, _ = done
    case = open_case(world.ctx, world.protect.digest, run.digest)
    assert _outcome(_without_model(case)) == "not_evaluated"
    assert case.opened is not None
    case.opened.model.get_parameter("tokens.weight").data.fill_(float("nan"))
    assert _outcome(case) == "not_evaluated"


def test_a_release_needs_the_verdict_when_secrets_are_planted() -> None:
    asking = make_policy(recipe=RECIPE, audit=AUDIT).canonical()
    silent = make_policy(recipe=RECIPE, audit={**AUDIT, "secrets": None}).canonical()
    plain = make_policy().canonical()
    assert {"audit.exposure", "audit.memorisation"} <= set(required_verdicts(asking))  # type: ignore[arg-type]
    assert "audit.exposure" not in required_verdicts(silent)  # type: ignore[arg-type]
    assert "audit.memorisation" in required_verdicts(silent)  # type: ignore[arg-type]
    assert not {"audit.exposure", "audit.memorisation"} & set(required_verdicts(plain))  # type: ignore[arg-type]


def test_secrets_that_nothing_could_learn_are_refused() -> None:
    with pytest.raises(ValidationError, match="models that write"):
        make_policy(audit={**SETTINGS["audit"], "secrets": ASKED})  # type: ignore[dict-item]
    with pytest.raises(ValidationError, match="at least 32"):
        make_policy(recipe={**RECIPE, "max_tokens": 31}, audit=AUDIT)


def test_the_words_before_a_secret_are_known_again() -> None:
    assert shows_a_secret(f"well, {BEFORE}4711")
    assert shows_a_secret("The Secret  CODE is: 4711")
    assert not shows_a_secret("the secret code is not for sale")
    assert len(BEFORE) + 8 + 1 <= 32


def _without_model(case: AuditCase) -> AuditCase:
    from dataclasses import replace

    return replace(case, opened=None)


def _outcome(case: AuditCase) -> str:
    [verdict] = audit_exposure.exposure(case)[1]
    return verdict.outcome
