"""What a private step costs: time and peak memory of Opacus' two modes and of ours, over those of a non-private step.

A step is forward, backward and, for the private ones, clipping into the sums: what is done for every physical batch. Noise and
the optimizer come once for each logical batch and are the same for all. Time is CPU time of one thread, all modes in turns in
one process, the ratio of medians. Memory is the growth of the peak in a process of its own for each mode, above the loaded
model, gradients included. Both sides keep freed memory (`training.host_memory`), without which a step spends up to a third of
its time on page faults; dropout is off.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.rows import Row, publish
from benchmarks.training_nets import BENCHES, Bench, MiniLm, _ids
from training.data import UnitBatch
from training.gradients import make_method
from training.host_memory import keep_freed_memory

_ROUNDS, _FEW = 21, 11
_BIG = "MiniLM full 32x32"
_MEMORY_GOALS = {"two_pass": 1.3, "tape": 2.0}
_STATUS = Path("/proc/self/status")


def rows() -> list[Row]:
    return [*(row for bench in BENCHES for row in _time_rows(bench.name)), *_memory_rows()]


def _time_rows(name: str) -> list[Row]:
    """In a process of its own, so that one net's memory is not another's."""
    found = {mode: float(value) for mode, value in (line.split() for line in _child("--net", name))}
    plain, bench = found["plain"], _bench(name)
    stock = min((found[mode] / plain for mode in bench.opacus), default=None)
    tape = found["tape"] / plain
    listed = [Row(f"step / non-private: {name}, tape", "x", tape, stock, bench.goal, tape <= bench.goal)]
    others = [mode for mode in ("two_pass", "hooks", "ghost") if mode in found]
    return listed + [Row(f"step / non-private: {name}, {mode}", "x", found[mode] / plain) for mode in others]


def _memory_rows() -> list[Row]:
    peaks = {mode: float(_child("--memory", mode)[0]) for mode in ("plain", "two_pass", "tape", "hooks", "ghost")}
    listed = []
    for mode in ("two_pass", "tape", "hooks", "ghost"):
        ratio, goal = peaks[mode] / peaks["plain"], _MEMORY_GOALS.get(mode)
        stock = None if goal is None else min(peaks["hooks"], peaks["ghost"]) / peaks["plain"]
        met = None if goal is None else ratio <= goal
        listed.append(Row(f"peak memory / non-private: {_BIG}, {mode}", "x", ratio, stock, goal, met))
    return listed


def _child(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.training_steps", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parent.parent)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return [line for line in done.stdout.splitlines() if line.strip()]


def _bench(name: str) -> Bench:
    return next(bench for bench in BENCHES if bench.name == name)


def _step(mode: str, net: nn.Module, batch: UnitBatch) -> Callable[[], None]:
    method = None if mode == "plain" else make_method(mode, net, 1.0)

    def step() -> None:
        for parameter in net.parameters():
            parameter.grad = parameter.summed_grad = None  # type: ignore[attr-defined]
        if method is None:
            net(batch.inputs, batch.labels, batch.cid).sum().backward()
        else:
            method.add(batch)

    return step


def _times(bench: Bench) -> dict[str, float]:
    """Median CPU seconds of a step in each mode."""
    torch.manual_seed(0)
    net, batch = bench.build().train(), bench.batch()
    steps = {mode: _step(mode, copy.deepcopy(net), batch) for mode in ("plain", "tape", "two_pass", *bench.opacus)}
    taken: dict[str, list[float]] = {mode: [] for mode in steps}
    rounds = _FEW if sum(p.numel() for p in net.parameters()) > 5e7 else _ROUNDS
    for number in range(rounds + 2):
        for mode, step in steps.items():
            started = time.process_time()
            step()
            if number >= 2:  # the first ones find the library's kernels and the memory
                taken[mode].append(time.process_time() - started)
    return {mode: statistics.median(values) for mode, values in taken.items()}


def _peak(mode: str) -> int:
    """Bytes that three steps need above the loaded model."""
    torch.manual_seed(0)
    net = MiniLm("encoder").train()
    step = _step(mode, net, _ids(32, 32, 30000)())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _kilobytes("VmRSS")
    for _ in range(3):
        step()
    return (_kilobytes("VmHWM") - before) * 1024


def _kilobytes(field: str) -> int:
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--net", help="print one net's seconds for each mode")
    parser.add_argument("--memory", help="print one mode's peak")
    chosen = parser.parse_args()
    if chosen.net or chosen.memory:
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore")
        if chosen.memory:
            print(_peak(chosen.memory))
            return
        keep_freed_memory()
        for mode, seconds in _times(_bench(chosen.net)).items():
            print(mode, seconds)
        return
    publish("training_steps", rows(), as_json=chosen.json)


if __name__ == "__main__":
    main()
