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

from pipeline import (
    commands,
    commands_approvals,
    commands_audit,
    commands_budget,
    commands_export,
    commands_journal,
    commands_keys,
    commands_mine,
    commands_redact,
    commands_release,
    commands_report,
    commands_rights,
    commands_scan,
    commands_secrets,
    commands_synthesize,
    commands_training,
)
from pipeline.faults import as_privet_error
from pipeline.stage import CODE_VERSION
from pipeline.verify_options import add_arguments
from privacy.hardening import harden_process

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `privet`."""
    args = build_parser().parse_args(arguments)
    # Libraries call logging.basicConfig when imported; with a handler there already, they can't fill the terminal.
    logging.getLogger().addHandler(logging.NullHandler())
    command: Command = args.command
    if hasattr(args, "home") or hasattr(args, "key"):  # it may open keys
        harden_process()
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
    commands_scan.options(_leaf(tree, "scan", commands_scan.scan, "show where personal data stands in a file; changes nothing"))
    _policy_commands(tree)
    _run_commands(tree)
    commands_approvals.register(tree, _leaf, _group)
    commands_release.register(tree, _leaf, _group)
    _evidence_commands(tree)
    commands_report.register(_group(tree, "report", "a report as PDF, as evidence for laws, as an entry of a registry"), _leaf)
    _journal_commands(tree)
    _rights_commands(tree)
    _export_commands(tree)
    _mine_commands(tree)
    about = "take personal data out of a text or a stream, as a policy says"
    commands_redact.options(_leaf(tree, "redact", commands_redact.redact, about))
    about = "have a released language model write texts, redacted before anything is written"
    commands_synthesize.options(_leaf(tree, "synthesize", commands_synthesize.synthesize, about))
    _training_commands(tree)
    _identity_commands(tree)
    _keys_commands(tree)
    about = "draw the coins of canaries ahead of trainings, or list what is left"
    commands_audit.coin_options(_leaf(_group(tree, "audit", "what an auditor does"), "coins", commands_audit.coins, about))
    _secrets_commands(tree)
    _budget_commands(tree)
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
    about = "write made-up data in the form that a policy reads: chats, choices or pictures"
    commands_synthesize.example_options(_leaf(logs, "example", commands_synthesize.logs_example, about))


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
    init.add_argument(
        "--demo-identities", action="store_true", help="with key pairs for a demo engineer, steward, officer and auditor"
    )
    about = "PostgreSQL (15 or later) for vault, journal and ledger; no password in it (default: SQLite files in the home)"
    init.add_argument("--database", metavar="DSN", help=about)
    backends = ("local", "openbao", "aws", "pkcs11")
    init.add_argument("--kms", choices=backends, help="which service wraps the keys (default local)")
    about = "a setting of that service, never a secret; repeat it for more"
    init.add_argument("--kms-set", action="append", default=[], metavar="NAME=VALUE", help=about)
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


def _evidence_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    verify = _leaf(tree, "verify", commands.verify, "verify a bundle offline: no network, no database, no Privet home")
    add_arguments(verify)


def _journal_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    journal = _group(tree, "journal", "the append-only journal")
    check = _leaf(journal, "verify", commands_journal.journal_verify, "recompute the tree, its signatures and its anchors")
    about = "a state noted elsewhere: a checkpoint's file, a bundle's folder, SIZE:ROOT; repeat it for more"
    check.add_argument("--anchor", action="append", default=[], metavar="ANCHOR", help=about)
    check.add_argument("--no-anchor", action="store_true", help="do without: a journal cut or rewritten as a whole passes")
    show = _leaf(journal, "show", commands_journal.journal_show, "print the entries")
    for leaf in (check, show):
        leaf.add_argument("--json", action="store_true", help="JSON; one object, or one per entry")
    point = _leaf(journal, "checkpoint", commands_journal.journal_checkpoint, "print the signed checkpoint, to keep elsewhere")
    about = "with the proof that it continues this size, for a witness that cosigned that size last (0: none yet)"
    point.add_argument("--since", type=_at_least(0), metavar="SIZE", help=about)
    prove = _leaf(journal, "prove", commands_journal.journal_prove, "print the proof that an entry is in the journal")
    prove.add_argument("seq", type=_at_least(0), metavar="SEQ", help="the entry's number")
    witness = _leaf(journal, "witness", commands_journal.journal_witness, "cosign a checkpoint with a key kept elsewhere")
    witness.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="what privet journal checkpoint --since wrote")
    witness.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="where the witness remembers what it cosigned"
    )
    witness.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="the witness's private key (privet identity new)"
    )
    witness.add_argument("--as", dest="name", required=True, metavar="NAME", help="its name in the trust root")
    witness.add_argument("--log", metavar="KEY", help="the journal's verifier key (privet journal key); needed the first time")
    witness.add_argument("--proof", type=Path, metavar="FILE", help="the consistency proof, when it is a file of its own")
    for leaf in (point, prove, witness):
        leaf.add_argument("--out", type=Path, metavar="FILE", help="write to this file instead of printing")
    accept = _leaf(journal, "accept", commands_journal.journal_accept, "keep what a witness cosigned, for the next release")
    accept.add_argument("file", type=Path, metavar="FILE", help="the cosigned checkpoint")
    key = _leaf(journal, "key", commands_journal.journal_key, "print the journal's verifier key, for its witnesses")
    for leaf in (check, show, point, prove, accept, key):
        _home(leaf)


def _rights_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    who = "the value of the subject field, or - to read it from standard input"
    erase = _leaf(tree, "erase", commands_rights.erase, "erase one data subject, and list what that touches")
    erase.add_argument("subject", nargs="?", metavar="SUBJECT", help=who)
    erase.add_argument("--case", metavar="ID", help="your reference for the request; kept in the journal")
    erase.add_argument("--as", dest="by", default="operator", metavar="NAME", help="who erases; kept in the journal")
    erase.add_argument("--json", action="store_true", help="the receipt as JSON")
    erase.add_argument("--receipt", type=Path, metavar="FILE", help="write the signed receipt to this new file, too")
    erase.add_argument("--verify", type=Path, metavar="RECEIPT", help="check a signed receipt offline instead; needs no home")
    erase.add_argument("--trust", type=Path, metavar="FILE", help="trust root to verify against")
    about = "statement of completion; repeat it for more"
    erase.add_argument("--completed", type=Path, action="append", default=[], metavar="FILE", help=about)
    _home(erase)
    subject = _leaf(tree, "subject", commands_rights.subject, "answer an access request: where the data is and was used")
    subject.add_argument("subject", metavar="SUBJECT", help=who)
    subject.add_argument("--case", metavar="ID", help="your reference for the request; kept in the journal")
    subject.add_argument("--as", dest="by", default="operator", metavar="NAME", help="who asks; kept in the journal")
    subject.add_argument("--reveal", type=Path, metavar="DIR", help="write the originals to this new folder; needs --case")
    subject.add_argument("--json", action="store_true", help="one JSON object")
    _home(subject)
    retention = _leaf(tree, "retention", commands_rights.retention, "destroy what is over its days, end epochs that are due")
    retention.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    retention.add_argument(
        "--ahead", type=_at_least(0), default=7, metavar="DAYS", help="end epochs that are due within these days (default 7)"
    )
    retention.add_argument("--statements", type=Path, metavar="DIR", help="write signed statements of completion here, too")
    retention.add_argument("--json", action="store_true", help="one JSON object")
    _home(retention)


def _export_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    export = _leaf(tree, "export", commands_export.export, "write a protected dataset as encrypted Parquet for other tools")
    export.add_argument("manifest", metavar="DIGEST", help="manifest digest of the protect stage")
    export.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the data goes; made when missing")
    export.add_argument("--key-file", type=Path, required=True, metavar="FILE", help="new 0600 file for the key, elsewhere")
    export.add_argument("--as", dest="by", required=True, metavar="NAME", help="who exports; kept in the journal")
    _home(export)


def _mine_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    about = "token shapes and field names that detection left in many texts, values masked"
    mine = _leaf(tree, "mine", commands_mine.mine, about)
    mine.add_argument("what", metavar="DIGEST|POLICY", help="manifest digest of protect, or a policy file")
    about = "how many subjects must share one (default 5)"
    mine.add_argument("--subjects", type=_at_least(2), default=5, metavar="N", help=about)
    mine.add_argument("--json", action="store_true", help="one JSON object per line")
    _home(mine)


def _training_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    about = "try settings of a policy's recipe, on a public set for nothing or on private data for a reserved charge"
    commands_training.search_options(_leaf(tree, "search", commands_training.search, about))
    about = "make a trained model smaller; what is made leaves after approvals of its own"
    commands_training.compress_options(_leaf(tree, "compress", commands_training.compress, about))


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


def _secrets_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    secrets = _group(tree, "secrets", "connections of Airflow and lists of detection, sealed in the home")
    put = _leaf(secrets, "set", commands_secrets.secrets_set, "seal a value, read from standard input; never an argument")
    put.add_argument("--file", type=Path, metavar="FILE", help="read the value from this 0600 file instead")
    drop = _leaf(secrets, "remove", commands_secrets.secrets_remove, "shred one")
    for leaf in (put, drop):
        leaf.add_argument("name", metavar="NAME", help="connection id, or the key of a variable")
        kinds, about = ("connection", "variable", "config", "list"), "what Airflow asks for (default connection), or a list"
        leaf.add_argument("--kind", choices=kinds, default="connection", help=f"{about} of pii.deny")
        _home(leaf)
    _home(_leaf(secrets, "list", commands_secrets.secrets_list, "list names and kinds, no values"))


def _budget_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    budget = _leaf(tree, "budget", commands_budget.budget, "what each dataset has spent of its privacy budget")
    _home(budget)
    budget.add_argument("--json", action="store_true", help="one JSON object per line")
    budget.add_argument("--plot", type=Path, metavar="FILE", help="also draw the spend over time, as SVG")
    parts = budget.add_subparsers(metavar="COMMAND")
    history = _leaf(parts, "history", commands_budget.budget_history, "every event of the ledger, and the spend after it")
    history.add_argument("scope", nargs="?", metavar="SCOPE", help="dataset/unit; without it, all of them")
    lift = _leaf(parts, "raise", commands_budget.budget_raise, "sign a higher cap; a privacy officer and a steward have to")
    lift.add_argument("scope", nargs="?", metavar="SCOPE", help="dataset/unit, as privet budget shows it")
    lift.add_argument("--to", type=float, metavar="EPSILON", help="the new cap; it can only rise")
    lift.add_argument("--as", dest="name", metavar="NAME", help="your name in the trust root; without it, print what to sign")
    lift.add_argument("--role", metavar="ROLE", help="the role you sign in, if you hold both")
    lift.add_argument("--reason", metavar="TEXT", help="one sentence; it is kept for ever, so no personal data")
    lift.add_argument("--key", type=Path, metavar="FILE", help="your private key file (not needed for a demo identity)")
    lift.add_argument(
        "--request", type=Path, metavar="FILE", help="sign what was printed without --as, e.g. on another machine"
    )
    lift.add_argument("--print", dest="print_only", action="store_true", help="print the signed envelope, don't file it")
    lift.add_argument("--file", type=Path, metavar="ENVELOPE", help="file an envelope that was printed elsewhere")
    for leaf in (history, lift):  # SUPPRESS: a default here would win over what was given before the subcommand
        leaf.add_argument("--home", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="the Privet home")
    history.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object per line")
    plan = _leaf(tree, "plan", commands_budget.plan, "what a run of a policy would spend and leave; spends and writes nothing")
    plan.add_argument("policy", type=Path, metavar="POLICY")
    plan.add_argument("--json", action="store_true", help="one JSON object")
    _home(plan)


def _keys_commands(tree: Tree) -> None:  # type: ignore[valid-type]
    keys = _group(tree, "keys", "the keys that open data, and who may unwrap which")
    init = _leaf(keys, "init", commands_keys.keys_init, "make a dataset's key domains, so that write-only roles can write")
    init.add_argument("--dataset", required=True, metavar="NAME", help="the policy's dataset")
    listing = _leaf(keys, "list", commands_keys.keys_list, "list domains, epochs and versions; never a key")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    rotate = _leaf(keys, "rotate", commands_keys.keys_rotate, "rotate the root (writes no data), or start an epoch")
    which = rotate.add_mutually_exclusive_group()
    which.add_argument("--group", metavar="NAME", help="only the key of this group of classes")
    which.add_argument("--domain", metavar="D", help="a new epoch of this domain instead")
    destroy = _leaf(keys, "destroy", commands_keys.keys_destroy, "destroy a domain's key: what it wrapped is gone for good")
    destroy.add_argument("--domain", required=True, metavar="D", help="DATASET/CLASS")
    destroy.add_argument("--epoch", type=_at_least(1), metavar="N", help="only this epoch")
    destroy.add_argument("--yes", required=True, metavar="D", help="the domain's name again")
    grant = _leaf(keys, "grant", commands_keys.keys_grant, "write a role's key file (local key service)")
    grant.add_argument("role", metavar="ROLE")
    grant.add_argument("--to", type=Path, required=True, metavar="FILE", help="new 0600 file")
    revoke = _leaf(keys, "revoke", commands_keys.keys_revoke, "take a role's key back and rotate what it could open")
    revoke.add_argument("role", metavar="ROLE")
    policy = _leaf(keys, "policy", commands_keys.keys_policy, "print the OpenBao policy of a role")
    policy.add_argument("role", metavar="ROLE")
    for leaf in (init, listing, rotate, destroy, grant, revoke, policy):
        _home(leaf)


if __name__ == "__main__":
    sys.exit(main())
