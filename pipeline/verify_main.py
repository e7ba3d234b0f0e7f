"""`python -m pipeline.verify BUNDLE`: the verifier for whoever does not install Privet, with the options of `privet verify`.

Guarantee: the same rows and exit codes as `privet verify` (0 verified, 3 gate closed, 4 integrity broken, 2 usage), with
nothing beyond the standard library, cryptography, numpy and scipy.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from pipeline.faults import as_privet_error
from pipeline.verify import Verification, read_given, read_trust, verify_bundle
from pipeline.verify_options import add_arguments

_MAX_CLAIM_WIDTH = 40  # names of verdicts come from the bundle; a long one must not push the others off the page
_EVIDENCE_WIDTH = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, print, and return the exit code; a fault becomes one sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.verify", description="Verify a bundle offline.", allow_abbrev=False
    )
    add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        verification = verify_as_asked(args)
    except Exception as error:
        fault = as_privet_error(error)
        print(f"verify: {fault}", file=sys.stderr)
        return fault.exit_code
    if args.json:
        print(json.dumps(verification.to_json(), ensure_ascii=False))
    else:
        print("\n".join(lines(verification)))
    return verification.exit_code


def verify_as_asked(args: argparse.Namespace) -> Verification:
    """Raises UsageError E-VERIFY-001 for a trust root or a list that can't be read."""
    trust = None if args.trust is None else read_trust(args.trust)
    listed = None if args.revocations is None else read_given(args.revocations, "revocation list")
    return verify_bundle(args.bundle, trust, datetime.now(UTC), listed)


def lines(verification: Verification) -> Iterator[str]:
    """The table claim, evidence, verdict as plain text, and the conclusion last. Rows are printable already."""
    width = min(max((len(row.claim) for row in verification.rows), default=0), _MAX_CLAIM_WIDTH)
    yield f"{'claim':<{width}}  {'evidence':<{_EVIDENCE_WIDTH}}  verdict"
    for row in verification.rows:
        shown = "noted" if row.kind == "note" and row.outcome != "passed" else row.outcome
        evidence = textwrap.wrap(f"{row.code}: {row.evidence}" if row.code else row.evidence, _EVIDENCE_WIDTH) or [""]
        yield f"{row.claim:<{width}}  {evidence[0]:<{_EVIDENCE_WIDTH}}  {shown}"
        yield from (" " * (width + 2) + more for more in evidence[1:])
    yield f"{verification.conclusion} (exit {verification.exit_code})"
