"""Private training: every row that issue 5 names, in one run.

    python benchmarks/training.py [--json] [--quick] [--only steps,throughput,utility,scaling,mechanism]

steps: time and memory of one step, non-private, stock Opacus and Privet side by side. throughput: examples a second, end to
end, padding included. utility: accuracy at several epsilon. scaling: two processes. mechanism: accounting and failures.
Ratios are of CPU time, both sides interleaved in one run; seconds hold for this machine only. No row was run on a GPU unless
its name says so.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are loaded: seconds of one core

import argparse
import importlib
import inspect
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.rows import Row, publish  # noqa: E402

PARTS = ("steps", "throughput", "utility", "scaling", "mechanism")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per row")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and seeds; the figures are rough")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help="some of the parts")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    for part in wanted:
        began = time.monotonic()
        measure = importlib.import_module(f"benchmarks.training_{part}").rows
        rows += measure(quick=args.quick) if "quick" in inspect.signature(measure).parameters else measure()
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    publish("training" if set(wanted) == set(PARTS) and not args.quick else "training_part", rows, as_json=args.json)


if __name__ == "__main__":
    main()
