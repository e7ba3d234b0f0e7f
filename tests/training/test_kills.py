"""A hundred SIGKILLs at random moments of real trainings over a real ledger: no step ever runs that was not charged before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worlds import kills


@pytest.mark.slow
def test_a_hundred_kills_never_undercharge(tmp_path: Path) -> None:
    found = kills.kill_trainings(tmp_path, 100)
    assert found.kills == 100
    assert found.undercharged == 0
    assert found.audit == []
    assert found.finished + found.refused > 3


def test_a_trainer_that_charges_afterwards_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kills find an under-charge where there is one."""

    def late(self: kills.LedgerSteps, steps: int) -> None:
        self.taken, self.left = self.taken + steps, self.left - steps

    monkeypatch.setattr(kills.LedgerSteps, "take", late)
    assert kills.kill_trainings(tmp_path, 3).undercharged > 0
