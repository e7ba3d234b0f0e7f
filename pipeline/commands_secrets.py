"""`privet secrets`: connections of Airflow, sealed in the home. A value comes from standard input or a 0600 file, never from
the command line, which every process on the machine can read."""

from __future__ import annotations

import sys
from argparse import Namespace


def secrets_set(args: Namespace) -> int:
    from pipeline.home import Home
    from pipeline.sealed_secrets import SealedSecrets, read_value_file, secret_name

    name = secret_name(args.kind, args.name)
    home = Home.open(args.home)
    value = read_value_file(args.file) if args.file else _read_stdin()
    SealedSecrets(home).set(name, value.rstrip("\r\n"))
    print(f"sealed {name.kind} {name.name}")
    return 0


def secrets_list(args: Namespace) -> int:
    from pipeline.home import Home
    from pipeline.sealed_secrets import SealedSecrets

    for name in SealedSecrets(Home.open(args.home)).names():
        print(f"{name.kind:<11}{name.name}")
    return 0


def secrets_remove(args: Namespace) -> int:
    from pipeline.home import Home
    from pipeline.sealed_secrets import SealedSecrets, secret_name

    name = secret_name(args.kind, args.name)
    SealedSecrets(Home.open(args.home)).remove(name)
    print(f"removed {name.kind} {name.name}; its ciphertext is shredded")
    return 0


def _read_stdin() -> str:
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass("value (not shown): ")
    return sys.stdin.read((64 << 10) + 2)
