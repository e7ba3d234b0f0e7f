"""The command line: parses, calls one function per command, and turns errors into one sentence and an exit code.

Exit codes: 0 done; 1 a defect of Privet; 2 usage, policy, data or machine; 3 a gate or budget is closed; 4 integrity broken.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import commands
from pipeline.faults import as_privet_error
from pipeline.stage import CODE_VERSION

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `privet`."""
    args = build_parser().parse_args(arguments)
    # Libraries call logging.basicConfig when imported; with a handler there already, they can't fill the terminal.
    logging.getLogger().addHandler(logging.NullHandler())
    command: Command = args.command
    try:
        return command(args)
    except KeyboardInterrupt:
        print("stopped; running again continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if os.environ.get("PRIVET_TRACEBACK"):
            traceback.print_exc()
        fault = as_privet_error(error)
        print(f"privet: {fault}", file=sys.stderr)
        for line in getattr(fault, "details", ()):
            print(f"  - {line}", file=sys.stderr)
        return fault.exit_code


def build_parser() -> argparse.ArgumentParser:
    """The whole command tree; a test holds that docs/commands.md names every command and option."""
    parser = argparse.ArgumentParser(
        prog="privet", description="Raw logs in, a released and verifiable private model out.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"privet {CODE_VERSION}")
    tree = parser.add_subparsers(metavar="COMMAND", required=True)
    _demo_commands(tree)
    _policy_commands(tree)
    _run_commands(tree)
    _approval_commands(tree)
    _evidence_commands(tree)
    _rights_commands(tree)
    _identity_commands(tree)
    return parser


Tree = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _leaf(tree: Tree, name: str, command: Command, about: str) -> argparse.ArgumentParser:  # type: ignore[valid-type]
    leaf: argparse.ArgumentParser = tree.add_parser(name, help=about, description=about, allow_abbrev=False)  # type: ignore[attr-defined]
    leaf.set_defaults(command=command)
    return leaf


def _group(tree: Tree, name: str, about: str) -> Tree:  # type: ignore[valid-type]
    group = tree.add_parser(name, help=about, description=about, allow_abbrev=False)  # type: ignore[attr-defined]
    return group.add_subparsers(metavar="COMMAND", required=True)  # type: ignore[no-any-return]


def _home(leaf: argparse.ArgumentParser) -> None:
    default = Path(os.environ.get("PRIVET_HOME", ".privet"))
    leaf.add_argument(
        "--home", type=Path, default=default, metavar="DIR", help="the Privet home ($PRIVET_HOME, else ./.privet)"
    )


def _at_least(least: int) -> Callable[[str], int]:
    """A type for argparse, which turns the error into usage and exit code 2."""

    def count(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError("not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"less than {least}")
        return value

    return count


def _demo_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    demo = _leaf(tree, "demo", commands.demo, "run the whole chain on generated logs, as an Airflow DAG")
    _home(demo)
    demo.add_argument("--customers", type=_at_least(1), default=700, metavar="N", help="customers to generate (default 700)")
    logs = _group(tree, "logs", "generated raw logs")
    generate = _leaf(logs, "generate", commands.logs_generate, "write bilingual chats and app logs with planted personal data")
    generate.add_argument("folder", type=Path, metavar="FOLDER", help="where to write; it is made when missing")
    generate.add_argument("--customers", type=_at_least(1), default=700, metavar="N", help="customers to make up (default 700)")
    generate.add_argument("--app-lines", type=_at_least(0), default=2000, metavar="N", help="lines of app logs (default 2000)")
    generate.add_argument("--bad-lines", type=_at_least(0), default=0, metavar="N", help="broken lines to mix in")
    generate.add_argument("--seed", type=int, default=20261123, metavar="N", help="the same seed writes the same logs")


def _policy_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    policy = _group(tree, "policy", "policy files")
    check = _leaf(policy, "check", commands.policy_check, "check a policy; each fault names its field and line")
    check.add_argument("file", type=Path, metavar="FILE")
    home = Path(os.environ["PRIVET_HOME"]) if os.environ.get("PRIVET_HOME") else None
    about = "also compare the quorums with the trust root of this home ($PRIVET_HOME)"
    check.add_argument("--home", type=Path, default=home, metavar="DIR", help=about)
    _leaf(policy, "schema", commands.policy_schema, "print the JSON schema of a policy, for editors")


def _run_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    init = _leaf(tree, "init", commands.init, "make a new Privet home")
    _home(init)
    init.add_argument("--demo-identities", action="store_true", help="with key pairs for a demo engineer, steward and officer")
    run = _leaf(tree, "run", commands.run, "run the stages of a policy in this process, without Airflow")
    run.add_argument("policy", type=Path, metavar="POLICY")
    run.add_argument(
        "--source",
        required=True,
        metavar="URI",
        help="folder or file:// URI of the raw logs; quarantine:DIGEST for the rejects of an ingest",
    )
    _home(run)
    run.add_argument(
        "--as", dest="requested_by", metavar="NAME", help="who asks (default: approvals.requested_by of the policy)"
    )
    run.add_argument(
        "--demo-approvals", action="store_true", help="let the demo identities sign at the gates; the report says so"
    )
    quarantine = _group(tree, "quarantine", "records that ingest refused")
    replay = _leaf(
        quarantine, "replay", commands.quarantine_replay, "read the rejects of an ingest again, after the policy was mended"
    )
    replay.add_argument("policy", type=Path, metavar="POLICY")
    replay.add_argument("manifest", metavar="DIGEST", help="manifest digest of the ingest stage")
    _home(replay)
    airflow = _group(tree, "airflow", "the embedded Airflow")
    env = _leaf(airflow, "env", commands.airflow_env, "print the environment in which `airflow` sees this home's DAGs")
    _home(env)
    start = _leaf(
        airflow, "start", commands.airflow_start, "run the embedded Airflow until interrupted; its web page asks at the gates"
    )
    _home(start)


def _approval_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    approvals = _group(tree, "approvals", "what waits at the gates")
    listing = _leaf(approvals, "list", commands.approvals_list, "list the requests and who has signed them")
    _home(listing)
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    show = _leaf(approvals, "show", commands.approvals_show, "show one request: exactly what a signature would cover")
    show.add_argument("id", metavar="ID")
    _home(show)
    for name, about in (
        ("sign", "approve a request with a signature"),
        ("reject", "reject a request, finally for these bytes"),
    ):
        leaf = _leaf(approvals, name, commands.approvals_sign, about)
        leaf.set_defaults(decision="approve" if name == "sign" else "reject")
        leaf.add_argument("id", metavar="ID")
        leaf.add_argument("--as", dest="name", required=True, metavar="NAME", help="your name in the trust root")
        leaf.add_argument("--role", required=True, metavar="ROLE", help="the role you sign in; the quorum has to ask for it")
        leaf.add_argument(
            "--reason", required=True, metavar="TEXT", help="one sentence; it is kept for ever, so no personal data"
        )
        leaf.add_argument("--key", type=Path, metavar="FILE", help="your private key file (not needed for a demo identity)")
        leaf.add_argument(
            "--print", dest="print_only", action="store_true", help="print the signed envelope instead of filing it"
        )
        _home(leaf)


def _evidence_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    verify = _leaf(tree, "verify", commands.verify, "verify a bundle offline: no network, no database, no Privet home")
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    verify.add_argument(
        "--trust", type=Path, metavar="FILE", help="trust root you obtained yourself; without it identities are self-declared"
    )
    verify.add_argument("--json", action="store_true", help="one JSON object")
    journal = _group(tree, "journal", "the append-only journal")
    check = _leaf(journal, "verify", commands.journal_verify, "recompute the chain and its signatures")
    _home(check)
    check.add_argument("--anchor", metavar="SIZE:DIGEST", help="a size and head digest noted earlier, elsewhere")
    show = _leaf(journal, "show", commands.journal_show, "print the entries")
    _home(show)
    budget = _leaf(tree, "budget", commands.budget, "what each dataset has spent of its privacy budget")
    _home(budget)
    budget.add_argument("--json", action="store_true", help="one JSON object per line")


def _rights_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    erase = _leaf(tree, "erase", commands.erase, "erase one data subject, and list what that touches")
    erase.add_argument("subject", metavar="SUBJECT", help="the value of the subject field, or - to read it from standard input")
    erase.add_argument("--case", required=True, metavar="ID", help="your reference for the request; kept in the journal")
    erase.add_argument("--as", dest="by", default="operator", metavar="NAME", help="who erases; kept in the journal")
    erase.add_argument("--json", action="store_true", help="the receipt as JSON")
    _home(erase)


def _identity_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    identity = _group(tree, "identity", "people and keys of the trust root")
    new = _leaf(identity, "new", commands.identity_new, "make a key pair; the private key goes to a 0600 file")
    new.add_argument("--key", type=Path, required=True, metavar="FILE", help="new file for the private key")
    enrol = _leaf(identity, "enrol", commands.identity_enrol, "add a person to the trust root of a home")
    enrol.add_argument("name", metavar="NAME")
    enrol.add_argument("--public", required=True, metavar="HEX", help="the public key that `privet identity new` printed")
    enrol.add_argument("--role", dest="roles", action="append", required=True, metavar="ROLE", help="repeat it for more roles")
    _home(enrol)
    withdraw = _leaf(identity, "withdraw", commands.identity_withdraw, "take a person out of the trust root of a home")
    withdraw.add_argument("name", metavar="NAME")
    _home(withdraw)
    listing = _leaf(identity, "list", commands.identity_list, "list the trust root")
    _home(listing)


if __name__ == "__main__":
    sys.exit(main())
