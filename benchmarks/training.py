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

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.rows import run_parts  # noqa: E402

PARTS = ("steps", "throughput", "utility", "scaling", "mechanism")


if __name__ == "__main__":
    run_parts("training", PARTS, __doc__)
