"""The text policies that ship, whole, on made-up data: raw logs in, a released bundle out, and no planted value left behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.erase import erase
from pipeline.example_data import make_example
from pipeline.home import Home
from pipeline.prefix_cache import kept
from pipeline.verify import verify_bundle
from privacy.policy_file import load_policy
from tests.worlds.leaks import LeakScanner

pytestmark = pytest.mark.slow
POLICIES = Path(__file__).resolve().parents[2] / "dags" / "policies"
UNITS = 330
SMALL = {"population": 264, "expected_batch_size": 80, "epsilon": 8.0, "delta": 1e-4, "cap_epsilon": 16.0}
MEASURED = {
    "customer_service": ("answer_recall_at_1", "answer_recall_at_3"),
    "market_opinion": ("topic_accuracy", "sentiment_accuracy"),
}


def small_policy(name: str, folder: Path) -> Path:
    """The shipped policy for a few hundred units: bounds on their number, the budget's constants, fewer steps."""
    value = yaml.safe_load((POLICIES / f"{name}.yaml").read_text())
    value["expectations"] |= {"min_records": 300, "min_units": 200}
    value["budget"] |= SMALL
    value["recipe"] |= {"steps": 100}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", MEASURED)
def test_a_shipped_text_policy_runs_from_raw_logs_to_a_release(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, source, home = small_policy(name, tmp_path), tmp_path / "source", tmp_path / "home"
    made = make_example(load_policy(path), source, UNITS, seed=5)
    code = main(["run", str(path), "--source", str(source), "--home", str(home), "--demo-approvals"])
    printed = capfd.readouterr()
    assert code == 0, printed.err
    bundle, opened = home / "releases" / name / "bundle", Home.open(home)
    assert verify_bundle(bundle, opened.trust, datetime.now(UTC)).exit_code == 0
    utility = json.loads((bundle / "audit" / "metrics.json").read_text())["utility"]
    assert utility["holdout_accuracy"] > 2 * utility["majority_accuracy"]
    assert all(0.5 < utility[figure] <= 1 for figure in MEASURED[name])
    scanner = LeakScanner(made.planted)
    assert scanner.scan(source), "the scanner must find the values where they were planted"
    assert scanner.scan(home) == []
    assert scanner.search((printed.out + printed.err).encode()) == set()
    prefixes = [ref for _, ref in kept(opened)]
    assert len(prefixes) == 2  # of the training units and of the holdout
    subject = _a_subject(name, source)
    erase(opened, subject, "T-1", "demo_officer")
    assert list(kept(opened)) == []
    assert not any(opened.store.exists(ref) for ref in prefixes)


def _a_subject(name: str, source: Path) -> str:
    import gzip

    if name == "market_opinion":
        with gzip.open(source / "posts-00.jsonl.gz", "rt") as file:
            return str(json.loads(file.readline())["author"])
    return (source / "train.tsv").read_text().splitlines()[1].split("\t")[0]
