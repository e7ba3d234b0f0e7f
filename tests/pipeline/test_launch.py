"""The processes of a training on one machine: what they are given, that they can't outlive it, and how their end is told."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipeline import launch
from pipeline.audit import audit
from pipeline.launch import crew_of
from pipeline.stage import load_manifest
from pipeline.tasks import run_train
from pipeline.train import train
from privacy.errors import EnvironmentFault, GateClosed, UsageError
from privacy.noise import GaussianNoise, SecretCoins
from tests.pipeline.training_world import SETTINGS, TrainingWorld
from tests.training.test_trainer import Memory as Kept
from tests.training.worlds import small_config, units
from training.distributed import Crew, LeaderCrew, Seat, SoloCrew
from training.engine import PrivateEngine, make_carrier
from training.follower import TOKEN_FILE, seat_from_environment
from training.probe import CHECKS
from training.trainer import TrainingOutcome, train_model

ROOT = Path(__file__).resolve().parents[2]
CONFIG = small_config(canaries=8, steps=12)
COINS = np.arange(8) % 2 == 0
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    before = set(children())  # of another file's tests in this process
    yield
    assert not set(children()) - before, "a follower outlived its training"


def children(of: int | None = None) -> list[int]:
    """Followers among the child processes."""
    found = []
    for task in Path(f"/proc/{of or os.getpid()}/task").glob("*/children"):
        for pid in task.read_text().split():
            if b"training.follower" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


def engine(crew: Crew | None) -> PrivateEngine:
    data = units(CONFIG, 40)
    return PrivateEngine(
        make_carrier(CONFIG), CONFIG, data, COINS, SecretCoins(bytes(32)), noise=GaussianNoise(bytes(32)), crew=crew
    )


def test_one_process_needs_nobody() -> None:
    with crew_of(1) as crew:
        assert isinstance(crew, SoloCrew)


@linux
@pytest.mark.slow
def test_two_processes_are_one_and_the_second_is_given_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVET_HOME", "/the/home/of/privet")
    monkeypatch.setenv("SOME_PASSWORD", "hunter2")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    alone, together = engine(None), None
    with crew_of(2) as crew:
        assert isinstance(crew, LeaderCrew)
        (pid,) = children()
        assert (next(tmp_path.glob("privet-crew-*")).stat().st_mode & 0o777) == 0o700
        told = Path(f"/proc/{pid}/cmdline").read_bytes()
        # Not dumpable, so only root may read its environment; who can't, learns nothing from it either.
        try:
            told += Path(f"/proc/{pid}/environ").read_bytes()
        except PermissionError:
            told += b"PATH="
        assert b"PATH=" in told
        for hidden in (b"/the/home/of/privet", b"hunter2", b"PRIVET_HOME"):
            assert hidden not in told
        assert not any(word.isalnum() and len(word) == 64 for word in told.replace(b"=", b"\0").split(b"\0"))  # a token
        together = engine(crew)
        for number in range(CONFIG.steps):
            alone.step(number)
            together.step(number)
    for one, other in zip(together.carrier.parameters(), alone.carrier.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert list(tmp_path.glob("privet-crew-*")) == []


def trained(kept: Kept, crew: Crew | None, kill_at: int | None = None) -> TrainingOutcome:
    def progress(done: int, total: int) -> None:
        if done == kill_at:
            os.kill(children()[0], signal.SIGKILL)
            time.sleep(0.2)

    return train_model(CONFIG, units(CONFIG, 40), lambda: kept, kept, kept.announce, progress, "cpu", crew)


@linux
@pytest.mark.slow
def test_a_killed_follower_ends_the_run_and_one_process_goes_on_with_it() -> None:
    """Its leased steps stay charged; the state is the leader's, so any number of processes may take over."""
    kept = Kept(CONFIG)

    def run() -> None:
        with crew_of(2) as crew:
            trained(kept, crew, kill_at=5)

    with pytest.raises(EnvironmentFault, match=r"E-CREW-004.*process 1 ended: signal 9"):
        run()
    assert kept.taken >= 6
    before = kept.taken
    outcome = trained(kept, None)
    assert outcome.steps_in_model == CONFIG.steps
    assert outcome.steps_charged == before + CONFIG.steps - 5 > CONFIG.steps


@linux
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_followers_leave_with_a_killed_leader_and_tidy_up(how: signal.Signals, tmp_path: Path) -> None:
    code = "import sys, time\nfrom pipeline.launch import crew_of\nwith crew_of(2):\n print('up', flush=True)\n time.sleep(60)"
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    leader = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, env=env)
    assert leader.stdout is not None
    assert leader.stdout.readline() == b"up\n"
    (follower,) = children(leader.pid)
    leader.send_signal(how)
    leader.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{follower}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{follower}").exists()
    assert list(tmp_path.glob("privet-crew-*")) == []
    leader.stdout.close()


@linux
def test_a_follower_that_does_not_start_is_an_error_before_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.sys, "executable", "/bin/false")
    with pytest.raises(EnvironmentFault, match="E-CREW-010"), crew_of(2):
        pytest.fail("it started")


@linux
def test_a_fault_of_something_else_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLeader:
        def __init__(self, seat: Seat) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr("training.distributed.LeaderCrew", NoLeader)
    monkeypatch.setattr(launch, "_wait_until_ready", lambda followers: None)
    fault, closed = EnvironmentFault("E-DISK-001", "the disk is full", "Free some"), GateClosed("E-GATE-001", "shut", "Ask")
    for raised in (fault, closed):
        with pytest.raises(type(raised)) as found, crew_of(2):
            raise raised
        assert found.value is raised


# ---- the outer form


def test_a_place_in_a_torchrun_needs_all_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("ab" * 32 + "\n")
    whole = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "leader", "MASTER_PORT": "1", TOKEN_FILE: str(token)}
    for name, value in whole.items():
        monkeypatch.setenv(name, value)
    seat = seat_from_environment(5.0)
    assert (seat.rank, seat.world, seat.token, seat.rendezvous) == (1, 2, b"\xab" * 32, None)
    assert "ab" * 8 not in repr(seat)
    for name, wrong in {"RANK": "2", "WORLD_SIZE": "x", TOKEN_FILE: str(tmp_path / "none")}.items():
        with monkeypatch.context() as changed:
            changed.setenv(name, wrong)
            with pytest.raises(UsageError, match="E-CREW-007"):
                seat_from_environment(5.0)
    with pytest.raises(UsageError, match="E-CREW-008"), crew_of(1):
        pytest.fail("rank 1 leads")


@linux
@pytest.mark.slow
def test_torchrun_starts_leader_and_follower_by_one_line(tmp_path: Path) -> None:
    """The same script for all ranks, as `pipeline.train_worker` is; here with a leader that trains on made-up units."""
    token, script, out = tmp_path / "token", tmp_path / "worker.py", tmp_path / "out"
    token.write_text(os.urandom(32).hex())
    script.write_text(
        "import os, sys\n"
        "from pipeline import train_worker\n"
        "if os.environ['RANK'] != '0':\n"
        "    sys.exit(train_worker.main(['--no-such-option']))\n"
        "from tests.pipeline.test_launch import *\n"
        "with crew_of(1) as crew:\n"
        "    made = engine(crew)\n"
        "    [made.step(n) for n in range(3)]\n"
        f"    open({str(out)!r}, 'w').write(json.dumps([crew.world, float(made.carrier.model.head.weight.detach().sum())]))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    env = {**os.environ, TOKEN_FILE: str(token), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    alone = engine(None)
    for number in range(3):
        alone.step(number)
    world, found = json.loads(out.read_text())
    assert world == 2
    assert found == pytest.approx(float(alone.carrier.model.head.weight.detach().sum()), rel=1e-5)


# ---- the train stage


@linux
@pytest.mark.slow
@pytest.mark.parametrize("shards", [False, True])
def test_the_train_stage_shares_its_steps_and_charges_them_once(tmp_path: Path, shards: bool) -> None:
    recipe = {**SETTINGS["recipe"], "processes": 2, "shards": shards}  # type: ignore[dict-item]
    world = TrainingWorld(tmp_path, recipe=recipe, audit={"canaries": 120, "min_accuracy": 0.0, "probe_level": 1e-6})
    result = train(world.ctx, world.protect.digest, world.approve())
    manifest = load_manifest(world.home, result.digest)
    assert manifest.facts["steps"] == manifest.facts["steps_in_model"] == 40
    spend = world.home.ledger.spend(str(manifest.facts["ledger_key"]))
    assert spend is not None
    assert spend.settled == 40
    checked = audit(world.ctx, world.protect.digest, result.digest)
    verdicts = json.loads(world.home.store.read_plain(checked.manifest.outputs["verdicts"]))
    probed = {verdict["check"]: verdict["outcome"] for verdict in verdicts if verdict["check"].startswith("probe.")}
    assert probed.keys() == {f"probe.{check}" for check in CHECKS}
    assert "failed" not in probed.values()
    sure = ("noise_scale", "rank_noise", "step_count", "size_independence")
    assert {probed[f"probe.{check}"] for check in sure} == {"passed"}


@linux
@pytest.mark.slow
def test_torchrun_trains_an_approved_run_and_the_dags_task_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = TrainingWorld(tmp_path)
    world.approve()
    policy, token = tmp_path / "policy.yaml", tmp_path / "token"
    policy.write_text(yaml.safe_dump(world.ctx.policy.model_dump(mode="json")))
    token.write_text(os.urandom(32).hex())
    digests = ["--protect", world.protect.digest, "--validate", world.validate.digest]
    worker = [
        "-m",
        "pipeline.train_worker",
        "--home",
        str(world.home.path),
        "--policy",
        str(policy),
        *digests,
        "--run-id",
        "run-1",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = shlex.join(["env", f"{TOKEN_FILE}={token}", f"PYTHONPATH={ROOT}", "OMP_NUM_THREADS=1", *torchrun, *worker])
    monkeypatch.setenv(launch.COMMAND, command)
    monkeypatch.setattr("pipeline.train._train", lambda *args: pytest.fail("it trained here"))
    digest = run_train(world.home.path, policy, world.protect.digest, world.validate.digest, "run-1", "demo_engineer")
    assert load_manifest(world.home, digest).facts["steps_in_model"] == 40
