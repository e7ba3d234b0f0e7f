"""Real trainings over a real ledger, killed at random moments, again and again, until they end or are refused."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from privacy.errors import BudgetExceeded
from privacy.ledger import Ledger
from tests.training.worlds import small_config, units
from training import engine as engine_module
from training import trainer as trainer_module
from training.config import approved_steps
from training.preflight import preflight

CONFIG = small_config(steps=200, canaries=20)
SCOPE = "demo/customer"


class Slot:
    """The one checkpoint of a run, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    def save(self, data: bytes) -> None:
        part = self.path.with_suffix(".part")
        part.write_bytes(data)
        part.replace(self.path)


class LedgerSteps:
    def __init__(self, ledger: Ledger, key: str) -> None:
        self.ledger, self.key = ledger, key
        spend = ledger.spend(key)
        assert spend is not None
        self.taken, self.left = spend.leased, spend.steps - spend.leased

    def take(self, steps: int) -> None:
        self.ledger.lease(self.key, self.taken + steps)
        self.taken, self.left = self.taken + steps, self.left - steps


def counted(step: Callable[..., object], log: Path) -> Callable[..., object]:
    """Every step writes one byte before it begins; what the kernel has taken outlives the process."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def run(self: object, number: int) -> object:
        os.write(handle, b".")
        return step(self, number)

    return run


def _train(folder: Path, key: str) -> None:
    torch.set_num_threads(1)
    ledger = Ledger(folder / "ledger.sqlite")
    spend = ledger.spend(key)
    if spend is not None and spend.settled is not None:
        os._exit(0)  # killed between its settlement and its end; a trainer that charges late has no lease to settle by again
    engine_module.PrivateEngine.step = counted(engine_module.PrivateEngine.step, folder / key)  # type: ignore[method-assign]
    try:
        lease = LedgerSteps(ledger, key)
        outcome = trainer_module.train_model(
            CONFIG, units(CONFIG, 60), lambda: lease, Slot(folder / f"{key}.checkpoint"), lambda d: None, lambda d, t: None
        )
        ledger.settle(key, lease.taken)
        os._exit(0 if outcome.steps_in_model == CONFIG.steps else 3)
    except BudgetExceeded:
        os._exit(9)


@dataclass(frozen=True, slots=True)
class Killed:
    """undercharged: how often, after a kill or an end, more steps had run than were charged. audit: the ledger's own faults."""

    kills: int
    finished: int
    refused: int
    undercharged: int
    audit: list[str]


def kill_trainings(folder: Path, kills: int) -> Killed:
    """Runs trainings one after the other, killing each at random moments, until `kills` processes died; then lets it end."""
    torch.set_num_threads(1)
    passed = preflight(CONFIG)
    before, trainer_module.preflight = (
        trainer_module.preflight,
        lambda config, device: passed,
    )  # its free steps are not the run's
    try:
        return _kill_trainings(folder, kills)
    finally:
        trainer_module.preflight = before


def _kill_trainings(folder: Path, kills: int) -> Killed:
    draws, ledger = random.Random(7), Ledger(folder / "ledger.sqlite")
    ledger.open_scope(SCOPE, "customer", 1000.0, 1e-5)
    killed, number, under, ends = 0, 0, 0, {0: 0, 9: 0}
    while killed < kills:
        key, number = f"run-{number}", number + 1
        ledger.reserve(key, SCOPE, CONFIG.sampling_probability, CONFIG.noise_multiplier, approved_steps(CONFIG.steps))
        code = None
        while code is None:
            child = multiprocessing.get_context("fork").Process(target=_train, args=(folder, key))
            child.start()
            child.join(draws.uniform(0.0, 0.8) if killed < kills else None)
            if child.is_alive():
                os.kill(child.pid or 0, signal.SIGKILL)
                child.join()
                killed += 1
            else:
                code = child.exitcode
            spend, log = ledger.spend(key), folder / key
            assert spend is not None
            under += (log.stat().st_size if log.exists() else 0) > spend.leased
        ends[code] += 1  # another exit code is a fault of the test world itself
    return Killed(killed, ends[0], ends[9], under, ledger.self_audit())
