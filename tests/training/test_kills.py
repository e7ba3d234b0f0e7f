"""A hundred SIGKILLs at random moments of real trainings over a real ledger: no step ever runs that was not charged before."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from privacy.errors import BudgetExceeded
from privacy.ledger import Ledger
from tests.training.worlds import small_config, units
from training import engine as engine_module
from training.config import approved_steps
from training.trainer import train_model

KILLS = 100
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
    engine_module.PrivateEngine.step = counted(engine_module.PrivateEngine.step, folder / key)  # type: ignore[method-assign]
    try:
        lease = LedgerSteps(ledger, key)
        outcome = train_model(
            CONFIG, units(CONFIG, 60), lambda: lease, Slot(folder / f"{key}.checkpoint"), lambda d: None, lambda d, t: None
        )
        ledger.settle(key, lease.taken)
        os._exit(0 if outcome.steps_in_model == CONFIG.steps else 3)
    except BudgetExceeded:
        os._exit(9)


@pytest.mark.slow
def test_a_hundred_kills_never_undercharge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.preflight import preflight

    torch.set_num_threads(1)
    passed = preflight(CONFIG)
    monkeypatch.setattr("training.trainer.preflight", lambda config, device: passed)
    draws = random.Random(7)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.open_scope(SCOPE, "customer", 1000.0, 1e-5)
    kills, number, ends = 0, 0, {0: 0, 9: 0}
    while kills < KILLS:
        key, number = f"run-{number}", number + 1
        ledger.reserve(key, SCOPE, CONFIG.sampling_probability, CONFIG.noise_multiplier, approved_steps(CONFIG.steps))
        code = None
        while code is None:
            child = multiprocessing.get_context("fork").Process(target=_train, args=(tmp_path, key))
            child.start()
            child.join(draws.uniform(0.0, 0.8) if kills < KILLS else None)
            if child.is_alive():
                os.kill(child.pid or 0, signal.SIGKILL)
                child.join()
                kills += 1
            else:
                code = child.exitcode
            spend, log = ledger.spend(key), tmp_path / key
            ran = log.stat().st_size if log.exists() else 0
            assert spend is not None
            assert ran <= spend.leased
        assert code in ends, code
        ends[code] += 1
    assert ends[0] + ends[9] == number
    assert ledger.self_audit() == []
