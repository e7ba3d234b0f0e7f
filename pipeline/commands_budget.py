"""`privet budget` and `privet plan`: what is spent, what a run would spend, and raising a cap. Thin shells."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.errors import UsageError

if TYPE_CHECKING:
    from pipeline.budget import BudgetRow
    from pipeline.cap_book import Filed
    from pipeline.caps import CapRaise
    from pipeline.plan import Plan
    from privacy.signing import SigningKey
    from training.preflight import Preflight


def budget(args: Namespace) -> int:
    from pipeline.budget import budget_rows, refuse_faults, spend_over_time
    from pipeline.budget_plot import spend_svg, terminal_plot
    from pipeline.cap_book import refuse_unsigned_caps
    from pipeline.home import Home

    home, now = Home.open(args.home), datetime.now(UTC)
    refuse_faults(home.ledger)
    refuse_unsigned_caps(home)
    rows = budget_rows(home.ledger)
    spends = {row.scope: spend_over_time(home.ledger, row.scope) for row in rows} if args.plot or not args.json else {}
    if args.plot:
        args.plot.write_bytes(spend_svg(spends, now))
    if args.json:
        for row in rows:
            print(json.dumps(row.to_json(), ensure_ascii=False))
        return 0
    _print_rows(rows)
    for row in rows:
        print(f"\n{row.scope}")
        print("\n".join(terminal_plot(spends[row.scope], now)))
    return 0


def _print_rows(rows: list[BudgetRow]) -> None:
    from rich.table import Table

    from pipeline.budget import IN_WORDS
    from pipeline.screen import table_console
    from privacy.rounding import shown_up

    if not rows:
        print("no budget is opened yet; the first training on a dataset opens it with the cap of its policy")
        return
    table = Table(header_style="bold", expand=False)
    for column in ("dataset", "per", "cap", "spent (filter, RDP)", "reported (PLD)", "delta", "runs", "open"):
        table.add_column(column, overflow="fold", justify="left" if column in ("dataset", "per") else "right")
    for row in rows:
        cap = shown_up(row.cap) + ("" if row.cap == row.opened_cap else f" (raised from {shown_up(row.opened_cap)})")
        spent = shown_up(row.spent_filter), shown_up(row.spent_reported)
        table.add_row(row.dataset, row.unit, cap, *spent, str(row.delta), str(row.runs), str(row.open_reservations))
    table_console().print(table)
    print("\n".join(IN_WORDS))


def budget_history(args: Namespace) -> int:
    from pipeline.budget import history
    from pipeline.home import Home
    from privacy.rounding import shown_up

    found = history(Home.open(args.home).ledger, args.scope)
    width = max((len(scope) for scope, _ in found), default=0)
    for scope, event in found:
        if args.json:
            fields = {"scope": scope, "at": event.at, "event": event.kind, "key": event.key, "steps": event.steps}
            print(json.dumps({**fields, "epsilon_after": event.epsilon_after, "note": event.note}, ensure_ascii=False))
            continue
        what = f"{event.steps} steps" if event.kind in ("reserve", "lease", "settle") else ""
        after = shown_up(event.epsilon_after)
        print(
            f"{event.at[:19]}  {scope:<{width}}  {event.kind:<8}{what:<16}epsilon {after:<10}{event.key}  {event.note}".rstrip()
        )
    return 0


def plan(args: Namespace) -> int:
    from pipeline.home import Home
    from pipeline.plan import audit_blind_spots, check_without_data, make_plan, preflight_json, pretrained_digest
    from privacy.policy_file import load_policy

    policy = load_policy(args.policy)
    home = Home.open(args.home) if (args.home / "VERSION.json").is_file() else None
    planned = make_plan(policy, home)
    free, weights = check_without_data(policy, planned), pretrained_digest(policy)
    blind = audit_blind_spots(policy, planned)
    if args.json:
        shown = {**planned.to_json(), "home": home is not None, "preflight": preflight_json(free, planned)}
        shown |= {"pretrained_digest": weights, "audit_blind_spots": blind}
        print(json.dumps(shown, ensure_ascii=False))
    else:
        _print_plan(planned, free, None if home is None else args.home)
        if weights is not None:
            print(f"  public weights {policy.recipe.pretrained}: {weights}")
        for check, advice in blind.items():
            print(f"  warning: {check}: {advice}")
    return 0 if planned.fits else 3


def _print_plan(planned: Plan, free: Preflight, home: Path | None) -> None:
    from privacy.rounding import shown_down, shown_up

    print(f"{planned.policy}: {planned.policy_digest}")
    if planned.mechanism != "dp_sgd":
        print("  training without differential privacy: it spends nothing, and such a model is never released")
        return
    print(f"  noise multiplier {planned.noise_multiplier}, clipping norm {planned.clipping_norm:g}, {planned.steps} steps")
    print(
        f"  sampling probability {planned.sampling_probability:.6g}: {planned.expected_batch_size} of {planned.population} "
        "units expected in a batch"
    )
    print(
        f"  the run reserves {planned.steps_reserved} steps, epsilon {shown_up(planned.epsilon_reserved)} at delta "
        f"{planned.delta} per {planned.unit} (asked: {shown_up(planned.epsilon_asked)}); "
        f"uninterrupted it settles at {shown_up(planned.epsilon_settled)}"
    )
    print(
        f"  a free step on made-up data passed: {free.trainable:,} parameters train"
        + (f", {free.frozen:,} are frozen" if free.frozen else "")
        + f"; gradients by {free.memory.method}, {free.memory.units:,} units at once"
    )
    print(
        f"  signal to noise, at best: {free.signal_to_noise_per_step:.3g} a step, {free.signal_to_noise:.3g} over the run; "
        f"about {_duration(free.seconds_per_step * planned.steps)} on this machine"
    )
    for scope in planned.scopes:
        said = "fits" if scope.fits else "DOES NOT FIT: the run would be refused before its first step"
        left = max(0, scope.runs_that_fit - 1)
        print(
            f"  {scope.scope}: epsilon {shown_up(scope.epsilon_before)} now, {shown_up(scope.epsilon_after)} after, "
            f"cap {shown_down(scope.cap)}: {said}"
        )
        if scope.fits:
            print(f"    after it, {left} more such run(s) fit" + ("" if scope.opened else "; this budget is not opened yet"))
    print(f"  {'nothing was written' if home else 'there is no Privet home yet; planned against an unspent budget'}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def budget_raise(args: Namespace) -> int:
    from pipeline.cap_book import ask_raise, file_vote
    from pipeline.caps import sign_raise
    from pipeline.home import Home

    if args.file is not None:
        return _said(file_vote(Home.open(args.home), _bytes(args.file), datetime.now(UTC)))
    if args.request is None:
        if args.scope is None or args.to is None:
            raise UsageError("E-CAP-011", "neither a raise nor a request was named", "Give SCOPE and --to, --request or --file")
        asked = ask_raise(Home.open(args.home), args.scope, args.to)
    else:
        asked = _request(args.request)
    if args.name is None:  # nothing is signed: what a signer elsewhere needs
        from privacy.canonical import canonical_json

        print(canonical_json(asked.to_json()).decode())
        return 0
    if args.reason is None:
        raise UsageError("E-CAP-011", "a signature needs a reason", "Say in one sentence why, with --reason")
    role, key = _signer(args)
    print(f"signing, as {role}: {asked.scope} from epsilon {asked.cap_before} to {asked.cap_after}", file=sys.stderr)
    envelope = sign_raise(asked, role, args.reason, key, datetime.now(UTC))
    if args.print_only:
        sys.stdout.write(envelope.decode() + "\n")
        return 0
    return _said(file_vote(Home.open(args.home), envelope, datetime.now(UTC)))


def _signer(args: Namespace) -> tuple[str, SigningKey]:
    """Role and key. Elsewhere, without a home, the role has to be named."""
    from pipeline.caps import QUORUM, role_for
    from pipeline.home import Home, read_key_file

    home = Home.open(args.home) if (args.home / "VERSION.json").is_file() else None
    if home is None:
        if args.key is None or args.role not in QUORUM or not args.print_only:
            raise UsageError(
                "E-CAP-011", "there is no Privet home here to sign in", "Give --key, --role and --print, or name the home"
            )
        return args.role, read_key_file(args.key)
    person = home.trust.by_name(args.name)
    if person is None:
        raise UsageError("E-CAP-004", "the trust root names no such person", "See privet identity list")
    role = role_for(person, args.role)
    return role, read_key_file(args.key) if args.key else home.identity(args.name)


def _said(filed: Filed) -> int:
    from privacy.rounding import shown_up

    asked = filed.asked
    print(f"signed by {filed.vote.signer.name} as {filed.vote.role} ({filed.vote.signer.custody} key)")
    if filed.verdict.blocks:
        print(f"{asked.scope}: the cap stays at epsilon {shown_up(asked.cap_before)}; {filed.verdict.reason}")
    else:
        print(f"{asked.scope}: the cap is epsilon {shown_up(asked.cap_after)} now, {filed.verdict.reason}")
    return 0


def _request(path: Path) -> CapRaise:
    from pipeline.caps import CapRaise
    from privacy.canonical import parse_canonical

    return CapRaise.from_json(parse_canonical(_bytes(path)))


def _bytes(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # a FIFO would wait
        return file.read(1 << 20).rstrip(b"\r\n")
