"""What is the local key service's alone: its file, its passphrase, its role keys."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.canonical import canonical_json
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError
from privacy.kms import Wrapped
from privacy.kms.local import LocalKms
from privacy.kms.local_secret import KeyFile, Passphrase, RoleKey

DEK = b"d" * 32


def secret_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def kms(tmp_path: Path) -> LocalKms:
    made = LocalKms.found(tmp_path / "roots.json", KeyFile(tmp_path / "root.key"))
    for key in ("raw", "vault", "ring"):
        made.create(key)
    return made


@pytest.fixture
def passphrase(tmp_path: Path) -> Passphrase:
    return Passphrase.from_file(secret_file(tmp_path / "phrase", "correct horse battery\n"))


def test_only_the_passphrase_opens_what_a_passphrase_made(tmp_path: Path, passphrase: Passphrase) -> None:
    made = LocalKms.found(tmp_path / "roots.json", passphrase)
    made.create("raw")
    wrapped = made.wrap("raw", DEK, {})
    assert LocalKms(tmp_path / "roots.json", Passphrase(b"correct horse battery")).unwrap(wrapped, {}) == DEK
    for wrong in (b"correct horse batterx", b"correct horse battery "):
        with pytest.raises(IntegrityError, match="E-KMS-010"):
            LocalKms(tmp_path / "roots.json", Passphrase(wrong))
    secret_file(tmp_path / "root.key", "11" * 32)
    with pytest.raises(UsageError, match="E-KMS-017"):
        LocalKms(tmp_path / "roots.json", KeyFile(tmp_path / "root.key"))
    assert (tmp_path / "phrase").read_bytes().strip() not in (tmp_path / "roots.json").read_bytes()


def test_the_passphrase_is_stretched_by_rfc_9106s_second_profile(tmp_path: Path, passphrase: Passphrase) -> None:
    LocalKms.found(tmp_path / "roots.json", passphrase)
    how = json.loads((tmp_path / "roots.json").read_bytes())["protection"]
    assert (how["kind"], how["iterations"], how["lanes"], how["memory_kib"]) == ("argon2id", 3, 4, 65536)
    assert len(bytes.fromhex(how["salt"])) == 16


@pytest.mark.parametrize("change", [{"iterations": 1}, {"memory_kib": 8}, {"memory_kib": 1 << 40}, {"lanes": 1}, {"x": 1}])
def test_weaker_or_absurd_parameters_are_refused_before_any_work(
    tmp_path: Path, passphrase: Passphrase, change: dict[str, int]
) -> None:
    LocalKms.found(tmp_path / "roots.json", passphrase)
    value = json.loads((tmp_path / "roots.json").read_bytes())
    value["protection"] |= change
    (tmp_path / "roots.json").write_bytes(canonical_json(value))
    with pytest.raises(IntegrityError, match="E-KEY-004"):
        LocalKms(tmp_path / "roots.json", passphrase)


def test_a_passphrase_comes_from_a_private_file_or_a_descriptor(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"from a pipe, unlisted\n")
    os.close(write)
    assert Passphrase.from_descriptor(read).text == b"from a pipe, unlisted"
    for bad in (read, -1):
        with pytest.raises(UsageError, match="E-KMS-018"):
            Passphrase.from_descriptor(bad)
    for text in ("short", "", "x" * 1025):
        with pytest.raises(UsageError, match="E-KMS-018"):
            Passphrase.from_file(secret_file(tmp_path / "p", text))
    loose = secret_file(tmp_path / "p", "long enough to be taken")
    loose.chmod(0o640)
    with pytest.raises(EnvironmentFault, match="E-KEY-002"):
        Passphrase.from_file(loose)
    assert "long enough" not in repr(Passphrase(b"long enough to be taken"))


def test_a_changed_passphrase_keeps_the_keys_and_the_roles(kms: LocalKms, tmp_path: Path, passphrase: Passphrase) -> None:
    wrapped = kms.wrap("raw", DEK, {})
    kms.grant("steward", ["ring", "raw"], tmp_path / "steward.key")
    kms.protect_with(passphrase)
    with pytest.raises(UsageError, match="E-KMS-017"):
        LocalKms(tmp_path / "roots.json", KeyFile(tmp_path / "root.key"))
    assert LocalKms(tmp_path / "roots.json", passphrase).unwrap(wrapped, {}) == DEK
    assert LocalKms(tmp_path / "roots.json", RoleKey.read(tmp_path / "steward.key")).unwrap(wrapped, {}) == DEK


@pytest.mark.parametrize("role", [False, True])
def test_no_byte_of_the_file_is_free_to_change(kms: LocalKms, tmp_path: Path, role: bool) -> None:
    kms.grant("steward", ["ring", "raw"], tmp_path / "steward.key")
    secret = RoleKey.read(tmp_path / "steward.key") if role else KeyFile(tmp_path / "root.key")
    path = tmp_path / "roots.json"
    data = path.read_bytes()
    for position in range(0, len(data), 3):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(PrivetError, match=r"E-KEY-004|E-KMS-017"):
            LocalKms(path, secret)
    for cut in (b"", data[:-1], data + b" ", data.replace(b'{"', b'{ "', 1)):
        path.write_bytes(cut)
        with pytest.raises(IntegrityError, match="E-KEY-004"):
            LocalKms(path, secret)


def test_a_file_signed_by_another_root_is_refused_by_root_and_role(kms: LocalKms, tmp_path: Path) -> None:
    """Whoever can write the file makes one of their own: nobody wraps a key for them."""
    kms.grant("steward", ["ring", "raw"], tmp_path / "steward.key")
    (tmp_path / "other").mkdir()
    other = LocalKms.found(tmp_path / "other" / "roots.json", KeyFile(tmp_path / "other" / "root.key"))
    other.create("raw")
    value = json.loads((tmp_path / "other" / "roots.json").read_bytes())
    (tmp_path / "roots.json").write_bytes(canonical_json(value))
    for secret in (KeyFile(tmp_path / "root.key"), RoleKey.read(tmp_path / "steward.key")):
        with pytest.raises(IntegrityError, match="E-KEY-004"):
            LocalKms(tmp_path / "roots.json", secret)
    with pytest.raises(IntegrityError, match="E-KEY-004"):
        kms.wrap("raw", DEK, {})  # an open one notices as well


def test_a_role_key_opens_its_keys_and_changes_nothing(kms: LocalKms, tmp_path: Path) -> None:
    kms.grant("steward", ["ring", "raw"], tmp_path / "steward.key")
    assert stat.S_IMODE((tmp_path / "steward.key").stat().st_mode) == 0o600
    role = LocalKms(tmp_path / "roots.json", RoleKey.read(tmp_path / "steward.key"))
    assert role.role == "steward"
    raw, vault = kms.wrap("raw", DEK, {}), kms.wrap("vault", DEK, {})
    assert role.unwrap(raw, {}) == DEK
    assert kms.unwrap(role.wrap("raw", b"e" * 32, {}), {}) == b"e" * 32
    for refused in (
        lambda: role.unwrap(vault, {}),
        lambda: role.wrap("vault", DEK, {}),
        lambda: role.rotate("raw"),
        lambda: role.destroy("raw", 1),
        lambda: role.create("more"),
        lambda: role.grant("trainer", ["vault"], tmp_path / "more.key"),
        lambda: role.revoke("steward"),
    ):
        with pytest.raises(EnvironmentFault, match="E-KMS-002"):
            refused()
    assert kms.rotate("raw") == 2
    assert role.unwrap(kms.wrap("raw", DEK, {}), {}) == DEK, "a new version is opened to the role at once"


def test_a_role_key_of_another_role_or_service_opens_nothing(kms: LocalKms, tmp_path: Path) -> None:
    kms.grant("trainer", ["ring"], tmp_path / "trainer.key")
    kms.grant("steward", ["ring", "raw"], tmp_path / "steward.key")
    wrapped = kms.wrap("raw", DEK, {})
    forged = json.loads((tmp_path / "trainer.key").read_bytes()) | {"role": "steward"}
    secret_file(tmp_path / "forged.key", json.dumps(forged))
    with pytest.raises(IntegrityError, match="E-KEY-004"):
        LocalKms(tmp_path / "roots.json", RoleKey.read(tmp_path / "forged.key")).unwrap(wrapped, {})
    elsewhere = json.loads((tmp_path / "steward.key").read_bytes()) | {"kms": "0" * 32}
    secret_file(tmp_path / "elsewhere.key", json.dumps(elsewhere))
    with pytest.raises(IntegrityError, match="E-KEY-004"):
        LocalKms(tmp_path / "roots.json", RoleKey.read(tmp_path / "elsewhere.key"))
    for text in ("", "{}", "11" * 32, '{"privet_role_key":1}'):
        with pytest.raises(UsageError, match="E-KMS-011"):
            RoleKey.read(secret_file(tmp_path / "none.key", text))


def test_a_revoked_role_key_opens_nothing_in_open_processes_too(kms: LocalKms, tmp_path: Path) -> None:
    kms.grant("steward", ["ring", "raw"], tmp_path / "steward.key")
    role = LocalKms(tmp_path / "roots.json", RoleKey.read(tmp_path / "steward.key"))
    wrapped = kms.wrap("raw", DEK, {})
    assert role.unwrap(wrapped, {}) == DEK
    assert kms.revoke("steward") == ("ring", "raw")
    for holder in (role, LocalKms(tmp_path / "roots.json", RoleKey.read(tmp_path / "steward.key"))):
        with pytest.raises(EnvironmentFault, match="E-KMS-002"):
            holder.unwrap(wrapped, {})
    with pytest.raises(UsageError, match="E-KMS-016"):
        kms.revoke("steward")
    with pytest.raises(UsageError, match="E-KMS-015"):
        kms.grant("steward", ["raw"], tmp_path / "steward.key")  # never over a file that is there
    kms.grant("steward", ["raw"], tmp_path / "steward2.key")
    assert kms.granted() == {"steward": ("raw",)}
    with pytest.raises(UsageError, match="E-KMS-015"):
        kms.grant("steward", ["raw"], tmp_path / "steward3.key")


def test_destruction_leaves_no_wrapped_byte_in_the_file_and_no_copy_beside_it(kms: LocalKms, tmp_path: Path) -> None:
    kms.grant("steward", ["ring", "raw"], tmp_path / "steward.key")
    before = json.loads((tmp_path / "roots.json").read_bytes())["keys"]["raw"]["1"]
    wrapped = kms.wrap("raw", DEK, {})
    kms.rotate("raw")
    kms.destroy("raw", 1)
    after = (tmp_path / "roots.json").read_bytes()
    for text in (before["root"], before["roles"]["steward"]):
        assert text.encode() not in after
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root.key", "roots.json", "roots.json.lock", "steward.key"]
    with pytest.raises(IntegrityError, match="E-KMS-005"):
        kms.unwrap(wrapped, {})


def test_versions_are_not_interchangeable_inside_the_file(kms: LocalKms, tmp_path: Path) -> None:
    """Even whoever could sign could not pass version 1 off as 2: the number is part of what was sealed."""
    wrapped = kms.wrap("raw", DEK, {})
    kms.rotate("raw")
    with pytest.raises(IntegrityError, match="E-KMS-004"):
        kms.unwrap(Wrapped("raw", 2, wrapped.blob), {})
    with pytest.raises(IntegrityError, match="E-KMS-004"):
        kms.unwrap(Wrapped("vault", 1, wrapped.blob), {})


@pytest.mark.parametrize("name", ["roots.json", "root.key"])
def test_loose_linked_or_missing_files_are_refused(kms: LocalKms, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.chmod(0o644)
    with pytest.raises(EnvironmentFault, match="E-KEY-002"):
        LocalKms(tmp_path / "roots.json", KeyFile(tmp_path / "root.key"))
    path.chmod(0o600)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentFault, match="E-KEY-009"):
        LocalKms(tmp_path / "roots.json", KeyFile(tmp_path / "root.key"))
    path.unlink()
    with pytest.raises(UsageError, match="E-KEY-003"):
        LocalKms(tmp_path / "roots.json", KeyFile(tmp_path / "root.key"))


def test_a_full_disk_leaves_the_old_file(kms: LocalKms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = kms.wrap("raw", DEK, {})
    before = (tmp_path / "roots.json").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for change in (lambda: kms.rotate("raw"), lambda: kms.grant("steward", ["raw"], tmp_path / "s.key")):
            with pytest.raises(EnvironmentFault, match="E-KEY-009"):
                change()
    assert (tmp_path / "roots.json").read_bytes() == before
    assert kms.unwrap(wrapped, {}) == DEK
    assert kms.granted() == {}


def test_a_file_of_another_user_is_refused(kms: LocalKms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(EnvironmentFault, match="E-KEY-002"):
        LocalKms(tmp_path / "roots.json", KeyFile(tmp_path / "root.key"))


def test_what_signs_the_file_comes_from_its_own_root(kms: LocalKms, tmp_path: Path) -> None:
    """Two services sign with two keys; the old signature under a public key of an attacker's choice helps nobody."""
    (tmp_path / "other").mkdir()
    LocalKms.found(tmp_path / "other" / "roots.json", KeyFile(tmp_path / "other" / "root.key"))
    ours, theirs = (json.loads((tmp_path / at / "roots.json").read_bytes()) for at in ("", "other"))
    assert ours["public"] != theirs["public"]
    assert ours["signature"] != theirs["signature"]
    attacker = Ed25519PrivateKey.generate()
    body = {k: v for k, v in ours.items() if k != "signature"} | {"public": attacker.public_key().public_bytes_raw().hex()}
    signature = attacker.sign(b"privet local kms v1\n" + canonical_json(body)).hex()
    (tmp_path / "roots.json").write_bytes(canonical_json({**body, "signature": signature}))
    with pytest.raises(IntegrityError, match="E-KEY-004"):
        LocalKms(tmp_path / "roots.json", KeyFile(tmp_path / "root.key"))
