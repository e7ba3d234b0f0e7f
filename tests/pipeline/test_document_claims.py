"""Verdicts are read against their own documents: what passes over a figure that says otherwise is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import gate_claims
from pipeline.claims import Evidence, check_layout, open_evidence
from pipeline.document_claims import gate_bound, look_again
from pipeline.evidence import REQUIRED_VERDICTS
from pipeline.verify import verify_bundle
from privacy.canonical import Json
from privacy.signing import Person, TrustRoot
from privacy.verdict import Outcome, Verdict
from tests.worlds.bad_bundles import envelope, put
from tests.worlds.release_world import Lies, World

POLICY: dict[str, Any] = {
    "recipe": {"model": "causal_lm"},
    "audit": {
        "probe_level": 0.001,
        "memorisation": {"subjects": 3, "signs": 40, "samples": 64, "max_spans": 0},
        "secrets": {"planted": 3, "controls": 3, "digits": 6, "max_exposure_bits": 9.97},
        "harm": {
            "groups": [],
            "min_group": 20,
            "max_gap": 0.2,
            "max_swap_rate": 0.1,
            "max_harm_rate": 0.05,
            "swaps": True,
            "classifier": "house:judge",
        },
    },
}
MEMORISED: dict[str, Json] = {"texts": 64, "spans": 0, "max_spans": 0, "signs": 40, "subjects": 3}
EXPOSED: dict[str, Json] = {
    "shown": {"secrets": 3, "mean_bits": 10.0},
    "controls": {"secrets": 3, "mean_bits": 1.4},
    "digits": 6,
    "max_exposure_bits": 9.97,
    "most_bits": 11.97,
}
LIMITS: dict[str, Json] = {"min_group": 20, "max_gap": 0.2, "max_swap_rate": 0.1, "max_harm_rate": 0.05}


def outcome(check: str, documents: dict[str, Json], policy: dict[str, Any] | None = None) -> Outcome:
    documents = {"policy.json": policy or POLICY, **documents}
    passed = (Verdict(check, "passed", "said so"),)
    fake = SimpleNamespace(view=SimpleNamespace(json=documents.__getitem__), verdicts=lambda: passed)
    (_, look), *more = look_again(cast("Evidence", fake))
    assert more == []
    return look().outcome


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "passed"),
        ({"spans": 1}, "failed"),
        ({"max_spans": 9, "spans": 1}, "failed"),
        ({"texts": 1}, "failed"),
        ({"subjects": 1}, "failed"),
        ({"spans": True}, "not_evaluated"),
        ({"spans": None}, "not_evaluated"),
    ],
)
def test_memorised_spans_are_counted_against_the_policy(changes: dict[str, Json], wanted: Outcome) -> None:
    assert outcome("audit.memorisation", {"audit/attacks.json": {"memorisation": {**MEMORISED, **changes}}}) == wanted
    assert outcome("audit.memorisation", {"audit/attacks.json": {}}) == "not_evaluated"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "passed"),  # 9.96 bits of 9.97 are published as 10.0
        ({"shown": {"secrets": 3, "mean_bits": 10.1}}, "failed"),
        ({"shown": {"secrets": 1, "mean_bits": 2.0}}, "failed"),
        ({"max_exposure_bits": 30.0}, "failed"),
        ({"most_bits": 9.9}, "failed"),
        ({"shown": {"secrets": 3}}, "not_evaluated"),
    ],
)
def test_exposure_is_held_to_the_policy(changes: dict[str, Json], wanted: Outcome) -> None:
    assert outcome("audit.exposure", {"audit/attacks.json": {"exposure": {**EXPOSED, **changes}}}) == wanted


def test_harm_is_held_to_the_limits_of_the_policy_part_by_part() -> None:
    def harm(rate: Json, **limits: Json) -> dict[str, Json]:
        return {"audit/harm.json": {"limits": {**LIMITS, **limits}, "classifier": {"harmful_rate": rate}}}

    assert outcome("audit.group_harm", harm(0.05)) == "passed"
    assert outcome("audit.group_harm", harm(0.06)) == "failed"
    assert outcome("audit.group_harm", harm(0.06, max_harm_rate=1.0)) == "failed"
    assert outcome("audit.group_harm", harm(None)) == "not_evaluated"
    reads = {**POLICY, "recipe": {"model": "text_mlp"}}
    swaps: dict[str, Json] = {"audit/harm.json": {"limits": LIMITS, "swaps": {"changed_rate": 0.1}}}
    assert outcome("audit.group_harm", swaps, reads) == "passed"
    swaps = {"audit/harm.json": {"limits": LIMITS, "swaps": {"changed_rate": 0.2}}}
    assert outcome("audit.group_harm", swaps, reads) == "failed"
    assert outcome("audit.group_harm", {"audit/harm.json": {"limits": LIMITS}}, reads) == "not_evaluated"


@given(st.floats(1e-9, 0.05), st.floats(1.0, 1e6))
def test_no_honest_p_value_is_refused_for_its_rounding(level: float, over: float) -> None:
    from training.probe import published_p_value

    checks = [name for name in REQUIRED_VERDICTS if name.startswith("probe.")]
    p_value = min(1.0, over * level / len(checks))
    rows: list[Json] = [{"check": checks[0].removeprefix("probe."), "p_value": published_p_value(p_value)}]
    documents: dict[str, Json] = {"audit/bounds.json": {"probe_level": level, "probe": rows}}
    policy = {**POLICY, "audit": {"probe_level": level}}
    assert outcome(checks[0], documents, policy) == "passed"
    rows.append({"check": checks[0].removeprefix("probe."), "p_value": level / len(checks) / 20})  # said twice, and not alike
    assert outcome(checks[0], documents, policy) == "failed"


@pytest.mark.parametrize("low", [True, None, "1", float("nan"), float("inf")])
def test_a_bound_that_is_no_number_is_none(low: Any) -> None:
    good: dict[str, Json] = {"name": "gaussian_traced", "level": 0.999, "epsilon_lower_bound": 1.0}
    assert gate_bound({"bounds": [good]}, 0.999) == 1.0
    assert gate_bound({"bounds": [good, {**good, "epsilon_lower_bound": 9.0}]}, 0.999) == 9.0
    assert gate_bound({"bounds": [good, {**good, "epsilon_lower_bound": low}]}, 0.999) is None
    assert gate_bound({"bounds": [good]}, 0.95) is None


def test_a_requester_stays_who_they_are_under_another_name_in_your_trust_root(tmp_path: Path) -> None:
    """Grace asks and approves; the recipient's trust root has her key under another name."""

    def votes(files: dict[str, bytes]) -> None:
        put(files, *(envelope(world, world.keys[n], r) for n, r in (("grace", "steward"), ("ada", "privacy_officer"))))

    world = World(tmp_path, Lies(requested_by="grace", without_use_approval=True)).run()
    bundle = world.force_bundle(tmp_path / "bundle", votes)
    renamed = [Person("g.hopper", p.public_hex, p.roles, p.custody) if p.name == "grace" else p for p in world.trust.people]
    for trust in (world.trust, TrustRoot(tuple(renamed))):
        result = verify_bundle(bundle, trust)
        assert result.exit_code == 3
        assert "E-GATE-015" in {row.code for row in result.failures}


def test_a_requester_whom_only_the_policy_names_is_nobody_who_approves(tmp_path: Path) -> None:
    for asked, good in (("nightly_runs", True), ("grace", True)):
        changes: dict[str, object] = {"approvals.requested_by": asked}
        world = World(tmp_path / asked, Lies(requested_by=asked, without_use_approval=True), **changes).run()  # type: ignore[arg-type]
        assert (gate_claims.duties(evidence_of(world)).outcome == "passed") is good
    world = World(tmp_path / "alike", Lies(requested_by="Ada")).run()  # neither the policy's nor a key holder's name
    assert gate_claims.duties(evidence_of(world)).reason.startswith("E-CLAIM-035")


def test_a_release_is_not_dated_before_its_evidence_nor_before_its_witness(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    evidence, now = evidence_of(world), datetime.now(UTC)

    def dated(hours: float, *cosigned: datetime) -> str:
        return gate_claims.in_the_past(evidence, now + timedelta(hours=hours), now, cosigned).reason

    assert dated(0).startswith("released")
    assert dated(-1).startswith("E-CLAIM-036")
    assert dated(0, now - timedelta(days=1)).startswith("released")
    assert "witness" in dated(-0.05, now + timedelta(minutes=9))
    assert dated(1).startswith("E-CLAIM-012")


def evidence_of(world: World) -> Evidence:
    from pipeline.bundle import view_of
    from pipeline.evidence import MODEL_FILE
    from pipeline.release import _Case

    case = _Case.load(world.ctx, world.assembled.digest)
    model = world.home.store.read_sealed(case.manifest.outputs[MODEL_FILE])
    view = view_of({**case.files, MODEL_FILE: model})
    return open_evidence(view, world.trust, check_layout(view, released=False))
