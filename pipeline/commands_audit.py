"""`privet audit`: what an auditor does ahead of a training."""

from __future__ import annotations

import argparse
import json
import os
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.errors import UsageError

if TYPE_CHECKING:
    from pipeline.home import Home


def coin_options(coins: argparse.ArgumentParser) -> None:
    coins.add_argument("--as", dest="name", metavar="NAME", help="the auditor's name in the trust root")
    coins.add_argument("--count", type=int, default=10, metavar="N", help="how many trainings to draw for (default 10)")
    coins.add_argument("--canaries", type=int, metavar="M", help="audit.canaries of the policies they are for")
    coins.add_argument("--key", type=Path, metavar="FILE", help="the auditor's private key (not needed for a demo identity)")
    coins.add_argument("--list", dest="listing", action="store_true", help="show the sets that are left, and draw none")
    coins.add_argument("--json", action="store_true", help="the list as JSON, one object per line")
    default = Path(os.environ.get("PRIVET_HOME", ".privet"))
    coins.add_argument("--home", type=Path, default=default, metavar="DIR", help="the Privet home")


def coins(args: Namespace) -> int:
    """Raises UsageError E-AUDIT-016 when it isn't said who draws, or for how many canaries."""
    from pipeline.coins import draw, left, sets
    from pipeline.home import Home, read_key_file

    home = Home.open(args.home)
    if args.listing:
        return _list(home, args.json)
    if args.name is None or args.canaries is None:
        raise UsageError(
            "E-AUDIT-016",
            "it was not said who draws coins, or for how many canaries",
            "Give --as NAME and --canaries M, or --list to see what is left",
        )
    key = home.identity(args.name) if args.key is None else read_key_file(args.key)
    made = draw(home, args.name, key, args.count, args.canaries, datetime.now(UTC))
    print(f"drew {len(made)} sets of {args.canaries} coins, signed by {args.name}; {left(sets(home))[args.canaries]} are left")
    print("each serves one training; the coins stay sealed until the audit reveals them")
    return 0


def _list(home: Home, as_json: bool) -> int:
    from pipeline.coins import left, sets

    found = sets(home)
    if as_json:
        for one in found:
            row = {"commitment": one.commitment, "canaries": one.canaries, "drawn_by": one.drawn_by, "used": one.used}
            print(json.dumps(row))
        return 0
    for canaries, count in left(found).items():
        print(f"{count} unused sets of {canaries} coins")
    if not left(found):
        print("no unused set: an auditor draws some with privet audit coins --as NAME --count 10 --canaries M")
    return 0
