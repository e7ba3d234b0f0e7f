"""A key service that is down, slow, sealed, or refuses in the middle of a run: one code each, and never what it said."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError
from privacy.keys import Keyring
from privacy.kms import Kms
from privacy.kms.aws import AwsKms, AwsPlace
from privacy.kms.openbao import OpenBaoKms, OpenBaoPlace
from privacy.kms.pkcs11 import Pkcs11Kms, Pkcs11Place
from tests.worlds.openbao import OpenBao, free_port, openbao  # noqa: F401
from tests.worlds.softhsm import SoftHsm, softhsm  # noqa: F401

DEK = b"d" * 32
SAID = "subject 4711 and token hvs.SECRETSECRET"


@pytest.fixture
def prefix(openbao: OpenBao) -> str:  # noqa: F811
    return f"h{os.urandom(6).hex()}"


@pytest.fixture
def keyring(openbao: OpenBao, prefix: str, tmp_path: Path) -> Keyring:  # noqa: F811
    return Keyring.create(tmp_path / "keyring.json", openbao.kms(timeout_seconds=1.0), prefix=prefix)


def raw_policy(prefix: str) -> str:
    return (
        "".join(
            f'path "transit/{verb}/{prefix}-{group}" {{ capabilities = ["update"] }}\n'
            for group in ("ring", "raw")
            for verb in ("encrypt", "decrypt")
        )
        + f'path "transit/keys/{prefix}-raw" {{ capabilities = ["read"] }}\n'
    )


def test_down_is_said_once_and_running_again_goes_on(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o600)
    kms = OpenBaoKms(OpenBaoPlace(f"http://127.0.0.1:{free_port()}", token, timeout_seconds=2))
    for call in (lambda: kms.versions("raw"), lambda: kms.wrap("raw", DEK, {}), lambda: kms.create("raw")):
        with pytest.raises(EnvironmentFault, match="E-KMS-001") as caught:
            call()
        assert caught.value.exit_code == 2
        assert "127.0.0.1" not in str(caught.value)


def test_slow_ends_at_the_deadline_and_what_was_open_goes_on(
    openbao: OpenBao,  # noqa: F811
    keyring: Keyring,
) -> None:
    one = keyring.wrap("chat/raw", DEK, b"")
    openbao.pause()
    try:
        assert keyring.unwrap(one, b"") == DEK  # its domain key is open
        started = time.monotonic()
        with pytest.raises(EnvironmentFault, match="E-KMS-001"):
            keyring.wrap("shop/raw", DEK, b"")
        assert time.monotonic() - started < 60
        with pytest.raises(EnvironmentFault, match="E-KEY-014"):
            keyring.destroy_epoch("chat/raw", 1)
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            keyring.unwrap(one, b"")
    finally:
        openbao.go_on()
    keyring.wrap("shop/raw", DEK, b"")
    assert keyring.rotate_root() == 1
    assert not keyring.state.doomed


def test_denied_and_expired_in_the_middle_of_a_run(openbao: OpenBao, keyring: Keyring, prefix: str, tmp_path: Path) -> None:  # noqa: F811
    texts = [keyring.wrap("chat/raw", DEK, b""), keyring.wrap("chat/vault", DEK, b"")]
    token = openbao.token(raw_policy(prefix))
    file, now = openbao.token_file(token), [0.0]
    run = Keyring(tmp_path / "keyring.json", OpenBaoKms(openbao.place(file)), clock=lambda: now[0], cache_seconds=10)
    assert run.unwrap(texts[0], b"") == DEK
    with pytest.raises(EnvironmentFault, match="E-KMS-002"):
        run.unwrap(texts[1], b"")  # denied: the claim to be operator helps nobody
    openbao.revoke(token)
    assert run.unwrap(texts[0], b"") == DEK  # open already
    now[0] = 11.0
    with pytest.raises(EnvironmentFault, match="E-KMS-003"):
        run.unwrap(texts[0], b"")
    file.write_text(openbao.token(raw_policy(prefix)))  # an agent renews the file, and the run goes on
    assert run.unwrap(texts[0], b"") == DEK


def test_an_expired_token_is_told_from_a_refused_one(openbao: OpenBao, keyring: Keyring, prefix: str) -> None:  # noqa: F811
    kms = openbao.kms(openbao.token(raw_policy(prefix), ttl="1s"))
    deadline = time.monotonic() + 30
    code = ""
    while code != "E-KMS-003" and time.monotonic() < deadline:
        try:
            kms.wrap(f"{prefix}-raw", DEK, {})
            time.sleep(0.2)
        except EnvironmentFault as error:
            code = error.code
            assert code == "E-KMS-003"
    assert code == "E-KMS-003"


def test_a_key_destroyed_by_somebody_else_in_mid_run(openbao: OpenBao, keyring: Keyring, prefix: str, tmp_path: Path) -> None:  # noqa: F811
    text = keyring.wrap("chat/raw", DEK, b"")
    key = f"transit/keys/{prefix}-raw"
    assert openbao.api("POST", f"{key}/config", {"deletion_allowed": True}).status_code in (200, 204)
    assert openbao.api("DELETE", key).status_code == 204
    with pytest.raises(UsageError, match="E-KMS-006"):
        Keyring(tmp_path / "keyring.json", openbao.kms()).unwrap(text, b"")


def test_a_sealed_server_is_unwell(openbao_of_its_own: OpenBao) -> None:
    kms = openbao_of_its_own.kms()
    kms.create("raw")
    assert openbao_of_its_own.api("PUT", "sys/seal").status_code == 204
    with pytest.raises(EnvironmentFault, match=r"E-KMS-007.*HTTP 503"):
        kms.wrap("raw", DEK, {})


@pytest.fixture
def openbao_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    from tests.worlds import openbao as world

    yield from world.openbao.__wrapped__(tmp_path_factory)  # type: ignore[attr-defined]


class _Answer(http.server.BaseHTTPRequestHandler):
    status, body, header = 200, b"", ("Content-Type", "application/json")

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.send_header(*self.header)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b"<html>a proxy's page</html>", "E-KMS-007"),
        (200, b'{"data": {"ciphertext": "not a blob", "latest_version": 1}}', "E-KMS-007"),
        (200, b'{"data": [1]}', "E-KMS-007"),
        (200, b"[]", "E-KMS-007"),
        (200, b'{"data": {"x": 1}, "data": {}}', "E-KMS-007"),
        (302, b"", "E-KMS-007"),
        (429, SAID.encode(), "E-KMS-007"),
        (500, SAID.encode(), "E-KMS-007"),
        (400, SAID.encode(), "E-KMS-004"),
        (403, SAID.encode(), "E-KMS-003"),
        (404, SAID.encode(), "E-KMS-006"),
    ],
)
def test_nothing_that_a_server_says_gets_into_an_error(tmp_path: Path, status: int, body: bytes, code: str) -> None:
    answer = type("Answer", (_Answer,), {"status": status, "body": body, "header": ("Location", "http://127.0.0.1:9/")})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    token = tmp_path / "token"
    token.write_text("hvs.SECRETSECRET")
    token.chmod(0o600)
    try:
        kms = OpenBaoKms(OpenBaoPlace(f"http://127.0.0.1:{server.server_address[1]}", token, timeout_seconds=5))
        with pytest.raises(PrivetError, match=code) as caught:
            kms.wrap("raw", DEK, {})
    finally:
        server.shutdown()
        server.server_close()
    assert "SECRET" not in str(caught.value)
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "address",
    ["http://kms.example.org", "ftp://127.0.0.1", "https://user:pw@kms", "https://kms?x=1", "", "https://", "kms:8200"],
)
def test_an_address_that_would_show_the_token_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError, match="E-KMS-008"):
        OpenBaoPlace(address, tmp_path / "token")


def test_no_proxy_of_the_environment_gets_to_see_a_token(openbao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    openbao.kms().create(f"direct{os.urandom(4).hex()}")


def test_a_token_file_that_others_can_read_is_refused(openbao: OpenBao) -> None:  # noqa: F811
    file = openbao.token_file()
    file.chmod(0o644)
    with pytest.raises(EnvironmentFault, match="E-KEY-002"):
        OpenBaoKms(openbao.place(file)).create("raw")
    for text in ("", "two words", "line\nbreak"):
        file = openbao.token_file()
        file.write_text(text)
        with pytest.raises(EnvironmentFault, match="E-KMS-003"):
            OpenBaoKms(openbao.place(file)).create("raw")


def test_no_key_is_made_by_a_wrap(openbao: OpenBao) -> None:  # noqa: F811
    """The server would make one for a token that may create: under a misspelt name, and not derived."""
    name = f"typo{os.urandom(4).hex()}"
    with pytest.raises(UsageError, match="E-KMS-006"):
        openbao.kms().wrap(name, DEK, {})
    assert openbao.api("GET", f"transit/keys/{name}").status_code == 404


def test_a_batch_over_the_servers_limit_goes_in_parts(openbao: OpenBao) -> None:  # noqa: F811
    kms, key = openbao.kms(), f"batch{os.urandom(4).hex()}"
    kms.create(key)
    items = [(kms.wrap(key, DEK, {"n": str(n)}), {"n": str(n)}) for n in range(3)] * 141  # 423: refused at once
    kms.rotate(key)
    moved = kms.rewrap_many(items)
    assert len(moved) == 423
    assert {w.version for w in moved} == {2}
    assert kms.unwrap(moved[-1], items[-1][1]) == DEK


# AWS and PKCS#11


def test_aws_that_is_not_there_or_has_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    place = AwsPlace("eu-central-1", f"http://127.0.0.1:{free_port()}", timeout_seconds=1)
    with pytest.raises(EnvironmentFault, match="E-KMS-001"):
        AwsKms(place).wrap("raw", DEK, {})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(EnvironmentFault, match="E-KMS-003"):
        AwsKms(place).wrap("raw", DEK, {})


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("AccessDeniedException", "E-KMS-002"),
        ("ExpiredTokenException", "E-KMS-003"),
        ("InvalidCiphertextException", "E-KMS-004"),
        ("IncorrectKeyException", "E-KMS-004"),
        ("DisabledException", "E-KMS-005"),
        ("KMSInvalidStateException", "E-KMS-005"),
        ("NotFoundException", "E-KMS-006"),
        ("ThrottlingException", "E-KMS-007"),
        ("arn:aws:kms:eu:4711", "E-KMS-007"),
    ],
)
def test_what_aws_says_becomes_our_code(monkeypatch: pytest.MonkeyPatch, said: str, code: str) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed")
    from botocore.exceptions import ClientError

    class Client:
        def get_paginator(self, _: str) -> Client:
            raise ClientError({"Error": {"Code": said, "Message": SAID}}, "ListAliases")

    kms: Kms = AwsKms(AwsPlace("eu-central-1"))
    monkeypatch.setattr(AwsKms, "_client", lambda _: Client())
    with pytest.raises(PrivetError, match=code) as caught:
        kms.wrap("raw", DEK, {})
    assert "4711" not in str(caught.value)


def test_a_token_that_is_not_there_and_a_library_that_is_none(softhsm: SoftHsm, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(EnvironmentFault, match="E-KMS-001"):
        softhsm.kms(label="another").create("raw")
    place = softhsm.place()
    with pytest.raises(EnvironmentFault, match="E-KMS-009"):
        Pkcs11Kms(Pkcs11Place(tmp_path / "none.so", place.token_label, place.pin_file)).create("raw")


def test_a_wrong_pin_is_a_bad_token(softhsm: SoftHsm) -> None:  # noqa: F811
    """In a process of its own: PKCS#11 logs a whole process in."""
    import subprocess
    import sys

    place = softhsm.place(pin="00000000")
    code = (
        "from pathlib import Path; from privacy.kms.pkcs11 import *\n"
        f"place = Pkcs11Place(Path({str(place.library)!r}), {place.token_label!r}, Path({str(place.pin_file)!r}))\n"
        "try: Pkcs11Kms(place).create('raw')\n"
        "except Exception as error: print(error.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "E-KMS-003"


def test_the_key_on_the_token_can_not_be_read(softhsm: SoftHsm) -> None:  # noqa: F811
    import pkcs11

    kms = softhsm.kms()
    key_id = f"kek{os.urandom(4).hex()}"
    kms.create(key_id)
    with kms._token() as session:
        kek = session.get_key(label=f"{key_id}.v1")
        assert kek[pkcs11.Attribute.EXTRACTABLE] is False
        assert kek[pkcs11.Attribute.SENSITIVE] is True
        with pytest.raises(pkcs11.exceptions.AttributeSensitive):
            kek[pkcs11.Attribute.VALUE]
        with pytest.raises(pkcs11.exceptions.PKCS11Error):
            kek.wrap_key(kek)
