"""Run tracking behind one interface: TensorBoard, MLflow, W&B, JSON lines. Only aggregates that are public or charged for.

Guarantee: a tracker is handed `RunFacts` and `StepFacts` and nothing else; their fields are the whole list of what can be
written, each of them a public constant, or computed from public constants, the clock and the public set. A loss, a gradient
norm or a batch size of private data has no field, so it can't be passed. Nothing is sent: MLflow keeps an SQLite file, W&B
runs offline, and both have their own reporting switched off. Libraries are imported when a policy names them.
Not covered: when a step ended, as the files' own times tell it; a step's time depends on its secret batch. A noised loss is
not offered: its charge would have to be in the mechanism trace that a stranger recomputes. Use a public set.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np

from privacy.accounting import charge_vector, epsilon_of_charge
from privacy.errors import EnvironmentFault, PrivetError, UsageError
from privacy.policy import Policy
from training.data import IGNORED

if TYPE_CHECKING:
    from training.models.base import UnitModel
    from training.public import PublicInputs

log = logging.getLogger("privet.tracking")
_FOLDER_MODE: Final = 0o700
_UNITS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known before the first step: public constants of the policy and the noise that follows from them."""

    policy: str
    run: str
    model: str
    mechanism: str
    optimizer: str
    privacy_unit: str
    epsilon: float
    delta: float
    steps: int
    noise_multiplier: float
    clipping_norm: float
    sampling_probability: float
    learning_rate: float

    @classmethod
    def of(cls, policy: Policy, run: str, noise_multiplier: float) -> Self:
        recipe, budget = policy.recipe, policy.budget
        return cls(
            policy=policy.name,
            run=run,
            model=recipe.model,
            mechanism=recipe.mechanism,
            optimizer=recipe.optimizer,
            privacy_unit=policy.privacy_unit.name,
            epsilon=budget.epsilon,
            delta=budget.delta,
            steps=recipe.steps,
            noise_multiplier=noise_multiplier,
            clipping_norm=recipe.clipping_norm,
            sampling_probability=budget.sampling_probability,
            learning_rate=recipe.learning_rate,
        )

    def items(self) -> Iterator[tuple[str, str | int | float]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))


@dataclass(frozen=True, slots=True)
class StepFacts:
    """After a step. epsilon_so_far: of every charged step, at the run's delta, rounded up.

    seconds_left: None until it can be told. public_loss: of the public set; None where there is none.
    """

    step: int
    epsilon_so_far: float
    noise_multiplier: float
    learning_rate: float
    seconds_left: float | None = None
    public_loss: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name in ("seconds_left", "public_loss"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError("E-TRACK-001", "what is tracked of a step is single numbers only", "Track an aggregate")

    def items(self) -> Iterator[tuple[str, float]]:
        """Name and value of what is there and finite, the step aside."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "step" and value is not None and math.isfinite(value):
                yield field.name, float(value)


class Tracker(Protocol):
    """One place that follows a run. Each call may raise; `Trackers` then goes on without it."""

    def start(self, run: RunFacts) -> None: ...

    def step(self, facts: StepFacts) -> None: ...

    def finish(self) -> None: ...


class JsonLines:
    """One JSON object per line in RUN.jsonl: the run first, then its steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, run: RunFacts) -> None:
        handle = os.open(self._folder / f"{run.run}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(handle, "a", encoding="utf-8")
        self._write(dict(run.items()))

    def step(self, facts: StepFacts) -> None:
        self._write({"step": facts.step, **dict(facts.items())})

    def finish(self) -> None:
        self._file.close()

    def _write(self, value: dict[str, str | int | float]) -> None:
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()


class TensorBoard:
    """Event files that `tensorboard --logdir` shows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, run: RunFacts) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder / run.run))
        self._writer.add_text("run", "\n".join(f"    {name}: {value}" for name, value in run.items()))

    def step(self, facts: StepFacts) -> None:
        for name, value in facts.items():
            self._writer.add_scalar(name, value, facts.step)

    def finish(self) -> None:
        self._writer.close()


class MlFlow:
    """Runs in mlflow.db (SQLite), for `mlflow ui --backend-store-uri`. Its usage reporting is switched off."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, run: RunFacts) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when the library is imported
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=f"sqlite:///{self._folder.resolve() / 'mlflow.db'}")
        found = self._client.get_experiment_by_name(run.policy)
        place = str(self._folder.resolve() / "artifacts")
        experiment = found.experiment_id if found else self._client.create_experiment(run.policy, artifact_location=place)
        tags = {"mlflow.user": "privet", "mlflow.source.name": "privet"}
        self._run: str = self._client.create_run(experiment, tags=tags, run_name=run.run).info.run_id
        for name, value in run.items():
            self._client.log_param(self._run, name, value)

    def step(self, facts: StepFacts) -> None:
        for name, value in facts.items():
            self._client.log_metric(self._run, name, value, step=facts.step)

    def finish(self) -> None:
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    """An offline run folder; `wandb sync` sends it, if somebody decides to. Host, user, code and machine are not recorded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, run: RunFacts) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        logging.getLogger("wandb").setLevel(logging.WARNING)
        import wandb

        settings = wandb.Settings(
            mode="offline", console="off", silent=True, save_code=False, disable_git=True, disable_code=True,
            disable_job_creation=True, x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
            x_save_requirements=False, host="privet", username="privet", email="", program="privet",
        )  # fmt: skip
        self._run = wandb.init(
            project=run.policy, name=run.run, config=dict(run.items()), dir=str(self._folder), settings=settings
        )

    def step(self, facts: StepFacts) -> None:
        self._run.log(dict(facts.items()), step=facts.step)

    def finish(self) -> None:
        self._run.finish()


_KINDS: Final[dict[str, Callable[[Path], Tracker]]] = {
    "jsonl": JsonLines,
    "tensorboard": TensorBoard,
    "mlflow": MlFlow,
    "wandb": WeightsAndBiases,
}


class Trackers:
    """All trackers of a run. One that fails is left out with a line in the log: charged steps must not be lost to a plot."""

    def __init__(self, trackers: Sequence[tuple[str, Tracker]]) -> None:
        self._live = list(trackers)

    def start(self, run: RunFacts) -> None:
        self._each(lambda tracker: tracker.start(run))

    def step(self, facts: StepFacts) -> None:
        self._each(lambda tracker: tracker.step(facts))

    def finish(self) -> None:
        self._each(lambda tracker: tracker.finish())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._live)

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for entry in list(self._live):
            try:
                call(entry[1])
            except Exception as error:
                self._live.remove(entry)
                kind = error.code if isinstance(error, PrivetError) else type(error).__name__
                log.warning("tracking with %s stopped (%s); the training goes on", entry[0], kind)


def make_trackers(to: Sequence[str], folder: Path) -> Trackers:
    """Trackers of a policy's `tracking.to`, writing under `folder`, which is made, readable by its owner alone.

    Raises EnvironmentFault E-TRACK-002 when the folder can't be made.
    """
    try:
        for name in to:
            (folder / name).mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
    except OSError as error:
        raise EnvironmentFault(
            "E-TRACK-002",
            f"the tracking folder can't be made ({error.strerror})",
            "Correct tracking.folder, or free some space",
        ) from None
    return Trackers([(name, _KINDS[name](folder / name)) for name in to])


@contextmanager
def tracking(trackers: Trackers, run: RunFacts) -> Iterator[Trackers]:
    """Start, and finish whatever happens in between."""
    trackers.start(run)
    try:
        yield trackers
    finally:
        trackers.finish()


def public_loss(model: UnitModel, public: PublicInputs) -> float | None:
    """Mean cross entropy over the labelled public examples; None where none has a label that the model knows."""
    import torch
    from torch.nn import functional

    known = np.flatnonzero(public.truth != IGNORED)
    if not len(known):
        return None
    total, was = 0.0, model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        for rows in np.array_split(known, math.ceil(len(known) / _UNITS_AT_ONCE)):
            inputs = {name: torch.from_numpy(array).to(device) for name, array in public.part(rows).items()}
            truth = torch.from_numpy(public.truth[rows]).to(device)
            total += float(functional.cross_entropy(model.outputs(inputs)[:, 0].float(), truth, reduction="sum"))
    model.train(was)
    return total / len(known)


class Meter:
    """Turns "step n of N is done" into `StepFacts`, from public constants, the ledger's count of charged steps and a clock.

    charged: steps charged to the ledger so far, lost ones too; at least the steps done count. noise_at, learning_rate_at: of
    a step counted from 0, for schedules.
    """

    def __init__(
        self,
        run: RunFacts,
        charged: Callable[[], int] = lambda: 0,
        noise_at: Callable[[int], float] | None = None,
        learning_rate_at: Callable[[int], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._charged, self._clock = run, charged, clock
        self._noise_at = noise_at or (lambda step: run.noise_multiplier)
        self._learning_rate_at = learning_rate_at or (lambda step: run.learning_rate)
        self._counted, self._total = 0, [0] * len(charge_vector(1.0, 1.0))
        self._began: tuple[float, int] | None = None

    def after(self, done: int, public_loss: float | None = None) -> StepFacts:
        """Facts after `done` steps."""
        last = max(done - 1, 0)
        return StepFacts(
            step=done,
            epsilon_so_far=self._epsilon(max(done, self._charged())),
            noise_multiplier=self._noise_at(last),
            learning_rate=self._learning_rate_at(last),
            seconds_left=self._seconds_left(done),
            public_loss=public_loss,
        )

    def _epsilon(self, steps: int) -> float:
        if self._run.mechanism != "dp_sgd":
            return math.inf  # no amount of noise bounds it
        for step in range(self._counted, steps):
            vector = charge_vector(self._run.sampling_probability, self._noise_at(min(step, self._run.steps - 1)))
            self._total = [used + units for used, units in zip(self._total, vector, strict=True)]
        self._counted = max(steps, self._counted)
        return epsilon_of_charge(self._total, self._run.delta)

    def _seconds_left(self, done: int) -> float | None:
        """By the steps of this process; the first of them carries what only happens once, so it is not counted."""
        if self._began is None:
            self._began = (self._clock(), done)
            return None
        since, first = self._began
        if done <= first:
            return None
        return round((self._clock() - since) / (done - first) * (self._run.steps - done), 1)


def in_words(facts: StepFacts) -> str:
    """For a live line: `train, epsilon 1.24, about 40 s left`."""
    parts = ["train"]
    if math.isfinite(facts.epsilon_so_far):
        parts.append(f"epsilon {math.ceil(facts.epsilon_so_far * 100) / 100:.2f}")
    if facts.public_loss is not None:
        parts.append(f"public loss {facts.public_loss:.3f}")
    if facts.seconds_left is not None:
        minutes, seconds = divmod(round(facts.seconds_left), 60)
        parts.append(f"about {minutes} min {seconds} s left" if minutes else f"about {seconds} s left")
    return ", ".join(parts)
