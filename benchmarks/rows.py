"""What every benchmark prints: rows with a goal, as JSON objects or as a table and a plot under benchmarks/results/."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """baseline: what the figure is to be held against; goal: what the policy or the issue asks; met: null without a goal."""

    row: str
    unit: str
    measured: float
    baseline: float | None = None
    goal: float | None = None
    met: bool | None = None


def run_parts(name: str, parts: Sequence[str], description: str | None) -> None:
    """Command line of a benchmark in parts: benchmarks/NAME_PART.py each hold `rows()`, some of them with `quick`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per row")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, where a part knows how; the figures are rough")
    parser.add_argument("--only", default=",".join(parts), metavar="PARTS", help="some of the parts")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := set(wanted) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    for part in wanted:
        began = time.monotonic()
        measure = importlib.import_module(f"benchmarks.{name}_{part}").rows
        rows += measure(quick=args.quick) if "quick" in inspect.signature(measure).parameters else measure()
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    whole = set(wanted) == set(parts) and not args.quick
    publish(name if whole else f"{name}_part", rows, as_json=args.json)


def publish(name: str, rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the rows; results/NAME.json and NAME.svg are what the README quotes, so they are written with the table only."""
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return
    print(f"{'':<62}{'measured':>12} {'unit':<10}{'goal':>10}{'baseline':>12}  met")
    for row in rows:
        print(
            f"{row.row:<62}{row.measured:>12.6g} {row.unit:<10}{_shown(row.goal):>10}{_shown(row.baseline):>12}  "
            + {True: "yes", False: "NO", None: ""}[row.met]
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
    _plot(RESULTS / f"{name}.svg", [row for row in rows if row.goal], name)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _plot(path: Path, rows: Sequence[Row], name: str) -> None:
    """Each figure as a share of its goal, on a logarithmic axis; a filled bar met it, whichever side of 1 is the good one."""
    if not rows:
        return
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = name
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(rows) + 1.2))
    shares = [max(row.measured, 1e-9) / (row.goal or 1) for row in rows]
    colours = ["#2a7f62" if row.met else "#b03a2e" for row in rows]
    axes.barh(range(len(rows)), shares, color=colours)
    axes.set_xscale("log")
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(
        range(len(rows)), [f"{row.row}\n{row.measured:.4g} {row.unit}, goal {row.goal:g}" for row in rows], fontsize=7
    )
    axes.invert_yaxis()
    axes.set_xlabel("measured / goal (green: met, red: not)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
