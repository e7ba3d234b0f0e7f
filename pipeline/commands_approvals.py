"""`privet approvals`: what waits at the gates, deciding it, lending a role, and reviewing a broken glass. Thin shells."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy.errors import UsageError

if TYPE_CHECKING:
    from privacy.gates import GateName
    from privacy.signing import SigningKey

_WHY = "one sentence; it is kept for ever, so no personal data"
_ROLE = "the role you sign in; the quorum has to ask for it, or somebody lent it to you"
_DECISIONS = ("approve", "reject", "refer", "break-glass")


def register(tree: Any, leaf: Callable[..., ArgumentParser], group: Callable[..., Any]) -> None:
    """Adds the commands. leaf and group: how the command line makes them."""
    approvals = group(tree, "approvals", "what waits at the gates")
    listing = leaf(approvals, "list", approvals_list, "list the requests and who has signed them")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    show = leaf(approvals, "show", approvals_show, "show one request: exactly what a signature would cover")
    show.add_argument("id", metavar="ID")
    show.add_argument("--facts", action="store_true", help="also list what a condition can be about")
    sign = leaf(approvals, "sign", approvals_sign, "decide a request with a signature")
    reject = leaf(approvals, "reject", approvals_sign, "reject a request, finally for these bytes")
    reject.set_defaults(decision="reject", conditions=[], refer_to="")
    about = "what you decide (default approve); break-glass opens a release past its quorum, with a second person"
    sign.add_argument("--decision", choices=_DECISIONS, default="approve", help=about)
    about = "your approval counts only while this holds, e.g. 'epsilon <= 3'; repeat it for more"
    sign.add_argument("--condition", dest="conditions", action="append", default=[], metavar="TEXT", help=about)
    sign.add_argument("--refer-to", default="", metavar="ROLE", help="with --decision refer: the role that is to decide")
    for one in (sign, reject):
        one.add_argument("id", metavar="ID")
        _signer(one, _ROLE)
        one.add_argument("--print", dest="print_only", action="store_true", help="print the signed envelope, don't file it")
    lend = leaf(approvals, "delegate", approvals_delegate, "lend your role at the gates of one policy, until a date")
    _signer(lend, "the role that you lend; it has to be your own")
    lend.add_argument("--to", required=True, metavar="NAME", help="who gets it; an enrolled person")
    lend.add_argument("--policy", required=True, metavar="NAME", help="name of the policy")
    lend.add_argument("--gate", choices=("use", "release", "both"), default="both", help="at which gate (default both)")
    lend.add_argument("--until", required=True, metavar="DATE", help="when it ends; at most 92 days from now")
    review = leaf(approvals, "review", approvals_review, "review a release that was opened past its quorum")
    review.add_argument("release", metavar="BUNDLE_OR_ROOT", help="its folder, or its evidence root")
    _signer(review, "a role of the release gate")
    for one in (listing, show, sign, reject, lend, review):
        default = Path(os.environ.get("PRIVET_HOME", ".privet"))
        one.add_argument(
            "--home", type=Path, default=default, metavar="DIR", help="the Privet home ($PRIVET_HOME, else ./.privet)"
        )


def _signer(leaf: ArgumentParser, role: str) -> None:
    leaf.add_argument("--as", dest="name", required=True, metavar="NAME", help="your name in the trust root")
    leaf.add_argument("--role", required=True, metavar="ROLE", help=role)
    leaf.add_argument("--reason", required=True, metavar="TEXT", help=_WHY)
    leaf.add_argument("--key", type=Path, metavar="FILE", help="your private key file (not needed for a demo identity)")


def approvals_list(args: Namespace) -> int:
    from pipeline.break_glass import unreviewed
    from pipeline.delegate import standing
    from pipeline.home import Home
    from pipeline.run import gate_verdict

    home = Home.open(args.home)
    for request in home.approvals.list():
        votes = home.approvals.approvals(request.digest, home.trust)
        verdict = gate_verdict(home, request)
        state = _state(verdict.outcome, verdict.reason)
        if args.json:
            cast = [{"signer": v.signer, "role": v.role, "decision": v.decision, "custody": v.custody} for v in votes]
            print(json.dumps({**request.to_json(), "state": state, "votes": cast}, ensure_ascii=False))
            continue
        who = ", ".join(f"{v.signer} {v.decision} as {v.role}" for v in votes) or "nobody has signed"
        print(f"{request.id}  {state:<9} {request.gate:<8} {request.policy_name:<28} {request.digest[:19]}…  {who}")
    if not args.json:
        for lent in standing(home, datetime.now(UTC)):
            where = f"at {', '.join(lent.gates)} of {lent.policy} until {lent.until}"
            print(f"lent: {lent.role} of {lent.signer} to {lent.delegate} {where}")
        for loud in unreviewed(home.journal.entries()):
            print(f"BREAK-GLASS {loud.policy_name}: {loud.line()}")
    return 0


def _state(outcome: str, reason: str) -> str:
    if outcome == "passed":
        return "approved"
    return "rejected" if "E-GATE-012" in reason else "referred" if "E-GATE-044" in reason else "waiting"


def approvals_show(args: Namespace) -> int:
    from pipeline.approve import refuse_altered_request
    from pipeline.home import Home

    home = Home.open(args.home)
    request = home.approvals.get(args.id)
    refuse_altered_request(home, request)
    print(f"request {request.id}: {request.gate} gate of {request.policy_name}, run {request.run_id}")
    print(f"asked by {request.requested_by} at {request.created_at}; needs {dict(request.requirement.needed)}")
    print(f"a signature covers {request.digest}")
    for label, value in request.shown:
        print(f"  {label}: {value}")
    lent = {d.digest: d for d in home.approvals.delegations(home.trust)}
    for vote in home.approvals.approvals(request.digest, home.trust):
        by = lent.get(vote.delegation or "")
        more = f", lent by {by.signer} until {by.until}" if by is not None else ""
        more += f", to be decided by {vote.refer_to}" if vote.refer_to else ""
        more += "".join(f", if {condition}" for condition in vote.conditions)
        print(f"  {vote.decision} by {vote.signer} as {vote.role}{more} ({vote.custody} key): {vote.reason}")
    if args.facts:
        print("a condition can be about (and about expires, before a date):")
        for name, fact in sorted(request.facts.items()):
            print(f"  {name}: {fact}")
        if request.known.later:
            print(f"  decided at the release: {', '.join(f'{name}…' for name in request.known.later)}")
    return 0


def approvals_sign(args: Namespace) -> int:
    from pipeline.approve import Terms, lent_to, refuse_altered_request, sign_envelope, sign_request
    from pipeline.home import Home
    from privacy.conditions import parse_condition

    home = Home.open(args.home)
    key = _key(args)
    request = home.approvals.get(args.id)
    now = datetime.now(UTC)
    decision = args.decision.replace("-", "_")
    if (decision == "refer") != bool(args.refer_to) or (args.conditions and decision not in ("approve", "break_glass")):
        raise UsageError(
            "E-APPROVE-009",
            "a referral names the role that is to decide, and nothing else does; only approvals have conditions",
            "Use --refer-to with --decision refer, and --condition with an approval",
        )
    terms = Terms(tuple(parse_condition(text) for text in args.conditions), args.refer_to)
    if args.print_only:
        refuse_altered_request(home, request)
        lent = lent_to(home, request, key, args.role, now)
        said = sign_envelope(request, args.role, decision, args.reason, key, now, terms, lent)
        sys.stdout.write(said.decode() + "\n")
        return 0
    vote = sign_request(home, request, args.name, args.role, decision, args.reason, key, now, terms)
    print(f"{vote.decision} by {vote.signer} as {vote.role} over {vote.digest}")
    return 0


def approvals_delegate(args: Namespace) -> int:
    from pipeline.delegate import day_or_time, delegate
    from pipeline.home import Home

    gates: tuple[GateName, ...] = ("use", "release") if args.gate == "both" else (args.gate,)
    about = (args.role, args.to, gates, args.policy, day_or_time(args.until), args.reason)
    made = delegate(Home.open(args.home), args.name, *about, _key(args), datetime.now(UTC))
    print(f"{made.signer} lent {made.role} to {made.delegate} at {', '.join(made.gates)} of {made.policy} until {made.until}")
    return 0


def approvals_review(args: Namespace) -> int:
    from pipeline.break_glass import review
    from pipeline.home import Home
    from pipeline.revoke import root_named

    root = root_named(args.release)
    review(Home.open(args.home), root, args.name, args.role, args.reason, _key(args), datetime.now(UTC))
    print(f"reviewed by {args.name} as {args.role}: {root}")
    return 0


def _key(args: Namespace) -> SigningKey:
    from pipeline.home import Home, read_key_file

    return read_key_file(args.key) if args.key else Home.open(args.home).identity(args.name)
