"""The loop of a search: its laws are those charged for; nothing runs uncharged, is drawn twice, or is kept but the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy.errors import BudgetExceeded, DataError, IntegrityError
from privacy.mechanisms import Gaussian, Mechanism, PoissonSelection, PrivateSelection
from privacy.policy_training import Search, dimension
from training.search import (
    SearchLoop,
    SearchOutcome,
    SearchState,
    Settings,
    Trial,
    TrialLease,
    draw_trials,
    noisy_score,
    proposed_by_tpe,
    unit_accuracy,
)

SPACE = {"learning_rate": [0.001, 0.1, "log"], "steps": [10, 20]}
PRIVATE = {"data": "private", "epsilon": 3.0, "space": SPACE}
SELECTION = Search.model_validate({**PRIVATE, "charge": "selection", "distribution": "geometric", "trials": 4})
COMPOSED = Search.model_validate({**PRIVATE, "charge": "composition", "trials": 6})
PROXY = Search.model_validate(
    {"data": "proxy", "trials": 6, "space": SPACE, "proxy": {"path": "x.jsonl", "origin": "made up for a test"}}
)
BASE = Gaussian(1.0)
LAWS: list[tuple[Mechanism, Callable[[int], float]]] = [
    (PrivateSelection(BASE, 1.0, 0.2), lambda k: stats.geom.pmf(k, 0.2)),
    (PrivateSelection(BASE, 0.0, 0.05), lambda k: stats.logser.pmf(k, 0.95)),
    (PrivateSelection(BASE, 2.5, 0.3), lambda k: (k > 0) * stats.nbinom.pmf(k, 2.5, 0.3) / (1 - 0.3**2.5)),
    (PrivateSelection(BASE, -0.5, 0.1), lambda k: _negative_shape(k)),
    (PoissonSelection(BASE, 7.0), lambda k: stats.poisson.pmf(k, 7.0)),
]


def _negative_shape(k: int) -> float:
    """Definition 1 of the paper, written out for eta -0.5, gamma 0.1."""
    if k == 0:
        return 0.0
    product = np.prod([(other - 0.5) / (other + 1) for other in range(k)])
    return float(0.9**k / (0.1**0.5 - 1) * product)


@pytest.mark.parametrize(("selection", "chance"), LAWS, ids=lambda value: getattr(value, "kind", ""))
def test_the_number_of_trials_follows_exactly_the_law_that_is_charged(
    selection: Mechanism, chance: Callable[[int], float]
) -> None:
    """By inversion: the cumulative probability of what is drawn at u lies around u."""
    for share in (0.0, 1e-9, 0.01, 0.3, 0.5, 0.8, 0.99, 0.9999):
        drawn = draw_trials(selection, lambda share=share: share)  # type: ignore[misc]
        below = sum(chance(k) for k in range(drawn))  # of fewer trials
        assert below <= share + 1e-12
        assert share < below + chance(drawn) + 1e-12


def test_the_mean_is_the_one_that_the_charge_names() -> None:
    for selection, _ in LAWS:
        uniform = iter((np.arange(20_000) + 0.5) / 20_000)
        drawn = [draw_trials(selection, lambda uniform=uniform: float(next(uniform))) for _ in range(20_000)]  # type: ignore[misc]
        assert np.mean(drawn) == pytest.approx(selection.expected_trials, rel=0.02)  # type: ignore[union-attr]


def test_a_large_poisson_number_does_not_underflow_and_the_far_tail_ends() -> None:
    generator = np.random.default_rng(1)
    drawn = [draw_trials(PoissonSelection(BASE, 5000.0), generator.random) for _ in range(50)]
    assert 4900 < np.mean(drawn) < 5100
    assert draw_trials(PrivateSelection(BASE, 1.0, 0.5), lambda: 1 - 2.0**-53) < 200


class Bench:
    """A search in memory that can be cut at any call; it notes what happened in which order."""

    def __init__(self, search: Search, selection: Mechanism | None, cut_at: int | None = None) -> None:
        self.search, self.selection = search, selection
        self.saved: bytes | None = None
        self.log: list[tuple[str, object]] = []
        self.calls, self.cut_at = count(), cut_at
        self.charged = 0
        self.drawn = 0

    def _tick(self, what: str, value: object = None) -> None:
        if next(self.calls) == self.cut_at:
            raise KeyboardInterrupt
        self.log.append((what, value))

    def load(self) -> bytes | None:
        return self.saved

    def save(self, data: bytes) -> None:
        self._tick("save")
        self.saved = data

    def charge(self, upto: int) -> None:
        self._tick("charge", upto)
        self.charged = max(self.charged, upto)

    def fresh(self) -> None:
        self._tick("fresh")

    def uniform(self) -> float:
        self.drawn += 1
        return float(np.random.default_rng(self.drawn).random())

    def trial(self, settings: Settings, lease: TrialLease) -> float:
        assert self.charged >= 1
        if self.selection is None:
            assert self.charged == SearchState.unpack(self.saved or b"").done + 1
        steps = settings["steps"]
        assert isinstance(steps, int)
        while lease.taken < steps:
            lease.take(5)
            self._tick("steps", lease.taken)
        return score_of(settings)

    def run(self) -> SearchOutcome:
        loop = SearchLoop(
            self.search,
            self,
            self.trial,
            lambda settings: 40,
            charge=self.charge,
            fresh=self.fresh,
            selection=self.selection,
            uniform=self.uniform,
        )
        return loop.run()


def score_of(settings: Settings) -> float:
    rate = settings["learning_rate"]
    assert isinstance(rate, float)
    return 1.0 - abs(rate - 0.03)


def test_of_a_selection_nothing_comes_back_but_the_best() -> None:
    bench = Bench(SELECTION, PrivateSelection(BASE, 1.0, 0.25))
    found = bench.run()
    assert found.trials == ()
    assert found.winner is not None
    state = SearchState.unpack(bench.saved or b"")
    assert state.kept == [found.winner]
    trials = [value for what, value in bench.log if what == "charge"]
    assert len(trials) == state.planned == state.done > 1


def test_without_a_trial_the_own_settings_stand() -> None:
    bench = Bench(SELECTION, PoissonSelection(BASE, 2.0))
    bench.uniform = lambda: 0.0  # type: ignore[method-assign]
    assert bench.run() == SearchOutcome(None, ())
    assert bench.charged == 0


@pytest.mark.parametrize("search", [PROXY, COMPOSED], ids=["proxy", "composition"])
@pytest.mark.parametrize("method", ["random", "bayesian"])
def test_other_searches_keep_every_trial_and_end_alike(search: Search, method: str) -> None:
    search = search.model_copy(update={"method": method})
    one, two = Bench(search, None).run(), Bench(search, None).run()
    assert one == two
    assert len(one.trials) == 6
    assert one.winner == max(one.trials, key=lambda trial: trial.score)
    assert len({trial.settings["learning_rate"] for trial in one.trials}) == 6


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 25), min_size=1, max_size=4), kind=st.sampled_from(["selection", "composition", "proxy"]))
def test_a_search_that_is_cut_anywhere_goes_on_without_a_free_trial(cuts: list[int], kind: str) -> None:
    search = {"selection": SELECTION, "composition": COMPOSED, "proxy": PROXY}[kind]
    bench = Bench(search, PrivateSelection(BASE, 1.0, 0.25) if kind == "selection" else None)
    planned: set[int] = set()
    leased = Counter[int]()
    for cut in [*cuts, None]:
        bench.calls, bench.cut_at = count(), cut
        with suppress(KeyboardInterrupt):
            found = bench.run()
        if bench.saved is not None:
            state = SearchState.unpack(bench.saved)
            planned.add(state.planned)
            assert leased[state.done] <= state.taken or state.current is None
            leased[state.done] = state.taken
            assert bench.charged >= state.done
    assert len(planned) == 1
    state = SearchState.unpack(bench.saved or b"")
    assert state.done == state.planned == bench.charged
    assert found.winner is not None
    begun = [index for index, (what, _) in enumerate(bench.log) if what == "steps"]
    assert all(any(w == "charge" for w, _ in bench.log[:index]) for index in begun)
    if kind != "selection":
        assert found == Bench(search, None).run()  # cuts changed nothing of what was tried


def test_a_trial_out_of_spare_steps_stops_the_search() -> None:
    bench = Bench(COMPOSED, None)
    loop = SearchLoop(COMPOSED, bench, bench.trial, lambda settings: 7, charge=bench.charge)
    with pytest.raises(BudgetExceeded, match="E-SEARCH-002"):
        loop.run()
    with pytest.raises(BudgetExceeded, match="E-SEARCH-002"):
        loop.run()  # nor does asking again give steps back
    assert SearchState.unpack(bench.saved or b"").taken == 5


def test_patience_stops_a_search_whose_scores_are_paid_for_and_never_a_selection() -> None:
    flat = lambda settings, lease: 0.5  # noqa: E731
    for search in (PROXY, COMPOSED):
        patient = search.model_copy(update={"patience": 2})
        assert len(SearchLoop(patient, Bench(patient, None), flat, lambda s: 1).run().trials) == 3
    smuggled = SELECTION.model_copy(update={"patience": 1})
    bench = Bench(smuggled, None)
    selection = PrivateSelection(BASE, 1.0, 0.1)
    SearchLoop(smuggled, bench, flat, lambda s: 1, selection=selection, uniform=lambda: 0.6).run()
    assert SearchState.unpack(bench.saved or b"").done == draw_trials(selection, lambda: 0.6) > 3


def test_a_score_that_is_none_is_no_score() -> None:
    with pytest.raises(DataError, match="E-SEARCH-004"):
        SearchLoop(PROXY, Bench(PROXY, None), lambda s, lease: float("nan"), lambda s: 1).run()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"version": 2}', b"\xff", SearchState(3).pack()[:-3]])
def test_a_damaged_state_is_refused_and_not_begun_anew(data: bytes) -> None:
    bench = Bench(COMPOSED, None)
    bench.saved = data
    with pytest.raises(IntegrityError, match="E-SEARCH-003"):
        bench.run()
    assert bench.log == []


def test_bayesian_proposals_learn_and_stay_in_the_space() -> None:
    space = {"learning_rate": dimension([0.001, 0.1, "log"]), "steps": dimension([10, 50, "linear"])}
    known: list[Trial] = []
    for _ in range(25):
        chosen = proposed_by_tpe(space, known, 3)
        assert 0.001 <= float(chosen["learning_rate"]) <= 0.1
        assert chosen["steps"] in range(10, 51)
        known.append(Trial(chosen, score_of(chosen)))
    off = [1.0 - trial.score for trial in known]
    assert np.mean(off[-8:]) < np.mean(off[:8])


def test_a_noisy_score_moves_by_one_unit_at_most_and_carries_its_noise() -> None:
    wild = np.array([5.0, -3.0, np.nan, np.inf, 0.5])
    assert noisy_score(wild, 0.0, 10.0) == pytest.approx(0.15)
    many = np.array([noisy_score(np.ones(10), 2.0, 10.0) for _ in range(2000)])
    assert stats.kstest((many - 1.0) / 0.2, "norm").pvalue > 1e-6
    assert len(set(many)) == 2000


def test_a_unit_scores_the_share_of_its_records() -> None:
    predicted = np.array([[0, 1, -100], [2, 2, 2], [-100, -100, -100]])
    labels = np.array([[0, 0, -100], [2, 2, 2], [-100, -100, -100]])
    assert unit_accuracy(predicted, labels, -100).tolist() == [0.5, 1.0, 0.0]
