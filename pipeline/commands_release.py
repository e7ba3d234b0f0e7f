"""`privet release`: taking a release back, and the signed list by which verifiers learn of it. Thin shells."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from privacy.errors import EnvironmentFault
from privacy.revocation import REASON_CODES


def register(tree: Any, leaf: Callable[..., ArgumentParser], group: Callable[..., Any]) -> None:
    """Adds the commands. leaf and group: how the command line makes them."""
    release = group(tree, "release", "releases that left")
    revoke = leaf(release, "revoke", release_revoke, "take a release back; verifiers learn of it from the next list")
    revoke.add_argument("release", metavar="BUNDLE_OR_ROOT", help="its folder, or its evidence root")
    revoke.add_argument("--as", dest="name", required=True, metavar="NAME", help="your name in the trust root")
    revoke.add_argument("--role", required=True, metavar="ROLE", help="a role of the release quorum, or privacy_officer")
    revoke.add_argument("--reason", required=True, metavar="TEXT", help="one sentence, kept for ever, so no personal data")
    revoke.add_argument("--code", choices=REASON_CODES, default="withdrawn", help="what the list says (default withdrawn)")
    revoke.add_argument("--key", type=Path, metavar="FILE", help="your private key file (not needed for a demo identity)")
    listed = leaf(release, "revocations", release_revocations, "write a new signed revocation list, one number above the last")
    listed.add_argument("--out", type=Path, required=True, metavar="FILE", help="where; an older list there is replaced")
    listed.add_argument("--days", type=int, default=7, metavar="N", help="how long it is good for, 1 to 31 (default 7)")
    listed.add_argument("--as", dest="name", metavar="NAME", help="a privacy officer who signs it, in place of the pipeline")
    listed.add_argument("--key", type=Path, metavar="FILE", help="that officer's private key file")
    for one in (revoke, listed):
        default = Path(os.environ.get("PRIVET_HOME", ".privet"))
        one.add_argument(
            "--home", type=Path, default=default, metavar="DIR", help="the Privet home ($PRIVET_HOME, else ./.privet)"
        )


def release_revoke(args: Namespace) -> int:
    from pipeline.home import Home, read_key_file
    from pipeline.revoke import revoke, root_named

    home = Home.open(args.home)
    key = read_key_file(args.key) if args.key else home.identity(args.name)
    found = revoke(home, root_named(args.release), args.name, args.role, args.reason, args.code, key, datetime.now(UTC))
    print(f"revoked {found.evidence_root} ({found.reason}); hand out a new list: privet release revocations --out FILE")
    return 0


def release_revocations(args: Namespace) -> int:
    from pipeline.approve import refuse_other_key
    from pipeline.home import Home, read_key_file
    from pipeline.revoke import signed_list
    from privacy.revocation import read_revocations

    home, key = Home.open(args.home), None
    if args.name is not None:
        key = read_key_file(args.key) if args.key else home.identity(args.name)
        refuse_other_key(home, args.name, key)
    data = signed_list(home, datetime.now(UTC), args.days, key)
    _replace(args.out, data)
    found = read_revocations(data, home.trust)
    until = found.next_update.isoformat(timespec="minutes")
    print(f"list {found.number}, {len(found.entries)} revocations, signed by {found.signer}, good until {until}: {args.out}")
    return 0


def _replace(path: Path, data: bytes) -> None:
    """Old or new, whole: who serves this file may read it at any moment."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.new")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise EnvironmentFault(
            "E-REVOKE-012", f"the list can't be written ({error.strerror})", "Name a file in a folder of yours"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
