"""Asking and signing: what the book keeps, what it refuses, and what a person is shown."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.approve import ask, record_envelope, request_release, request_use, sign_envelope, sign_request, use_subject
from privacy.canonical import canonical_json, digest_of
from privacy.errors import GateClosed, IntegrityError, PrivetError, UsageError
from privacy.signing import Person, SigningKey, TrustRoot
from tests.worlds.bad_bundles import STRANGER, envelope
from tests.worlds.release_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).run()


def refused(world: World, data: bytes, trust: TrustRoot | None = None) -> str:
    with pytest.raises(PrivetError) as caught:
        world.home.approvals.add(data, trust or world.trust, world.now)
    assert world.home.approvals.envelopes(world.root) == []
    return caught.value.code


def test_an_approval_is_kept_journalled_and_read_back(world: World) -> None:
    world.sign("grace", "steward")
    kept = world.home.approvals.approvals(world.root, world.trust)
    assert [(a.signer, a.role, a.decision) for a in kept] == [("grace", "steward", "approve")]
    last = world.home.journal.entries()[-1]
    assert (last.kind, last.facts["gate"], last.facts["digest"]) == ("approval", "release", world.root)


def test_adding_the_same_bytes_twice_changes_nothing(world: World) -> None:
    data = envelope(world, world.keys["grace"], "steward")
    first = record_envelope(world.home, world.request, data, world.now)
    entries = len(world.home.journal.entries())
    assert record_envelope(world.home, world.request, data, world.now) == first
    assert len(world.home.approvals.envelopes(world.root)) == 1
    assert len(world.home.journal.entries()) == entries


@pytest.mark.parametrize(
    ("name", "role", "more", "code"),
    [
        ("demo_engineer", "steward", {}, "E-GATE-015"),  # self-approval
        ("grace", "privacy_officer", {}, "E-GATE-014"),  # role not held
        ("grace", "steward", {"digest": digest_of("other")}, "E-GATE-021"),  # never asked for
        ("grace", "steward", {"gate": "use"}, "E-GATE-021"),
        ("grace", "steward", {"hours": -169}, "E-GATE-013"),
        ("grace", "steward", {"hours": 1}, "E-GATE-018"),
        ("grace", "steward", {"reason": "  "}, "E-GATE-019"),
        ("demo_engineer", "engineer", {}, "E-GATE-023"),  # a role the gate does not ask for
    ],
)
def test_what_the_gate_would_not_count_is_refused_at_the_door(
    world: World, name: str, role: str, more: dict[str, object], code: str
) -> None:
    assert refused(world, envelope(world, world.keys[name], role, **more)) == code  # type: ignore[arg-type]


def test_a_stranger_and_the_pipeline_are_refused(world: World) -> None:
    assert refused(world, envelope(world, STRANGER, "steward")) == "E-SIGN-002"
    people = tuple(p if p.roles != ("pipeline",) else replace(p, roles=("pipeline", "steward")) for p in world.trust.people)
    assert refused(world, envelope(world, world.home.key, "steward"), TrustRoot(people)) == "E-GATE-022"


def test_a_flipped_byte_of_an_envelope_is_refused(world: World) -> None:
    data = bytearray(envelope(world, world.keys["grace"], "steward"))
    data[40] ^= 1
    assert refused(world, bytes(data)).startswith(("E-SIGN", "E-CANON"))


def test_one_key_votes_once_per_gate(world: World) -> None:
    world.sign("ada", "steward")
    with pytest.raises(GateClosed) as caught:
        world.sign("ada", "privacy_officer")
    assert caught.value.code == "E-GATE-016"


def test_a_reject_is_final_for_these_bytes(world: World) -> None:
    world.sign("ada", "privacy_officer", "reject")
    with pytest.raises(GateClosed) as caught:
        world.sign("grace", "steward")
    assert caught.value.code == "E-GATE-012"


def test_an_approver_may_still_turn_an_approval_into_a_reject(world: World) -> None:
    world.sign("ada", "privacy_officer")
    world.sign("ada", "privacy_officer", "reject")
    with pytest.raises(GateClosed):
        world.release()


def test_signing_with_another_persons_name_is_refused(world: World) -> None:
    with pytest.raises(UsageError) as caught:
        sign_request(world.home, world.request, "ada", "steward", "approve", "looks right", world.keys["grace"], world.now)
    assert caught.value.code == "E-APPROVE-005"


@pytest.mark.parametrize("reason", ["", " a ", "x" * 501, "two\nlines", "bell\a rings"])
def test_a_reason_is_one_readable_line(world: World, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        sign_envelope(world.request, "steward", "approve", reason, world.keys["grace"], world.now)
    assert caught.value.code == "E-APPROVE-006"


def test_a_person_does_not_sign_what_somebody_else_wrote_on_the_request(world: World) -> None:
    path = next((world.home.path / "approvals" / "requests").glob(f"{world.request.id}.json"))
    value = json.loads(path.read_bytes())
    value["shown"][0][1] = "a harmless thing"
    path.write_bytes(canonical_json(value))
    altered = world.home.approvals.get(world.request.id)
    with pytest.raises(IntegrityError) as caught:
        sign_request(world.home, altered, "grace", "steward", "approve", "looks right", world.keys["grace"], world.now)
    assert caught.value.code == "E-APPROVE-004"


def test_a_request_planted_before_the_pipeline_asked_is_refused(world: World) -> None:
    ctx = world.context("run-9")
    honest = replace(world.request, run_id="run-9", id=_id(world, "run-9"))
    world.home.approvals.open_request(replace(honest, shown=(("epsilon asked", "0.1"),)))
    with pytest.raises(IntegrityError) as caught:
        request_release(ctx, world.assembled.digest)
    assert caught.value.code == "E-APPROVE-004"


def _id(world: World, run: str) -> str:
    return digest_of({"gate": "release", "digest": world.root, "run": run}).removeprefix("sha256:")[:12]


def test_asking_twice_gives_the_same_request_and_one_journal_entry(world: World) -> None:
    before = len(world.home.journal.entries())
    world.later(1)
    assert request_release(world.ctx, world.assembled.digest) == world.request
    assert ask(world.home, world.request) == world.request
    assert len(world.home.journal.entries()) == before


def test_racing_requests_leave_one_whole_file(world: World) -> None:
    request = replace(world.request, run_id="race", id=_id(world, "race"))
    threads = [threading.Thread(target=world.home.approvals.open_request, args=(request,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder = world.home.path / "approvals" / "requests"
    assert world.home.approvals.get(request.id) == request
    assert [p for p in folder.iterdir() if p.name.startswith(".")] == []


def test_the_person_is_shown_what_the_signature_is_about(world: World) -> None:
    shown = dict(world.request.shown)
    assert shown["purpose"] == world.policy.purpose
    assert shown["epsilon asked"].startswith("8 (delta 0.0001) per customer")
    assert float(shown["epsilon of this model"]) <= 8
    assert shown["epsilon cap of the dataset"] == "20"
    assert shown["probe.clipping"].startswith("passed:")
    assert shown["utility"] == "accuracy 0.810 on held-out units"
    assert shown["what changed"] == "first release under this policy name"
    use = request_use(world.ctx, world.digests.protect, world.digests.validate)
    assert use.digest == world.use_subject
    assert dict(use.shown)["validation"] == "passed"
    assert dict(use.shown)["mechanism"] == "dp_sgd: training with differential privacy"


def test_a_use_gate_says_that_the_policy_trains_without_privacy(tmp_path: Path) -> None:
    world = World(tmp_path, **{"recipe.mechanism": "non_private"}).run()  # type: ignore[arg-type]
    for request in (request_use(world.ctx, world.digests.protect, world.digests.validate), world.request):
        shown = dict(request.shown)
        assert shown["mechanism"].startswith("non_private: training without differential privacy")
        assert shown["epsilon asked"] == "none: training without differential privacy"


def test_a_used_subject_changes_with_everything_that_was_approved() -> None:
    a, b, c, d = (digest_of(n) for n in range(4))
    first = use_subject(a, b, c, 3.0, 1e-5)
    others = [use_subject(d, b, c, 3.0, 1e-5), use_subject(a, d, c, 3.0, 1e-5), use_subject(a, b, d, 3.0, 1e-5)]
    others += [use_subject(a, b, c, 3.1, 1e-5), use_subject(a, b, c, 3.0, 2e-5)]
    assert len({first, *others}) == 6
    assert use_subject(a, b, c, 3, 1e-5) == first


def test_an_altered_approval_file_is_named(world: World) -> None:
    world.sign("grace", "steward")
    path = next((world.home.path / "approvals" / "envelopes").rglob("*.json"))
    for other in (world.home.path / "approvals" / "envelopes").rglob("*.json"):
        path = other if other.parent.name in world.root else path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError) as caught:
        world.home.approvals.envelopes(world.root)
    assert caught.value.code == "E-APPROVE-003"
    assert path.name in caught.value.cause


@pytest.mark.parametrize("identity", ["missing", "../../trust", "", "."])
def test_an_unknown_request_is_a_usage_error(world: World, identity: str) -> None:
    with pytest.raises(UsageError) as caught:
        world.home.approvals.get(identity)
    assert caught.value.code == "E-APPROVE-001"


def test_a_key_withdrawn_from_the_trust_root_no_longer_counts(world: World) -> None:
    world.sign_quorum()
    people = tuple(p for p in world.trust.people if p.name != "ada")
    (world.home.path / "trust.json").write_bytes(canonical_json(TrustRoot(people).to_json()))
    with pytest.raises(GateClosed) as caught:
        world.release()
    assert any("E-SIGN-002" in v.reason for v in caught.value.verdicts)  # type: ignore[attr-defined]


def test_time_zones_do_not_stretch_an_approval(world: World) -> None:
    data = envelope(world, world.keys["grace"], "steward")
    with pytest.raises(GateClosed) as caught:
        world.home.approvals.add(data, world.trust, world.now + timedelta(hours=169))
    assert caught.value.code == "E-GATE-013"


def test_people_of_the_world_are_real_key_holders(world: World) -> None:
    assert all(isinstance(p, Person) for p in world.trust.people)
    assert all(isinstance(k, SigningKey) for k in world.keys.values())
