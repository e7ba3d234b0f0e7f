"""`privet synthesize` and `privet logs example`: texts that a released model writes, and data that nobody wrote."""

from __future__ import annotations

import argparse
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path


def options(leaf: argparse.ArgumentParser) -> None:
    leaf.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle of a released language model")
    leaf.add_argument("--to", type=Path, required=True, metavar="FILE", help="new file for the texts, as JSON lines")
    leaf.add_argument("--per-label", type=_count, default=10, metavar="N", help="texts of each label (default 10)")
    leaf.add_argument(
        "--temperature", type=_temperature, default=0.9, metavar="T", help="above 0; lower is duller (default 0.9)"
    )
    leaf.add_argument("--top-k", type=_count, default=40, metavar="K", help="draw from the K likeliest tokens (default 40)")
    leaf.add_argument("--seed", type=int, metavar="N", help="the same seed writes the same texts; without it, a fresh one")
    leaf.add_argument("--trust", type=Path, metavar="FILE", help="trust root you obtained yourself")
    leaf.add_argument(
        "--home", type=Path, metavar="DIR", help="the home that trained it: texts that repeat people's records are withheld"
    )


def example_options(leaf: argparse.ArgumentParser) -> None:
    leaf.add_argument("policy", type=Path, metavar="POLICY")
    leaf.add_argument("folder", type=Path, metavar="FOLDER", help="where to write; it is made when missing")
    leaf.add_argument("--units", type=_count, default=800, metavar="N", help="privacy units to make up (default 800)")
    leaf.add_argument("--seed", type=int, default=20261123, metavar="N", help="the same seed writes the same data")


def synthesize(args: Namespace) -> int:
    from pipeline.home import Home
    from pipeline.synthesize import Style, synthesize
    from pipeline.verify import read_trust

    trust = None if args.trust is None else read_trust(args.trust)
    style = Style(args.temperature, args.top_k, args.seed)
    home = None if args.home is None else Home.open(args.home)
    made = synthesize(args.bundle, args.to, args.per_label, trust, style, datetime.now(UTC), home)
    print(f"wrote {made.texts} synthetic texts to {args.to}; {made.withheld} were empty or not shown to be clean, and withheld")
    if made.compared:
        print(f"{made.repeating} of these repeated what few people wrote, or a planted secret")
    else:
        print("not compared with what people wrote: --home DIR, of the home that trained the model, does that")
    removed = ", ".join(f"{count} {name}" for name, count in sorted(made.removed.items()))
    print(f"redaction removed: {removed or 'nothing'}")
    return 0


def logs_example(args: Namespace) -> int:
    from pipeline.example_data import make_example
    from privacy.policy_file import load_policy

    made = make_example(load_policy(args.policy), args.folder, args.units, args.seed)
    print(f"wrote {made.records} made-up records with {len(made.planted)} planted values to {args.folder}")
    print("try them: privet init --home ./home --demo-identities")
    print(f"          privet run {args.policy} --source {args.folder} --home ./home --demo-approvals")
    return 0


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError("less than 1")
    return value


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not a number") from None
    if not 0.01 <= value <= 100:
        raise argparse.ArgumentTypeError("not from 0.01 to 100")
    return value
