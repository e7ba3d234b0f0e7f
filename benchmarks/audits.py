"""Audits, redaction and bundle: every row that issue 6 names, in one run.

    python benchmarks/audits.py [--json] [--quick] [--only probe,bounds,text,outputs,bundle]

probe: planted defects, false alarms, what canaries cost, power of the gate. bounds: the three lower bounds and membership
inference on one task. text: exposure of planted secrets and verbatim spans. outputs: leaks of the redactor over every split
of a stream. bundle: verification of a whole bundle, changed bytes, bad bundles. Every row is a real run; seconds hold for
this machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are loaded: seconds of one core

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.rows import run_parts  # noqa: E402

PARTS = ("probe", "bounds", "text", "outputs", "bundle")


if __name__ == "__main__":
    run_parts("audits", PARTS, __doc__)
