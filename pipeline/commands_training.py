"""`privet search` and `privet compress`: thin shells around the stages of the same names."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pipeline.stage import StageContext
    from privacy.canonical import Json


def search_options(leaf: ArgumentParser) -> None:
    leaf.add_argument("policy", type=Path, metavar="POLICY")
    leaf.add_argument("--plan", action="store_true", help="only say what the search would cost; spends and writes nothing")
    leaf.add_argument("--out", type=Path, metavar="FILE", help="write the winner's settings as YAML, to put into the policy")
    _common(leaf)


def compress_options(leaf: ArgumentParser) -> None:
    leaf.add_argument("policy", type=Path, metavar="POLICY", help="the policy that the model was trained under")
    leaf.add_argument("model", metavar="DIGEST", help="manifest digest of the train stage, or of the release")
    leaf.add_argument("--to", type=Path, metavar="FOLDER", help="hand the files out, once the release quorum signed for them")
    _common(leaf)


def _common(leaf: ArgumentParser) -> None:
    leaf.add_argument("--as", dest="requested_by", metavar="NAME", help="who asks (default: approvals.requested_by)")
    leaf.add_argument("--json", action="store_true", help="one JSON object")
    default = Path(os.environ.get("PRIVET_HOME", ".privet"))
    leaf.add_argument(
        "--home", type=Path, default=default, metavar="DIR", help="the Privet home ($PRIVET_HOME, else ./.privet)"
    )


def search(args: Namespace) -> int:
    from pipeline.search import search as run_search
    from pipeline.search import settings_as_yaml

    if args.plan:
        return _print_plan(args)
    ctx = _context(args, "search")
    result = run_search(ctx, args.policy.resolve().parent)
    found = cast("dict[str, Json]", json.loads(ctx.home.store.read_plain(result.manifest.outputs["search"])))
    if args.out is not None:
        args.out.write_text(settings_as_yaml(result), encoding="utf-8")
    if args.json:
        print(json.dumps({"manifest": result.digest, **found}, ensure_ascii=False))
        return 0
    _print_trials(found)
    print(f"result: {result.digest}" + ("" if args.out is None else f"; settings: {args.out}"))
    return 0


def _print_plan(args: Namespace) -> int:
    from privacy.errors import UsageError
    from privacy.mechanisms import spelled
    from privacy.policy_file import load_policy
    from privacy.rounding import shown_up
    from training.search_charge import charge_for

    policy = load_policy(args.policy)
    declared = policy.search
    if declared is None:
        raise UsageError("E-SEARCH-005", "the policy declares no search", "Add a search block; see docs/policy.md")
    if declared.data == "proxy":
        print(json.dumps({"epsilon": 0.0}) if args.json else f"{declared.trials} trials on a public set: they cost nothing")
        return 0
    charge = charge_for(policy)
    if args.json:
        noise = {f"{steps} steps, batch {batch}": value for (steps, batch), value in charge.noise.items()}
        about = {"epsilon": charge.epsilon, "trial_epsilon": charge.trial_epsilon, "delta": charge.delta, "noise": noise}
        print(json.dumps({**about, "score_noise_units": charge.score_noise}))
        return 0
    unit = policy.privacy_unit.name
    print(
        f"the search reserves epsilon {shown_up(charge.epsilon)} at delta {charge.delta} per {unit}: "
        f"{spelled(charge.mechanism)}"
    )
    print(f"  one trial: epsilon {shown_up(charge.trial_epsilon)}; a score carries noise of {charge.score_noise:.4g} {unit}s")
    for (steps, batch), value in charge.noise.items():
        print(f"  {steps} steps of {batch} expected units: noise multiplier {value}")
    print(f"  a training under the winner's settings spends its own budget.epsilon {shown_up(policy.budget.epsilon)} beside it")
    return 0


def _print_trials(found: Mapping[str, Json]) -> None:
    from rich.table import Table

    from pipeline.screen import table_console
    from privacy.rounding import shown_up

    winner = cast("dict[str, Json] | None", found["winner"])
    trials = found["trials"] if isinstance(found["trials"], list) else [winner] if winner else []
    rows = cast("list[dict[str, Json]]", trials)
    if rows:
        names = list(cast("dict[str, Json]", rows[0]["settings"]))
        table = Table(header_style="bold", expand=False)
        for name in (*names, "score"):
            table.add_column(name, overflow="fold", justify="right")
        for row in sorted(rows, key=lambda row: -cast("float", row["score"])):
            settings = cast("dict[str, Json]", row["settings"])
            table.add_row(*(_short(settings[name]) for name in names), _short(row["score"]))
        table_console().print(table)
    if winner is None:
        print("no trial was run: the number that was drawn is zero, and the policy's own settings stand")
    if found["kind"] == "proxy":
        print("on a public set: epsilon 0 was spent")
    else:
        kept = "; how many trials there were, and the others, stay secret" if found["kind"] == "selection" else ""
        print(
            f"epsilon {shown_up(cast('float', found['epsilon']))} at delta {found['delta']} was spent; scores carry noise{kept}"
        )


def compress(args: Namespace) -> int:
    from pipeline.compress import compress as run_compress
    from pipeline.compress import hand_out, read_table, request_candidate
    from privacy.errors import GateClosed

    ctx = _context(args, "compress")
    result = run_compress(ctx, args.model, args.policy.resolve().parent)
    table = read_table(ctx, result)
    if args.json:
        print(json.dumps({"manifest": result.digest, **table}, ensure_ascii=False))
    else:
        _print_table(table)
        print(f"candidate: {result.digest}; its files are sealed in the home")
    if args.to is not None:
        for path in hand_out(ctx, result, args.to):
            print(path)
        return 0
    try:
        request = request_candidate(ctx, result)
    except GateClosed as waiting:
        print(f"nothing can leave yet: {waiting.cause}")
        return 0
    print(f"to let them leave: privet approvals show {request.id}, then sign, then this command with --to FOLDER")
    return 0


def _print_table(found: Mapping[str, Json]) -> None:
    from rich.table import Table

    from pipeline.screen import table_console

    table = Table(header_style="bold", expand=False)
    for column in ("method", "KiB", "packed KiB", "ms", "accuracy", "same answer"):
        table.add_column(column, overflow="fold", justify="left" if column == "method" else "right")
    for row in cast("list[dict[str, float]]", found["rows"]):
        size = f"{row['bytes_before'] / 1024:.0f} → {row['bytes_after'] / 1024:.0f} (x {row['size_ratio']})"
        packed = f"{row['packed_before'] / 1024:.0f} → {row['packed_after'] / 1024:.0f} (x {row['packed_ratio']})"
        took = f"{row['milliseconds_before']:.2f} → {row['milliseconds_after']:.2f} (x {row['latency_ratio']})"
        right = "not measured" if row["accuracy_before"] is None else f"{row['accuracy_before']} → {row['accuracy_after']}"
        table.add_row(str(row["method"]), size, packed, took, right, _short(row["agreement"]))
    table_console().print(table)
    inputs = cast("dict[str, Json]", found["inputs"])
    print(f"made and measured on {inputs['units']} {inputs['origin']} inputs, without a private unit: nothing is charged")
    for name, file in cast("dict[str, dict[str, Json]]", found["files"]).items():
        held = cast("list[str]", file["held_back_by"])
        print(f"{name}: " + ("all of its own audits passed" if file["may_leave"] else f"stays here: {'; '.join(held)}"))
    print("audited file by file, each on its own bytes, with private units: those figures are outside the privacy claim")


def _context(args: Namespace, what: str) -> StageContext:
    from pipeline import tasks
    from pipeline.home import Home
    from pipeline.key_home import current_run
    from pipeline.screen import Screen
    from pipeline.stage import StageContext
    from privacy.canonical import digest_of
    from privacy.policy_file import load_policy, policy_digest

    policy = load_policy(args.policy)
    who = tasks.enrolled_requester(args.home, args.policy, args.requested_by)
    digest = policy_digest(policy)
    run = f"{what}-" + digest_of({"policy": digest, "what": what})[7:19]
    current_run.set(run)
    return StageContext(Home.open(args.home), policy, digest, run, who, Screen().progress)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
