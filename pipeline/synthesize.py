"""Has a released language model write synthetic texts, and redacts each before anything of it is written anywhere.

Guarantee: only a bundle that verifies is used, so a model that no gate let out writes nothing. Every text goes through the
output redactor of its policy; one that can't be shown to be clean is withheld, counted and never shown. What is written has the
model's own privacy claim (it is post-processing) and no better: the file says that its texts are made up.
A text that repeats a rare span of people's records, or a planted secret, is withheld, too, when the home that trained the
model is at hand (`pipeline.repeat_guard`).
Not covered: truth, and personal data of kinds that no recognizer knows. Without that home, that nobody's words were repeated is
bounded by the claim and measured by the audit of memorisation, not shown for these texts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.repeat_guard import guard_of, guard_without_home
from privacy.canonical import parse_json
from privacy.errors import DataError, GateClosed, IntegrityError, UsageError
from privacy.policy import Policy

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.redact import OutputRedactor
    from privacy.signing import TrustRoot
    from training.config import TrainingConfig
    from training.models.causal_lm import CausalLm

_AT_ONCE = 32  # texts


@dataclass(frozen=True, slots=True)
class Synthesis:
    """texts: written. withheld: empty, not shown to be clean, or repeating. removed: what redaction took out, by type.

    repeating: of those withheld. compared: whether people's records were looked at for that.
    """

    texts: int
    withheld: int
    removed: Mapping[str, int]
    repeating: int = 0
    compared: bool = False


@dataclass(frozen=True, slots=True)
class Style:
    """How to draw: temperature 1 and all tokens would be the model's own law. seed: None takes one of the system's."""

    temperature: float = 0.9
    top_k: int = 40
    seed: int | None = None


def synthesize(
    bundle: Path, out: Path, per_label: int, trust: TrustRoot | None, style: Style, now: datetime, home: Home | None = None
) -> Synthesis:
    """Write `per_label` texts of each label as JSON lines to the new file `out`, 0600: label, text, synthetic (true).

    trust: a trust root obtained elsewhere; None believes the bundle's own. home: the one that trained the model; with it, texts
    are compared with people's records. Raises GateClosed E-SYNTH-001 (the bundle does not verify), UsageError E-SYNTH-002 (no
    language model), 003 (the file is there), 005 (another home), IntegrityError E-SYNTH-004 (another model).
    """
    policy, weights = _released(bundle, trust, now)
    model, config = _model(policy, weights)
    guard = guard_without_home(policy) if home is None else guard_of(home, policy, bundle)
    redactor, removed, withheld, repeating, lines = _redactor(policy), Counter[str](), 0, 0, []
    for label, text in _written(model, config, per_label, style):
        if guard.repeats(text):
            withheld, repeating = withheld + 1, repeating + 1
            continue
        try:
            redacted = redactor.redact(text)
        except DataError as error:
            if error.code != "E-REDACT-001":  # a redactor that hangs says no more about any text
                raise
            redacted = None
        if redacted is None or not redacted.text.strip():
            withheld += 1
            continue
        removed.update(redacted.counts)
        lines.append(json.dumps({"label": label, "text": redacted.text, "synthetic": True}, ensure_ascii=False) + "\n")
    _write_new(out, lines)
    return Synthesis(len(lines), withheld, dict(removed), repeating, guard.compared)


def _released(bundle: Path, trust: TrustRoot | None, now: datetime) -> tuple[Policy, bytes]:
    """Policy and weights, the bytes that were verified."""
    from pipeline.bundle import read_bundle
    from pipeline.evidence import MODEL_FILE
    from pipeline.verify import verify_bundle

    verification = verify_bundle(bundle, trust, now)
    if verification.exit_code != 0:
        raise GateClosed(
            "E-SYNTH-001",
            f"the bundle does not verify ({verification.failures[0].claim})",
            "See privet verify BUNDLE; only a released model writes",
        )
    view = read_bundle(bundle)
    weights = (bundle / MODEL_FILE).read_bytes()
    if "sha256:" + hashlib.sha256(weights).hexdigest() != view.files[MODEL_FILE].sha256:
        raise IntegrityError("E-SYNTH-004", "the model changed while it was read", "Verify the bundle again")
    return Policy.model_validate(parse_json(view.texts["policy.json"])), weights


def _model(policy: Policy, weights: bytes) -> tuple[CausalLm, TrainingConfig]:
    if policy.recipe.model != "causal_lm":
        raise UsageError("E-SYNTH-002", f"a {policy.recipe.model} writes no texts", "Give the bundle of a causal_lm")
    from safetensors.torch import load

    from training.config import TrainingConfig
    from training.evaluate import load_released
    from training.models.causal_lm import CausalLm
    from training.recipes import recipe_of

    config = TrainingConfig.from_policy(policy, 0.0)
    model = load_released(recipe_of(config).build(config), load(weights))
    assert isinstance(model, CausalLm)
    return model, config


def _written(model: CausalLm, config: TrainingConfig, per_label: int, style: Style) -> Iterator[tuple[str, str]]:
    from training.recipes.private_text import write

    for place, label in enumerate(config.labels):
        for start in range(0, per_label, _AT_ONCE):
            count = min(_AT_ONCE, per_label - start)
            seed = None if style.seed is None else style.seed * 1_000_003 + place * 10_007 + start
            for text in write(model, config, place, count, temperature=style.temperature, top_k=style.top_k, seed=seed):
                yield label, text


def _redactor(policy: Policy) -> OutputRedactor:
    from pipeline.output_redactor import output_redactor

    return output_redactor(policy)


def _write_new(out: Path, lines: list[str]) -> None:
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError("E-SYNTH-003", "there is a file with that name", "Name a new file; nothing is overwritten") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(lines)
