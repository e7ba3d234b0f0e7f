"""What each command does: thin shells around the stages, with the imports each needs inside it."""

from __future__ import annotations

import json
import shlex
import sys
from argparse import Namespace

from privacy.errors import UsageError


def init(args: Namespace) -> int:
    from pipeline.commands_keys import kms_choice
    from pipeline.home import PIPELINE, Home

    chosen = kms_choice(args.kms, args.kms_set)
    home = Home.create(args.home, demo_identities=args.demo_identities, database=args.database, kms=chosen)
    print(f"made a Privet home at {args.home}; the pipeline signs as {PIPELINE} with key {home.key.public_hex[:16]}…")
    if home.database is not None:
        print("vault, journal and ledger lie in PostgreSQL, in schemas that carry this key")
    if args.demo_identities:
        print("demo identities: their private keys lie in this home, so their signatures prove no person's will")
    return 0


def demo(args: Namespace) -> int:
    from pipeline.demo import run_demo

    _stop_on_sigterm()
    return run_demo(args.home, customers=args.customers)


def logs_generate(args: Namespace) -> int:
    from pipeline.logs import LogSpec, generate_logs

    spec = LogSpec(seed=args.seed, customers=args.customers, app_lines=args.app_lines, bad_lines=args.bad_lines)
    made = generate_logs(args.folder, spec)
    print(f"wrote {made.records} records with {len(made.planted)} planted values to {args.folder}")
    print(f"ground truth: {made.truth_path}")
    return 0


def policy_check(args: Namespace) -> int:
    from privacy.policy_file import PolicyFaults, load_policy, policy_digest
    from privacy.rounding import shown_up

    try:
        policy = load_policy(args.file)
    except PolicyFaults as error:
        for fault in error.faults:
            print(f"{args.file}:{fault.line}: {fault.field}: {fault.message}", file=sys.stderr)
        raise
    budget = policy.budget
    print(f"{policy.name}: ok, {policy_digest(policy)}")
    print(
        f"  epsilon {shown_up(budget.epsilon)} at delta {budget.delta} per {policy.privacy_unit.name}, "
        f"{policy.recipe.steps} steps, sampling probability {budget.sampling_probability:.4g}"
    )
    if args.home is not None and (args.home / "trust.json").exists():
        from pipeline.home import Home

        held = [role for person in Home.open(args.home).trust.people for role in person.roles]
        for name, gate in (("use", policy.approvals.use), ("release", policy.approvals.release)):
            for role, seats in gate.quorum.items():
                if held.count(role) < seats:
                    print(f"  note: the {name} gate asks for {seats} {role}, and this home names {held.count(role)}")
    return 0


def policy_schema(_: Namespace) -> int:
    from privacy.policy import Policy

    print(json.dumps(Policy.model_json_schema(), indent=2, ensure_ascii=False))
    return 0


def run(args: Namespace) -> int:
    from pipeline.home import Home
    from pipeline.run import run_policy
    from pipeline.screen import Screen
    from privacy.policy_file import load_policy

    screen = Screen()
    load_policy(args.policy)  # a policy with faults must not leave a new home behind
    home = Home.open_or_create(args.home, demo_identities=args.demo_approvals)
    outcome = run_policy(
        home,
        args.policy,
        args.source,
        requested_by=args.requested_by,
        demo_approvals=args.demo_approvals,
        screen=screen,
    )
    screen.say(f"released: {outcome.bundle}")
    screen.say(f"report:   {outcome.bundle / 'report.html'}")
    screen.say(f"check it: privet verify {outcome.bundle}")
    return 0


def quarantine_replay(args: Namespace) -> int:
    from pipeline import tasks
    from pipeline.home import Home
    from pipeline.stage import load_manifest

    home = Home.open(args.home)
    who = tasks.enrolled_requester(args.home, args.policy, None)
    digest = tasks.run_ingest(args.home, args.policy, tasks.QUARANTINE + args.manifest, "replay", who)
    facts = load_manifest(home, digest).facts
    print(f"{digest}: {facts.get('records', 0)} records accepted, {facts.get('rejects', 0)} still refused")
    print(f"go on with them: privet run {args.policy} --source quarantine:{args.manifest}")
    return 0


def airflow_env(args: Namespace) -> int:
    from pipeline.airflow_local import airflow_environment, prepare_database

    home = args.home.resolve()
    prepare_database(home, lambda line: print(line, file=sys.stderr, flush=True))
    for name, value in sorted(airflow_environment(home).items()):
        print(f"export {name}={shlex.quote(value)}")  # it is for eval: nothing in a value may be run
    return 0


def airflow_start(args: Namespace) -> int:
    import time

    from pipeline.airflow_local import LocalAirflow

    _stop_on_sigterm()
    print("starting Airflow ...", flush=True)
    with LocalAirflow.start(args.home.resolve()) as running:
        running.wait_healthy()
        print(f"{running.url}  users and passwords: {running.passwords_file}  stop: Ctrl-C", flush=True)
        while True:
            time.sleep(3600)


def _stop_on_sigterm() -> None:
    """As Ctrl-C does: what was started is stopped before this process ends."""
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)


def verify(args: Namespace) -> int:
    from pipeline.screen import print_verification
    from pipeline.verify_main import verify_as_asked

    verification = verify_as_asked(args)
    print_verification(verification, as_json=args.json)
    return verification.exit_code


def identity_new(args: Namespace) -> int:
    from pipeline.home import write_key_file
    from privacy.signing import SigningKey

    key = SigningKey.generate()
    try:
        write_key_file(args.key, key)
    except FileExistsError:
        raise UsageError(
            "E-HOME-008", "there is a file with that name", "Name a new file; keys are never overwritten"
        ) from None
    print(key.public_hex)
    return 0


def identity_enrol(args: Namespace) -> int:
    from pipeline.evidence import WITNESS_ROLE
    from pipeline.home import Home, add_person
    from pipeline.witness import refuse_witness_name
    from privacy.signing import Person

    if len(args.public) != 64 or not all(c in "0123456789abcdef" for c in args.public):
        raise UsageError("E-HOME-009", "the public key is not 64 hex digits", "Pass what privet identity new printed")
    if WITNESS_ROLE in args.roles:
        refuse_witness_name(args.name)
    trust = add_person(Home.open(args.home), Person(args.name, args.public, tuple(args.roles)))
    print(f"enrolled {args.name} as {', '.join(args.roles)}; trust root {trust.digest}")
    return 0


def identity_withdraw(args: Namespace) -> int:
    from pipeline.home import Home, withdraw_person

    trust = withdraw_person(Home.open(args.home), args.name)
    print(f"withdrew {args.name}, whose signatures count nowhere from now on; trust root {trust.digest}")
    return 0


def identity_list(args: Namespace) -> int:
    from pipeline.home import Home

    for person in Home.open(args.home).trust.people:
        print(f"{person.name:<20}{', '.join(person.roles):<28}{person.custody:<6}{person.public_hex[:16]}…")
    return 0
