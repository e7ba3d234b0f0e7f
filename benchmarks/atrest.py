"""Data at rest, keys, erasure, journal and budget ledger: every row that issue 4 names, in one run.

    python benchmarks/atrest.py [--json] [--only seal,keys,vault,journal,ledger]

Ratios are of CPU time, both sides interleaved in one run, the best of several; seconds and rates hold for this machine only.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.rows import Row, publish  # noqa: E402

PARTS = ("seal", "keys", "vault", "journal", "ledger")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per row")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help="some of the parts")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    for part in wanted:
        began = time.monotonic()
        rows += importlib.import_module(f"benchmarks.atrest_{part}").rows()
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    publish("atrest" if set(wanted) == set(PARTS) else "atrest_part", rows, as_json=args.json)


if __name__ == "__main__":
    main()
