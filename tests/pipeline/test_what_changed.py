"""New data, another policy, other recognizers, another budget: each voids an approval, and the next request says which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.approve import request_use, sign_request
from pipeline.release import ReleaseRefusal
from pipeline.run import gate_verdict
from privacy.canonical import digest_of
from privacy.detect import PatternDetector
from privacy.recognizers import RECOGNIZERS
from tests.worlds.policies import make_policy
from tests.worlds.release_world import World


def test_a_new_dataset_policy_recognizer_or_budget_voids_the_use_approval_and_the_request_says_which(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    first = world.use_subject

    def asked(other: World, facts: dict[str, object], ingest: str = "source") -> tuple[dict[str, str], str]:
        made = other._stage("ingest", {"source": digest_of(ingest)}, {"raw": other._sealed("raw")}, {"records": 90})
        about = {"records": 88, "detector": digest_of("recognizers of yesterday"), **facts}
        protect = other._stage("protect", {"ingest": made, "n": digest_of(about)}, {"protected": other._sealed("p")}, about)  # type: ignore[arg-type]
        request = request_use(other.ctx, protect, other._validate(protect))
        return dict(request.shown), request.digest

    def under(**changes: object) -> World:
        world.policy = make_policy(**changes)
        world.ctx = world.context(f"run-{len(changes)}-{digest_of(str(changes))[7:12]}")
        return world

    seen = {first}
    _, digest = asked(under(), {})
    seen.add(digest)
    approve_use(world, digest)
    for changes, facts, source, label, said in (
        ({}, {}, "other logs", "changed: data", "another protected dataset"),
        ({}, {"detector": digest_of("recognizers of today")}, "source", "changed: recognizers", "other recognizers"),
        ({"budget.epsilon": 3.0}, {}, "source", "changed: budget", "epsilon 8.0 → 3.0"),
        ({"budget.cap_epsilon": 30.0}, {}, "source", "changed: budget", "cap_epsilon 20.0 → 30.0"),
        ({"audit.min_accuracy": 0.1}, {}, "source", "changed: policy", "audit.min_accuracy: 0.0 → 0.1"),
    ):
        shown, digest = asked(under(**changes), dict(facts), source)
        assert digest not in seen, label
        seen.add(digest)
        assert said in shown[label]
        verdict = gate_verdict(world.home, next(r for r in world.home.approvals.list() if r.digest == digest))
        assert verdict.reason.startswith("E-GATE-010"), verdict
    _, digest = asked(under(), {})
    assert digest in seen  # the same everything: the standing approval counts
    assert gate_verdict(world.home, next(r for r in world.home.approvals.list() if r.digest == digest)).outcome == "passed"


def approve_use(world: World, digest: str) -> None:
    request = next(r for r in world.home.approvals.list() if r.digest == digest)
    sign_request(world.home, request, "grace", "steward", "approve", "purpose is fine", world.keys["grace"], world.now)


def test_the_release_request_says_what_is_new_since_the_last_approval(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    assert dict(world.request.shown)["since the last approval"].startswith("nothing was approved")
    world.policy = make_policy(**{"budget.epsilon": 4.0})
    world._ledger_key = "train-2"
    world.ctx = world.context("run-2")
    world.run()
    shown = dict(world.request.shown)
    assert "epsilon 8.0 → 4.0" in shown["changed: budget"]
    assert "budget.epsilon: 8.0 → 4.0" in shown["changed: policy"]
    with pytest.raises(ReleaseRefusal) as caught:
        world.release()
    assert "E-GATE-010" in "\n".join(caught.value.details)


def test_recognizers_have_a_version_that_follows_what_they_find() -> None:
    """It is a fact of the protect manifest, whose digest the use approval covers."""
    one = PatternDetector(0.0, RECOGNIZERS)
    assert one.version == PatternDetector(0.0, RECOGNIZERS).version
    newer = replace(RECOGNIZERS[0], version=RECOGNIZERS[0].version + "+1")
    assert PatternDetector(0.0, (newer, *RECOGNIZERS[1:])).version != one.version
    assert PatternDetector(0.0, RECOGNIZERS[1:]).version != one.version
