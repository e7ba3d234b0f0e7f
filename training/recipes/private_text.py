"""A language model that learns de-identified texts and writes synthetic ones of a label, under the privacy claim.

Guarantee: one record is one sequence, never packed with another; tokenizer, weights and labels are public. What the model
writes may hold what it learnt, within the claim and no better: nobody gets it unredacted (`pipeline.synthesize`).
Not covered: truth. A synthetic chat never happened. Memorisation is bounded by the claim, and measured by audits.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from privacy.canonical import Json
from privacy.errors import PolicyError
from training.adapters import apply_adapters, default_targets
from training.config import TrainingConfig
from training.data import Record, UnitData, build_units
from training.evaluate import Utility
from training.models.base import UnitModel
from training.models.causal_lm import CausalLm, PretrainedLm, SmallGpt
from training.pretrained import Pretrained, find_pretrained, go_offline
from training.recipes.base import seeded, synthetic_labels
from training.text_codec import ByteCodec, codec_of

_JUDGED = 8192  # texts that a judgement runs through the model, labels times records; the least is 64 records
_RESPONSE = 64  # tokens


class PrivateTextRecipe:
    classifies = False

    def encode(self, grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
        codec, length = codec_of(config), config.recipe.max_tokens

        def tokens(record: Record) -> dict[str, np.ndarray]:
            return {"tokens": np.array(codec.encode(record.text), dtype=np.int32)}

        return build_units(grouped, config.labels, config.max_records, tokens, {"tokens": ((length,), np.int32)}, ("tokens",))

    def prepare(self, data: UnitData, config: TrainingConfig) -> UnitData:
        return data

    def build(self, config: TrainingConfig) -> UnitModel:
        make = self._scratch if config.recipe.trains == "scratch" else self._pretrained
        return seeded(config.recipe.init_seed, lambda: make(config))

    def _scratch(self, config: TrainingConfig) -> CausalLm:
        recipe, codec = config.recipe, codec_of(config)
        assert isinstance(codec, ByteCodec)
        shape = (recipe.max_tokens, recipe.embedding_width, recipe.hidden_layers, recipe.heads)
        return SmallGpt(codec.vocabulary, codec.codes, codec.end, codec.silent, *shape, recipe.dropout)

    def _pretrained(self, config: TrainingConfig) -> CausalLm:
        recipe, codec = config.recipe, codec_of(config)
        assert recipe.pretrained is not None
        found = find_pretrained(recipe.pretrained, recipe.pretrained_digest)
        network = load_language_model(found)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
            elif isinstance(getattr(module, "attention_dropout", None), float):
                module.attention_dropout = recipe.dropout
        if recipe.trains in ("lora", "adapter", "adalora"):
            apply_adapters(network, recipe.trains, recipe.rank, default_targets(found.model_type, recipe.trains))
        # A model's table may have rows beyond its tokenizer's, which mean nothing.
        beyond = range(codec.vocabulary, int(network.get_input_embeddings().weight.shape[0]) + 1)
        return PretrainedLm(network, codec.codes, codec.end, [*codec.silent, *beyond])

    def synthetic(self, config: TrainingConfig, units: int) -> UnitData:
        labels = synthetic_labels(config, units)
        shape = (*labels.shape, config.recipe.max_tokens)
        tokens = np.random.default_rng(0).integers(1, 100, shape, dtype=np.int32)
        tokens[labels < 0] = 0
        return UnitData(tuple(str(n) for n in range(units)), {"tokens": tokens}, labels, ("tokens",))

    def utility(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> Utility | None:
        """accuracy: how often a text is likeliest after its own label's control code. bits_per_character: of holdout texts
        after their own code; of_other_labels: after the others', on average. Over a bounded number of records."""
        assert isinstance(model, CausalLm)
        rows, columns = _judged(data, config)
        if not len(rows):
            return None
        tokens, labels = data.inputs["tokens"][rows, columns], data.labels[rows, columns]
        codec = codec_of(config)
        spent = _nats(model, tokens) * np.count_nonzero(tokens, axis=1)[:, None]  # nats of each text, by control code
        written = sum(codec.characters(text.tolist()) for text in tokens)
        own = spent[np.arange(len(labels)), labels]
        others = (spent.sum(1) - own) / max(1, spent.shape[1] - 1)
        per_character = math.log(2) * max(1, written)
        return Utility(
            accuracy=round(float((spent.argmin(1) == labels).mean()), 3),
            majority=round(float(np.bincount(labels).max() / len(labels)), 3),
            records=len(labels),
            units=len(np.unique(rows)),
            more={
                "bits_per_character": round(float(own.sum()) / per_character, 3),
                "bits_per_character_of_other_labels": round(float(others.sum()) / per_character, 3),
            },
        )

    def right(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> np.ndarray:
        """1 where a text is likeliest after its own label's control code, over the records that `utility` judges."""
        assert isinstance(model, CausalLm)
        found = np.full(data.labels.shape, np.nan)
        rows, columns = _judged(data, config)
        if len(rows):
            likeliest = _nats(model, data.inputs["tokens"][rows, columns]).argmin(1)
            found[rows, columns] = likeliest == data.labels[rows, columns]
        return found

    def label_scores(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> None:
        """It writes, and takes no text to answer."""

    def respond(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> list[str]:
        """What it writes, label by label in turns: it takes no text to go on from. Unredacted; the caller redacts."""
        assert isinstance(model, CausalLm)
        labels = len(config.labels)
        each = [len(range(label, len(texts), labels)) for label in range(labels)]
        found = [
            write(model, config, label, count, length=min(_RESPONSE, config.recipe.max_tokens))
            for label, count in enumerate(each)
        ]
        return [found[n % labels][n // labels] for n in range(len(texts))]

    def describe(self, config: TrainingConfig) -> dict[str, Json]:
        recipe = config.recipe
        described: dict[str, Json] = {
            "model": "causal_lm",
            "trains": recipe.trains,
            "labels": list(config.labels),
            "max_tokens": recipe.max_tokens,
            "text": "the keyed part of placeholders is dropped: <PERSON_3fa9c1> becomes <PERSON>",
            "outputs": "redact what it writes before anybody reads it; privet synthesize does",
        }
        if recipe.pretrained is None:
            return described | {
                "embedding_width": recipe.embedding_width,
                "hidden_layers": recipe.hidden_layers,
                "heads": recipe.heads,
                "tokens": "0 pads; 1 + UTF-8 byte; 257 ends a text; 258 + index of a label is its control code",
                "layers": "pre-norm GPT: exact GELU, four times the width inside, learned places, head tied to the token table",
            }
        described |= find_pretrained(recipe.pretrained, recipe.pretrained_digest).describe()
        described["tokens"] = "the tokenizer's, without special ones; a text ends with eos"
        described["control_code"] = "bos, if any; the label's words, a colon, a new line; new lines up to the longest"
        if recipe.trains != "full":
            described["rank"] = recipe.rank
        return described


def write(
    model: CausalLm,
    config: TrainingConfig,
    label: int,
    count: int,
    *,
    length: int | None = None,
    temperature: float = 1.0,
    top_k: int = 50,
    seed: int | None = None,
) -> list[str]:
    """`count` texts of a label, as the model writes them: NOT redacted. seed: None draws one from the operating system."""
    if not count:
        return []
    generator = torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)
    was = model.training
    model.eval()
    try:
        found = model.generate(label, count, length or config.recipe.max_tokens, generator, temperature, top_k)
    finally:
        model.train(was)
    codec = codec_of(config)
    return [codec.decode(text).strip() for text in found]


def load_language_model(found: Pretrained) -> Any:
    """The model with its head, in float32. Raises PolicyError E-PRETRAINED-007 for files that are no causal language model."""
    go_offline()
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        network = AutoModelForCausalLM.from_pretrained(
            found.folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="sdpa",
        )
    except (OSError, ValueError, KeyError, RuntimeError):  # what is in the file stays out of the message
        raise PolicyError(
            "E-PRETRAINED-007",
            "the pretrained weights are no causal language model that transformers can load",
            "Give a folder of a Llama- or GPT-2-like model",
        ) from None
    return network.train()  # as a model of torch starts; there is no dropout but the recipe's


def _judged(data: UnitData, config: TrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """(units, records) of a bounded number of records, in order."""
    rows, columns = np.nonzero(data.present)
    most = max(64, _JUDGED // len(config.labels))
    return rows[:most], columns[:most]


def _nats(model: CausalLm, tokens: np.ndarray) -> np.ndarray:
    """float64 [texts, labels]: mean cross entropy of each text after each control code."""
    found = []
    for start in range(0, len(tokens), 32):
        part = tokens[start : start + 32]
        longest = max(1, int((part != 0).sum(1).max()))
        inputs = {"tokens": torch.from_numpy(part[:, None, :longest].astype(np.int64))}
        with torch.no_grad():
            found.append(-model.outputs(inputs)[:, 0].double().cpu().numpy())
    return np.concatenate(found)


RECIPE = PrivateTextRecipe()
