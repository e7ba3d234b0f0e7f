"""Joins a training to its trackers and to the live line: epsilon so far, time left, and a public loss where one is declared.

Guarantee: what leaves is `training.tracking.StepFacts`, whose fields are the whole list; see there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.errors import UsageError

if TYPE_CHECKING:
    from pipeline.stage import StageContext
    from training.config import TrainingConfig
    from training.models.base import UnitModel
    from training.public import PublicInputs
    from training.tracking import Meter, Trackers


class Follower:
    """Hand `progress` and `observe` to the trainer."""

    def __init__(self, ctx: StageContext, trackers: Trackers, meter: Meter, public: PublicInputs | None) -> None:
        self._ctx, self._trackers, self._meter, self._public = ctx, trackers, meter, public
        self._loss: float | None = None

    def progress(self, done: int, total: int) -> None:
        from training.tracking import in_words

        facts = self._meter.after(done, self._loss)
        self._trackers.step(facts)
        self._ctx.progress(in_words(facts), done, total)

    def observe(self, model: UnitModel) -> None:
        """The loss of the model as it is, on the public set: a post-processing of noisy weights, so it costs nothing."""
        from training.tracking import public_loss

        if self._public is not None:
            self._loss = public_loss(model, self._public)


@contextmanager
def followed(
    ctx: StageContext, config: TrainingConfig, charged: Callable[[], int], beside: Path | None = None
) -> Iterator[Follower]:
    """Trackers of the policy, started and always finished. charged: steps charged to the ledger so far.

    beside: the folder that a public set's path is relative to. Raises UsageError E-TRACK-003 where it is needed and not known.
    """
    from training.schedules import learning_rate_at
    from training.tracking import Meter, RunFacts, make_trackers, tracking

    declared, recipe = ctx.policy.tracking, config.recipe
    run = RunFacts.of(ctx.policy, ctx.run_id, config.noise_multiplier)
    meter = Meter(run, charged, config.noise_multiplier_at, lambda step: learning_rate_at(recipe, step))
    trackers = make_trackers(declared.to, ctx.home.path / declared.folder)
    with tracking(trackers, run):
        yield Follower(ctx, trackers, meter, _public(ctx, config, beside))


def _public(ctx: StageContext, config: TrainingConfig, beside: Path | None) -> PublicInputs | None:
    from training.public import public_inputs, read_public

    declared = ctx.policy.tracking.public
    if declared is None:
        return None
    if beside is None and not Path(declared.path).is_absolute():
        raise UsageError(
            "E-TRACK-003",
            "tracking.public has a relative path, and nobody knows relative to what",
            "Give tracking.public an absolute path",
        )
    return public_inputs(read_public(declared, beside or Path("/")), config)
