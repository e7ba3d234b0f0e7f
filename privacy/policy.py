"""The policy: one file a steward reads and signs, and the whole pipeline follows.

Guarantee: a `Policy` in memory passed every rule here; unknown fields, wrong types and contradictions
never reach a stage. Every field is public configuration; no field ever holds personal data.
Loading with the line numbers of a YAML file lives in `privacy.policy_file`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, field_validator, model_validator

from privacy.entities import DATE_TYPES, ENTITY_TYPES, SURROGATE_TYPES
from privacy.policy_audit import Audit as Audit
from privacy.policy_audit import Outputs
from privacy.policy_base import Name, Part, fault_in
from privacy.policy_gates import Approvals
from privacy.policy_recipe import Recipe as Recipe
from privacy.policy_training import Compress, Search, Tracking, Value

FieldName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Treatment = Literal["redact", "mask", "pseudonym", "surrogate", "generalise", "date_shift", "keep"]
SubjectKind = Literal["plain", "id", "email", "phone", "name"]
ListName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
PublicValue = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
Example = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
RESERVED_COLUMNS = frozenset({"unit", "record_id", "time", "label", "text", "lang", "image"})


def _entity_type(name: str) -> str:
    """A type nobody detects would be treated by the default, in silence."""
    if name in ENTITY_TYPES:
        return name
    typed = name.upper()
    near = get_close_matches(typed, ENTITY_TYPES, n=1) or [
        t for t in sorted(ENTITY_TYPES) if typed and (typed in t or t in typed)
    ]
    hint = f"did you mean {near[0]}?" if near else f"known types: {', '.join(sorted(ENTITY_TYPES))}"
    raise ValueError(f"unknown entity type; {hint}")


EntityType = Annotated[str, AfterValidator(_entity_type)]


class Limits(Part):
    """Bounds on what one source may make the reader do; a hostile file stops at them."""

    max_line_bytes: int = Field(1_048_576, ge=64, le=64 * 1_048_576, description="longest line or record, in bytes")
    max_decompression_ratio: int = Field(200, ge=2, le=100_000, description="plain bytes per compressed byte, per file")
    max_records: int = Field(1_000_000, ge=1, description="records per run; the run stops with an error beyond it")


class Fields(Part):
    """Which field of a record plays which role."""

    subject: FieldName = Field(description="identifies the data subject or group that is the privacy unit")
    subject_kind: SubjectKind = Field("plain", description="which spellings of the subject are one unit; see docs/policy.md")
    text: tuple[FieldName, ...] = Field(description="free text, searched for personal data; [] only where there is an image")
    label: FieldName = Field(description="the class to learn; a closed set, see expectations.labels")
    record_id: FieldName | None = Field(None, description="identifies a record; absent: file digest and position are used")
    time: FieldName | None = Field(None, description="when it happened; kept to the day")
    keep: tuple[FieldName, ...] = Field((), description="closed-vocabulary fields carried over; scanned like text")
    image: FieldName | None = Field(None, description="a picture to learn from; NOT searched for personal data")

    @model_validator(mode="after")
    def _one_role_each(self) -> Self:
        seen: set[str] = set()
        if not self.text and self.image is None:
            raise fault_in("text", "source.fields.text names no field; only a source with an image may have none")
        single = (
            ("subject", self.subject),
            ("label", self.label),
            ("record_id", self.record_id),
            ("time", self.time),
            ("image", self.image),
        )
        lists = [(role, name) for role, names in (("text", self.text), ("keep", self.keep)) for name in names]
        for role, name in [*((role, name) for role, name in single if name), *lists]:
            if name in seen:
                raise fault_in(role, f"field {name!r} has two roles; give each field one")
            seen.add(name)
        clash = sorted(set(self.keep) & RESERVED_COLUMNS)
        if clash:
            raise fault_in(
                "keep", f"keep field {clash[0]!r} has the name of a column that Privet writes; rename it in the source"
            )
        return self


class Source(Part):
    """What the raw logs look like."""

    format: Literal["jsonl", "csv", "tsv", "parquet", "lines"] = Field(
        description="what a file is made of; .gz and .zst are recognised by their first bytes"
    )
    files: tuple[str, ...] = Field(("*",), min_length=1, description="glob patterns inside the source folder")
    pattern: str | None = Field(None, max_length=2000, description="format lines: a regular expression with named groups")
    fields: Fields = Field(description="which field of a record plays which role")
    limits: Limits = Field(Limits(), description="what one source may make the reader do")

    @model_validator(mode="after")
    def _pattern_where_needed(self) -> Self:
        if self.format != "lines":
            if self.pattern is not None:
                raise fault_in("pattern", "source.pattern belongs to format 'lines' only")
            return self
        if self.pattern is None:
            raise fault_in("format", "format 'lines' needs source.pattern with named groups for its fields")
        try:
            groups = set(re.compile(self.pattern).groupindex)
        except re.error as error:
            raise fault_in("pattern", f"source.pattern is not a regular expression: {error.msg}") from None
        wanted = {self.fields.subject, self.fields.label, *self.fields.text, *self.fields.keep}
        wanted |= {n for n in (self.fields.record_id, self.fields.time, self.fields.image) if n}
        missing = sorted(wanted - groups)
        if missing:
            raise fault_in("pattern", f"source.pattern has no group named {missing[0]!r}")
        return self


class PrivacyUnit(Part):
    """Who is protected: the neighbouring relation adds or removes all records of one such unit."""

    name: Name = Field(description="what one unit is, e.g. customer or conversation")
    max_records: int = Field(8, ge=1, le=4096, description="contribution bound; more are dropped by a keyed rule")


class OwnPattern(Part):
    """A pattern of the policy, checked against its examples when the policy loads."""

    entity: EntityType = Field(description="the type of what it finds")
    pattern: str = Field(min_length=1, max_length=1000, description="a regular expression with bounded repeats")
    score: float = Field(0.85, gt=0, le=1, description="how sure a match is")
    examples: tuple[Example, ...] = Field(min_length=1, max_length=100, description="made-up texts it must find something in")
    counterexamples: tuple[Example, ...] = Field((), max_length=100, description="texts it must find nothing in")

    @model_validator(mode="after")
    def _holds(self) -> Self:
        """Imported here, so that only a policy with patterns loads the recognizers."""
        from privacy.policy_rules import pattern_fault

        if fault := pattern_fault(self):
            raise fault_in(*fault)
        return self


class Pii(Part):
    """Which personal data is looked for, and what happens to each type found."""

    default: Treatment = Field("redact", description="treatment of entity types not listed")
    score_threshold: float = Field(0.4, ge=0.0, le=1.0, description="findings below it are ignored")
    entities: dict[EntityType, Treatment] = Field(default_factory=dict, description="treatment by entity type")
    detect: tuple[EntityType, ...] = Field((), description="the types that count at all; without it, every type")
    thresholds: dict[EntityType, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="score_threshold by entity type"
    )
    allow: tuple[PublicValue, ...] = Field((), max_length=10_000, description="public values that are never personal data")
    deny: dict[ListName, EntityType] = Field(
        default_factory=dict, description="names of sealed lists of values that are always found, and their type"
    )
    patterns: dict[Name, OwnPattern] = Field(default_factory=dict, max_length=200, description="patterns of your own, by name")
    presidio_recognizers: tuple[str, ...] | None = Field(
        None, max_length=50, description="Presidio's recognizers that run too, by class name; without it, a small set"
    )
    domain: Name | None = Field(
        None, description="where pseudonyms are stable; without it, the dataset. Others can't be linked"
    )
    date_shift_days: int = Field(
        182, ge=1, le=3650, description="how far a subject's dates may move from the 400 years, in days"
    )
    date_order: Literal["dmy", "mdy"] | None = Field(
        None, description="order of 03/05/1990, for date_shift; without it, unread"
    )
    second_look: Literal["off", "if_installed", "required"] = Field(
        "if_installed", description="whether another model reads a sample of the de-identified texts"
    )
    canaries_per_type: int = Field(
        10, ge=0, le=1000, description="made-up values of each type planted to measure what slips by"
    )

    @field_validator("default")
    @classmethod
    def _default_acts(cls, value: Treatment) -> Treatment:
        if value == "keep":
            raise ValueError("pii.default may not be keep; list the types to keep one by one")
        if value == "date_shift":
            raise ValueError("pii.default may not be date_shift; list the types that are dates")
        return value

    @model_validator(mode="after")
    def _treatments_fit(self) -> Self:
        for name, treatment in self.entities.items():
            if treatment == "surrogate" and name not in SURROGATE_TYPES:
                raise fault_in("entities", f"{name} has no surrogate; types that have: {', '.join(sorted(SURROGATE_TYPES))}")
            if treatment == "date_shift" and name not in DATE_TYPES:
                raise fault_in(
                    "entities", f"date_shift moves dates; {name} is none (use it for {', '.join(sorted(DATE_TYPES))})"
                )
        return self

    @model_validator(mode="after")
    def _recognizers_exist(self) -> Self:
        """Presidio is loaded only where a policy names a recognizer of it."""
        if self.presidio_recognizers:
            from privacy.recognizers.presidio import allowed_names

            unknown = [name for name in self.presidio_recognizers if name.rsplit(".", 1)[-1] not in allowed_names()]
            if unknown:
                raise fault_in("presidio_recognizers", f"{len(unknown)} of them are none of Presidio's own text recognizers")
        return self


class Expectations(Part):
    """What must hold for the protected dataset before anybody may ask to train on it."""

    labels: tuple[str, ...] = Field(min_length=2, description="the declared label set; public, never learnt from the data")
    min_records: int = Field(1, ge=1, description="protected records that must be there")
    min_units: int = Field(1, ge=1, description="privacy units that must be there")
    text_completeness: float = Field(1.0, ge=0.0, le=1.0, description="share of records whose text is not empty")
    max_residual_pii_rate: float = Field(
        0.0, ge=0.0, le=1.0, description="share of records in which the second scan may still find personal data"
    )

    max_miss_bound: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="highest upper bound (95 %) on the share of planted values that detection misses; 1 reports only",
    )
    max_second_look_rate: float | None = Field(
        None, ge=0.0, le=1.0, description="share of sampled texts in which another model may still see a name; 1 reports only"
    )

    @field_validator("labels")
    @classmethod
    def _labels_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expectations.labels lists a label twice")
        return value


class Budget(Part):
    """The privacy budget, from public constants only: nothing here is computed from the dataset."""

    epsilon: float = Field(gt=0, le=100, description="what this run may spend, per privacy unit")
    delta: float = Field(gt=0, lt=1, description="the delta that epsilon is stated at; below 1 / population")
    population: int = Field(ge=2, description="public size of the population of units; sampling uses it, never the true count")
    expected_batch_size: int = Field(ge=1, description="units per step on average; also the divisor of the noisy sum")
    cap_epsilon: float = Field(gt=0, le=1000, description="what all runs on this dataset may spend together, per unit")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.delta >= 1.0 / self.population:
            raise fault_in("delta", "budget.delta must be below 1 / budget.population, or it permits publishing one unit whole")
        if self.expected_batch_size > self.population:
            raise fault_in("expected_batch_size", "budget.expected_batch_size is larger than budget.population")
        if self.cap_epsilon < self.epsilon:
            raise fault_in("cap_epsilon", "budget.cap_epsilon is below budget.epsilon: this policy could never run")
        return self

    @property
    def sampling_probability(self) -> float:
        return self.expected_batch_size / self.population


class Retention(Part):
    """How long things live, in days; `privet retention` acts on it. Raw batches are destroyed once protect has committed."""

    vault_days: int = Field(90, ge=1, le=36_500, description="sealed originals")
    protected_days: int = Field(365, ge=1, le=36_500, description="the protected dataset")
    quarantine_days: int = Field(30, ge=1, le=36_500, description="records that ingest refused")
    raw_days: int = Field(7, ge=1, le=36_500, description="a raw batch that protect has not taken")
    checkpoint_days: int = Field(14, ge=1, le=36_500, description="the checkpoint of a training that nobody continues")
    erasure_days: int = Field(
        30, ge=1, le=31, description="by when old epoch keys are destroyed, so that backups hold nothing of who was erased"
    )
    erasure_epsilon: float = Field(
        10.0, gt=0, le=100, description="a model with a larger epsilon is not kept when somebody in its data is erased"
    )


class Policy(Part):
    """One policy, one pipeline, one DAG. The digest of this model is in every piece of evidence."""

    version: Literal[1] = Field(description="layout of this file")
    name: Name = Field(description="of the policy, its DAG and its release folder")
    purpose: str = Field(min_length=8, max_length=2000, description="why the data is processed, in one sentence")
    controller: str = Field(min_length=2, max_length=200, description="who answers for the processing")
    dataset: Name = Field(description="budget and keys are per dataset; policies on the same data share this name")
    languages: tuple[Literal["en", "zh"], ...] = Field(
        ("en",), min_length=1, description="languages searched for personal data"
    )
    source: Source = Field(description="what the raw logs look like")
    privacy_unit: PrivacyUnit = Field(description="who is protected")
    pii: Pii = Field(Pii(), description="what happens to each type of personal data found")
    expectations: Expectations = Field(description="what must hold before anybody may ask to train")
    recipe: Recipe = Field(Recipe(), description="how the model is trained")
    search: Search | None = Field(None, description="hyper-parameter search (`privet search`)")
    compress: Compress | None = Field(None, description="how the trained model is made smaller (`privet compress`)")
    tracking: Tracking = Field(Tracking(), description="where aggregates are written while training runs")
    budget: Budget = Field(description="the privacy budget, from public constants only")
    audit: Audit = Field(Audit(), description="what the audits must show, registered before training")
    outputs: Outputs = Field(Outputs(), description="what of the model's outputs may leave, and in which form")
    approvals: Approvals = Field(description="who must sign at the two gates")
    retention: Retention = Field(Retention(), description="how long things live, in days")

    @model_validator(mode="after")
    def _recipe_fits(self) -> Self:
        if (self.source.fields.image is None) == (self.recipe.model == "image_cnn"):
            raise fault_in("source", "source.fields.image goes with recipe.model image_cnn, and no other learns from images")
        if self.recipe.catalogue is not None and set(self.recipe.catalogue) != set(self.expectations.labels):
            raise fault_in("recipe", "recipe.catalogue must hold a text for each label of expectations.labels, and no other")
        if not set(self.recipe.answers) <= set(self.expectations.labels):
            raise fault_in("recipe", "recipe.answers holds a label that is none of expectations.labels")
        parts = self.recipe.label_separator
        if parts is not None and any(label.count(parts) != 1 or label in ("", parts) for label in self.expectations.labels):
            raise fault_in("recipe", "recipe.label_separator must stand once in every label of expectations.labels")
        return self

    @model_validator(mode="after")
    def _harm_fits(self) -> Self:
        harm = self.audit.harm
        strange = [name for name in harm.groups if name not in self.source.fields.keep]
        if strange:
            raise fault_in(
                "audit", f"audit.harm.groups names {strange[0]!r}, which source.fields.keep does not carry into the dataset"
            )
        if harm.classifier is not None and self.recipe.model != "causal_lm":
            raise fault_in("audit", "audit.harm.classifier is for models that write (recipe.model causal_lm)")
        return self

    @model_validator(mode="after")
    def _secrets_fit(self) -> Self:
        if self.audit.secrets is not None and self.recipe.model != "causal_lm":
            raise fault_in("audit", "audit.secrets are for models that write (recipe.model causal_lm)")
        if self.audit.secrets is not None and self.recipe.max_tokens < 32:
            raise fault_in("audit", "audit.secrets need recipe.max_tokens of at least 32, or a planted secret would be cut")
        return self

    @model_validator(mode="after")
    def _search_fits(self) -> Self:
        if self.search is None:
            return self
        if (self.search.epsilon or 0.0) > self.budget.cap_epsilon:
            raise fault_in("search", "search.epsilon is above budget.cap_epsilon: this search could never run")
        try:
            for corner in self.search.corners():
                self.tried(corner)
        except ValidationError as error:
            said = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise fault_in("search", f"search.space holds settings that no policy may have: {said}") from None
        return self

    @model_validator(mode="after")
    def _student_fits(self) -> Self:
        if self.compress is not None and self.compress.distil is not None:
            try:
                self.tried(self.compress.distil.changes)
            except ValidationError as error:
                said = error.errors(include_url=False, include_input=False)[0]["msg"]
                raise fault_in("compress", f"compress.distil.changes makes a model that no policy may have: {said}") from None
        return self

    def tried(self, settings: Mapping[str, Value]) -> Policy:
        """This policy with the settings of one trial in place, and no search. Raises ValidationError where they contradict."""
        recipe = {k: v for k, v in settings.items() if k in Recipe.model_fields}
        budget = {k: v for k, v in settings.items() if k in Budget.model_fields}
        parts: dict[str, object] = {
            "recipe": Recipe.model_validate({**self.recipe.model_dump(), **recipe}),
            "budget": Budget.model_validate({**self.budget.model_dump(), **budget}),
        }
        return self.model_copy(update={**parts, "search": None})

    def canonical(self) -> dict[str, object]:
        """Plain JSON value; its digest is the policy digest."""
        value: dict[str, object] = self.model_dump(mode="json")
        return value
