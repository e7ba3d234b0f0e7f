"""One contract, every backend: a local file (key file, passphrase), a live OpenBao, a PKCS#11 token, AWS KMS (moto)."""

from __future__ import annotations

import os
import pickle
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from privacy.errors import IntegrityError, PrivetError, UsageError
from privacy.kms import Kms, Wrapped
from privacy.kms.local import LocalKms
from privacy.kms.local_secret import KeyFile, Passphrase
from tests.worlds.openbao import openbao  # noqa: F401
from tests.worlds.softhsm import softhsm  # noqa: F401

CTX = {"keyring": "k", "domain": "chat/raw", "epoch": "1"}
DEK = bytes(range(32))


def passphrase(folder: Path, text: str = "correct horse battery") -> Passphrase:
    file = folder / f"passphrase-{secrets.token_hex(4)}"
    file.write_text(text + "\n")
    file.chmod(0o600)
    return Passphrase.from_file(file)


@pytest.fixture(params=["key file", "passphrase", "openbao", "pkcs11", "aws"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "aws":
        moto = pytest.importorskip("moto", reason="moto is not installed")
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
                patch.setenv(name, "testing")
            with moto.mock_aws():
                yield request.param
        return
    yield request.param


@pytest.fixture
def kms(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Kms:
    if backend == "key file":
        return LocalKms.found(tmp_path / "roots.json", KeyFile(tmp_path / "root.key"))
    if backend == "passphrase":
        return LocalKms.found(tmp_path / "roots.json", passphrase(tmp_path))
    if backend == "aws":
        from privacy.kms.aws import AwsKms, AwsPlace

        return AwsKms(AwsPlace("eu-central-1"))
    return request.getfixturevalue({"openbao": "openbao", "pkcs11": "softhsm"}[backend]).kms()


ALTERED = {  # moto tells an altered key id in a blob from altered bytes
    "local": "E-KMS-004",
    "openbao": "E-KMS-004",
    "pkcs11": "E-KMS-004",
    "aws": r"E-KMS-00[24567]",
}


def foreign(kms: Kms) -> str:
    """AWS says IncorrectKeyException; moto says AccessDenied, which is a refusal all the same."""
    return "E-KMS-00[24]" if kms.backend == "aws" else "E-KMS-004"


@pytest.fixture
def key(kms: Kms) -> str:
    """A key of its own for each test: live services keep theirs."""
    name = f"test-{secrets.token_hex(6)}-raw"
    kms.create(name)
    return name


def test_what_is_wrapped_opens_again_and_names_its_version(kms: Kms, key: str) -> None:
    for dek in (DEK, b"s" * 16, b"l" * 1024):
        wrapped = kms.wrap(key, dek, CTX)
        assert (wrapped.key_id, wrapped.version) == (key, 1)
        assert kms.unwrap(wrapped, CTX) == dek
        assert Wrapped.from_json(wrapped.to_json()) == wrapped
        assert dek.hex() not in wrapped.blob
        assert wrapped.blob not in repr(wrapped)


def test_creating_a_key_again_keeps_it(kms: Kms, key: str) -> None:
    wrapped = kms.wrap(key, DEK, CTX)
    kms.create(key)
    assert kms.unwrap(wrapped, CTX) == DEK
    assert [v.version for v in kms.versions(key)] == [1]


@pytest.mark.parametrize(
    "other",
    [{}, {**CTX, "epoch": "2"}, {**CTX, "more": ""}, {k: v for k, v in CTX.items() if k != "epoch"}, {"epoch": "chat/raw"}],
)
def test_another_context_opens_nothing(kms: Kms, key: str, other: dict[str, str]) -> None:
    wrapped = kms.wrap(key, DEK, CTX)
    for refused in (kms.unwrap, kms.rewrap):
        with pytest.raises(IntegrityError, match="E-KMS-004"):
            refused(wrapped, other)


def test_another_key_opens_nothing(kms: Kms, key: str) -> None:
    other = f"test-{secrets.token_hex(6)}-vault"
    kms.create(other)
    with pytest.raises(PrivetError, match=foreign(kms)):
        kms.unwrap(replace(kms.wrap(key, DEK, CTX), key_id=other), CTX)


def test_a_key_nobody_made_is_a_usage_error(kms: Kms, key: str) -> None:
    nobody = f"test-{secrets.token_hex(6)}"
    for call in (lambda: kms.wrap(nobody, DEK, CTX), lambda: kms.versions(nobody), lambda: kms.rotate(nobody)):
        with pytest.raises(UsageError, match="E-KMS-006"):
            call()
    assert not [v for v in kms.versions(key) if v.state != "live"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "a" * 101, "-x", "é"])
def test_a_key_name_can_not_leave_its_place(kms: Kms, name: str) -> None:
    with pytest.raises(UsageError, match="E-KMS-013"):
        kms.create(name)


def test_rotation_keeps_the_old_and_rewrapping_moves_to_the_new(kms: Kms, key: str) -> None:
    old = kms.wrap(key, DEK, CTX)
    assert kms.rotate(key) == 2
    assert kms.unwrap(old, CTX) == DEK
    new = kms.rewrap(old, CTX)
    assert (new.version, kms.wrap(key, DEK, CTX).version) == (2, 2)
    assert new.blob != old.blob
    assert kms.unwrap(new, CTX) == DEK
    assert [(v.version, v.state) for v in kms.versions(key)] == [(1, "live"), (2, "live")]


def test_a_version_can_not_be_passed_off_as_another(kms: Kms, key: str) -> None:
    old = kms.wrap(key, DEK, CTX)
    kms.rotate(key)
    with pytest.raises(PrivetError, match=foreign(kms)):
        kms.unwrap(replace(old, version=2), CTX)
    with pytest.raises(PrivetError, match=r"E-KMS-00[456]"):
        kms.unwrap(replace(old, version=3), CTX)


def test_a_batch_is_rewrapped_in_order_and_whole(kms: Kms, key: str) -> None:
    items = [(kms.wrap(key, bytes([n]) * 32, {"n": str(n)}), {"n": str(n)}) for n in range(7)]
    kms.rotate(key)
    moved = kms.rewrap_many(items)
    assert [kms.unwrap(w, ctx) for w, (_, ctx) in zip(moved, items, strict=True)] == [bytes([n]) * 32 for n in range(7)]
    assert {w.version for w in moved} == {2}
    with pytest.raises(IntegrityError, match="E-KMS-004"):
        kms.rewrap_many([*items[:3], (items[3][0], {"n": "4"})])
    assert kms.rewrap_many([]) == []


def test_no_character_of_a_wrapped_key_is_free(kms: Kms, key: str) -> None:
    wrapped = kms.wrap(key, DEK, CTX)
    step = 1 if kms.backend == "local" else 5
    for position in range(0, len(wrapped.blob), step):
        other = "A" if wrapped.blob[position] != "A" else "B"
        altered = wrapped.blob[:position] + other + wrapped.blob[position + 1 :]
        with pytest.raises(PrivetError, match=ALTERED[kms.backend]) as caught:
            kms.unwrap(replace(wrapped, blob=altered), CTX)
        assert wrapped.blob not in str(caught.value)
    for altered in ("", "x", wrapped.blob[:-4], wrapped.blob + "AAAA", "vault:v1:", wrapped.blob * 2):
        with pytest.raises(IntegrityError, match="E-KMS-004"):
            kms.unwrap(replace(wrapped, blob=altered), CTX)


def test_destroyed_versions_open_nothing_and_the_newest_stays(kms: Kms, key: str) -> None:
    if kms.backend == "aws":
        pytest.skip("moto decrypts under disabled keys, so it can't show this")
    first = kms.wrap(key, DEK, CTX)
    kms.rotate(key)
    second = kms.wrap(key, DEK, CTX)
    kms.rotate(key)
    third = kms.rewrap(second, CTX)
    with pytest.raises(UsageError, match="E-KMS-012"):
        kms.destroy(key, 3)
    kms.destroy(key, 2)
    for gone in (first, second):
        for refused in (kms.unwrap, kms.rewrap):
            with pytest.raises(IntegrityError, match="E-KMS-005"):
                refused(gone, CTX)
    assert kms.unwrap(third, CTX) == DEK
    assert {v.version: v.state for v in kms.versions(key)}[3] == "live"
    assert not [v for v in kms.versions(key) if v.version < 3 and v.state == "live"]
    kms.destroy(key, 2)  # again: nothing to do
    assert kms.rotate(key) == 4


@pytest.mark.parametrize("backend", ["aws"], indirect=True)
def test_on_aws_a_destroyed_version_is_disabled_and_scheduled(kms: Kms, key: str) -> None:
    import boto3

    kms.rotate(key)
    kms.destroy(key, 1)
    client = boto3.client("kms", region_name="eu-central-1")
    state = client.describe_key(KeyId=f"alias/{key}-v1")["KeyMetadata"]["KeyState"]
    assert state == "PendingDeletion"
    assert [(v.version, v.state) for v in kms.versions(key)] == [(1, "destroyed"), (2, "live")]
    with pytest.raises(UsageError, match="E-KMS-012"):
        kms.destroy(key, 2)


def test_a_key_service_shows_nothing(kms: Kms, key: str) -> None:
    kms.wrap(key, DEK, CTX)
    assert DEK.hex() not in repr(kms)
    assert "token" not in repr(kms).lower()
    with pytest.raises(TypeError):
        pickle.dumps(kms)


@pytest.mark.parametrize("size", [0, 15, 1025])
def test_what_is_no_key_is_not_wrapped(kms: Kms, key: str, size: int) -> None:
    with pytest.raises(UsageError, match="E-KMS-014"):
        kms.wrap(key, os.urandom(size), CTX)


def test_a_child_of_fork_uses_the_service_by_itself(kms: Kms, key: str, backend: str) -> None:
    """A connection or token session of the parent must not be shared."""
    wrapped = kms.wrap(key, DEK, CTX)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if kms.unwrap(wrapped, CTX) == DEK else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert kms.unwrap(wrapped, CTX) == DEK
