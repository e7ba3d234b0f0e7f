"""The whole chain on generated logs, and on the MultiDoGO finance chats where they lie beside the checkout: one table.

    python benchmarks/chain.py [--json] [--data ../shared/data/multidogo/finance]

Figures of utility are single runs. Seconds depend on the machine and are printed for orientation only; the README quotes
accuracies and counts, which benchmarks/results/chain.json keeps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402

from benchmarks.rows import Row, publish  # noqa: E402
from pipeline.home import Home  # noqa: E402
from pipeline.logs import LogSpec, generate_logs  # noqa: E402
from pipeline.run import run_policy  # noqa: E402
from pipeline.screen import Screen  # noqa: E402
from pipeline.stage import load_manifest  # noqa: E402
from pipeline.verify import verify_bundle  # noqa: E402


def measure(name: str, policy: Path, source: Path, home_path: Path) -> Iterator[Row]:
    home = Home.create(home_path, demo_identities=True)
    began = time.monotonic()
    outcome = run_policy(home, policy, str(source), screen=Screen(Console(stderr=True, highlight=False)), demo_approvals=True)
    seconds = time.monotonic() - began
    train = load_manifest(home, outcome.digests["train"]).facts
    protect = load_manifest(home, outcome.digests["protect"]).facts
    began = time.monotonic()
    exit_code = verify_bundle(outcome.bundle, home.trust, datetime.now(UTC)).exit_code
    verified = time.monotonic() - began
    accuracy, majority = float(str(train["holdout_accuracy"])), float(str(train["majority_accuracy"]))
    yield Row(f"{name}: records protected", "records", float(str(protect["records"])))
    yield Row(
        f"{name}: holdout accuracy, against the commonest label", "share", accuracy, majority, majority, accuracy > majority
    )
    yield Row(f"{name}: epsilon claimed, against the policy's", "epsilon", float(str(train["epsilon"])))
    yield Row(f"{name}: chain in one process", "s", round(seconds, 1))
    yield Row(f"{name}: verify the bundle", "s", round(verified, 2), goal=2.0, met=exit_code == 0 and verified < 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per row")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "multidogo" / "finance")
    args = parser.parse_args()
    policies = ROOT / "dags" / "policies"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder) / "logs"
        generate_logs(logs, LogSpec(seed=11, customers=700))
        rows += measure("generated chats", policies / "demo_support_chat.yaml", logs, Path(folder) / "a")
        if args.data.is_dir():
            rows += measure("MultiDoGO finance", policies / "customer_service.yaml", args.data, Path(folder) / "b")
        else:
            print("MultiDoGO finance: skipped, the data is not there", file=sys.stderr)
    publish("chain", rows, as_json=args.json)


if __name__ == "__main__":
    main()
