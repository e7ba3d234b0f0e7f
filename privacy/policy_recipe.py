"""How a model is trained, as a policy states it: architecture, optimiser, how gradients are computed. All of it is public."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from privacy.noise_schedule import MOST_PARTS, shares_fault
from privacy.policy_base import Part, fault_in

ModelName = Literal["text_mlp", "text_head", "text_encoder", "text_rnn", "image_cnn", "causal_lm", "two_tower"]
Trains = Literal["scratch", "head", "full", "lora", "adapter", "adalora"]
ImageSide = Annotated[int, Field(ge=8, le=512)]
ItemText = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]
Pretrained = Annotated[str, StringConstraints(pattern=r"^(package|folder):[^\s:][^\s]{0,399}$")]
WeightsDigest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Rule = tuple[bool, str, str]  # whether it is broken, by which field, and what to say
_FROM_SCRATCH_ONLY = ("text_mlp", "text_rnn", "image_cnn", "two_tower")


class Recipe(Part):
    """How the model is trained. Everything here is public."""

    model: ModelName = Field("text_mlp", description="the architecture; see the table of models")
    mechanism: Literal["dp_sgd", "non_private"] = Field(
        "dp_sgd", description="non_private exists to show a refusal; no gate ever lets it leave"
    )
    trains: Trains = Field("scratch", description="which tensors train: all from scratch, or which part of pretrained weights")
    pretrained: Pretrained | None = Field(
        None, description="where public weights lie: `package:NAME` that ships them, or `folder:PATH`; nothing is downloaded"
    )
    steps: int = Field(120, ge=1, le=100_000, description="optimizer steps; each is one Poisson batch of units")
    clipping_norm: float = Field(1.0, gt=0, le=1000, description="bound on the L2 norm of one unit's gradient")
    learning_rate: float = Field(0.02, gt=0, le=100, description="of the optimizer")
    optimizer: Literal["sgd", "adam", "adamw", "adagrad"] = Field(
        "adam", description="what makes a step of the noisy gradient; adam and adamw know how much of it is noise"
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(0.0, ge=0, le=1, description="of sgd and adamw, applied after the noise")
    l1: float = Field(0.0, ge=0, le=1, description="pull towards zero, applied after the noise")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of activations left out while training")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="how the learning rate falls to zero")
    warmup_steps: int = Field(0, ge=0, le=100_000, description="steps over which the learning rate rises to its value")
    noise_schedule: tuple[tuple[float, float], ...] = Field(
        (), max_length=MOST_PARTS, description="[until which share of the steps, noise as a multiple of the base]; it may fall"
    )
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights that leave; 0 releases the last ones")
    hash_buckets: int = Field(4096, ge=64, le=1_048_576, description="size of the hashed vocabulary (public, not fitted)")
    embedding_width: int = Field(32, ge=2, le=1024, description="numbers per entry of the hashed vocabulary")
    hidden_layers: int = Field(2, ge=1, le=48, description="layers of a transformer or recurrent net from scratch")
    heads: int = Field(4, ge=1, le=64, description="attention heads of a transformer from scratch")
    cell: Literal["gru", "lstm"] = Field("gru", description="of text_rnn")
    rank: int = Field(8, ge=1, le=256, description="rank of lora and adalora, width of adapter")
    top_layers: int | None = Field(
        None, ge=1, le=200, description="how many last layers train; what lies below runs once and is kept sealed"
    )
    max_tokens: int = Field(48, ge=4, le=4096, description="tokens of a record that the model reads")
    image_size: tuple[ImageSide, ImageSide] | None = Field(
        None, description="height and width in pixels that every image must have; other images go to quarantine"
    )
    norm_groups: int = Field(0, ge=0, le=64, description="groups of image_cnn's normalisation inside one image; 0 for none")
    catalogue: dict[str, ItemText] | None = Field(
        None, description="public text of every item that two_tower may recommend, by label"
    )
    answers: dict[str, ItemText] = Field(
        default_factory=dict, max_length=1000, description="public answers by label; the best one for a message is found"
    )
    label_separator: str | None = Field(
        None, min_length=1, max_length=8, description="parts every label in two, topic and sentiment, each with its own head"
    )
    head_start: Literal["zero", "labels"] = Field(
        "zero", description="where text_head starts: at zero, or at what the public names of the labels mean to the encoder"
    )
    pretrained_digest: WeightsDigest | None = Field(
        None, description="digest that the pretrained weights must have; `privet plan` shows it"
    )
    init_seed: int = Field(1, ge=0, description="seed of the initial weights only; never of sampling or noise")
    gradients: Literal["auto", "tape", "two_pass", "hooks", "ghost"] = Field(
        "auto", description="how per-unit gradients are clipped: one backward pass, two for less memory, or Opacus' own ways"
    )
    physical_batch: int | None = Field(
        None, ge=1, le=1_048_576, description="units at once in memory; without it, found from the memory there is"
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the forward pass; clipping stays in float32")
    compile: bool = Field(False, description="compile the model; pays off on a GPU")
    processes: int = Field(1, ge=1, le=128, description="processes of this machine that train together, one a GPU")
    shards: bool = Field(False, description="each process keeps a part of the weights only (FSDP2), for large models")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for broken, field, said in (*self._weights_rules(), *self._model_rules(), *self._optimizer_rules()):
            if broken:
                raise fault_in(field, said)
        return self

    def _weights_rules(self) -> tuple[Rule, ...]:
        """Of where the tensors come from and which of them train."""
        only_scratch = self.model in _FROM_SCRATCH_ONLY and (self.trains != "scratch" or self.pretrained is not None)
        fresh = self.trains == "scratch"
        return (
            (only_scratch, "trains", f"recipe.model {self.model} has no pretrained weights: it trains from scratch"),
            (not fresh and not self.pretrained, "pretrained", f"recipe.trains {self.trains} needs recipe.pretrained"),
            (
                fresh and self.pretrained is not None,
                "trains",
                "recipe.pretrained is set, so recipe.trains must say which part of it trains",
            ),
            (
                (self.model == "text_head") != (self.trains == "head"),
                "trains",
                "recipe.model text_head goes with recipe.trains head, and no other does",
            ),
            (
                self.pretrained_digest is not None and self.pretrained is None,
                "pretrained_digest",
                "recipe.pretrained_digest belongs to recipe.pretrained, which is not set",
            ),
            (
                self.top_layers is not None and (self.model != "text_encoder" or fresh),
                "top_layers",
                "recipe.top_layers goes with recipe.model text_encoder and pretrained weights",
            ),
        )

    def _model_rules(self) -> tuple[Rule, ...]:
        """Of fields that belong to one architecture."""
        encoder = self.model in ("text_head", "text_encoder")
        attends = self.model in ("causal_lm", "text_encoder") and self.trains == "scratch"
        only = "goes with recipe.model"
        return (
            (
                (self.image_size is None) == (self.model == "image_cnn"),
                "image_size",
                f"recipe.image_size {only} image_cnn, and no other has it",
            ),
            (
                self.norm_groups > 0 and self.model != "image_cnn",
                "norm_groups",
                "recipe.norm_groups belongs to recipe.model image_cnn",
            ),
            (
                (self.catalogue is None) == (self.model == "two_tower"),
                "catalogue",
                f"recipe.catalogue {only} two_tower, and no other has it",
            ),
            (
                self.head_start != "zero" and self.model != "text_head",
                "head_start",
                f"recipe.head_start {only} text_head",
            ),
            (bool(self.answers) and not encoder, "answers", f"recipe.answers {only} text_head or text_encoder"),
            (
                self.label_separator is not None and not encoder,
                "label_separator",
                f"recipe.label_separator {only} text_head or text_encoder",
            ),
            (attends and self.embedding_width % self.heads != 0, "heads", "recipe.heads must divide recipe.embedding_width"),
        )

    def _optimizer_rules(self) -> tuple[Rule, ...]:
        return (
            (
                self.compile and self.gradients in ("hooks", "ghost"),
                "compile",
                "recipe.compile does not go with Opacus' hooks; leave recipe.gradients at auto",
            ),
            (
                self.shards and (self.trains == "adalora" or self.gradients not in ("auto", "two_pass")),
                "shards",
                "recipe.shards clips in two passes (gradients auto or two_pass), and adalora needs whole layers",
            ),
            (
                self.precision == "bfloat16" and (self.shards or self.gradients == "ghost"),
                "precision",
                "recipe.precision bfloat16 does not go with shards or gradients ghost: they sum in it, and a rounded sum can "
                "move by more than the unit that was added to it",
            ),
            (self.momentum > 0 and self.optimizer != "sgd", "momentum", "recipe.momentum belongs to the optimizer sgd"),
            (
                self.weight_decay > 0 and self.optimizer not in ("sgd", "adamw"),
                "weight_decay",
                "recipe.weight_decay belongs to the optimizers sgd and adamw",
            ),
            (
                shares_fault(self.noise_schedule) is not None,
                "noise_schedule",
                f"recipe.noise_schedule: {shares_fault(self.noise_schedule)}",
            ),
            (
                self.warmup_steps > 0 and self.warmup_steps >= self.steps,
                "warmup_steps",
                "recipe.warmup_steps must be below recipe.steps",
            ),
        )
