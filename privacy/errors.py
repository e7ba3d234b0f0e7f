"""One error tree: a stable code, one sentence of cause, one sentence of remedy, never a raw value.

Grouped by who can mend it. The exit code of the command line follows from the group:
2 the caller, the data or the machine; 3 a gate or a budget is closed; 4 integrity is broken.
Guarantee: `str(error)` is what may be logged, put in a report or shown in a task log.
Assumption: whoever raises passes counts, types, digests, field names and paths, never content.
"""

from __future__ import annotations

from typing import ClassVar


class PrivetError(Exception):
    """Base of every error that Privet raises on purpose."""

    exit_code: ClassVar[int] = 2

    def __init__(self, code: str, cause: str, remedy: str) -> None:
        super().__init__(f"{code}: {_sentence(cause)} {_sentence(remedy)}")
        self.code = code
        self.cause = cause
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[PrivetError], tuple[str, str, str]]:
        # Airflow and process pools pickle exceptions; the default would lose code and remedy.
        return (type(self), (self.code, self.cause, self.remedy))


class UsageError(PrivetError):
    """The command, its arguments or the home it points to are wrong."""


class PolicyError(PrivetError):
    """The policy file cannot be used as it stands."""


class DataError(PrivetError):
    """The source data cannot be used; what was good in it is untouched."""


class EnvironmentFault(PrivetError):
    """The machine lacks something: a model, disk space, a service."""


class GateClosed(PrivetError):
    """A gate did not open: evidence, approval or a verdict is missing or negative."""

    exit_code = 3


class BudgetExceeded(GateClosed):
    """The privacy budget of the dataset does not cover the request; nothing was charged."""


class IntegrityError(PrivetError):
    """Bytes are not what was written, signed or promised."""

    exit_code = 4


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."
