"""Who must sign at the two gates, as a policy states it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from privacy.policy_base import Name, Part, fault_in

RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{1,40}$")]


class Gate(Part):
    """Who must sign. Separation of duties is not an option: the requester and a second vote never count."""

    quorum: dict[RoleName, int] = Field(min_length=1, description="signatures needed, role by role")
    expires_hours: int = Field(168, ge=1, le=8760, description="an approval is void this long after it was signed")

    @field_validator("quorum")
    @classmethod
    def _positive(cls, value: dict[str, int]) -> dict[str, int]:
        for role, count in value.items():
            if count < 1:
                raise fault_in(role, "a quorum is at least one signature")
        return value


class BreakGlass(Part):
    """Who may open the release quorum in an emergency: two people, for 24 hours, with a review to follow."""

    roles: tuple[RoleName, ...] = Field(min_length=1, max_length=20, description="roles of whom two people together may do it")

    @field_validator("roles")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("approvals.break_glass.roles names a role twice")
        return value


class Approvals(Part):
    """The two gates."""

    requested_by: Name = Field(description="identity that asks when nobody triggered the run by hand")
    risk: Literal["low", "high"] = Field(
        "low", description="high: the release takes at least two people, one of them the officer, whatever the quorum says"
    )
    officer: RoleName = Field("privacy_officer", description="the role that a release of high risk can't do without")
    use: Gate = Field(description="before the dataset is trained on, at this epsilon")
    release: Gate = Field(description="before the model leaves, over its whole evidence")
    break_glass: BreakGlass | None = Field(
        None, description="who may open the release quorum in an emergency; without it, nobody"
    )

    @model_validator(mode="after")
    def _risk_fits(self) -> Self:
        """A quorum that says less than the risk class would promise the reader of this file what no gate does."""
        quorum = self.release.quorum
        if self.risk == "high" and (sum(quorum.values()) < 2 or self.officer not in quorum):
            raise fault_in(
                "release", f"approvals.risk high takes a release quorum of at least 2 signatures, one of them of {self.officer}"
            )
        return self
