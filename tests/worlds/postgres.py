"""A real PostgreSQL server on a socket in a folder of its own, run by an ordinary user; `place` gives both grounds."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from privacy.database import Place, PostgresPlace

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # a killed server loses nothing that the operating system has; no test cuts the power
    "max_connections": "60",
    "shared_buffers": "32MB",
    "logging_collector": "off",
    "autovacuum": "off",  # the forensic tests look at what a delete leaves behind
}
_numbers = itertools.count(1)


class PostgresServer:
    """Start, stop, kill; `place` gives an empty schema each time."""

    def __init__(self, binaries: Path, folder: Path, user: str | None) -> None:
        self.data_dir = folder / "data"
        self._binaries = binaries
        self._folder = folder
        self._user = user
        self._server: subprocess.Popen[bytes] | None = None
        if user is not None:
            shutil.chown(folder, user)
        self._run("initdb", "-D", str(self.data_dir), "-U", "privet", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        settings = {**_SETTINGS, "unix_socket_directories": str(folder)}
        with (self.data_dir / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    @property
    def dsn(self) -> str:
        return f"host={self._folder} user=privet dbname=postgres"

    def place(self, prefix: str = "test") -> PostgresPlace:
        return PostgresPlace(self.dsn, f"{prefix}_{next(_numbers)}")

    def start(self) -> None:
        try:
            self._run("pg_ctl", "-D", str(self.data_dir), "-l", str(self._folder / "log"), "-w", "-t", "60", "start")
        except RuntimeError as error:
            raise RuntimeError((self._folder / "log").read_text()[-2000:]) from error

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", str(self.data_dir), "-w", "-m", mode, "stop")

    def kill9(self) -> None:
        """SIGKILL for the server and every backend, as a power cut would."""
        postmaster = int((self.data_dir / "postmaster.pid").read_text().split()[0])
        listed = subprocess.run(["pgrep", "-P", str(postmaster)], capture_output=True, text=True, check=False).stdout
        for pid in [postmaster, *map(int, listed.split())]:
            with_signal(pid, signal.SIGKILL)
        # A container may have no init that reaps the dead, and to the next server a zombie looks like a living one.
        for lock in (self.data_dir / "postmaster.pid", *self._folder.glob(".s.PGSQL.*.lock")):
            lock.unlink(missing_ok=True)

    def remove(self) -> None:
        subprocess.run(
            [str(self._binaries / "pg_ctl"), "-D", str(self.data_dir), "-m", "immediate", "stop"],
            capture_output=True,
            check=False,
            user=self._user,
        )
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        # Output goes to a file: the server would keep a pipe open, and its reader would wait for ever.
        with (self._folder / f"{program}.out").open("wb") as out:
            done = subprocess.run(
                [str(self._binaries / program), *arguments],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                check=False,
                user=self._user,
                cwd=self._folder,
            )
        if done.returncode != 0:
            raise RuntimeError((self._folder / f"{program}.out").read_text())


def with_signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def find_binaries() -> Path | None:
    """Of the newest server, 15 or later."""
    found = [p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/initdb") if int(p.parts[-3]) >= 15]
    if not found and (on_path := shutil.which("initdb")):
        found = [Path(on_path).resolve().parent]
    return max(found, key=lambda p: p.parts, default=None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    binaries = find_binaries()
    if binaries is None:
        if os.environ.get("PRIVET_SERVERS") == "required":
            pytest.fail("PRIVET_SERVERS=required, and there is no PostgreSQL 15 on this machine")
        pytest.skip("no PostgreSQL 15 on this machine")
    # Not below pytest's own folder, which an ordinary user can't enter; a socket's path has to be short, too.
    folder = Path(tempfile.mkdtemp(prefix="pvpg-"))
    server = PostgresServer(binaries, folder, "nobody" if os.geteuid() == 0 else None)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place on either ground."""
    if request.param == "sqlite":
        return tmp_path / "state.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.place()
