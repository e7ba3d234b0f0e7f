"""Attacks on the model that leaves: membership, exposure of secrets, memorised spans."""

from __future__ import annotations

from pipeline.audit_case import AuditCase, Part


def attacks(case: AuditCase) -> Part:
    """Document: attacks."""
    return Part(documents={"attacks": {}})
