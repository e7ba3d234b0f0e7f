"""The training of an approved run as one process of many: `torchrun ... -m pipeline.train_worker`, the same line for all ranks.

Rank 0 runs the train stage with the home and leads; every other rank becomes a follower (`training.follower`) before it looks
at any option, so it needs no home and no key. On machines that must not see the home at all, start `-m training.follower
--environment` instead. What it prints is the digest of the result, which the DAG's train task then finds already made.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from privacy.errors import PrivetError


def main(arguments: Sequence[str] | None = None) -> int:
    if os.environ.get("RANK", "0") != "0":
        from training.follower import main as follow

        return follow(["--environment"])
    args = build_parser().parse_args(arguments)
    from pipeline import tasks

    try:
        requester = tasks.enrolled_requester(args.home, args.policy, args.requested_by)
        print(tasks.run_train(args.home, args.policy, args.protect, args.validate, args.run_id, requester))
    except PrivetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.train_worker", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help="the Privet home; only the leader's machine needs it")
    parser.add_argument("--policy", type=Path, required=True, help="the policy file of the run")
    parser.add_argument("--protect", required=True, help="digest of the run's protect manifest")
    parser.add_argument("--validate", required=True, help="digest of the run's validate manifest")
    parser.add_argument("--run-id", required=True, help="the run that the use approval was given in")
    parser.add_argument("--requested-by", default=None, help="who asked for the run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
