"""One approved training on a Ray cluster: Ray Train starts the same script on every worker; see docs/distributed.md.

    python deploy/ray/train.py --workers 8 --gpu --token-file FILE -- --home H --policy P --protect D --validate D --run-id R

What follows `--` goes to `pipeline.train_worker`, unchanged. Ray chooses which worker is rank 0, so every node that may get
it must see the home; or mark the nodes that do with a Ray resource and name it by --resource. The token's file must be on
every node.
Ray is not one of Privet's dependencies: install `ray[train]` where this runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

RETRIES = 0  # a worker that is gone ends the run; running again continues from the checkpoint, and lost steps stay charged


def work(settings: dict[str, Any]) -> None:
    """On each worker. Ray made the process group already, with RANK and WORLD_SIZE set; the crew checks its token on top."""
    os.environ["PRIVET_CREW_TOKEN_FILE"] = settings["token_file"]
    from pipeline.train_worker import main

    if code := main(settings["arguments"]):
        raise SystemExit(code)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train an approved run with Ray Train.")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--token-file", required=True, help="64 random hex digits, on every node, readable by you alone")
    parser.add_argument("--resource", default=None, help="a Ray resource of the nodes that may run workers")
    parser.add_argument("arguments", nargs="+", help="of pipeline.train_worker, after --")
    return parser


def main() -> int:
    args = build_parser().parse_args()
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    each = {args.resource: 0.001} if args.resource else None
    trainer = TorchTrainer(
        work,
        train_loop_config={"token_file": args.token_file, "arguments": args.arguments},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if args.gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=args.workers, use_gpu=args.gpu, resources_per_worker=each),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=RETRIES)),
    )
    trainer.fit()
    return 0


if __name__ == "__main__":
    sys.exit(main())
