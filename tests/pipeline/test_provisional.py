"""What is sealed and never committed is destroyed; what is gone is made anew, once."""

from __future__ import annotations

import pytest

from pipeline.provisional import keep, provisional
from pipeline.stage import ArtifactRef, StageOutput, run_stage
from privacy.canonical import digest_of
from privacy.errors import DataError
from tests.worlds.chats import World

INPUTS = {"source": digest_of("source")}


def sealed(world: World, text: str = "Ada Lovelace") -> ArtifactRef:
    return world.home.store.put_sealed(text.encode(), dataset="test_chat", path="x", data_class="raw")


def test_a_stage_that_fails_leaves_nothing_sealed(world: World) -> None:
    made: list[ArtifactRef] = []

    def body() -> StageOutput:
        made.append(sealed(world))
        raise DataError("E-TEST-001", "something is wrong", "Mend it")

    with pytest.raises(DataError):
        run_stage(world.context(), "ingest", INPUTS, body)
    assert not world.home.store.exists(made[0])


def test_the_loser_of_a_race_takes_back_what_it_sealed(world: World) -> None:
    import threading

    lost: list[ArtifactRef] = []

    def slow() -> StageOutput:
        lost.append(sealed(world, "loser"))
        other = threading.Thread(target=run_stage, args=(world.context("run-2"), "ingest", INPUTS, quick))
        other.start()
        other.join()
        return StageOutput({"raw": lost[0]})

    def quick() -> StageOutput:
        return StageOutput({"raw": sealed(world, "winner")})

    result = run_stage(world.context(), "ingest", INPUTS, slow)
    assert result.reused
    assert world.home.store.read_sealed(result.manifest.outputs["raw"]) == b"winner"
    assert not world.home.store.exists(lost[0])


def test_what_an_inner_stage_committed_outlives_the_failure_of_the_outer(world: World) -> None:
    """Ingest keeps its rejects that way, and then says that it has no records."""
    kept: list[ArtifactRef] = []

    def outer() -> StageOutput:
        kept.append(sealed(world))
        run_stage(world.context(), "ingest_rejects", INPUTS, lambda: StageOutput({"quarantine": kept[0]}))
        raise DataError("E-TEST-001", "rejects only", "Mend the policy")

    with pytest.raises(DataError):
        run_stage(world.context(), "ingest", INPUTS, outer)
    assert world.home.store.exists(kept[0])


def test_an_object_of_an_earlier_stage_is_never_taken_back(world: World) -> None:
    before = sealed(world)
    with provisional(world.home.store):
        mine, lent = sealed(world, "a"), sealed(world, "b")
        keep([lent])
    assert [world.home.store.exists(ref) for ref in (before, mine, lent)] == [True, False, True]


def test_a_result_whose_object_is_gone_is_made_anew_once(world: World) -> None:
    runs: list[int] = []

    def body() -> StageOutput:
        runs.append(1)
        return StageOutput({"protected": sealed(world)})

    def again() -> str:
        return run_stage(world.context(), "protect", INPUTS, body).digest

    first = run_stage(world.context(), "protect", INPUTS, body)
    assert again() == first.digest
    world.home.store.shred(first.manifest.outputs["protected"])
    second = again()
    assert second != first.digest
    assert again() == second
    assert len(runs) == 2


def test_of_two_that_replace_a_stale_result_one_stands(world: World) -> None:
    store, key = world.home.store, digest_of("key")
    stale, one, two = (digest_of(n) for n in range(3))
    assert store.commit_result(key, stale) == stale
    assert store.commit_result(key, one) == stale, "without being told, a result never changes"
    assert store.commit_result(key, one, instead_of=stale) == one
    assert store.commit_result(key, two, instead_of=stale) == one
