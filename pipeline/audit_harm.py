"""How the model treats groups."""

from __future__ import annotations

from pipeline.audit_case import AuditCase, Part


def harm(case: AuditCase) -> Part:
    """Document: harm."""
    return Part(documents={"harm": {}})
