"""Attacks on the model that leaves: membership, exposure of secrets, memorised spans. Each says nothing where it has no place.

Guarantee: an attack's verdicts and its part of the document are kept as they are; one that says nothing stands nowhere.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.audit_case import AuditCase, Part
from pipeline.audit_exposure import exposure
from pipeline.audit_membership import membership
from pipeline.audit_memorisation import memorisation
from privacy.canonical import Json
from privacy.verdict import Verdict

# Each gives its name in the document, its verdicts and its part of the document.
Attack = Callable[[AuditCase], tuple[str, tuple[Verdict, ...], Json]]
ATTACKS: tuple[Attack, ...] = (membership, exposure, memorisation)


def attacks(case: AuditCase) -> Part:
    """Document: attacks."""
    found = [attack(case) for attack in ATTACKS]
    verdicts = tuple(verdict for _, said, _ in found for verdict in said)
    return Part(verdicts, {"attacks": {name: part for name, _, part in found if part}})
