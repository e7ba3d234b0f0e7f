"""Which role may unwrap which class of data: one table, read by the keyring, by key grants and by KMS policies.

Guarantee: a class that stands in no group is the operator's alone; a role that is not named here may do nothing.
What makes the table hold is not this module: each group has its own key in the KMS, and a role's token (or role key)
unwraps the keys of its groups only. Every role can check the keyring's integrity (the `ring` key); the auditor, no more.
Not covered: the operator, who opens a home without a role, may unwrap everything; a laptop with one user is that.
"""

from __future__ import annotations

from collections.abc import Mapping

OPERATOR = "operator"
RING = "ring"  # the key that authenticates the keyring file
_OTHER = "other"  # classes that no row names

GROUPS: Mapping[str, tuple[str, ...]] = {
    "raw": ("raw", "quarantine"),
    "vault": ("vault", "pseudonym", "deny"),  # deny: lists of values to find; personal, so who erases may end them, too
    "identity": ("token", "erasure"),  # keyed hashes that find a subject; they open no record
    "features": ("protected", "training", "checkpoint", "audit_trace", "coins"),
    "model": ("model", "report"),
    "secrets": ("secrets",),
    _OTHER: (),
}
_UNWRAPS: Mapping[str, tuple[str, ...]] = {
    "ingest": (),
    "steward": ("raw", "vault", "identity"),
    "trainer": ("features", "model"),  # it made the model, and the audit of the training reads it
    "releaser": ("model",),
    "eraser": ("identity",),  # finds a subject and destroys keys; reads nobody's record
    "auditor": (),
    OPERATOR: tuple(GROUPS),
}
_WRITES: Mapping[str, tuple[str, ...]] = {  # without being able to read back: by public key
    "ingest": ("raw",),
    "steward": ("features",),
}
# Single classes, where a whole group would be too much: an auditor draws coins for trainings and can't read them again.
_WRITES_CLASS: Mapping[str, tuple[str, ...]] = {"auditor": ("coins",)}
_DESTROYS: Mapping[str, tuple[str, ...]] = {"eraser": ("vault",)}
ROLES = tuple(_UNWRAPS)


def data_class_of(domain: str) -> str:
    """The last part of a key domain "<dataset>/<data class>"."""
    return domain.rsplit("/", 1)[-1]


def group_of(data_class: str) -> str:
    return next((group for group, classes in GROUPS.items() if data_class in classes), _OTHER)


def groups_unwrapped_by(role: str) -> tuple[str, ...]:
    return _UNWRAPS.get(role, ())


def groups_destroyed_by(role: str) -> tuple[str, ...]:
    """Groups whose keys a role may rotate and destroy, though it may not unwrap them."""
    return _DESTROYS.get(role, ())


def may_unwrap(role: str, data_class: str) -> bool:
    return group_of(data_class) in _UNWRAPS.get(role, ())


def may_destroy(role: str, data_class: str) -> bool:
    """To open something is no right to destroy it: a trainer's key must not be able to end the data it trains on."""
    return role == OPERATOR or group_of(data_class) in _DESTROYS.get(role, ())


def may_write(role: str, data_class: str) -> bool:
    """Whoever may unwrap a class may write it; some may write what they can't read back."""
    written = group_of(data_class) in _WRITES.get(role, ()) or data_class in _WRITES_CLASS.get(role, ())
    return may_unwrap(role, data_class) or written
