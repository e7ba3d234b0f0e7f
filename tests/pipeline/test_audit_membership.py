"""The membership part of the audit: aggregates only, a verdict that can fail, and nothing about few units."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import audit_membership
from pipeline.audit_case import AuditCase, open_case
from pipeline.audit_membership import membership
from pipeline.evidence import required_verdicts
from pipeline.train import train
from privacy.canonical import canonical_json
from tests.pipeline.training_world import SETTINGS, TrainingWorld
from training import membership as attacks


def case_of(world: TrainingWorld) -> AuditCase:
    run = train(world.ctx, world.protect.digest, world.approve())
    return open_case(world.ctx, world.protect.digest, run.digest)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> AuditCase:
    return case_of(TrainingWorld(tmp_path_factory.mktemp("membership")))


def with_policy(case: AuditCase, **changes: object) -> AuditCase:
    """The same run, judged by other words of the policy."""
    asked = case.ctx.policy.audit.membership.model_copy(update=changes)
    audit = case.ctx.policy.audit.model_copy(update={"membership": asked})
    policy = case.ctx.policy.model_copy(update={"audit": audit})
    return replace(case, ctx=replace(case.ctx, policy=policy))


def leaking(monkeypatch: pytest.MonkeyPatch, case: AuditCase) -> None:
    """A model whose loss says who was a member."""
    assert case.opened is not None
    members = set(case.opened.training.units)

    def told(model: object, data: object) -> np.ndarray:
        return np.array([0.01 * n if unit in members else 5 + 0.01 * n for n, unit in enumerate(data.units)])  # type: ignore[attr-defined]

    monkeypatch.setattr(attacks, "unit_losses", told)


def test_a_private_model_passes_and_the_document_holds_aggregates(honest: AuditCase) -> None:
    name, (verdict,), document = membership(honest)
    assert (name, verdict.check, verdict.outcome) == ("membership", "audit.membership", "passed")
    assert "not refuted at confidence 0.999" in verdict.reason
    assert "proves nothing" in verdict.reason
    assert isinstance(document, dict)
    assert "outside the privacy claim" in str(document["protection"])
    (found,) = document["attacks"]  # type: ignore[misc]
    assert found["attack"] == "loss"
    assert [rate["fpr"] for rate in found["tpr_at_fpr"]] == [0.001, 0.01]
    low, high = found["auc_interval"]
    assert 0 <= low <= found["auc"] <= high <= 1
    shares = [found["auc"], low, high, *(share for _, share in found["roc"])]
    assert all(round(share * 100, 6) == round(share * 100) for share in shares)
    said = canonical_json(document)
    assert len(said) < 3000
    assert b"u0001" not in said
    # Nothing as long as the units: no score of anybody.
    assert honest.opened is not None
    assert max(len(v) for v in (found["roc"], found["tpr_at_fpr"])) < len(honest.opened.holdout) / 3


def test_every_policy_needs_this_verdict(honest: AuditCase) -> None:
    assert "audit.membership" in required_verdicts(honest.ctx.policy.canonical())  # type: ignore[arg-type]


def test_a_model_that_tells_who_taught_it_is_refused(honest: AuditCase, monkeypatch: pytest.MonkeyPatch) -> None:
    leaking(monkeypatch, honest)
    claimed = replace(honest, claim=replace(honest.claim, epsilon=0.5))
    _, (verdict,), document = membership(claimed)
    assert verdict.outcome == "failed"
    assert "above the claimed 0.5" in verdict.reason
    assert document["attacks"][0]["auc"] == 1.0  # type: ignore[index,call-overload]
    assert document["attacks"][0]["epsilon_lower_bound"] > 0.5  # type: ignore[index,call-overload]


def test_too_many_members_found_are_refused_though_no_bound_refutes_the_claim(
    honest: AuditCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaking(monkeypatch, honest)
    boundless = replace(honest, claim=replace(honest.claim, epsilon=1e6))
    _, (blind,), _ = membership(with_policy(boundless, max_tpr=1.0))
    assert blind.outcome == "not_evaluated"  # nothing that the attack could find would refute this claim
    assert "always right" in blind.reason
    _, (verdict,), _ = membership(with_policy(boundless, max_tpr=0.2))
    assert verdict.outcome == "failed"
    assert "finds more than 0.2 of the members" in verdict.reason


def test_a_few_lucky_finds_are_no_refusal(honest: AuditCase) -> None:
    assert membership(with_policy(honest, max_tpr=0.25))[1][0].outcome == "passed"


def test_nothing_is_said_about_few_units(honest: AuditCase) -> None:
    outputs = honest.ctx.policy.outputs.model_copy(update={"min_subjects": 100})
    few = replace(honest, ctx=replace(honest.ctx, policy=honest.ctx.policy.model_copy(update={"outputs": outputs})))
    _, (verdict,), document = membership(few)
    assert verdict.outcome == "not_evaluated"
    assert set(document) == {"withheld"}  # type: ignore[arg-type]


def test_without_a_model_nothing_passes(honest: AuditCase) -> None:
    assert membership(replace(honest, opened=None))[1][0].outcome == "not_evaluated"


def test_losses_that_are_no_numbers_are_no_members(honest: AuditCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "unit_losses", lambda model, data: np.where(np.arange(len(data)) % 3, 1.0, np.nan))
    assert membership(honest)[1][0].outcome == "passed"


@pytest.mark.slow
def test_shadows_are_trained_as_the_run_was_and_leave_no_trace(tmp_path: Path) -> None:
    asked = {**SETTINGS["audit"], "membership": {"attacks": ["loss", "lira", "rmia"], "shadows": 4}}  # type: ignore[dict-item]
    world = TrainingWorld(tmp_path, audit=asked)
    case = case_of(world)
    before, spent = world.home.journal.entries(), world.home.ledger.spend(case.claim.ledger_key)
    objects = {p.name for p in (world.home.path / "objects").rglob("*") if p.is_file()}
    name, (verdict,), document = membership(case)
    assert name == "membership"
    assert verdict.outcome == "passed"
    assert [one["attack"] for one in document["attacks"]] == ["loss", "lira", "rmia"]  # type: ignore[index,call-overload,union-attr]
    assert document["shadows"]["models"] == 4  # type: ignore[index,call-overload]
    assert world.home.journal.entries() == before
    assert world.home.ledger.spend(case.claim.ledger_key) == spent
    assert {p.name for p in (world.home.path / "objects").rglob("*") if p.is_file()} == objects


def test_the_level_of_the_gate_is_shared_among_the_attacks(honest: AuditCase, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[float] = []
    real = attacks.epsilon_lower_bound

    def seen(*args: object, **more: object) -> float:
        levels.append(float(args[4]))  # type: ignore[arg-type]
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(attacks, "epsilon_lower_bound", seen)
    monkeypatch.setattr(audit_membership, "_shadows", lambda case, opened: shadows_of(case))
    membership(with_policy(honest, attacks=("loss", "lira", "rmia"), shadows=4))
    assert levels == [pytest.approx(1 - 0.001 / 6)] * 6  # and what an attack that is always right would show


def shadows_of(case: AuditCase) -> attacks.Shadows:
    assert case.opened is not None
    count = len(attacks.joined(case.opened.training, case.opened.holdout))
    rng = np.random.default_rng(0)
    return attacks.Shadows(rng.exponential(1.0, (4, count)), rng.random((4, count)) < 0.5)


def test_the_document_is_plain_json(honest: AuditCase) -> None:
    assert json.loads(canonical_json(membership(honest)[2]))["gate_level"] == 0.999
