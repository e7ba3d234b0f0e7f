"""What the audits must show and what may leave: registered before training, so that nothing is picked afterwards."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from privacy.policy_base import Name, Part, fault_in

FieldName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Term = Annotated[str, StringConstraints(min_length=1, max_length=60, strip_whitespace=True)]
Plugin = Annotated[str, StringConstraints(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")]


class Membership(Part):
    """Membership inference on the model that leaves. Its figures are exact, over real units, and stand outside the claim."""

    attacks: tuple[Literal["loss", "lira", "rmia"], ...] = Field(
        ("loss",), min_length=1, description="attacks to run; lira and rmia train shadow models"
    )
    shadows: int = Field(
        0, ge=0, le=128, description="shadow models, each trained on a random half of the units, then destroyed"
    )
    max_tpr: float = Field(
        0.5,
        ge=0.01,
        le=1,
        description="highest share of members found at 1 % false positives; 1 leaves the decision to the bound alone",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.attacks)) != len(self.attacks):
            raise fault_in("attacks", "audit.membership.attacks names an attack twice")
        if bool({"lira", "rmia"} & set(self.attacks)) != (self.shadows >= 4):
            raise fault_in("shadows", "lira and rmia need at least 4 audit.membership.shadows, and the loss attack none")
        return self


class PlantedSecrets(Part):
    """Secrets of digits that a language model is shown in made-up units, and others that it is not: can it tell them apart?"""

    planted: int = Field(3, ge=1, le=100, description="secrets that are shown")
    controls: int = Field(3, ge=1, le=100, description="secrets that are not shown, the measure of chance")
    repeats: int = Field(16, ge=1, le=1000, description="units that show one secret, each a unit of its own")
    digits: int = Field(6, ge=4, le=8, description="length of a secret")
    max_exposure_bits: float = Field(
        10.0, gt=0, le=30, description="highest mean exposure (bits) of the secrets shown; more closes the gate"
    )


class Memorisation(Part):
    """Spans of what a language model writes that stand in few people's records."""

    subjects: int = Field(3, ge=1, le=10_000, description="a span found in fewer subjects' records than this is flagged")
    signs: int = Field(40, ge=20, le=400, description="shortest span, in normalised characters")
    samples: int = Field(64, ge=1, le=10_000, description="texts that the audit has the model write")
    max_spans: int = Field(0, ge=0, description="flagged spans that are allowed")


class Harm(Part):
    """How the model treats groups, and texts that differ in a term of identity only."""

    groups: tuple[FieldName, ...] = Field((), max_length=20, description="fields of source.fields.keep to compare by")
    min_group: int = Field(20, ge=2, description="groups with fewer holdout units are withheld")
    max_gap: float = Field(1.0, ge=0, le=1, description="highest gap of accuracy between groups; 1 reports only")
    swaps: bool = Field(True, description="whether terms of identity are swapped in made-up texts")
    swap_terms: dict[Name, tuple[Term, ...]] = Field(
        default_factory=dict, max_length=20, description="further terms of identity to swap, by group"
    )
    max_swap_rate: float = Field(
        1.0, ge=0, le=1, description="highest share of made-up texts whose answer a swap changes; 1 reports only"
    )
    classifier: Plugin | None = Field(
        None, description="`module:function` that says which texts are harmful; for models that write"
    )
    max_harm_rate: float = Field(
        0.0, ge=0, le=1, description="highest share of written texts that the classifier calls harmful"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.groups)) != len(self.groups):
            raise fault_in("groups", "audit.harm.groups names a field twice")
        if self.swap_terms and not self.swaps:
            raise fault_in("swap_terms", "audit.harm.swap_terms goes with audit.harm.swaps")
        if any(len(set(terms)) != len(terms) or not terms for terms in self.swap_terms.values()):
            raise fault_in("swap_terms", "audit.harm.swap_terms lists terms for each group, each once")
        return self


class Audit(Part):
    """What the audits must show. Registered here, before training, so that no bound is picked afterwards."""

    canaries: int = Field(200, ge=20, le=20_000, description="Dirac canaries; about half take part, by secret coins")
    gate_level: float = Field(0.999, gt=0.5, lt=1, description="confidence at which a bound above the claim closes the gate")
    report_level: float = Field(0.95, gt=0.5, lt=1, description="confidence of the published bounds")
    probe_level: float = Field(0.001, gt=0, le=0.05, description="false-alarm level of the whole conformance probe")
    min_accuracy: float = Field(0.0, ge=0, le=1, description="utility below it closes the gate")
    holdout_share: float = Field(0.2, gt=0, lt=0.9, description="share of units kept out of training by a keyed rule")
    coins: Literal["auditor", "pipeline"] = Field(
        "auditor", description="who draws the coins of the canaries: an auditor, ahead of training, or the pipeline itself"
    )
    membership: Membership = Field(Membership(), description="membership inference on the model that leaves")
    secrets: PlantedSecrets | None = Field(None, description="secrets planted for a language model; without it, none")
    memorisation: Memorisation = Field(Memorisation(), description="verbatim memorisation, for models that write")
    harm: Harm = Field(Harm(), description="harm to groups")
    max_output_leaks: int = Field(0, ge=0, description="seeded secrets that may survive output redaction")


class Outputs(Part):
    """What of the model's outputs may leave, and in which form."""

    min_subjects: int = Field(10, ge=2, le=100_000, description="cells of a table with fewer people are withheld")
    scores: Literal["label", "rounded"] = Field(
        "label", description="label: the answer alone. rounded: with its probability, to two decimals"
    )
    embeddings: Literal["withheld", "quantised"] = Field(
        "withheld",
        description="quantised: coarse vectors may leave, after an attack tried to reconstruct personal data from them",
    )
    hold_back: int = Field(
        80, ge=16, le=4096, description="characters of a stream that are kept back at most until they are clean"
    )
