"""`privet mine`: token shapes and field names that stay in many people's de-identified text, for a steward to look at."""

from __future__ import annotations

import json
from argparse import Namespace


def mine(args: Namespace) -> int:
    from rich.markup import escape
    from rich.table import Table

    from pipeline.home import Home
    from pipeline.miss_mining import mine_dataset
    from pipeline.screen import table_console

    digest, found = mine_dataset(Home.open(args.home), args.what, args.subjects)
    if args.json:
        for mined in found:
            print(json.dumps(mined.to_json(), ensure_ascii=False))
        return 0
    if not found:
        print(f"nothing that {args.subjects} or more subjects share was kept in {digest}")
        return 0
    table = Table(header_style="bold", expand=False)
    for column in ("kept", "shape or field", "records", "subjects"):
        table.add_column(column, overflow="fold", justify="right" if column in ("records", "subjects") else "left")
    for mined in found:
        table.add_row(mined.kind, escape(mined.shape), f"{mined.records:,}", f"{mined.subjects:,}")
    table_console().print(table)
    print("If one of them is personal data, paste its line under pii.patterns of the policy, and set the type:")
    for mined in found:
        print(f"    {mined.policy_line}")
    return 0
