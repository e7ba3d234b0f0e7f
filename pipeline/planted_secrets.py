"""Made-up secrets among what a language model learns from: if it can say them, it can say what people wrote, too.

Guarantee: fresh for every approved training, and the same through its crashes and resumes: they are drawn by a key that the
home's keyring derives for this training alone, and lie nowhere, sealed or clear. A shown one stands in `repeats` made-up units,
each of its own, so that the claim of one unit does not cover it whole; a control stands in none. They are added after the real
units, whose number, choice and order they leave alone; sampling probability and divisor are public constants and stay so.
Assumption: who may derive keys of the dataset's training could draw them, too; they are nobody's data.
Not covered: they cost a little utility, and a model that learnt much may write what stands around them.
Source: Carlini et al., "The Secret Sharer", USENIX Security 2019, section 4.
"""

from __future__ import annotations

import hmac
import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipeline.home import Home
    from pipeline.stage import StageContext
    from privacy.policy import Policy
    from training.data import Record, UnitData

BEFORE = "the secret code is "  # public; what stands after it is the secret
_SHAPE = re.compile(r"secret\W*code\W*is\W*[0-9]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Secrets:
    """shown: in made-up units. controls: nowhere. All different, all of the same number of digits."""

    shown: tuple[str, ...] = field(repr=False)
    controls: tuple[str, ...] = field(repr=False)


def planted_secrets(home: Home, policy: Policy, ledger_key: str) -> Secrets | None:
    """Those of one training; None where the policy plants none. ledger_key: of the approved training, as `pipeline.train`
    names it, not that of one attempt."""
    asked = policy.audit.secrets
    if asked is None:
        return None
    key = home.keyring.derive(f"{policy.dataset}/training", f"planted secrets {ledger_key}")
    drawn = _distinct(key, asked.digits, asked.planted + asked.controls)
    return Secrets(drawn[: asked.planted], drawn[asked.planted :])


def with_secrets(ctx: StageContext, ledger_key: str, data: UnitData) -> UnitData:
    """`data` with the made-up units behind it; `data` itself where the policy plants none."""
    from training.config import TrainingConfig
    from training.data import Record, UnitData
    from training.recipes import recipe_of

    found, asked = planted_secrets(ctx.home, ctx.policy, ledger_key), ctx.policy.audit.secrets
    if found is None or asked is None:
        return data
    config = TrainingConfig.from_policy(ctx.policy, 0.0)
    grouped: dict[str, list[Record]] = {}
    for place, secret in enumerate(found.shown):
        for repeat in range(asked.repeats):
            unit = f"planted {place:03d} {repeat:04d}"  # a pseudonym has no spaces
            grouped[unit] = [Record(unit, unit, BEFORE + secret, config.labels[0])]
    recipe = recipe_of(config)
    made = recipe.prepare(recipe.encode(grouped, config), config)
    inputs = {name: np.concatenate([array, made.inputs[name]]) for name, array in data.inputs.items()}
    return UnitData((*data.units, *made.units), inputs, np.concatenate([data.labels, made.labels]), data.ragged)


def shows_a_secret(text: str) -> bool:
    """Whether a text goes on after the public words as one with a planted secret does, whichever secret it is."""
    return _SHAPE.search(text) is not None


def _distinct(key: bytes, digits: int, count: int) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for number in itertools.count():
        # 128 bits over at most 10^8 numbers: what the remainder prefers is beyond any measure.
        drawn = int.from_bytes(hmac.digest(key, number.to_bytes(8, "big"), "sha256")[:16], "big") % 10**digits
        found[f"{drawn:0{digits}d}"] = None
        if len(found) == count:
            return tuple(found)
    raise AssertionError("an endless count ended")
