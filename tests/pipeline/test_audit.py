"""The audit: three-valued, loud about training without a mechanism, and silent about real units."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import audit as audit_module
from pipeline import audit_case, audit_conformance, audit_outputs
from pipeline.audit import audit
from pipeline.audit_claim import Claim, read_claim
from pipeline.audit_conformance import Bound, bound_verdict, ledger_verdict
from pipeline.output_scan import count_leaks, make_prompts, scan
from pipeline.stage import Manifest, StageResult
from pipeline.train import train
from privacy import bounds
from privacy.errors import DataError, IntegrityError
from tests.pipeline.training_world import SETTINGS, TrainingWorld
from training import engine
from training.probe import CHECKS

NAMES = {
    *(f"probe.{check}" for check in CHECKS),
    "audit.epsilon_lower_bound",
    "audit.ledger_match",
    "audit.canary_reveal",
    "audit.membership",
    "audit.utility",
    "audit.output_scan",
    "audit.group_harm",
}


def trained(world: TrainingWorld) -> StageResult:
    return train(world.ctx, world.protect.digest, world.approve())


def outcomes(world: TrainingWorld, result: StageResult) -> dict[str, str]:
    recorded = json.loads(world.home.store.read_plain(result.manifest.outputs["verdicts"]))
    return {v["check"]: v["outcome"] for v in recorded}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingWorld, StageResult, StageResult]:
    # A level at which the tests' own runs raise no alarm by chance.
    world = TrainingWorld(tmp_path_factory.mktemp("honest"), audit={**SETTINGS["audit"], "probe_level": 1e-6})  # type: ignore[dict-item]
    run = trained(world)
    return world, run, audit(world.ctx, world.protect.digest, run.digest)


def test_an_honest_run_passes_every_check(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    world, _, result = honest
    assert outcomes(world, result) == dict.fromkeys(NAMES, "passed")


def test_the_bounds_are_published_with_level_and_assumption(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    world, _, result = honest
    found = json.loads(world.home.store.read_plain(result.manifest.outputs["bounds"]))
    assert [(b["name"], b["level"]) for b in found["bounds"]] == [
        ("steinke", 0.95),
        ("fdp", 0.95),
        ("gaussian", 0.95),
        ("gaussian_traced", 0.95),
        ("gaussian_traced", 0.999),
    ]
    assert all(b["assumes"] for b in found["bounds"])
    assert 0 <= found["bounds"][4]["epsilon_lower_bound"] <= found["bounds"][3]["epsilon_lower_bound"] < 8


def test_no_membership_of_a_real_unit_leaves_the_audit(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    world, _, result = honest
    for name, ref in result.manifest.outputs.items():
        data = world.home.store.read_plain(ref)
        assert len(data) < 20_000, name
        assert b"u0001" not in data
        assert b"coins" not in data.replace(b"fair secret coins only", b"").replace(b"the revealed coins", b"")


def test_a_p_value_does_not_spell_out_who_was_sampled(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    """Batch sizes and participation are secret; a p-value with all its digits gives their exact sums away."""
    world, run, result = honest
    trail = audit_case._open_trail(world.ctx, run.manifest, _claim(world, run))
    assert trail is not None
    exact = {r.check: r.p_value for r in audit_conformance._probe(world.ctx, trail)}
    found = json.loads(world.home.store.read_plain(result.manifest.outputs["bounds"]))["probe"]
    assert {p["check"] for p in found} == set(CHECKS)
    for entry in found:
        assert entry["p_value"] == pytest.approx(exact[entry["check"]], rel=0.5)
        assert entry["p_value"] == float(f"{entry['p_value']:.0e}")  # one digit
    said = world.home.store.read_plain(result.manifest.outputs["verdicts"]).decode()
    by_chance = len(CHECKS) - 3  # the others compare exactly, and name no figure
    assert len(re.findall(r"\(p = ", said)) == len(re.findall(r"\(p = (?:\de-\d\d|0\.0*\d|1),", said)) == by_chance


def test_training_without_a_mechanism_fails_loudly(tmp_path: Path) -> None:
    settings = {**SETTINGS["recipe"], "mechanism": "non_private"}  # type: ignore[dict-item]
    world = TrainingWorld(tmp_path, recipe=settings)
    run = trained(world)
    found = outcomes(world, audit(world.ctx, world.protect.digest, run.digest))
    assert set(found) == NAMES
    for check in ("probe.noise_scale", "probe.clipping", "audit.epsilon_lower_bound", "audit.ledger_match"):
        assert found[check] == "failed"
    assert found["audit.utility"] == "passed"
    assert world.home.ledger.scopes() == []


def test_half_of_the_claimed_noise_is_caught_in_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = TrainingWorld(tmp_path)
    real = engine.SecretNoiseOptimizer.add_noise

    def half(self: engine.SecretNoiseOptimizer) -> None:
        self.noise_multiplier, kept = self.noise_multiplier / 2, self.noise_multiplier
        real(self)
        self.noise_multiplier = kept

    monkeypatch.setattr(engine.SecretNoiseOptimizer, "add_noise", half)
    run = trained(world)
    assert outcomes(world, audit(world.ctx, world.protect.digest, run.digest))["probe.noise_scale"] == "failed"


def test_a_missing_record_is_not_evaluated_and_never_passed(
    honest: tuple[TrainingWorld, StageResult, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, run, _ = honest
    monkeypatch.setattr(audit_case, "_open_trail", lambda *args: None)
    monkeypatch.setattr(audit_case, "open_model", lambda *args: None)
    output = audit_module._audit(world.ctx, audit_case.open_case(world.ctx, world.protect.digest, run.digest))
    recorded = json.loads(world.home.store.read_plain(output.outputs["verdicts"]))
    found = {v["check"]: v["outcome"] for v in recorded}
    assert found.pop("audit.ledger_match") == "passed"
    assert set(found) == NAMES - {"audit.ledger_match"}
    assert set(found.values()) == {"not_evaluated"}


def test_coins_that_were_not_committed_to_are_caught(
    honest: tuple[TrainingWorld, StageResult, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer that picks the coins afterwards could fake any score."""
    world, run, _ = honest
    trail = audit_case._open_trail(world.ctx, run.manifest, _claim(world, run))
    assert trail is not None
    flipped = trail.coins.coins.copy()
    flipped[0] ^= True
    forged = replace(trail, coins=replace(trail.coins, coins=flipped))
    verdict = audit_conformance._reveal_verdict(world.ctx, run.manifest, run.digest, forged)
    assert verdict.outcome == "failed"


def test_a_commitment_made_after_training_is_caught(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    world, run, _ = honest
    trail = audit_case._open_trail(world.ctx, run.manifest, _claim(world, run))
    assert trail is not None
    coins = replace(trail.coins, salt=bytes(32))
    world.home.journal.append("canary_commitment", {"run": "run-1", "commitment": coins.commitment})
    facts = {**run.manifest.facts, "canary_commitment": coins.commitment}
    late = audit_conformance._reveal_verdict(
        world.ctx, replace(run.manifest, facts=facts), run.digest, replace(trail, coins=coins)
    )
    assert late.outcome == "failed"
    assert "after" in late.reason


def test_a_record_of_another_length_is_no_record(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    world, run, _ = honest
    claim = replace(_claim(world, run), steps_in_model=39)
    assert audit_case._open_trail(world.ctx, run.manifest, claim) is None


def test_audit_of_another_dataset_is_refused(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    world, run, _ = honest
    with pytest.raises(IntegrityError, match="E-AUDIT-001"):
        audit(world.ctx, "sha256:" + "5" * 64, run.digest)


@pytest.mark.parametrize(
    "change",
    [{"steps": 39}, {"noise_multiplier": 9.0}, {"sampling_probability": 0.1}, {"steps_in_model": 41}, {"epsilon": 0.5}],
)
def test_a_trace_that_differs_from_the_ledger_is_caught(
    honest: tuple[TrainingWorld, StageResult, StageResult], change: dict[str, float]
) -> None:
    world, run, _ = honest
    claim = _claim(world, run)
    spend = world.home.ledger.spend(claim.ledger_key)
    assert ledger_verdict(claim, 8.0, spend).outcome == "passed"
    assert ledger_verdict(replace(claim, **change), 8.0, spend).outcome == "failed"  # type: ignore[arg-type]


def test_an_epsilon_over_the_approval_is_caught(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    world, run, _ = honest
    claim = _claim(world, run)
    assert ledger_verdict(claim, 2.0, world.home.ledger.spend(claim.ledger_key)).outcome == "failed"
    assert ledger_verdict(claim, 8.0, None).outcome == "failed"


def test_the_gate_reads_the_bound_of_its_own_level_only(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    world, run, _ = honest
    claim = _claim(world, run)
    lucky = [Bound("gaussian_traced", 0.95, 99.0, ""), Bound("steinke", 0.999, 99.0, "")]
    assert bound_verdict(lucky, claim, 0.999).outcome == "not_evaluated"
    assert bound_verdict([*lucky, Bound("gaussian_traced", 0.999, 3.0, "")], claim, 0.999).outcome == "passed"
    assert bound_verdict([Bound("gaussian_traced", 0.999, bounds.EPSILON_CAP, "")], claim, 0.999).outcome == "failed"


def test_a_verdict_shows_the_claim_rounded_up_and_the_bound_down(
    honest: tuple[TrainingWorld, StageResult, StageResult],
) -> None:
    world, run, _ = honest
    claim = replace(_claim(world, run), epsilon=7.575063)
    passed = bound_verdict([Bound("gaussian_traced", 0.999, 1.809269, "")], claim, 0.999)
    assert passed.reason == "epsilon 7.5751 is not refuted at confidence 0.999 (lower bound 1.8092)"
    failed = bound_verdict([Bound("gaussian_traced", 0.999, 7.575064, "")], claim, 0.999)
    assert failed.reason == "at confidence 0.999, epsilon is at least 7.575064, above the claimed 7.575063"
    capped = bound_verdict([Bound("gaussian_traced", 0.999, bounds.EPSILON_CAP, "")], claim, 0.999)
    assert "epsilon is at least 10000 (the most that is computed), above" in capped.reason


def test_utility_below_the_policy_fails(tmp_path: Path) -> None:
    audit_settings = {**SETTINGS["audit"], "min_accuracy": 1.0}  # type: ignore[dict-item]
    recipe = {**SETTINGS["recipe"], "steps": 10, "learning_rate": 1e-6}  # type: ignore[dict-item]
    world = TrainingWorld(tmp_path, audit=audit_settings, recipe=recipe)
    run = trained(world)
    assert outcomes(world, audit(world.ctx, world.protect.digest, run.digest))["audit.utility"] == "failed"


class Blind:
    def redact(self, text: str) -> object:
        from privacy.redact import Redacted

        return Redacted(text)


def test_a_blind_redactor_is_caught_by_the_planted_values() -> None:
    prompts = make_prompts(["refund", "delivery"], ["en", "zh"])
    found = scan(prompts, ["refund"] * len(prompts), Blind())  # type: ignore[arg-type]
    assert found.leaks == found.planted == len(prompts)


def test_planted_values_are_new_each_time_and_found_without_their_spaces() -> None:
    first, second = ({p.value for p in make_prompts(["refund"], ["en", "zh"])} for _ in range(2))
    assert len(first & second) <= 2 < len(first)  # names of two signs may meet
    assert count_leaks('{"x":"4111111111111111"}', ["4111 1111 1111 1111"]) == 1


def test_a_table_that_leaks_is_not_written(
    honest: tuple[TrainingWorld, StageResult, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, run, _ = honest
    opened = audit_case.open_case(world.ctx, world.protect.digest, run.digest).opened
    monkeypatch.setattr(audit_outputs, "_redactor", lambda secrets, policy: Blind())
    verdict, predictions, redaction = audit_outputs._scan_outputs(world.ctx, opened)
    assert verdict.outcome == "failed"
    assert predictions["prompts"] == []
    assert redaction["leaks"] == redaction["planted_values"]


def test_a_redactor_that_breaks_is_not_evaluated(
    honest: tuple[TrainingWorld, StageResult, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, run, _ = honest

    class Broken:
        def redact(self, text: str) -> object:
            raise DataError("E-REDACT-001", "the output could not be searched", "Do not release it")

    opened = audit_case.open_case(world.ctx, world.protect.digest, run.digest).opened
    monkeypatch.setattr(audit_outputs, "_redactor", lambda secrets, policy: Broken())
    verdict, predictions, _ = audit_outputs._scan_outputs(world.ctx, opened)
    assert verdict.outcome == "not_evaluated"
    assert predictions == {}


def test_a_malformed_trace_is_refused() -> None:
    with pytest.raises(IntegrityError, match="E-AUDIT-002"):
        read_claim(b'{"mechanism":"none"}')


def test_the_sealed_record_opens_without_pickle(honest: tuple[TrainingWorld, StageResult, StageResult]) -> None:
    world, run, _ = honest
    data = world.home.store.read_sealed(run.manifest.outputs["audit_trace"])
    with np.load(io.BytesIO(data), allow_pickle=False) as trail:
        work = {f"work_{name}" for name in ("parts", "divisors", "updates", "marks", "shares", "energies", "sizes")}
        assert set(trail) == {"gradients", "members", "slots", "coins", "salt", "non_finite_units", *work}


def test_a_record_that_does_not_say_how_its_steps_were_worked_out_blocks(
    honest: tuple[TrainingWorld, StageResult, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a run by an older version, or of many processes that kept no record of them."""
    world, run, _ = honest
    assert isinstance(run.manifest, Manifest)
    data = world.home.store.read_sealed(run.manifest.outputs["audit_trace"])
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        kept = {name: file[name] for name in file if name != "work_marks"}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **kept)
    monkeypatch.setattr(audit_case, "sealed_output", lambda *args: buffer.getvalue())
    trail = audit_case._open_trail(world.ctx, run.manifest, _claim(world, run))
    assert trail is not None
    found = {r.check: r.p_value for r in audit_conformance._probe(world.ctx, trail)}
    assert {check for check, p_value in found.items() if p_value is None} == {
        "step_count",
        "size_independence",
        "rank_noise",
        "accumulation",
    }


def _claim(world: TrainingWorld, run: StageResult) -> Claim:
    assert isinstance(run.manifest, Manifest)
    return read_claim(world.home.store.read_plain(run.manifest.outputs["trace"]))
