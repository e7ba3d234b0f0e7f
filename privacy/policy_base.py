"""What every part of a policy is: frozen, strict about unknown fields, and able to say which field a contradiction is in."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{1,62}$")]


def fault_in(field: str, message: str) -> PydanticCustomError:
    """A fault that a whole block shows but one of its fields has to mend; `privacy.policy_file` names that field's line."""
    return PydanticCustomError("fault_in", "{said}", {"said": message, "field": field})


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
