"""Keeps back texts of a language model that repeat what it was shown: rare spans of people's records, and planted secrets.

Guarantee: with the home that trained the model, a text with a span that `audit.memorisation` would flag is held back, and so is
one with a planted secret; without it, one that goes on from the public words before a secret like a planted one does.
Not covered: without the home nothing is compared with people's records, which a bundle does not hold: the caller says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.planted_secrets import planted_secrets, shows_a_secret
from privacy.canonical import Json, is_digest, parse_canonical
from privacy.errors import UsageError

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.policy import Policy


@dataclass(frozen=True, slots=True)
class RepeatGuard:
    """repeats: whether a text must be kept back. compared: whether people's records were looked at."""

    repeats: Callable[[str], bool]
    compared: bool


def guard_without_home(policy: Policy) -> RepeatGuard:
    planted = policy.audit.secrets is not None
    return RepeatGuard(lambda text: planted and shows_a_secret(text), compared=False)


def guard_of(home: Home, policy: Policy, bundle: Path) -> RepeatGuard:
    """bundle: verified, of a model that this home trained, else UsageError E-SYNTH-005. Raises what reading the data raises."""
    from pipeline.audit_memorisation import memorised_spans, span_index
    from pipeline.train import ledger_key
    from privacy.policy_file import policy_digest

    protect, use = _inputs(parse_canonical((bundle / "manifests.json").read_bytes()))
    if not any(entry.facts.get("manifest") == protect for entry in home.journal.entries()):
        raise UsageError("E-SYNTH-005", "that home did not train the model of this bundle", "Give the home it came from")
    planted = planted_secrets(home, policy, ledger_key(policy_digest(policy), protect, use))
    shown = () if planted is None else planted.shown
    index = span_index(home, policy, protect)

    def repeats(text: str) -> bool:
        if (planted is not None and shows_a_secret(text)) or any(secret in text for secret in shown):
            return True
        return index is not None and memorised_spans(index, policy, [text]) != [0]

    return RepeatGuard(repeats, compared=index is not None)


def _inputs(manifests: Json) -> tuple[str, str]:
    """Digests of the protected dataset and of the use approval that the training names."""
    train = manifests.get("train") if isinstance(manifests, Mapping) else None
    match train:
        case {"inputs": {"protect": str(protect), "use": str(use)}} if is_digest(protect) and is_digest(use):
            return protect, use
    raise UsageError("E-SYNTH-005", "the bundle names no training that a home could know", "Give the bundle of a training")
