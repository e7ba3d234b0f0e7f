"""The options of `privet verify` and of `python -m pipeline.verify`; light, as every command starts with it."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--trust", type=Path, metavar="FILE", help="trust root you obtained yourself; without it identities are self-declared"
    )
    parser.add_argument(
        "--revocations", type=Path, metavar="FILE", help="signed list of revoked releases; without it nothing is known of them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
