"""The made-up data of the text policies: reproducible, of the declared labels, with the personal data that it says."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipeline.example_data import make_example
from pipeline.example_texts import BANK_INTENTS
from privacy.errors import UsageError
from privacy.policy import Policy
from privacy.policy_file import load_policy

POLICIES = Path(__file__).resolve().parents[2] / "dags" / "policies"


def policy(name: str) -> Policy:
    return load_policy(POLICIES / f"{name}.yaml")


def rows(name: str, folder: Path) -> list[dict[str, str]]:
    if name == "market_opinion":
        with gzip.open(folder / "posts-00.jsonl.gz", "rt") as file:
            return [json.loads(line) for line in file]
    head, *lines = (folder / "train.tsv").read_text().splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


@pytest.mark.parametrize("name", ["customer_service", "market_opinion"])
def test_every_shipped_text_policy_has_data_of_its_labels(name: str, tmp_path: Path) -> None:
    loaded = policy(name)
    made = make_example(loaded, tmp_path, 200, seed=1)
    found = rows(name, tmp_path)
    fields = loaded.source.fields
    assert len(found) == made.records
    assert len({row[fields.subject] for row in found}) == 200
    assert len({row[str(fields.record_id)] for row in found}) == made.records
    labels = [row[fields.label] for row in found]
    assert set(labels) <= set(loaded.expectations.labels)
    assert len(set(labels)) > 12
    written = "\n".join(row[fields.text[0]] for row in found)
    assert len(made.planted) > 50
    assert all(value in written for value in made.planted)
    assert "{" not in written


@pytest.mark.parametrize("name", ["customer_service", "market_opinion"])
def test_the_same_seed_writes_the_same_bytes(name: str, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_example(policy(name), tmp_path / folder, 20, seed)
    first, second, third = ([p.read_bytes() for p in sorted((tmp_path / f).iterdir())] for f in "abc")
    assert first == second
    assert first != third


def test_the_intents_are_those_of_the_policy() -> None:
    assert set(policy("customer_service").expectations.labels) == BANK_INTENTS


def test_a_policy_of_other_data_is_refused(tmp_path: Path) -> None:
    loaded = policy("market_opinion")
    other = loaded.model_copy(
        update={"source": loaded.source.model_copy(update={"files": ("mine.jsonl",)})},
    )
    with pytest.raises(UsageError, match="E-LOGS-002"):
        make_example(other, tmp_path, 5, 1)
    labels = loaded.expectations.model_copy(update={"labels": ("weather/positive", "weather/negative")})
    with pytest.raises(UsageError, match="E-LOGS-002"):
        make_example(loaded.model_copy(update={"expectations": labels}), tmp_path, 5, 1)
    bank = policy("customer_service")
    with pytest.raises(UsageError, match="E-LOGS-002"):
        make_example(bank.model_copy(update={"source": bank.source.model_copy(update={"format": "csv"})}), tmp_path, 5, 1)
