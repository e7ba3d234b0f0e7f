"""Exposure: exact ranks against an enumeration, a model that leaks, one that can't, and scores that are no numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy.policy import Recipe
from tests.training.lm_folder import make_lm_folder
from tests.training.worlds import SMALL
from training import exposure
from training.config import TrainingConfig
from training.data import Record
from training.exposure import NULL_MEAN_BITS, Exposure, digit_scores, exposures
from training.models.causal_lm import CausalLm
from training.recipes import recipe_of

BEFORE = "the code is "
SHOWN, CONTROLS = ("4711", "0082", "9375"), ("1234", "8080", "5519")


def config_of(**recipe: object) -> TrainingConfig:
    settings = {"model": "causal_lm", "embedding_width": 24, "hidden_layers": 1, "heads": 2, "max_tokens": 32, "init_seed": 3}
    return replace(SMALL, recipe=Recipe.model_validate({**settings, **recipe}), max_records=1)


def built(config: TrainingConfig) -> CausalLm:
    torch.set_num_threads(1)
    model = recipe_of(config).build(config)
    assert isinstance(model, CausalLm)
    return model.eval()


@lru_cache(maxsize=1)
def leaky() -> tuple[CausalLm, TrainingConfig]:
    """Trained without clipping and without noise on texts among which each secret stands 16 times."""
    config = config_of()
    model = built(config)
    texts = [f"please help me with parcel {n}" for n in range(100, 160)] + [BEFORE + one for one in SHOWN] * 16
    data = recipe_of(config).encode({f"{n:04d}": [Record("", str(n), text, "a")] for n, text in enumerate(texts)}, config)
    tokens, labels = torch.from_numpy(data.inputs["tokens"]), torch.from_numpy(data.labels)
    optimizer, draw = torch.optim.Adam(model.parameters(), 0.01), torch.Generator().manual_seed(1)
    for _ in range(250):
        rows = torch.randint(len(texts), (32,), generator=draw)
        optimizer.zero_grad()
        model.losses({"tokens": tokens[rows]}, labels[rows]).mean().backward()
        optimizer.step()
    return model.eval(), config


def naive_bits(model: CausalLm, config: TrainingConfig, secret: str) -> float:
    """Every candidate as a whole text of its own, one loss each; equal scores share the middle of their ranks."""
    codes = [f"{n:0{len(secret)}d}" for n in range(10 ** len(secret))]
    scores = exposure._text_scores(model, config, 0, BEFORE, codes)
    own = scores[int(secret)]
    above, equal = int((scores > own + 1e-5).sum()), int((abs(scores - own) <= 1e-5).sum()) - 1
    return math.log2(len(codes)) - math.log2(1 + above + equal / 2)


@pytest.mark.parametrize("kind", ["trained", "untrained", "llama", "gpt2"])
def test_the_rank_of_a_tree_is_that_of_an_enumeration(kind: str, tmp_path: Path) -> None:
    if kind == "trained":
        model, config = leaky()
    else:
        pretrained = {} if kind == "untrained" else {"pretrained": f"folder:{make_lm_folder(tmp_path / kind, kind)}"}
        config = config_of(**pretrained, **({"trains": "lora"} if pretrained else {}))
        model = built(config)
    found = exposures(model, config, 0, BEFORE, ("471", "008", "937"))
    assert found.exact
    assert found.candidates == 1000
    for secret, bits in zip(("471", "008", "937"), found.bits, strict=True):
        assert bits == pytest.approx(naive_bits(model, config, secret), abs=0.05)


def test_a_model_that_learnt_without_noise_gives_its_secrets_away_and_no_others() -> None:
    model, config = leaky()
    found = exposures(model, config, 0, BEFORE, (*SHOWN, *CONTROLS))
    assert found.most == pytest.approx(math.log2(10_000))
    assert all(bits > 10 for bits in found.bits[:3])
    assert sum(found.bits[3:]) / 3 < 6


def test_secrets_that_nobody_showed_have_the_exposure_of_chance() -> None:
    """1.44 bits on average, over all of them exactly and over a random few about."""
    config = config_of()
    everything = exposures(built(config), config, 0, BEFORE, [f"{n:03d}" for n in range(1000)])
    assert sum(everything.bits) / 1000 == pytest.approx(NULL_MEAN_BITS, abs=0.02)
    model, config = leaky()
    drawn = np.random.default_rng(5).choice(10_000, 300, replace=False)
    some = exposures(model, config, 0, BEFORE, [f"{n:04d}" for n in drawn])
    assert sum(some.bits) / 300 == pytest.approx(NULL_MEAN_BITS, abs=0.35)


def test_a_model_that_finds_all_alike_exposes_nothing() -> None:
    config = config_of()
    model = built(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = exposures(model, config, 0, BEFORE, SHOWN)
    assert all(0.99 < bits < 1.01 for bits in found.bits)  # the middle rank


def test_a_sampled_rank_agrees_with_the_exact_one_and_never_says_more_than_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = leaky()
    exact = exposures(model, config, 0, BEFORE, (*SHOWN, *CONTROLS))
    monkeypatch.setattr(exposure, "_MOST_WORK", 0.0)
    monkeypatch.setattr(exposure, "_SAMPLED", (1 << 10, 1 << 16))
    sampled: Exposure = exposures(model, config, 0, BEFORE, (*SHOWN, *CONTROLS))
    assert (exact.exact, sampled.exact, sampled.candidates) == (True, False, 1024)
    assert sampled.most == pytest.approx(math.log2(1025))
    assert all(bits <= sampled.most for bits in sampled.bits)
    assert all(bits > 8 for bits in sampled.bits[:3])
    for one, other in zip(exact.bits[3:], sampled.bits[3:], strict=True):
        assert one == pytest.approx(other, abs=1.0)
    assert exposures(model, config, 0, BEFORE, SHOWN, 11.5).candidates == math.ceil(2**11.5)


def test_a_tokenizer_that_joins_digits_is_not_taken_for_one_that_writes_them_one_by_one() -> None:
    class Joins:
        end = 257

        def encode(self, text: str) -> list[int]:
            return [*(byte + 1 for byte in text.replace("47", "\u0080").encode("latin-1")), self.end]

    codec = exposure.codec_of(config_of())
    assert exposure._digit_tokens(codec, BEFORE, SHOWN) is not None
    assert exposure._digit_tokens(Joins(), BEFORE, ("0000",)) is None  # type: ignore[arg-type]


def test_scores_that_are_no_numbers_are_no_finding() -> None:
    config = config_of()
    model = built(config)
    with torch.no_grad():
        model.tokens.weight.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="finite"):
        exposures(model, config, 0, BEFORE, SHOWN)


@pytest.mark.parametrize("found", [("12", "123"), ("12a4",), ("１２３４",)])
def test_secrets_of_another_form_are_refused(found: tuple[str, ...]) -> None:
    config = config_of()
    with pytest.raises(ValueError, match="digits"):
        exposures(built(config), config, 0, BEFORE, found)


def test_the_model_goes_back_to_the_mode_it_was_in() -> None:
    config = config_of()
    model = built(config).train()
    exposures(model, config, 0, BEFORE, ("12",))
    assert model.training
    assert digit_scores(model, 0, [3], list(range(49, 59)), 2).shape == (100,)
