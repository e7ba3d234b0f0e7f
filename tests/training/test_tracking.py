"""What trackers write: aggregates by a closed list, into local stores that their own readers open, and never anything else."""

from __future__ import annotations

import json
import logging
import math
import socket
from collections.abc import Iterator
from dataclasses import fields
from itertools import count
from pathlib import Path

import pytest

from privacy.accounting import charge_vector, epsilon_of_charge
from privacy.errors import EnvironmentFault, UsageError
from tests.worlds.policies import make_policy
from training.tracking import Meter, RunFacts, StepFacts, Trackers, in_words, make_trackers, tracking

RUN = RunFacts.of(make_policy(), "run-1", 1.5)
STEPS = [StepFacts(step, 0.5 * step, 1.5, 0.02, seconds_left=3.0 - step, public_loss=2.0 / step) for step in (1, 2, 3)]
# The closed list. A field that is added here has to be argued for: public, computed from public constants, or charged.
OF_A_RUN = {
    "policy", "run", "model", "mechanism", "optimizer", "privacy_unit", "epsilon", "delta", "steps", "noise_multiplier",
    "clipping_norm", "sampling_probability", "learning_rate",
}  # fmt: skip
OF_A_STEP = {"step", "epsilon_so_far", "noise_multiplier", "learning_rate", "seconds_left", "public_loss"}
FORBIDDEN = (b"grad_norm", b"gradient_norm", b"batch_size", b"members", b"clipped", b"u0001", b"record_id", b"accuracy")


def follow(to: tuple[str, ...], folder: Path) -> Trackers:
    with tracking(make_trackers(to, folder), RUN) as trackers:
        for facts in STEPS:
            trackers.step(facts)
    return trackers


def everything_written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    return ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def test_the_list_of_what_can_be_tracked_is_closed() -> None:
    assert {field.name for field in fields(RunFacts)} == OF_A_RUN
    assert {field.name for field in fields(StepFacts)} == OF_A_STEP


@pytest.mark.parametrize("value", ["u0001", [1.0, 2.0], (3,), {"a": 1}, True, None, b"x"])
def test_nothing_but_one_number_is_a_fact_of_a_step(value: object) -> None:
    with pytest.raises(UsageError, match="E-TRACK-001"):
        StepFacts(1, value, 1.0, 0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        StepFacts(1, 1.0, 1.0, 0.1, gradient_norm=2.0)  # type: ignore[call-arg]


def test_json_lines_hold_the_run_and_its_steps_and_nothing_else(tmp_path: Path) -> None:
    follow(("jsonl",), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "jsonl" / "run-1.jsonl").read_text().splitlines()]
    assert set(lines[0]) == OF_A_RUN
    assert [line["step"] for line in lines[1:]] == [1, 2, 3]
    assert all(set(line) <= OF_A_STEP for line in lines[1:])
    assert (tmp_path / "jsonl" / "run-1.jsonl").stat().st_mode & 0o077 == 0
    assert (tmp_path / "jsonl").stat().st_mode & 0o077 == 0


def test_tensorboard_reads_back_what_was_tracked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    follow(("tensorboard",), tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard" / "run-1"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == OF_A_STEP - {"step"}
    assert [(event.step, event.value) for event in found.Scalars("epsilon_so_far")] == [(1, 0.5), (2, 1.0), (3, 1.5)]


@pytest.mark.slow
def test_mlflow_reads_back_what_was_tracked_and_who_ran_it_is_not_in_it(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    follow(("mlflow",), tmp_path)
    follow(("mlflow",), tmp_path)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("test_chat")
    runs = client.search_runs([experiment.experiment_id])
    assert [(run.info.run_name, run.info.status) for run in runs] == [("run-1", "FINISHED")] * 2
    assert set(runs[0].data.params) == OF_A_RUN
    assert set(runs[0].data.metrics) == OF_A_STEP - {"step"}
    history = client.get_metric_history(runs[0].info.run_id, "epsilon_so_far")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert runs[0].data.tags["mlflow.user"] == "privet"


@pytest.mark.slow
def test_wandb_writes_an_offline_run_without_touching_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    dialled: list[object] = []
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address).startswith(
            ("('127.", "('::1'", "('localhost")
        ):
            dialled.append(address)
        real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)
    left = follow(("wandb",), tmp_path)
    assert left.names == ("wandb",)
    runs = list((tmp_path / "wandb" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 1
    data = runs[0].read_bytes()
    assert b"epsilon_so_far" in data
    assert b"public_loss" in data
    assert dialled == []
    assert socket.gethostname().encode() + b"\n" not in data
    assert not list((tmp_path / "wandb").rglob("requirements.txt"))


@pytest.mark.parametrize(
    "to",
    ["jsonl", "tensorboard", pytest.param("mlflow", marks=pytest.mark.slow), pytest.param("wandb", marks=pytest.mark.slow)],
)
def test_nothing_of_a_record_is_in_what_was_written(to: str, tmp_path: Path) -> None:
    pytest.importorskip(to if to != "jsonl" else "json")
    follow((to,), tmp_path)
    if to == "mlflow":  # its schema has columns of many names: look at the rows
        import sqlite3

        with sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as database:
            keys = {row[0] for table in ("metrics", "params") for row in database.execute(f"SELECT DISTINCT key FROM {table}")}
        assert keys == OF_A_RUN | OF_A_STEP - {"step"}
        return
    written = dict(everything_written(tmp_path))
    assert written
    assert [(path.name, word) for path, data in written.items() for word in FORBIDDEN if word in data] == []


class Breaks:
    def __init__(self, at: str) -> None:
        self.at = at

    def start(self, run: RunFacts) -> None:
        self._maybe("start")

    def step(self, facts: StepFacts) -> None:
        self._maybe("step")

    def finish(self) -> None:
        self._maybe("finish")

    def _maybe(self, where: str) -> None:
        if self.at == where:
            raise OSError(28, "No space left on device", "/secret/path")


@pytest.mark.parametrize("at", ["start", "step", "finish"])
def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(
    at: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = make_trackers(("jsonl",), tmp_path)._live[0]
    both = Trackers([("broken", Breaks(at)), good])
    with caplog.at_level(logging.WARNING), tracking(both, RUN):
        for facts in STEPS:
            both.step(facts)
    assert both.names == ("jsonl",)
    assert len((tmp_path / "jsonl" / "run-1.jsonl").read_text().splitlines()) == 4
    assert "OSError" in caplog.text
    assert "/secret/path" not in caplog.text


def test_a_folder_that_can_not_be_made_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="E-TRACK-002"):
        make_trackers(("jsonl",), tmp_path / "file")


def test_epsilon_so_far_is_that_of_every_charged_step() -> None:
    vector = charge_vector(RUN.sampling_probability, 1.5)
    lost = Meter(RUN, charged=lambda: 7)
    for done in (1, 2, 3, 9):
        wanted = epsilon_of_charge([max(done, 7) * units for units in vector], RUN.delta)
        assert lost.after(done).epsilon_so_far == wanted
    falling = Meter(RUN, noise_at=lambda step: 3.0 - step / 10)
    parts = [charge_vector(RUN.sampling_probability, 3.0 - step / 10) for step in range(3)]
    assert falling.after(3).epsilon_so_far == epsilon_of_charge([sum(column) for column in zip(*parts, strict=True)], RUN.delta)
    assert falling.after(3).noise_multiplier == 2.8


def test_without_privacy_there_is_no_epsilon_to_show() -> None:
    bare = RunFacts.of(make_policy(**{"recipe.mechanism": "non_private"}), "run-1", 0.0)
    facts = Meter(bare).after(1)
    assert facts.epsilon_so_far == math.inf
    assert "epsilon_so_far" not in dict(facts.items())
    assert in_words(facts) == "train"


def test_the_time_left_is_told_from_steps_of_this_process() -> None:
    ticks = count(0.0, 2.0)
    meter = Meter(RUN, clock=lambda: next(ticks))
    assert meter.after(5).seconds_left is None  # resumed: the first five were run by another process
    assert meter.after(6).seconds_left == 2.0 * (20 - 6)
    assert in_words(StepFacts(6, 1.234, 1.0, 0.1, 75.0, 0.5)) == "train, epsilon 1.24, public loss 0.500, about 1 min 15 s left"
