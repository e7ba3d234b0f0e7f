"""Data at rest, keys, erasure, journal and budget ledger: every row that issue 4 names, in one run.

    python benchmarks/atrest.py [--json] [--only seal,keys,vault,journal,ledger]

Ratios are of CPU time, both sides interleaved in one run, the best of several; seconds and rates hold for this machine only.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.rows import run_parts  # noqa: E402

PARTS = ("seal", "keys", "vault", "journal", "ledger")


if __name__ == "__main__":
    run_parts("atrest", PARTS, __doc__)
