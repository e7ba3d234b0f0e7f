"""Role by data class: the table, and that keys hold it when the claim is a lie, on a local file and a live OpenBao."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.commands_keys import openbao_policy
from privacy.errors import EnvironmentFault, PolicyError, PrivetError
from privacy.keys import Keyring
from privacy.kms import Kms
from privacy.kms.local import LocalKms
from privacy.kms.local_secret import KeyFile, RoleKey
from privacy.roles import GROUPS, OPERATOR, RING, ROLES, group_of, groups_unwrapped_by, may_unwrap, may_write
from tests.worlds.openbao import openbao  # noqa: F401

DEK = b"d" * 32
CLASSES = sorted({name for classes in GROUPS.values() for name in classes} | {"unheard_of"})
# Said twice on purpose: who changes the table has to change this, too.
READS = {
    "ingest": set(),
    "steward": {"raw", "quarantine", "vault", "pseudonym", "deny", "token", "erasure"},
    "trainer": {"protected", "training", "checkpoint", "audit_trace", "coins", "model", "report"},
    "releaser": {"model", "report"},
    "eraser": {"token", "erasure"},
    "auditor": set(),
    "operator": set(CLASSES),
}


def test_the_table_is_what_the_documentation_says() -> None:
    assert {role: {name for name in CLASSES if may_unwrap(role, name)} for role in ROLES} == READS
    writes = {role: {name for name in CLASSES if may_write(role, name)} - READS[role] for role in ROLES}
    assert {role: names for role, names in writes.items() if names} == {
        "ingest": {"raw", "quarantine"},
        "steward": {"protected", "training", "checkpoint", "audit_trace", "coins"},
        "auditor": {"coins"},
    }
    assert not any(
        may_unwrap(nobody, name) or may_write(nobody, name) for nobody in ("", "root", "Steward") for name in CLASSES
    )
    assert group_of("unheard_of") == "other"


@dataclass
class Roles:
    """A home's keyring with something wrapped in each class, and each role's own way to the key service."""

    path: Path
    wrapped: dict[str, str]
    ways: dict[str, Kms]

    def opened(self, role: str, claim: str | None = None) -> Keyring:
        return Keyring(self.path, self.ways[role], role=claim or role)


@pytest.fixture(scope="module", params=["local", "openbao"])
def roles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    folder, prefix = tmp_path_factory.mktemp("roles"), f"r{secrets.token_hex(5)}"
    if request.param == "local":
        kms: Kms = LocalKms.found(folder / "roots.json", KeyFile(folder / "root.key"))
        keyring = Keyring.create(folder / "keyring.json", kms, prefix=prefix)
        ways = {OPERATOR: kms}
        for role in ROLES:
            if role != OPERATOR:
                keys = [f"{prefix}-{group}" for group in (RING, *groups_unwrapped_by(role))]
                kms.grant(role, keys, folder / f"{role}.key")  # type: ignore[attr-defined]
                ways[role] = LocalKms(folder / "roots.json", RoleKey.read(folder / f"{role}.key"))
    else:
        server = request.getfixturevalue("openbao")
        operator = server.kms(server.token(openbao_policy(OPERATOR, prefix, "transit")))
        keyring = Keyring.create(folder / "keyring.json", operator, prefix=prefix)
        ways = {role: server.kms(server.token(openbao_policy(role, prefix, "transit"))) for role in ROLES}
    wrapped = {name: keyring.wrap(f"chat/{name}", DEK, b"here") for name in CLASSES}
    return Roles(folder / "keyring.json", wrapped, ways)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("data_class", CLASSES)
def test_a_role_unwraps_its_classes_and_no_other_whatever_it_claims(roles: Roles, role: str, data_class: str) -> None:
    text = roles.wrapped[data_class]
    for claim in (role, OPERATOR):
        keyring = roles.opened(role, claim)
        if data_class in READS[role]:
            assert keyring.unwrap(text, b"here") == DEK
            assert len(keyring.derive(f"chat/{data_class}", "x")) == 32
            continue
        # An honest claim is refused by the table; a lie by the key service, which knows better.
        kind, code = (PolicyError, "E-KEY-011") if claim == role else (EnvironmentFault, "E-KMS-002")
        for refused in (
            lambda k=keyring: k.unwrap(text, b"here"),
            lambda k=keyring: k.derive(f"chat/{data_class}", "x"),
            lambda k=keyring: k.rewrap(text, b"here"),
            lambda k=keyring: k.new_epoch(f"chat/{data_class}"),
        ):
            with pytest.raises(kind, match=code):
                refused()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("data_class", CLASSES)
def test_what_a_write_only_role_wrote_it_can_not_read_and_the_reader_can(roles: Roles, role: str, data_class: str) -> None:
    keyring = roles.opened(role)
    if not may_write(role, data_class):
        with pytest.raises(PolicyError, match="E-KEY-011"):
            keyring.wrap(f"chat/{data_class}", DEK, b"here")
        return
    text = keyring.wrap(f"chat/{data_class}", b"w" * 32, b"here")
    assert roles.opened(OPERATOR).unwrap(text, b"here") == b"w" * 32
    with pytest.raises(PrivetError, match=r"E-KEY-005"):
        roles.opened(OPERATOR).unwrap(text, b"elsewhere")
    if data_class not in READS[role]:
        assert ":h." in text
        for claim in (role, OPERATOR):
            with pytest.raises(PrivetError, match=r"E-KEY-011|E-KMS-002"):
                roles.opened(role, claim).unwrap(text, b"here")


def test_write_only_wraps_every_character_counts_and_none_passes_for_the_other_kind(roles: Roles) -> None:
    operator = roles.opened(OPERATOR)
    text = roles.opened("ingest").wrap("chat/raw", DEK, b"here")
    assert text != roles.opened("ingest").wrap("chat/raw", DEK, b"here")
    for position in range(len(text)):
        altered = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        with pytest.raises(PrivetError, match=r"E-KEY-00[56]"):
            operator.unwrap(altered, b"here")
    for altered in (text.replace(":h.", ":"), roles.wrapped["raw"].replace(":", ":h."), text + "=", text[:-8]):
        with pytest.raises(PrivetError, match="E-KEY-005"):
            operator.unwrap(altered, b"here")


def test_the_eraser_destroys_what_it_can_not_read(roles: Roles) -> None:
    """On OpenBao to the end; the local file is changed by its root holder only, and what is left over is said."""
    operator, eraser = roles.opened(OPERATOR), roles.opened("eraser")
    dataset = f"d{os.urandom(3).hex()}"
    lost, kept = operator.wrap(f"{dataset}/vault", DEK, b""), operator.wrap("chat/vault", DEK, b"")
    if isinstance(roles.ways["eraser"], LocalKms):
        with pytest.raises(EnvironmentFault, match="E-KEY-014"):
            eraser.destroy_epoch(f"{dataset}/vault", 1)
        operator.rotate_root(["vault"])
    else:
        assert eraser.destroy_epoch(f"{dataset}/vault", 1)
    assert not operator.state.doomed
    with pytest.raises(PrivetError, match="E-KEY-006"):
        operator.unwrap(lost, b"")
    assert operator.unwrap(kept, b"") == DEK


def test_no_role_but_the_operator_rotates_what_it_does_not_destroy(roles: Roles) -> None:
    for role in ROLES:
        if role in (OPERATOR, "eraser"):
            continue
        for group in ("raw", "vault", "features"):
            with pytest.raises(EnvironmentFault, match="E-KMS-002"):
                roles.opened(role).rotate_root([group])


def test_no_role_destroys_what_it_may_only_open(roles: Roles) -> None:
    """Refused before the row is touched: a row that is gone is lost, whoever could finish the rest."""
    before = roles.opened(OPERATOR).digest
    for role in set(ROLES) - {OPERATOR}:
        for name in (name for name in CLASSES if not (role == "eraser" and name in ("vault", "pseudonym", "deny"))):
            for destroy in (lambda ring, at: ring.destroy(at), lambda ring, at: ring.destroy_epoch(at, 1)):
                with pytest.raises(PolicyError, match="E-KEY-011"):
                    destroy(roles.opened(role), f"chat/{name}")
    assert roles.opened(OPERATOR).digest == before
