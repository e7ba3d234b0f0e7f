"""Who must sign at the two gates, as a policy states it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

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


class Approvals(Part):
    """The two gates."""

    requested_by: Name = Field(description="identity that asks when nobody triggered the run by hand")
    use: Gate = Field(description="before the dataset is trained on, at this epsilon")
    release: Gate = Field(description="before the model leaves, over its whole evidence")
