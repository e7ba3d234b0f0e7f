"""Hyper-parameter search as a resumable loop: propose settings, charge, run the trial, keep what may be kept.

Guarantee, for a selection: the number of trials and every trial's settings come from the operating system's generator and
are independent of the data; the number is drawn once, sealed before the first trial, and neither shown nor returned; of the
trials only the best is kept. For every search: no trial starts before its charge is durable; a trial that was cut goes on
from its own checkpoint, with the steps that it leased and lost still gone; a resumed search draws nothing anew.
Assumption: `Keeper` keeps bytes sealed, `charge` is durable when it returns, and the score that a trial gives back is
covered by the charge (`noisy_score`).
Not covered: how long a search takes tells about its number of trials, as a step's time tells about its batch.
Source: Papernot, Steinke 2022 (2110.03620), definition 1 and theorems 2 and 6. Numbers are drawn by inversion of a 53-bit
uniform, so probabilities are those of the law up to 2^-53.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from privacy.errors import BudgetExceeded, DataError, IntegrityError
from privacy.mechanisms import Mechanism, PoissonSelection, PrivateSelection
from privacy.noise import GaussianNoise
from privacy.policy_training import Dimension, Range, Search, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Settings = Mapping[str, Value]
Uniform = Callable[[], float]
_VERSION: Final = 1
_NEGLIGIBLE: Final = 2.0**-60
_POISSON_AT_ONCE: Final = 500.0  # e^-500 is still a double


class Keeper(Protocol):
    """Where the state of a search lies, sealed and durable."""

    def load(self) -> bytes | None: ...

    def save(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Trial:
    settings: Settings
    score: float


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """winner: None where a Poisson number of trials came out as zero, and the policy's own settings stand.

    trials: every trial, in order; of a selection none, as only its best may be known.
    """

    winner: Trial | None
    trials: tuple[Trial, ...]


class TrialLease:
    """The steps of one trial, as the trainer takes them; all attempts at the trial share them. See `training.trainer.Lease`."""

    def __init__(self, allowed: int, taken: int, note: Callable[[int], None]) -> None:
        self.left, self.taken, self._note = allowed - taken, taken, note

    def take(self, steps: int) -> None:
        if steps > self.left:
            raise BudgetExceeded(
                "E-SEARCH-002",
                "crashes used up the spare steps of a trial; the search stays charged",
                "Change the policy and ask for a new use approval; or tune on a public set, which costs nothing",
            )
        self._note(self.taken + steps)
        self.taken, self.left = self.taken + steps, self.left - steps


class RunTrial(Protocol):
    def __call__(self, settings: Settings, lease: TrialLease) -> float:
        """Train and score. `lease.taken` above 0: the trial goes on from its own checkpoint."""


@dataclass(slots=True)
class SearchState:
    """Sealed while the search runs. planned: the secret number. taken: steps leased by the trial at work."""

    planned: int
    done: int = 0
    taken: int = 0
    current: Settings | None = None
    kept: list[Trial] = field(default_factory=list)

    def pack(self) -> bytes:
        kept = [{"settings": dict(t.settings), "score": t.score} for t in self.kept]
        current = None if self.current is None else dict(self.current)
        value = {"version": _VERSION, "planned": self.planned, "done": self.done, "taken": self.taken}
        return json.dumps({**value, "current": current, "kept": kept}).encode()

    @classmethod
    def unpack(cls, data: bytes) -> SearchState:
        """Raises IntegrityError E-SEARCH-003 for what is no such state."""
        try:
            match json.loads(data):
                case {
                    "version": 1,
                    "planned": int(planned),
                    "done": int(done),
                    "taken": int(taken),
                    "current": dict() | None as current,
                    "kept": list(kept),
                }:
                    trials = [Trial(t["settings"], float(t["score"])) for t in kept]
                    return cls(planned, done, taken, current, trials)
        except (ValueError, KeyError, TypeError):
            pass
        raise IntegrityError(
            "E-SEARCH-003",
            "the state of this search is damaged",
            "Restore objects/ from a backup, or change the policy and ask for a new use approval; the search stays charged",
        )

    @property
    def best(self) -> Trial | None:
        return max(self.kept, key=lambda trial: trial.score, default=None)  # the first of equals


@dataclass(frozen=True, slots=True)
class SearchLoop:
    """Everything a search is handed. selection: the mechanism it is charged as; None for other searches.

    allowed: steps that a trial of these settings may lease. fresh: forgets the checkpoint of the trial before.
    charge: called with the number of trials begun, before the first step of the newest. watch: told what may be shown.
    """

    search: Search
    keeper: Keeper
    run_trial: RunTrial
    allowed: Callable[[Settings], int]
    charge: Callable[[int], None] = lambda upto: None
    fresh: Callable[[], None] = lambda: None
    watch: Callable[[SearchState], None] = lambda state: None
    selection: Mechanism | None = None
    uniform: Uniform = secrets.SystemRandom().random

    def run(self) -> SearchOutcome:
        """Run or go on. Raises what the trials raise; then nothing is lost but their unfinished steps."""
        state = self._begin()
        while not self._is_over(state):
            if state.current is None:
                self.fresh()
                state.current, state.taken = self._propose(state), 0
                self._save(state)
            self.charge(state.done + 1)
            score = self.run_trial(state.current, self._lease(state))
            if not math.isfinite(score):
                raise DataError("E-SEARCH-004", "a trial has no score", "Check that there are holdout examples to score with")
            self._finish(state, Trial(state.current, score))
        return SearchOutcome(state.best, () if self.selection is not None else tuple(state.kept))

    def _begin(self) -> SearchState:
        saved = self.keeper.load()
        if saved is not None:
            return SearchState.unpack(saved)
        planned = self.search.trials if self.selection is None else draw_trials(self.selection, self.uniform)
        state = SearchState(planned)
        self._save(state)  # before anything is charged or run: a number that could be drawn again would be a choice
        return state

    def _is_over(self, state: SearchState) -> bool:
        if state.done >= state.planned:
            return True
        patience = self.search.patience
        if patience is None or self.selection is not None or state.best is None:
            return False
        return state.done - 1 - state.kept.index(state.best) >= patience

    def _propose(self, state: SearchState) -> Settings:
        dimensions = self.search.dimensions()
        if self.search.method == "bayesian" and self.selection is None:
            return proposed_by_tpe(dimensions, state.kept, self.search.seed)
        if self.selection is not None:
            return {name: found.at(self.uniform()) for name, found in dimensions.items()}
        shares = np.random.default_rng([self.search.seed, state.done]).random(len(dimensions))
        return {name: found.at(float(share)) for (name, found), share in zip(dimensions.items(), shares, strict=True)}

    def _lease(self, state: SearchState) -> TrialLease:
        assert state.current is not None

        def note(taken: int) -> None:
            state.taken = taken
            self._save(state)

        return TrialLease(self.allowed(state.current), state.taken, note)

    def _finish(self, state: SearchState, trial: Trial) -> None:
        state.kept.append(trial)
        if self.selection is not None:
            state.kept = [best for best in [state.best] if best is not None]
        state.done, state.current, state.taken = state.done + 1, None, 0
        self._save(state)

    def _save(self, state: SearchState) -> None:
        self.keeper.save(state.pack())
        self.watch(state)


def draw_trials(selection: Mechanism, uniform: Uniform) -> int:
    """A number of trials from exactly the law that `selection` is charged for. `uniform` gives secret values in [0, 1)."""
    match selection:
        case PrivateSelection(_, shape, stop):
            return _truncated_negative_binomial(shape, stop, uniform())
        case PoissonSelection(_, mean):
            parts = max(1, math.ceil(mean / _POISSON_AT_ONCE))  # independent Poisson numbers add up
            return sum(_poisson(mean / parts, uniform()) for _ in range(parts))
    raise ValueError("not a selection")


def _truncated_negative_binomial(shape: float, stop: float, share: float) -> int:
    """P(k + 1) / P(k) = (1 - gamma) (k + eta) / (k + 1), from P(1); definition 1."""
    log_stop = math.log(stop)
    weight = shape / math.expm1(-shape * log_stop) if shape else -1 / log_stop
    return _inverse(1, (1 - stop) * weight, lambda k: (1 - stop) * (k + shape) / (k + 1), share)


def _poisson(mean: float, share: float) -> int:
    return _inverse(0, math.exp(-mean), lambda k: mean / (k + 1), share)


def _inverse(first: int, chance: float, ratio: Callable[[int], float], share: float) -> int:
    """The smallest k whose cumulative probability is above `share`; where rounding keeps the sum below, the far tail's edge."""
    number, below = first, chance
    while below <= share and (chance > _NEGLIGIBLE or ratio(number) > 1):
        chance *= ratio(number)
        number, below = number + 1, below + chance
    return number


def proposed_by_tpe(dimensions: Mapping[str, Dimension], known: Sequence[Trial], seed: int) -> Settings:
    """The next settings by optuna's tree-structured Parzen estimator, from the trials so far; the same on every resume."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: _distribution(found) for name, found in dimensions.items()}
    sampler = optuna.samplers.TPESampler(seed=(seed + len(known)) % 2**32, n_startup_trials=5)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in known:
        study.add_trial(optuna.trial.create_trial(params=dict(trial.settings), distributions=space, value=trial.score))
    return dict(study.ask(space).params)


def _distribution(found: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(found, Range):
        return CategoricalDistribution(found.values)
    log: bool = found.scale == "log"
    if found.whole:
        return IntDistribution(int(found.low), int(found.high), log=log)
    return FloatDistribution(found.low, found.high, log=log)


def noisy_score(unit_scores: npt.NDArray[np.float64], noise: float, expected_units: float) -> float:
    """Mean score of the holdout units plus Gaussian noise, so that it may decide which trial is the best.

    unit_scores: float64 [units], of one unit each, clipped to [0, 1] here. noise: standard deviation of the sum, in units:
    adding or removing a unit moves the sum by at most 1, so this is `Gaussian(noise)`. expected_units: public; the divisor.
    The key of the noise is fresh in every call.
    """
    bounded = np.clip(np.nan_to_num(unit_scores, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)
    drawn = float(GaussianNoise().draw(0, 1)[0])
    return (float(bounded.sum()) + noise * drawn) / expected_units


def unit_accuracy(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], ignored: int) -> npt.NDArray[np.float64]:
    """float64 [units]: share of a unit's records that are predicted right; 0 for a unit without records.

    predicted, labels: int64 [units, records]; `ignored` marks an absent record.
    """
    present = labels != ignored
    right = ((predicted == labels) & present).sum(1)
    share: npt.NDArray[np.float64] = right / np.maximum(present.sum(1), 1)
    return share


SearchKind = Literal["proxy", "selection", "composition"]


def kind_of(search: Search) -> SearchKind:
    return "proxy" if search.data == "proxy" else "selection" if search.charge == "selection" else "composition"
