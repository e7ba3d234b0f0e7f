"""What a policy may say around training: hyper-parameter search, compression of the result, tracking. All of it is public.

Guarantee: a block that would let private data decide something free of charge does not load: no early stopping of a private
selection, no Bayesian proposals within one, no calibration on private text, no per-record tracking.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from privacy.policy_base import Part, fault_in

Value = bool | int | float | str
Words = Annotated[str, StringConstraints(min_length=1, max_length=400)]
# What a trial may change. Architecture-defining data (labels, units) and the initial seed are not tuned.
SEARCHABLE: Final = frozenset(
    {
        "learning_rate", "steps", "clipping_norm", "optimizer", "momentum", "weight_decay", "l1", "dropout", "schedule",
        "warmup_steps", "ema", "embedding_width", "hidden_layers", "heads", "cell", "rank", "top_layers", "hash_buckets",
        "max_tokens", "trains", "expected_batch_size",
    }
)  # fmt: skip
# These change the mechanism itself, so a private search must be able to count every one of their combinations.
OF_THE_MECHANISM: Final = ("steps", "expected_batch_size")
_SCALES: Final = ("log", "linear")
_MOST_COMBINATIONS: Final = 4096


@dataclass(frozen=True, slots=True)
class Range:
    """[low, high], drawn on a linear or a logarithmic scale; whole numbers where both ends are."""

    low: float
    high: float
    scale: Literal["log", "linear"]
    whole: bool

    def at(self, share: float) -> float | int:
        """The value at `share` in [0, 1) of the way; equal shares of whole numbers are equally likely on the linear scale."""
        low, high = (self.low, self.high + 1) if self.whole and self.scale == "linear" else (self.low, self.high)
        if self.scale == "log":
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        if self.whole:
            value = math.floor(value) if self.scale == "linear" else round(value)
        value = min(max(value, self.low), self.high)
        return int(value) if self.whole else value

    @property
    def ends(self) -> tuple[Value, ...]:
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Choices:
    """A list to choose from, each value equally likely."""

    values: tuple[Value, ...]

    def at(self, share: float) -> Value:
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    @property
    def ends(self) -> tuple[Value, ...]:
        return self.values


Dimension = Range | Choices


def dimension(values: Sequence[Value]) -> Dimension:
    """[low, high, log] and [low, high, linear] are ranges; any other list is a choice. Raises ValueError."""
    if len(values) == 3 and values[2] in _SCALES:
        low, high, scale = values
        numbers = [v for v in (low, high) if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) != 2 or not numbers[0] < numbers[1]:
            raise ValueError("a range is [low, high, log] or [low, high, linear], with low below high")
        if scale == "log" and numbers[0] <= 0:
            raise ValueError("a range on the logarithmic scale lies above 0")
        whole = all(isinstance(v, int) for v in numbers)
        return Range(float(numbers[0]), float(numbers[1]), "log" if scale == "log" else "linear", whole)
    if not values or len({(type(v) is bool, v) for v in values}) != len(values):
        raise ValueError("a list of choices is not empty and names each value once")
    return Choices(tuple(values))


class PublicSet(Part):
    """Examples that anybody may have: learning from them costs nothing. Whoever signs the policy answers for that."""

    path: Words = Field(description="a .jsonl or .csv file, or a folder of them; relative to the policy file")
    origin: Annotated[str, StringConstraints(min_length=12, max_length=400)] = Field(
        description="where it comes from and why it is public, in one sentence; it goes into the journal"
    )
    text: Words = Field("text", description="field that holds the text")
    label: Words | None = Field("label", description="field that holds the label; none where nothing is measured")
    holdout_share: float = Field(0.25, gt=0, lt=0.9, description="share of the examples that only score")


class Search(Part):
    """Hyper-parameter search: on a public set for nothing, or on private data for a charge that is reserved beforehand."""

    data: Literal["proxy", "private"] = Field(description="what trials learn from; proxy: the public set, which costs nothing")
    method: Literal["random", "bayesian"] = Field("random", description="how a trial's settings are proposed")
    charge: Literal["selection", "composition"] | None = Field(
        None, description="private only: best of a random number of trials, or every trial for itself"
    )
    distribution: Literal["geometric", "logarithmic", "poisson"] | None = Field(
        None, description="selection only: law of the secret number of trials; logarithmic is the cheapest"
    )
    trials: int = Field(10, ge=1, le=10_000, description="how many; with selection, how many on average")
    epsilon: float | None = Field(
        None, gt=0, le=100, description="private only: what the whole search may spend per unit, beside budget.epsilon"
    )
    patience: int | None = Field(None, ge=1, le=10_000, description="stop after so many trials without a better score")
    seed: int = Field(1, ge=0, le=2**31, description="public seed of the proposals; a selection draws them in secret")
    space: dict[str, tuple[Value, ...]] = Field(
        min_length=1, description="field -> [low, high, log], [low, high, linear] or a list of choices"
    )
    proxy: PublicSet | None = Field(None, description="the public set, for data proxy")

    @field_validator("space")
    @classmethod
    def _searchable(cls, space: dict[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
        for name, values in space.items():
            if name not in SEARCHABLE:
                raise ValueError(f"{name!r} is not searched; fields that can be: {', '.join(sorted(SEARCHABLE))}")
            dimension(values)
        return space

    @model_validator(mode="after")
    def _data_is_paid_for(self) -> Self:
        private = self.data == "private"
        if private == (self.proxy is not None):
            raise fault_in("proxy", "search.proxy goes with search.data proxy, and is needed there")
        for name, value in (("charge", self.charge), ("epsilon", self.epsilon)):
            if private == (value is None):
                raise fault_in(name, f"search.{name} goes with search.data private, and is needed there")
        if (self.charge == "selection") != (self.distribution is not None):
            raise fault_in("distribution", "search.distribution goes with search.charge selection, and is needed there")
        if self.charge == "selection":
            self._refuse_what_breaks_a_selection()
        if private:
            self._refuse_uncountable()
        return self

    def _refuse_what_breaks_a_selection(self) -> None:
        if self.patience is not None:
            raise fault_in(
                "patience",
                "stopping early by scores of private data is not charged by a selection: its number of trials is drawn, never "
                "chosen; leave search.patience out, or use search.charge composition",
            )
        if self.method != "random":
            raise fault_in("method", "the trials of a selection must not learn from each other: search.method random")
        if self.trials < 2:
            raise fault_in("trials", "a selection runs two trials or more on average")

    def _refuse_uncountable(self) -> None:
        ranges = [n for n in OF_THE_MECHANISM if n in self.space and isinstance(dimension(self.space[n]), Range)]
        if ranges:
            raise fault_in("space", f"search.space.{ranges[0]} changes the mechanism: list its values, so that each is charged")

    def dimensions(self) -> Mapping[str, Dimension]:
        return {name: dimension(values) for name, values in self.space.items()}

    def corners(self) -> list[dict[str, Value]]:
        """Every combination of choices and of ends of ranges. Raises ValueError when there are too many to look at."""
        ends = {name: found.ends for name, found in self.dimensions().items()}
        if math.prod(len(values) for values in ends.values()) > _MOST_COMBINATIONS:
            raise fault_in("space", f"search.space has more than {_MOST_COMBINATIONS} combinations: list fewer values")
        return [dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values())]


class Distil(Part):
    """A smaller model taught by the trained one on public or synthetic text."""

    changes: dict[str, Value] = Field(min_length=1, description="recipe fields of the student, e.g. embedding_width: 8")
    steps: int = Field(300, ge=1, le=100_000, description="optimizer steps of the student")
    learning_rate: float = Field(0.01, gt=0, le=100, description="of the student's Adam")
    temperature: float = Field(2.0, ge=0.1, le=100, description="softens the teacher's outputs")

    @field_validator("changes")
    @classmethod
    def _of_the_architecture(cls, changes: dict[str, Value]) -> dict[str, Value]:
        known = {"embedding_width", "hidden_layers", "heads", "rank", "cell"}  # nothing that changes how a text is encoded
        for name in changes:
            if name not in known:
                raise ValueError(f"{name!r} does not make a student; fields that can: {', '.join(sorted(known))}")
        return changes


class Compress(Part):
    """How a trained model is made smaller. Only its weights, and public or made-up text, are looked at."""

    methods: tuple[Literal["prune", "int8_weights", "int8_dynamic", "int8_static", "distil"], ...] = Field(
        ("int8_weights", "int8_dynamic"), min_length=1, description="each gives a model of its own"
    )
    exports: tuple[Literal["safetensors", "onnx", "torch_export"], ...] = Field(
        ("safetensors", "onnx"), min_length=1, description="files that each model is written as"
    )
    prune_share: float = Field(0.5, gt=0, lt=1, description="share of each weight matrix that is set to zero, smallest first")
    public: PublicSet | None = Field(
        None, description="public text to calibrate, teach and measure with; without it, made-up inputs"
    )
    distil: Distil | None = Field(None, description="the student, for method distil")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.methods)) != len(self.methods) or len(set(self.exports)) != len(self.exports):
            raise fault_in("methods", "compress.methods and compress.exports name each thing once")
        if ("distil" in self.methods) != (self.distil is not None):
            raise fault_in("distil", "compress.distil goes with the method distil, and is needed there")
        return self


class Tracking(Part):
    """Where the aggregates of a run are written while it runs. Nothing per record exists to be tracked."""

    to: tuple[Literal["jsonl", "tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="any of jsonl, tensorboard, mlflow, wandb; all of them files, nothing is sent"
    )
    folder: Words = Field("tracking", description="folder inside the Privet home")
    loss: Literal["none", "public"] = Field("none", description="none, or the loss on tracking.public every few steps")
    public: PublicSet | None = Field(None, description="the public set, for loss public")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.to)) != len(self.to):
            raise fault_in("to", "tracking.to names each place once")
        if (self.loss == "public") != (self.public is not None):
            raise fault_in("public", "tracking.public goes with tracking.loss public, and is needed there")
        if self.folder.startswith("/") or ".." in self.folder.split("/"):
            raise fault_in("folder", "tracking.folder lies inside the Privet home")
        return self
