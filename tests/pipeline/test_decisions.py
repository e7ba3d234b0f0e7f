"""Conditions, referrals, lent roles, a broken glass, revocation: through the home, the release stage and the verifier."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.approve import Terms, request_release, request_use, sign_request
from pipeline.break_glass import review, unreviewed
from pipeline.bundle import approval_path
from pipeline.delegate import delegate
from pipeline.release import ReleaseRefusal
from pipeline.revoke import revoke, signed_list
from pipeline.run import gate_verdict
from pipeline.stage import load_manifest
from pipeline.verify import verify_bundle
from privacy.conditions import parse_condition
from privacy.errors import GateClosed, PrivetError, UsageError
from privacy.gates import APPROVAL_TYPE, BREAK_GLASS, approval_predicate
from privacy.signing import make_statement, seal_envelope
from tests.worlds.policies import make_policy
from tests.worlds.release_world import Lies, World

GLASS = {"approvals.break_glass": {"roles": ["steward", "privacy_officer"]}}


def decide(world: World, name: str, role: str, decision: str = "approve", *conditions: str, refer_to: str = "") -> None:
    terms = Terms(tuple(parse_condition(text) for text in conditions), refer_to)
    said = (role, decision, "read it all")
    sign_request(world.home, world.request, name, *said, world.keys[name], world.now, terms)  # type: ignore[arg-type]


def refusal(world: World) -> str:
    with pytest.raises(ReleaseRefusal) as caught:
        world.release()
    return "\n".join(caught.value.details)


def row(world: World, path: Path, claim: str) -> str:
    found = verify_bundle(path, world.trust, world.now)
    return next(f"{r.outcome}: {r.evidence}" for r in found.rows if r.claim == claim)


def test_a_release_under_conditions_that_hold_verifies_offline(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    shown = (
        "epsilon <= 8",
        "utility >= 0.8",
        "verdict probe.clipping passed",
        "release test_chat",
        "fact.protect.records > 80",
    )
    decide(world, "grace", "steward", "approve", *shown)
    decide(world, "ada", "privacy_officer")
    assert verify_bundle(world.release().path, world.trust, world.now).exit_code == 0


@pytest.mark.parametrize(("text", "code"), [("epsilon <= 3", "E-GATE-043"), ("made_up <= 3", "E-GATE-042")])
def test_a_condition_that_does_not_hold_is_told_at_the_door_and_counts_nowhere(tmp_path: Path, text: str, code: str) -> None:
    world = World(tmp_path).run()
    with pytest.raises(GateClosed, match=code):
        decide(world, "grace", "steward", "approve", text)
    conditions = (parse_condition(text),)
    body = approval_predicate("release", world.root, "approve", "steward", "read it", world.now, conditions)
    data = seal_envelope(make_statement({"evidence": world.root}, APPROVAL_TYPE, body), world.keys["grace"])
    officer = approval_predicate("release", world.root, "approve", "privacy_officer", "read it", world.now)
    other = seal_envelope(make_statement({"evidence": world.root}, APPROVAL_TYPE, officer), world.keys["ada"])
    put = {approval_path("release", envelope): envelope for envelope in (data, other)}
    bundle = world.force_bundle(tmp_path / "bundle", lambda files: files.update(put))
    found = verify_bundle(bundle, world.trust, world.now)
    assert found.exit_code == 3
    assert code in {r.code for r in found.rows}


def test_a_condition_expires_between_signing_and_release(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    until = (world.now + timedelta(hours=2)).isoformat(timespec="seconds")
    decide(world, "grace", "steward", "approve", f"expires before {until}")
    decide(world, "ada", "privacy_officer")
    world.later(3)
    assert "E-GATE-043" in refusal(world)


def test_a_use_approved_on_condition_of_the_outcome_is_held_to_it_at_the_release(tmp_path: Path) -> None:
    class Careful(World):
        def _approve_use(self, protect: str, validate: str) -> None:

            request = request_use(self.ctx, protect, validate)
            terms = Terms((parse_condition("utility >= 0.95"),))  # nobody can know before the training
            said = ("steward", "approve", "if it is good")
            sign_request(self.home, request, "grace", *said, self.keys["grace"], self.now, terms)  # type: ignore[arg-type]
            assert gate_verdict(self.home, request).outcome == "passed"

    world = Careful(tmp_path).run().sign_quorum()
    assert "E-GATE-043" in refusal(world)


def test_a_referral_holds_the_release_until_that_role_has_decided(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    decide(world, "ada", "privacy_officer")
    world.later(0.1)
    decide(world, "grace", "steward", "refer", refer_to="privacy_officer")
    assert gate_verdict(world.home, world.request).reason.startswith("E-GATE-044")
    decide(world, "grace", "steward")
    assert "E-GATE-044" in refusal(world)
    world.later(0.1)
    decide(world, "ada", "privacy_officer")  # again, as it was referred to her
    assert verify_bundle(world.release().path, world.trust, world.now).exit_code == 0


def test_deleting_the_envelope_of_a_referral_does_not_take_it_back(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    decide(world, "grace", "steward", "refer", refer_to="privacy_officer")
    for path in (world.home.path / "approvals" / "envelopes" / world.root.removeprefix("sha256:")).iterdir():
        path.unlink()
    world.sign_quorum()
    assert "E-GATE-044" in refusal(world)
    assert "E-GATE-044" in gate_verdict(world.home, world.request).reason


def test_nobody_refers_to_a_role_that_nobody_holds(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    with pytest.raises(GateClosed, match="E-GATE-053"):
        decide(world, "grace", "steward", "refer", refer_to="authority")


@pytest.mark.parametrize("quorum", [{"privacy_officer": 1}, {"steward": 2}])
def test_a_policy_of_high_risk_has_no_weak_quorum(quorum: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 2 signatures"):
        make_policy(**{"approvals.risk": "high", "approvals.release.quorum": quorum})
    assert make_policy(**{"approvals.risk": "high"}).approvals.risk == "high"
    assert make_policy(**{"approvals.risk": "high", "approvals.officer": "steward", "approvals.release.quorum": {"steward": 2}})


def test_the_verifier_holds_a_release_of_high_risk_to_its_policy(tmp_path: Path) -> None:
    world = World(tmp_path, **{"approvals.risk": "high"}).run()  # type: ignore[arg-type]
    assert dict(world.request.shown)["risk"].startswith("high")
    one = approval_predicate("release", world.root, "approve", "steward", "read it", world.now)
    data = seal_envelope(make_statement({"evidence": world.root}, APPROVAL_TYPE, one), world.keys["grace"])
    bundle = world.force_bundle(tmp_path / "bundle", lambda files: files.update({approval_path("release", data): data}))
    assert verify_bundle(bundle, world.trust, world.now).exit_code == 3
    world.sign_quorum()
    assert verify_bundle(world.release().path, world.trust, world.now).exit_code == 0


def lend(world: World, until_hours: float = 48, to: str = "demo_engineer") -> None:
    about = ("privacy_officer", to, ("release",), "test_chat", world.now + timedelta(hours=until_hours), "on leave")
    delegate(world.home, "ada", *about, world.keys["ada"], world.now)  # type: ignore[arg-type]


def test_lender_and_borrower_make_one_vote_in_the_home_too(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    lend(world, to="grace")
    decide(world, "grace", "privacy_officer")
    decide(world, "ada", "steward")  # the lender, in another role: one vote with her borrower
    assert "E-GATE-048" in refusal(world)


def test_a_lent_role_in_a_bundle(tmp_path: Path) -> None:
    from pipeline.home import add_person
    from privacy.signing import Person, SigningKey

    world = World(tmp_path)
    world.keys["sam"] = SigningKey.generate()
    add_person(world.home, Person("sam", world.keys["sam"].public_hex, ("engineer",)))
    world.run()
    with pytest.raises(GateClosed, match="E-GATE-014"):
        decide(world, "sam", "privacy_officer")
    lend(world, to="sam")
    assert world.home.journal.entries()[-1].kind == "delegation"
    decide(world, "sam", "privacy_officer")
    decide(world, "grace", "steward")
    path = world.release().path
    assert [p.name[:10] for p in (path / "approvals").glob("delegation-*")] == ["delegation"]
    assert verify_bundle(path, world.trust, world.now).exit_code == 0
    assert "ada lent privacy_officer to sam" in row(world, path, "delegations of roles")
    next((path / "approvals").glob("delegation-*")).unlink()
    assert verify_bundle(path, world.trust, world.now).exit_code == 4


def test_a_lent_role_ends_and_is_not_the_requesters(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    lend(world)
    with pytest.raises(GateClosed, match="E-GATE-015"):
        decide(world, "demo_engineer", "privacy_officer")
    lend(world, to="grace")
    world.later(49)
    with pytest.raises(GateClosed, match="E-GATE-046"):
        decide(world, "grace", "privacy_officer")


def test_what_can_not_be_lent_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    key, now = world.keys["grace"], world.now
    for role, to, hours, kind, code in (
        ("privacy_officer", "ada", 5, GateClosed, "E-GATE-046"),  # not grace's
        ("steward", "grace", 5, UsageError, "E-DELEGATE-001"),
        ("steward", "nobody", 5, UsageError, "E-DELEGATE-001"),
        ("steward", "privet-pipeline", 5, UsageError, "E-DELEGATE-001"),
        ("steward", "ada", -1, UsageError, "E-DELEGATE-002"),
        ("steward", "ada", 24 * 93, GateClosed, "E-GATE-046"),
    ):
        with pytest.raises(kind, match=code):
            delegate(world.home, "grace", role, to, ("use",), "test_chat", now + timedelta(hours=hours), "on leave", key, now)
    assert world.home.approvals.delegations(world.trust) == []


def test_a_broken_glass_is_loud_until_somebody_else_has_reviewed_it(tmp_path: Path) -> None:
    world = World(tmp_path, **GLASS).run()  # type: ignore[arg-type]
    decide(world, "grace", "steward", "break_glass")
    assert "E-GATE-017" in refusal(world)  # one person is not enough
    decide(world, "ada", "privacy_officer", "break_glass")
    path = world.release().path
    found = verify_bundle(path, world.trust, world.now)
    assert found.exit_code == 0
    assert BREAK_GLASS in row(world, path, "released under break-glass")
    kinds = [e.kind for e in world.home.journal.entries()]
    assert kinds[-2:] == ["break_glass", "release"]
    again = request_release(world.context("run-2"), world.assembled.digest)
    assert world.root in dict(again.shown)["released under break-glass"]
    for who, role, code in (("grace", "steward", "E-GLASS-002"), ("demo_engineer", "steward", "E-GLASS-002")):
        with pytest.raises(PrivetError, match=code):
            review(world.home, world.root, who, role, "all was well", world.keys[who], world.now)
    assert len(unreviewed(world.home.journal.entries(), "test_chat")) == 1
    _reviewed_by_another(world)
    assert unreviewed(world.home.journal.entries(), "test_chat") == ()
    later = request_release(world.context("run-3"), world.assembled.digest)
    assert "released under break-glass" not in dict(later.shown)


def _reviewed_by_another(world: World) -> None:
    from pipeline.home import add_person
    from privacy.signing import Person, SigningKey

    key = SigningKey.generate()
    add_person(world.home, Person("olga", key.public_hex, ("privacy_officer",)))
    review(world.home, world.root, "olga", "privacy_officer", "the emergency was one", key, world.now)
    with pytest.raises(UsageError, match="E-GLASS-001"):
        review(world.home, world.root, "olga", "privacy_officer", "twice", key, world.now)


@pytest.mark.parametrize(
    ("lies", "changes", "said"),
    [
        (Lies(verdicts={"probe.clipping": "failed"}), {}, "E-CLAIM-015"),
        (Lies(trace={"noise_multiplier": 0.6}), {}, "E-CLAIM-017"),
        (Lies(gate_bound=30.0), {}, "E-CLAIM-018"),
        (Lies(without_use_approval=True), {}, "E-GATE-010"),
        (Lies(), {"recipe.mechanism": "non_private"}, "E-CLAIM-016"),
    ],
)
def test_a_broken_glass_opens_nothing_but_the_quorum(tmp_path: Path, lies: Lies, changes: dict[str, object], said: str) -> None:
    world = World(tmp_path, lies, **GLASS, **changes).run()  # type: ignore[arg-type]
    decide(world, "grace", "steward", "break_glass")
    decide(world, "ada", "privacy_officer", "break_glass")
    assert said in refusal(world)


def test_a_broken_glass_ends_after_a_day_and_yields_to_a_reject(tmp_path: Path) -> None:
    world = World(tmp_path, **GLASS).run()  # type: ignore[arg-type]
    decide(world, "grace", "steward", "break_glass")
    decide(world, "ada", "privacy_officer", "break_glass")
    decide(world, "ada", "privacy_officer", "reject")
    assert "E-GATE-012" in refusal(world)
    other = World(tmp_path / "b", **GLASS).run()  # type: ignore[arg-type]
    decide(other, "grace", "steward", "break_glass")
    decide(other, "ada", "privacy_officer", "break_glass")
    other.later(24.1)
    assert "E-GATE-013" in refusal(other)


def test_without_the_policys_word_nobody_breaks_the_glass(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    with pytest.raises(GateClosed, match="E-GATE-047"):
        decide(world, "grace", "steward", "break_glass")


def test_a_revoked_release_is_refused_by_the_verifier_and_not_released_again(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    path = world.release().path
    before = signed_list(world.home, world.now)
    assert verify_bundle(path, world.trust, world.now, before).exit_code == 0
    gone = revoke(world.home, world.root, "grace", "steward", "somebody asked", "erasure", world.keys["grace"], world.now)
    after = signed_list(world.home, world.now)
    found = verify_bundle(path, world.trust, world.now, after)
    assert found.exit_code == 3
    assert "E-REVOKE-003" in {r.code for r in found.rows}
    assert "E-REVOKE-003" in refusal_of_release(world)
    assert verify_bundle(path, world.trust, world.now + timedelta(days=8), before).exit_code == 3  # stale: nobody knows
    entries = world.home.journal.entries()
    assert [e.facts["number"] for e in entries if e.kind == "revocation_list"] == [1, 2]
    assert gone.model is not None
    with pytest.raises(GateClosed, match="E-REVOKE-010"):
        revoke(world.home, world.root, "grace", "steward", "again", "erasure", world.keys["grace"], world.now)


def refusal_of_release(world: World) -> str:
    with pytest.raises(ReleaseRefusal) as caught:
        world.release()
    return "\n".join(caught.value.details)


def test_a_revoked_model_does_not_leave_in_another_bundle(tmp_path: Path) -> None:
    from pipeline.home import add_person
    from privacy.signing import Person, SigningKey

    world = World(tmp_path).run().sign_quorum()
    world.release()
    first = world.root
    revoke(world.home, first, "ada", "privacy_officer", "a defect", "privacy_defect", world.keys["ada"], world.now)
    add_person(world.home, Person("iris", SigningKey.generate().public_hex, ("steward",)))
    world.run().sign_quorum()
    assert world.root != first
    assert "E-REVOKE-003: this model was revoked" in refusal_of_release(world)


def test_who_may_revoke_what(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    args = ("somebody asked", "erasure")
    with pytest.raises(UsageError, match="E-REVOKE-007"):
        revoke(world.home, world.root, "ada", "privacy_officer", *args, world.keys["ada"], world.now)
    world.release()
    with pytest.raises(GateClosed, match="E-REVOKE-009"):
        revoke(world.home, world.root, "demo_engineer", "engineer", *args, world.keys["demo_engineer"], world.now)
    with pytest.raises(GateClosed, match="E-REVOKE-009"):
        revoke(world.home, world.root, "grace", "privacy_officer", *args, world.keys["grace"], world.now)
    with pytest.raises(UsageError, match="E-APPROVE-005"):
        revoke(world.home, world.root, "ada", "privacy_officer", *args, world.keys["grace"], world.now)
    with pytest.raises(UsageError, match="E-REVOKE-008"):
        revoke(world.home, world.root, "ada", "privacy_officer", "why", "boredom", world.keys["ada"], world.now)
    assert [e.kind for e in world.home.journal.entries()].count("revocation") == 0


def test_a_later_report_says_that_the_glass_was_broken(tmp_path: Path) -> None:
    world = World(tmp_path, **GLASS).run()  # type: ignore[arg-type]
    before = world.digests.report
    decide(world, "grace", "steward", "break_glass")
    decide(world, "ada", "privacy_officer", "break_glass")
    world.release()
    released = world.root
    world.run()
    assert world.digests.report != before
    page = world.home.store.read_plain(load_manifest(world.home, str(world.digests.report)).outputs["report_json"]).decode()
    loud = next(e for e in world.home.journal.entries() if e.kind == "break_glass")
    assert loud.facts["evidence_root"] == released
    assert f"#{loud.seq} " in page
