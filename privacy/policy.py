"""The policy: one file a steward reads and signs, and the whole pipeline follows.

Guarantee: a `Policy` in memory passed every rule here; unknown fields, wrong types and contradictions
never reach a stage. Every field is public configuration; no field ever holds personal data.
Loading with the line numbers of a YAML file lives in `privacy.policy_file`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{1,62}$")]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{1,40}$")]
Treatment = Literal["redact", "mask", "pseudonym", "generalise", "keep"]
RESERVED_COLUMNS = frozenset({"unit", "record_id", "time", "label", "text", "lang"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Limits(_Part):
    """Bounds on what one source may make the reader do; a hostile file stops at them."""

    max_line_bytes: int = Field(1_048_576, ge=64, le=64 * 1_048_576, description="longest line or record, in bytes")
    max_decompression_ratio: int = Field(200, ge=2, le=100_000, description="plain bytes per compressed byte, per file")
    max_records: int = Field(1_000_000, ge=1, description="records per run; the run stops with an error beyond it")


class Fields(_Part):
    """Which field of a record plays which role."""

    subject: FieldName = Field(description="identifies the data subject or group that is the privacy unit")
    text: tuple[FieldName, ...] = Field(min_length=1, description="free text, searched for personal data and learnt from")
    label: FieldName = Field(description="the class to learn; a closed set, see expectations.labels")
    record_id: FieldName | None = Field(None, description="identifies a record; absent: file digest and position are used")
    time: FieldName | None = Field(None, description="when it happened; kept to the day")
    keep: tuple[FieldName, ...] = Field((), description="closed-vocabulary fields carried over; scanned like text")

    @model_validator(mode="after")
    def _one_role_each(self) -> Self:
        names = [self.subject, *self.text, self.label, *self.keep]
        names += [n for n in (self.record_id, self.time) if n]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"field {twice[0]!r} has two roles; give each field one")
        clash = sorted(set(self.keep) & RESERVED_COLUMNS)
        if clash:
            raise ValueError(f"keep field {clash[0]!r} has the name of a column that Privet writes; rename it in the source")
        return self


class Source(_Part):
    """What the raw logs look like."""

    format: Literal["jsonl", "csv", "tsv", "parquet", "lines"]
    files: tuple[str, ...] = Field(("*",), min_length=1, description="glob patterns inside the source folder")
    pattern: str | None = Field(None, max_length=2000, description="format lines: a regular expression with named groups")
    fields: Fields
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _pattern_where_needed(self) -> Self:
        if self.format != "lines":
            if self.pattern is not None:
                raise ValueError("source.pattern belongs to format 'lines' only")
            return self
        if self.pattern is None:
            raise ValueError("format 'lines' needs source.pattern with named groups for its fields")
        try:
            groups = set(re.compile(self.pattern).groupindex)
        except re.error as error:
            raise ValueError(f"source.pattern is not a regular expression: {error.msg}") from None
        wanted = {self.fields.subject, self.fields.label, *self.fields.text, *self.fields.keep}
        wanted |= {n for n in (self.fields.record_id, self.fields.time) if n}
        missing = sorted(wanted - groups)
        if missing:
            raise ValueError(f"source.pattern has no group named {missing[0]!r}")
        return self


class PrivacyUnit(_Part):
    """Who is protected: the neighbouring relation adds or removes all records of one such unit."""

    name: Name = Field(description="what one unit is, e.g. customer or conversation")
    max_records: int = Field(8, ge=1, le=4096, description="contribution bound; more are dropped by a keyed rule")


class Pii(_Part):
    """What happens to each type of personal data found."""

    default: Treatment = Field("redact", description="treatment of entity types not listed")
    score_threshold: float = Field(0.4, ge=0.0, le=1.0, description="findings below it are ignored")
    entities: dict[str, Treatment] = Field(default_factory=dict, description="treatment by entity type")

    @field_validator("default")
    @classmethod
    def _default_acts(cls, value: Treatment) -> Treatment:
        if value == "keep":
            raise ValueError("pii.default may not be keep; list the types to keep one by one")
        return value


class Expectations(_Part):
    """What must hold for the protected dataset before anybody may ask to train on it."""

    labels: tuple[str, ...] = Field(min_length=2, description="the declared label set; public, never learnt from the data")
    min_records: int = Field(1, ge=1)
    min_units: int = Field(1, ge=1)
    text_completeness: float = Field(1.0, ge=0.0, le=1.0, description="share of records whose text is not empty")
    max_residual_pii_rate: float = Field(
        0.0, ge=0.0, le=1.0, description="share of records in which the second scan may still find personal data"
    )

    @field_validator("labels")
    @classmethod
    def _labels_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expectations.labels lists a label twice")
        return value


class Recipe(_Part):
    """How the model is trained. Everything here is public."""

    model: Literal["text_mlp"] = "text_mlp"
    mechanism: Literal["dp_sgd", "non_private"] = Field(
        "dp_sgd", description="non_private exists to show a refusal; no gate ever lets it leave"
    )
    steps: int = Field(120, ge=1, le=100_000, description="optimizer steps; each is one Poisson batch of units")
    clipping_norm: float = Field(1.0, gt=0, le=1000)
    learning_rate: float = Field(0.02, gt=0, le=100)
    optimizer: Literal["sgd", "adam"] = "adam"
    hash_buckets: int = Field(4096, ge=64, le=1_048_576, description="size of the hashed vocabulary (public, not fitted)")
    embedding_width: int = Field(32, ge=2, le=1024)
    max_tokens: int = Field(48, ge=4, le=4096, description="tokens of a record that the model reads")
    init_seed: int = Field(1, ge=0, description="seed of the initial weights only; never of sampling or noise")


class Budget(_Part):
    """The privacy budget, from public constants only: nothing here is computed from the dataset."""

    epsilon: float = Field(gt=0, le=100, description="what this run may spend, per privacy unit")
    delta: float = Field(gt=0, lt=1)
    population: int = Field(ge=2, description="public size of the population of units; sampling uses it, never the true count")
    expected_batch_size: int = Field(ge=1, description="units per step on average; also the divisor of the noisy sum")
    cap_epsilon: float = Field(gt=0, le=1000, description="what all runs on this dataset may spend together, per unit")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.delta >= 1.0 / self.population:
            raise ValueError("budget.delta must be below 1 / budget.population, or it permits publishing one unit whole")
        if self.expected_batch_size > self.population:
            raise ValueError("budget.expected_batch_size is larger than budget.population")
        if self.cap_epsilon < self.epsilon:
            raise ValueError("budget.cap_epsilon is below budget.epsilon: this policy could never run")
        return self

    @property
    def sampling_probability(self) -> float:
        return self.expected_batch_size / self.population


class Audit(_Part):
    """What the audits must show. Registered here, before training, so that no bound is picked afterwards."""

    canaries: int = Field(200, ge=20, le=20_000, description="Dirac canaries; about half take part, by secret coins")
    gate_level: float = Field(0.999, gt=0.5, lt=1, description="confidence at which a bound above the claim closes the gate")
    report_level: float = Field(0.95, gt=0.5, lt=1, description="confidence of the published bounds")
    probe_level: float = Field(0.001, gt=0, le=0.05, description="false-alarm level of the whole conformance probe")
    min_accuracy: float = Field(0.0, ge=0, le=1, description="utility below it closes the gate")
    holdout_share: float = Field(0.2, gt=0, lt=0.9, description="share of units kept out of training by a keyed rule")
    max_output_leaks: int = Field(0, ge=0, description="seeded secrets that may survive output redaction")


class Gate(_Part):
    """Who must sign. Separation of duties is not an option: the requester and a second vote never count."""

    quorum: dict[RoleName, int] = Field(min_length=1, description="signatures needed, role by role")
    expires_hours: int = Field(168, ge=1, le=8760, description="an approval is void this long after it was signed")

    @field_validator("quorum")
    @classmethod
    def _positive(cls, value: dict[str, int]) -> dict[str, int]:
        if any(count < 1 for count in value.values()):
            raise ValueError("a quorum is at least one signature")
        return value


class Approvals(_Part):
    """The two gates."""

    requested_by: Name = Field(description="identity that asks when nobody triggered the run by hand")
    use: Gate
    release: Gate


class Retention(_Part):
    """How long things live, in days. Raw batches are destroyed as soon as protect has committed."""

    vault_days: int = Field(90, ge=1)
    protected_days: int = Field(365, ge=1)
    quarantine_days: int = Field(30, ge=1)


class Policy(_Part):
    """One policy, one pipeline, one DAG. The digest of this model is in every piece of evidence."""

    version: Literal[1] = Field(description="layout of this file")
    name: Name
    purpose: str = Field(min_length=8, max_length=2000, description="why the data is processed, in one sentence")
    controller: str = Field(min_length=2, max_length=200, description="who answers for the processing")
    dataset: Name = Field(description="budget and keys are per dataset; policies on the same data share this name")
    languages: tuple[Literal["en", "zh"], ...] = Field(("en",), min_length=1)
    source: Source
    privacy_unit: PrivacyUnit
    pii: Pii = Pii()
    expectations: Expectations
    recipe: Recipe = Recipe()
    budget: Budget
    audit: Audit = Audit()
    approvals: Approvals
    retention: Retention = Retention()

    def canonical(self) -> dict[str, object]:
        """Plain JSON value; its digest is the policy digest."""
        value: dict[str, object] = self.model_dump(mode="json")
        return value
