"""The ledger under a crowd and under SIGKILL, and what its fixed-point Rényi filter admits less than dp-accounting would.

The crowd and the killer are also what the tests run, with smaller numbers and on both grounds.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import Row
from privacy.accounting import cap_vector, charge_vector, epsilon_of_charge
from privacy.database import Place
from privacy.errors import BudgetExceeded, PrivetError
from privacy.ledger import Ledger
from privacy.mechanisms import PoissonSampledGaussian, charge_of

DELTA = 1e-5
STEP = PoissonSampledGaussian(0.01, 1.0)
# DP-SGD as people run it, and its corners.
SETTINGS = [
    (q, sigma, steps, delta)
    for q in (1e-4, 1e-3, 0.01, 0.05, 0.2)
    for sigma in (0.5, 0.7, 0.8, 1.0, 1.3, 2.0, 4.0)
    for steps in (1, 100, 1000, 10_000)
    for delta in (1e-5, 1e-8)
]


def most_steps(epsilon: float, q: float = STEP.sampling_probability, sigma: float = STEP.noise_multiplier) -> int:
    """Steps that a cap admits, by division at each order."""
    pairs = zip(cap_vector(epsilon, DELTA), charge_vector(q, sigma), strict=True)
    return max(room // units for room, units in pairs if room >= 0)


@dataclass(frozen=True, slots=True)
class Crowd:
    """What a crowd did to two scopes. believed: what the processes were told that they hold, in steps."""

    charged: int
    most: int
    believed: int
    refused: int
    faults: tuple[str, ...]

    @property
    def overspent(self) -> int:
        return max(0, self.charged - self.most)


def crowd(place: Place, reservations: int, processes: int = 8, thinking_seconds: float = 0.002) -> Crowd:
    """Processes reserve at the same time, over and over, for more than there is; some lease, settle and ask again."""
    mean_steps = 5
    epsilon = _cap_for(reservations * mean_steps // 2)
    ledger = Ledger(place)
    for scope in ("chat", "group/household"):
        ledger.open_scope(scope, "customer", epsilon, DELTA)
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(processes), fork.SimpleQueue()
    shares = [reservations // processes + (n < reservations % processes) for n in range(processes)]
    workers = [
        fork.Process(target=_one_of_many, args=(place, barrier, answers, n, share, mean_steps, thinking_seconds))
        for n, share in enumerate(shares)
    ]
    for worker in workers:
        worker.start()
    with ledger._database.outside_transaction() as watching:
        # Somebody who looks on, opened after the forks: without one, each writer is the last to close the file, and SQLite
        # then empties its log into it, which takes three times as long and changes nothing that is counted here.
        watching.execute("SELECT COUNT(*) FROM scope").fetchone()
        told = [answers.get() for _ in workers]
        for worker in workers:
            worker.join()
    charged = max(sum(s.charged for s in ledger.spends(scope)) for scope in ledger.scopes())
    faults = (*(fault for _, _, fault in told if fault), *ledger.self_audit())
    return Crowd(charged, most_steps(epsilon), sum(b for b, _, _ in told), sum(r for _, r, _ in told), faults)


def _one_of_many(
    place: Place, barrier: object, answers: object, worker: int, count: int, mean_steps: int, thinking_seconds: float
) -> None:
    ledger, rng = Ledger(place), random.Random(worker)  # noqa: S311
    barrier.wait()  # type: ignore[attr-defined]
    believed = refused = 0
    try:
        for number in range(count):
            time.sleep(rng.random() * 2 * thinking_seconds)  # the accounting of a real run, outside the lock
            held = _reserve_something(ledger, rng, f"{worker}-{number}", rng.randrange(1, 2 * mean_steps))
            believed, refused = believed + (held or 0), refused + (held is None)
    except PrivetError as error:
        answers.put((believed, refused, error.code))  # type: ignore[attr-defined]
    else:
        answers.put((believed, refused, ""))  # type: ignore[attr-defined]


def _reserve_something(ledger: Ledger, rng: random.Random, key: str, steps: int) -> int | None:
    """Steps that are held now; None: refused."""
    scopes = ["chat", "group/household"] if rng.random() < 0.5 else ["group/household", "chat"]
    try:
        ledger.reserve_many(key, scopes, STEP, steps)
    except BudgetExceeded:
        return None
    if rng.random() < 0.1:
        ledger.reserve_many(key, scopes, STEP, steps)  # the answer was lost: ask again
    if rng.random() >= 0.1:
        return steps
    ran = rng.randrange(steps + 1)
    ledger.lease(key, ran)
    ledger.settle(key, ran)
    return ran


def _cap_for(steps: int) -> float:
    """An epsilon whose cap lies near so many steps."""
    return epsilon_of_charge(charge_of(STEP, steps), DELTA)


@dataclass(frozen=True, slots=True)
class Killed:
    """What SIGKILLs left. under_charged: steps that ran and are not charged, over all runs."""

    kills: int
    runs: int
    steps_run: int
    under_charged: int
    over_charged: int
    faults: tuple[str, ...]


def killed(place: Place, truth: Path, kills: int, lease_steps: int = 5) -> Killed:
    """Kill a trainer at random moments, and hold what it ran against what the ledger charged.

    truth: a file that gets one line for each step that runs, after its lease, as a real step would come after it.
    The moments spread over a time that adapts to the machine, so that about two in three children get to run steps.
    """
    ledger = Ledger(place)
    ledger.open_scope("chat", "customer", 1000.0, DELTA)
    fork, rng = multiprocessing.get_context("fork"), random.Random(4)  # noqa: S311
    truth.touch()
    ledger.reserve("first", "chat", STEP.sampling_probability, 50.0, 1)  # whatever is done once is done before the forks
    longest = 0.03
    for number in range(kills):
        before = truth.stat().st_size
        worker = fork.Process(target=_train_forever, args=(ledger, truth, number, lease_steps))
        worker.start()
        time.sleep(rng.random() * longest)
        with suppress(ProcessLookupError):
            os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()
        longest = max(0.01, longest * 0.88) if truth.stat().st_size > before else min(2.0, longest * 1.25)
    ran = Counter(truth.read_text().splitlines())
    faults = list(ledger.self_audit())
    for spend in ledger.spends("chat"):
        if spend.settled is None:  # recovery gives back what was never leased
            ledger.settle(spend.key, 0)
    charged = {spend.key: spend.charged for spend in ledger.spends("chat")}
    under = sum(max(0, steps - charged.get(key, 0)) for key, steps in ran.items())
    over = sum(max(0, steps - ran[key]) for key, steps in charged.items())
    return Killed(kills, len(charged), sum(ran.values()), under, over, (*faults, *ledger.self_audit()))


def _train_forever(ledger: Ledger, truth: Path, start: int, lease_steps: int) -> None:
    number, rng = 0, random.Random(start)  # noqa: S311 - chooses moments, no secrets
    with truth.open("ab", buffering=0) as file:
        while True:
            key, steps = f"{start}-{number}", 4 * lease_steps
            ledger.reserve(key, "chat", STEP.sampling_probability, 50.0, steps)
            stop = rng.randrange(1, steps + 1)
            for upto in range(lease_steps, steps + 1, lease_steps):
                ledger.lease(key, upto)
                for _ in range(lease_steps):
                    file.write(f"{key}\n".encode())
                if upto >= stop:  # a run that ends early gives the rest back
                    break
            ledger.settle(key, 0)
            number += 1


def admission_loss() -> float:
    """Most epsilon, in percent, by which the fixed-point figure lies above dp-accounting's Rényi accountant."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    logging.getLogger("absl").setLevel(logging.ERROR)
    worst = 0.0
    step = {
        (q, sigma): dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
        for q, sigma in {setting[:2] for setting in SETTINGS}
    }
    one = {}
    for pair, event in step.items():
        one[pair] = RdpAccountant()
        one[pair].compose(event)
    for q, sigma, steps, delta in SETTINGS:
        ours = epsilon_of_charge(charge_of(PoissonSampledGaussian(q, sigma), steps), delta)
        if not 0.02 < ours < 50:  # below, one unit of the last digit shown counts; above, nothing is private
            continue
        theirs = RdpAccountant()
        theirs._orders, theirs._rdp = one[q, sigma]._orders, one[q, sigma]._rdp * steps  # as composing does, without its cost
        worst = max(worst, 100 * (ours / float(theirs.get_epsilon(delta)) - 1))
    return worst


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        many = crowd(Path(folder) / "crowd.sqlite", 10_000)
        dead = killed(Path(folder) / "killed.sqlite", Path(folder) / "truth", 1_000)
    fine = not many.faults and many.charged == many.believed and many.refused > 0 and not dead.faults and dead.steps_run > 0
    overspent = float(many.overspent) if fine else math.inf
    under = float(dead.under_charged) if fine else math.inf
    loss = admission_loss()
    return [
        Row("ledger: steps overspent in 10,000 concurrent reservations", "steps", overspent, None, 0.0, overspent == 0),
        Row("ledger: steps under-charged in 1,000 SIGKILLs", "steps", under, None, 0.0, under == 0),
        Row("ledger: steps over-charged in 1,000 SIGKILLs", "steps", float(dead.over_charged), float(dead.steps_run)),
        Row("ledger: admission loss against dp-accounting", "%", loss, None, 0.1, loss <= 0.1),
    ]
