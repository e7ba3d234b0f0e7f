"""The trials of `privet search`: trained by the ordinary trainer, scored, and forgotten with their sealed checkpoint.

Guarantee: a score over private units is a noisy sum of values in [0, 1], one of each holdout unit, with the noise that the
search is charged for; the state of a search and the checkpoint of its trial are one sealed object, so no crash leaves one
without the other. Assumption: holdout is decided by a keyed coin of the unit's own name (`training.data.is_holdout`), so a
unit is learnt from or scored with, and never both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.training_watch import UnitErased, Watch, WatchedLease
from privacy.canonical import Digest
from privacy.errors import DataError

if TYPE_CHECKING:
    from pipeline.stage import StageContext
    from pipeline.train import TrainingData
    from pipeline.training_budget import SealedCheckpoints
    from privacy.policy import Policy
    from training.config import TrainingConfig
    from training.models.base import UnitModel
    from training.public import PublicExamples
    from training.search import Settings, TrialLease
    from training.search_charge import SearchCharge, Shape

_ENCODING = ("hash_buckets", "max_tokens", "top_layers", "trains")  # settings that change what units look like
_PROXY_CANARIES = 20  # nobody audits a trial; the engine wants some
_UNITS_AT_ONCE = 64


@dataclass(slots=True)
class SealedSearch:
    """State of the search and checkpoint of its trial as one sealed object, so that no crash sees one without the other."""

    checkpoints: SealedCheckpoints
    state: bytes = b""
    trial: bytes = b""

    @classmethod
    def open(cls, checkpoints: SealedCheckpoints) -> SealedSearch:
        data = checkpoints.load() or bytes(8)
        end = 8 + int.from_bytes(data[:8], "big")
        return cls(checkpoints, data[8:end], data[end:])

    def write(self) -> None:
        self.checkpoints.save(len(self.state).to_bytes(8, "big") + self.state + self.trial)

    # For the search (`training.search.Keeper`):
    def load(self) -> bytes | None:
        return self.state or None

    def save(self, data: bytes) -> None:
        self.state = data
        self.write()

    def fresh(self) -> None:
        self.trial = b""  # durable with the next state, which names the next trial


@dataclass(slots=True)
class TrialCheckpoints:
    """For the trainer (`training.trainer.Checkpoints`)."""

    sealed: SealedSearch

    def load(self) -> bytes | None:
        return self.sealed.trial or None

    def save(self, data: bytes) -> None:
        self.sealed.trial = data
        self.sealed.write()


@dataclass(slots=True)
class ProxyTrials:
    """Trials on a public set, with the noise that the real run would have beside the same expected batch."""

    ctx: StageContext
    examples: PublicExamples
    sealed: SealedSearch
    device: str
    noise: dict[Shape, float] = field(default_factory=dict)

    def __call__(self, settings: Settings, lease: TrialLease) -> float:
        from training.evaluate import load_released
        from training.public import public_units
        from training.recipes import recipe_of
        from training.trainer import train_model

        declared = self.ctx.policy.search
        assert declared is not None
        assert declared.proxy is not None
        learn, score = self.examples.split(declared.proxy.holdout_share)
        if not learn.examples or not score.examples:
            raise DataError("E-SEARCH-004", "the public set is too small to learn and to score with", "Declare a larger one")
        config = self._config(self.ctx.policy.tried(settings), len(learn.examples))
        recipe = recipe_of(config)
        progress = partial(self.ctx.progress, "search")
        outcome = train_model(
            config, public_units(learn, config), lambda: lease, TrialCheckpoints(self.sealed), _no_announcement, progress,
            self.device,
        )  # fmt: skip
        model = load_released(recipe.build(config), outcome.weights)
        found = recipe.utility(model, public_units(score, config), config)
        return float("nan") if found is None else found.accuracy

    def _config(self, policy: Policy, units: int) -> TrainingConfig:
        """The real run's noise, batch and divisor. A set smaller than the batch is used whole, with noise in proportion."""
        from training.config import TrainingConfig
        from training.search_charge import run_noise, shape_of

        shape = shape_of(policy)
        if shape not in self.noise:
            self.noise[shape] = run_noise(policy)
        batch = min(policy.budget.expected_batch_size, units)
        return TrainingConfig(
            recipe=policy.recipe,
            labels=self.examples.labels,
            max_records=1,
            noise_multiplier=self.noise[shape] * batch / policy.budget.expected_batch_size,
            sampling_probability=batch / units,
            divisor=batch,
            canaries=_PROXY_CANARIES,
        )


@dataclass(slots=True)
class PrivateTrials:
    """Train on the training units, score on the holdout units by a noisy sum; no canary is committed, as no model leaves."""

    ctx: StageContext
    protect: Digest
    charge: SearchCharge
    sealed: SealedSearch
    watch: Watch
    device: str
    data: TrainingData
    encoded_for: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, settings: Settings, lease: TrialLease) -> float:
        from training.checkpoint import saw_units_that_are_gone
        from training.config import TrainingConfig
        from training.evaluate import load_released
        from training.recipes import recipe_of
        from training.search import noisy_score
        from training.search_charge import shape_of
        from training.trainer import train_model

        policy = self.ctx.policy.tried(settings)
        self._encode(policy, settings)
        config = TrainingConfig.from_policy(policy, self.charge.noise[shape_of(policy)])
        if self.sealed.trial and saw_units_that_are_gone(self.sealed.trial, config, len(self.data.training)):
            raise UnitErased
        outcome = train_model(
            config, self.data.training, lambda: WatchedLease(lease, self.watch), TrialCheckpoints(self.sealed),
            _no_announcement, self._progress(), self.device,
        )  # fmt: skip
        model = load_released(recipe_of(config).build(config), outcome.weights)
        expected = policy.budget.population * policy.audit.holdout_share
        return noisy_score(unit_scores(model, self.data, config), self.charge.score_noise, expected)

    def _progress(self) -> Callable[[int, int], None]:
        """None of a selection: steps that begin again from 1 would count its trials, and their number would tell settings."""
        declared = self.ctx.policy.search
        assert declared is not None
        return _silent if declared.charge == "selection" else partial(self.ctx.progress, "search")

    def _encode(self, policy: Policy, settings: Settings) -> None:
        """Read anew where this trial's units look different."""
        from pipeline.train import load_units

        wanted = {name: settings[name] for name in _ENCODING if name in settings}
        if wanted != self.encoded_for:
            self.data = load_units(replace(self.ctx, policy=policy), self.protect)
            self.encoded_for = wanted


def unit_scores(model: UnitModel, data: TrainingData, config: TrainingConfig) -> npt.NDArray[np.float64]:
    """float64 [holdout units] in [0, 1], each of one unit alone: share of its records right, or e^-loss without labels."""
    import torch

    from training.data import IGNORED
    from training.evaluate import predictions
    from training.recipes import recipe_of
    from training.search import unit_accuracy

    holdout = data.holdout
    if recipe_of(config).classifies:
        return unit_accuracy(predictions(model, holdout), holdout.labels, IGNORED)
    found = []
    with torch.no_grad():
        for start in range(0, len(holdout), _UNITS_AT_ONCE):
            part = slice(start, start + _UNITS_AT_ONCE)
            inputs = {name: torch.from_numpy(np.ascontiguousarray(array[part])) for name, array in holdout.inputs.items()}
            found.append(torch.exp(-model.losses(inputs, torch.from_numpy(holdout.labels[part]))).double().numpy())
    return np.concatenate(found)


def _silent(done: int, total: int) -> None:
    """Shows nothing."""


def _no_announcement(commitment: Digest) -> None:
    """A trial's canaries are audited by nobody; an entry for each would count the trials."""
