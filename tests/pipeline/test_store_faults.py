"""Kills, full disks, lost keys and second writers: the store is in the old state or the new one, and owns what it holds."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.home import Home
from pipeline.provisional import keep, provisional
from pipeline.stage import ArtifactRef, StageContext, StageOutput, committed, run_stage
from pipeline.store import MAGIC, Store
from pipeline.training_budget import SealedCheckpoints
from privacy.canonical import digest_bytes, digest_of
from privacy.errors import EnvironmentFault, IntegrityError
from tests.worlds.chats import World, code_of
from tests.worlds.crashes import failing, killed_at

FORK = multiprocessing.get_context("fork")
INPUTS = {"ingest": digest_of("source")}
PLACE = {"dataset": "test_chat", "path": "protect/p", "data_class": "protected", "version": INPUTS["ingest"]}
DATA = b"Ada Lovelace " * 9000


def context(world: World, path: Path | None = None) -> StageContext:
    """A context of a freshly opened home, as another process would have it."""
    ctx = world.context()
    home = Home.open(path or world.home.path)
    return StageContext(home, ctx.policy, ctx.policy_digest, ctx.run_id, ctx.requested_by)


def sealed_objects(home: Path) -> set[str]:
    """Digests of what lies in the store sealed; and every object is what its name says."""
    paths = [p for p in (home / "objects").rglob("*") if p.is_file() and p.parent.name != "tmp"]
    assert all(digest_bytes(p.read_bytes()) == "sha256:" + p.name for p in paths), "half an object"
    return {"sha256:" + p.name for p in paths if p.read_bytes().startswith(MAGIC)}


def stage(ctx: StageContext) -> str:
    def body() -> StageOutput:
        return StageOutput({"protected": ctx.home.store.put_sealed(DATA, **PLACE)})

    return run_stage(ctx, "protect", INPUTS, body).digest


def stage_refs(ctx: StageContext) -> list[ArtifactRef]:
    found = committed(ctx, "protect", INPUTS)
    return [] if found is None else list(found.manifest.outputs.values())


def noted(home: Path) -> bytes:
    return b"".join(p.read_bytes() for p in (home / "in-flight").iterdir())


@pytest.fixture
def home(world: World) -> Path:
    world.home.store.put_sealed(b"", **PLACE)  # the domain key exists, so that each kill meets the store
    return world.home.path


# --- killed at every step


@pytest.mark.slow
def test_a_stage_killed_at_any_step_is_done_or_not_done_and_leaves_nothing_unowned(
    world: World, home: Path, tmp_path: Path
) -> None:
    before = sealed_objects(home)
    done = 0
    for step in range(1000):
        copy = tmp_path / "copy"
        shutil.copytree(home, copy)
        killed = killed_at(step, lambda: stage(context(world, copy)))  # noqa: B023
        ctx = context(world, copy)
        assert ctx.home.store is not None  # opening it clears up
        found = committed(ctx, "protect", INPUTS)
        refs = set() if found is None else {ref.digest for ref in found.manifest.outputs.values()}
        assert sealed_objects(copy) == before | refs, f"killed before step {step}"
        if found is not None:
            done += 1
            assert ctx.home.store.read_sealed(found.manifest.outputs["protected"]) == DATA
        digest = stage(ctx)
        assert found is None or digest == found.digest
        assert ctx.home.store.result(next(p for p in results(copy))) == digest
        shutil.rmtree(copy)
        if not killed:
            break
    assert not killed
    assert step > 20, "the hook sees too little of what a commit does"
    assert 1 < done < step, "kills on both sides of the commit"


def results(home: Path) -> list[str]:
    return [f"sha256:{p.name}" for p in (home / "results").iterdir()]


@pytest.mark.slow
def test_a_checkpoint_killed_at_any_step_is_the_old_one_or_the_new_one(world: World, home: Path, tmp_path: Path) -> None:
    (home / "checkpoints").mkdir()
    SealedCheckpoints(world.home, "test_chat", "run").save(b"old")
    before = sealed_objects(home)
    seen = set()
    for step in range(1000):
        copy = tmp_path / "copy"
        shutil.copytree(home, copy)

        def save() -> None:
            opened = Home.open(copy)  # noqa: B023
            with provisional(opened.store):
                SealedCheckpoints(opened, "test_chat", "run").save(b"new")

        killed = killed_at(step, save)
        opened = Home.open(copy)
        found = SealedCheckpoints(opened, "test_chat", "run").load()
        seen.add(found)
        assert found in (b"old", b"new")
        # The pointer moves first and the old one is destroyed after: killed in between, the old one is still there.
        assert len(sealed_objects(copy) - before) == (found == b"new"), f"killed before step {step}"
        SealedCheckpoints(opened, "test_chat", "run").save(b"newer")
        shutil.rmtree(copy)
        if not killed:
            break
    assert seen == {b"old", b"new"}


def test_shredding_killed_at_any_step_is_finished_by_the_next_process(world: World, home: Path) -> None:
    for step in range(1000):
        ref = world.home.store.put_sealed(DATA, **PLACE)
        whole = (home / "objects" / ref.digest[7:9] / ref.digest[7:]).read_bytes()
        killed = killed_at(step, lambda: world.home.store.shred(ref))  # noqa: B023
        left = Home.open(home).store
        if left.exists(ref):
            assert left.read_sealed(ref) == DATA, "not begun"
            left.shred(ref)
        for path in (home / "objects").rglob("*"):
            assert not path.is_file() or whole[:400] != path.read_bytes()[:400], "the wrapped key is still there"
        assert not list((home / "objects" / "tmp").iterdir())
        if not killed:
            break
    assert step > 3


# --- what a dead process left


def _seal_and_wait(ctx: StageContext, ready: object) -> None:
    def body() -> StageOutput:
        ref = ctx.home.store.put_sealed(DATA, **PLACE)
        ready.put(ref.digest)  # type: ignore[attr-defined]
        time.sleep(120)
        return StageOutput({"protected": ref})

    run_stage(ctx, "protect", INPUTS, body)


def test_an_object_of_a_living_writer_stays_and_of_a_dead_one_goes(world: World, home: Path) -> None:
    ready = FORK.Queue()
    worker = FORK.Process(target=_seal_and_wait, args=(context(world), ready))
    worker.start()
    digest = ready.get(timeout=60)
    Home.open(home).store._sweep()
    assert digest in sealed_objects(home)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert digest in sealed_objects(home)
    store = Home.open(home).store
    assert digest not in sealed_objects(home)
    assert not store.holds(digest)
    assert noted(home) == b""


def die_holding(world: World, named: Callable[[Home, ArtifactRef], None]) -> str:
    """A process that seals, does `named`, and is killed before it could say that the object is named."""
    ready = FORK.Queue()

    def work() -> None:
        opened = Home.open(world.home.path)
        with provisional(opened.store):
            ref = opened.store.put_sealed(DATA, **PLACE)
            named(opened, ref)
            ready.put(ref.digest)
            ready.close()
            ready.join_thread()
            os.kill(os.getpid(), signal.SIGKILL)

    worker = FORK.Process(target=work)
    worker.start()
    digest = ready.get(timeout=60)
    worker.join()
    assert isinstance(digest, str)
    return digest


def _by_a_result(opened: Home, ref: ArtifactRef) -> None:
    from pipeline.stage import Manifest

    value = Manifest("protect", digest_of("p"), "test_chat", INPUTS, {"protected": ref}, {}, "0", "now").to_json()
    opened.store.commit_result(digest_of("key"), opened.store.put_json(value))


def _by_a_pointer(opened: Home, ref: ArtifactRef) -> None:
    from privacy.canonical import canonical_json

    (opened.path / "checkpoints").mkdir()
    (opened.path / "checkpoints" / "run.json").write_bytes(canonical_json(ref.to_json()))


def _by_a_prefix(opened: Home, ref: ArtifactRef) -> None:
    from pipeline.prefix_cache import FOLDER
    from privacy.canonical import canonical_json

    (opened.path / FOLDER).mkdir()
    (opened.path / FOLDER / "key.json").write_bytes(canonical_json(ref.to_json()))


def _by_a_move(opened: Home, ref: ArtifactRef) -> None:
    opened.journal.append("resealed", {"dataset": "test_chat", "old": digest_of("old"), "new": ref.to_json()})


@pytest.mark.parametrize("named", [_by_a_result, _by_a_pointer, _by_a_prefix, _by_a_move])
def test_what_something_durable_names_is_never_destroyed(
    world: World, home: Path, named: Callable[[Home, ArtifactRef], None]
) -> None:
    digest = die_holding(world, named)
    assert digest.encode() in noted(home), "the dead process never took its note back"
    assert Home.open(home).store.holds(digest)
    assert noted(home) == b""


def test_nothing_is_destroyed_while_it_can_not_be_told_what_is_named(world: World, home: Path) -> None:
    digest = die_holding(world, lambda opened, ref: None)
    broken = home / "results" / ("0" * 64)
    broken.write_text("sha256:12")
    assert Home.open(home).store.holds(digest)
    broken.unlink()
    assert not Home.open(home).store.holds(digest)


def test_a_note_is_durable_before_its_object_has_a_name(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, order = world.home.store, []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (order.append(Path(f"/proc/self/fd/{handle}").readlink()), real_fsync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append(Path(new)), real_replace(old, new)))
    with provisional(store):
        ref = store.put_sealed(DATA, **PLACE)
        named = next(i for i, path in enumerate(order) if path.name == ref.digest[7:])
        assert any(path.parent.name == "in-flight" for path in order[:named])
        assert ref.digest.encode() in noted(home)
        keep([ref])
        assert noted(home) == b""
    assert store.exists(ref)


def test_what_a_caller_owns_itself_is_not_noted(world: World, home: Path) -> None:
    ref = world.home.store.put_sealed(DATA, **PLACE)
    assert noted(home) == b""
    assert Home.open(home).store.exists(ref)


def test_a_note_behind_a_torn_one_still_counts(world: World, home: Path) -> None:
    digest = die_holding(world, lambda opened, ref: None)
    (notes,) = (home / "in-flight").iterdir()
    notes.write_bytes(b"\n+sha256:12ab" + notes.read_bytes() + b"\n+sha256:")
    assert not Home.open(home).store.holds(digest)


def test_a_child_that_ends_inside_its_parents_work_takes_nothing_with_it(world: World) -> None:
    store = world.home.store
    try:
        with provisional(store):
            ref = store.put_sealed(DATA, **PLACE)
            child = os.fork()
            if child == 0:
                raise SystemExit(0)
            os.waitpid(child, 0)
            assert store.read_sealed(ref) == DATA
            keep([ref])
    except SystemExit:
        os._exit(0)
    assert store.exists(ref)


def test_half_written_files_of_the_dead_go_and_of_the_living_stay(world: World, home: Path) -> None:
    store = world.home.store
    temporary = home / "objects" / "tmp"
    with store.sealed_writer(**PLACE) as sink:
        sink.write(DATA)
        (living,) = temporary.iterdir()
        dead = temporary / "dead"
        dead.write_bytes(b"half")
        for path in (living, dead):
            os.utime(path, (0, 0))
        Home.open(home).store.exists(ArtifactRef(digest_of("x"), "raw", "d", "p", 1, True))
        assert list(temporary.iterdir()) == [living]
    assert store.read_sealed(sink.ref) == DATA


# --- a disk that fails while reading


def test_a_read_error_is_named_and_carries_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = world.home.store
    ref = store.put_sealed(os.urandom(3_000_000), **PLACE)
    with store.open_sealed(ref) as file, monkeypatch.context() as patch:
        patch.setattr("pipeline.store_files._read", failing(errno.EIO, 0, lambda *_: 0))
        with pytest.raises(EnvironmentFault, match="E-STORE-011"):
            file.read(100_000)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.store_files._read", failing(errno.EIO, 0, lambda *_: 0))
        with pytest.raises(EnvironmentFault, match="E-STORE-011"):
            store.open_sealed(ref)


def test_a_read_error_under_parquet_is_named_as_such(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.tables import open_table

    store = world.home.store
    with store.sealed_writer(**PLACE) as sink:
        pq.write_table(pa.table({"x": [os.urandom(1000) for _ in range(5000)]}), sink)
    with open_table(store, sink.ref) as table:
        monkeypatch.setattr("pipeline.store_files._read", failing(errno.EIO, 0, lambda *_: 0))
        with pytest.raises(EnvironmentFault, match="E-STORE-011"):
            table.read()


def test_short_reads_of_the_system_lose_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    real = io.FileIO.readinto
    data = os.urandom(700_001)
    ref = world.home.store.put_sealed(data, **PLACE)
    monkeypatch.setattr("pipeline.store_files._read", lambda file, buffer: real(file, memoryview(buffer)[:1000]))
    assert world.home.store.read_sealed(ref) == data


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("name", ["write", "fsync", "ftruncate"])
def test_a_full_disk_under_the_notes_commits_all_or_nothing(
    world: World, home: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: int
) -> None:
    before = sealed_objects(home)
    ctx = world.context()
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(errno.ENOSPC, after, getattr(os, name)))
        with suppress(EnvironmentFault):  # the later calls come to an end before the disk is full
            stage(ctx)
            before |= {ref.digest for ref in stage_refs(ctx)}
        assert sealed_objects(home) == before
    stage(ctx)
    before -= {ref.digest for ref in stage_refs(ctx)}
    assert len(sealed_objects(home) - before) == 1


# --- keys that go, and second writers


def test_a_key_destroyed_while_a_reader_is_open_ends_with_that_reader(world: World) -> None:
    store = world.home.store
    ref = store.put_sealed(DATA * 50, **PLACE)
    with store.open_sealed(ref) as file:
        assert file.read(13) == b"Ada Lovelace "
        world.home.keyring.destroy("test_chat/protected")
        assert file.read() == (DATA * 50)[13:], "who holds the file key can finish"
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        store.open_sealed(ref)


def test_nothing_is_committed_under_a_key_destroyed_while_writing(world: World, home: Path) -> None:
    store, before = world.home.store, sealed_objects(home)

    def write() -> None:
        with store.sealed_writer(**PLACE) as sink:
            sink.write(DATA)
            world.home.keyring.destroy("test_chat/protected")
            sink.write(DATA)

    assert code_of(write) == "E-STORE-019"
    assert sealed_objects(home) == before
    assert store.read_sealed(store.put_sealed(DATA, **PLACE)) == DATA, "the next object has a new key"


def _run(world: World, barrier: object, queue: object) -> None:
    ctx = context(world)
    barrier.wait()  # type: ignore[attr-defined]
    queue.put(stage(ctx))  # type: ignore[attr-defined]


def test_two_writers_of_one_artifact_end_with_one_object_and_one_answer(world: World, home: Path) -> None:
    before = sealed_objects(home)
    barrier, queue = FORK.Barrier(3), FORK.Queue()
    workers = [FORK.Process(target=_run, args=(world, barrier, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    answers = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert len(answers) == 1
    assert len(sealed_objects(home) - before) == 1
    found = committed(world.context(), "protect", INPUTS)
    assert found is not None
    assert found.digest in answers
    assert world.home.store.read_sealed(found.manifest.outputs["protected"]) == DATA


def test_two_open_writers_of_one_place_do_not_meet(world: World) -> None:
    store = world.home.store
    with store.sealed_writer(**PLACE) as one, store.sealed_writer(**PLACE) as two:
        one.write(b"one" * 9000)
        two.write(b"two" * 9000)
        one.write(b"one" * 9000)
    assert store.read_sealed(one.ref) == b"one" * 18_000
    assert store.read_sealed(two.ref) == b"two" * 9000
    assert isinstance(store, Store)
