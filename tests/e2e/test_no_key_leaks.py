"""Each key that a whole chain uses is watched for: it may lie in no file, database, log or printed line."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest

from privacy.domain_key import DomainKey
from privacy.kms.local import LocalKms
from tests.worlds.leaks import LeakScanner
from tests.worlds.terminal import Said, Terminal

pytestmark = pytest.mark.slow


@dataclass
class Seen:
    """Keys as they passed: what was wrapped, unwrapped or derived, by a domain's key or by the key service."""

    keys: set[bytes] = field(default_factory=set)

    def spellings(self) -> Iterator[str | bytes]:
        for key in self.keys:
            yield from (key, key.hex(), base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode().rstrip("="))

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, place in ((DomainKey, "wrap", 3), (LocalKms, "wrap", 2)):
                stack.enter_context(mock.patch.object(owner, name, self._given(getattr(owner, name), place)))
            for owner, name in ((DomainKey, "unwrap"), (DomainKey, "derive"), (LocalKms, "unwrap")):
                stack.enter_context(mock.patch.object(owner, name, self._returned(getattr(owner, name))))
            yield

    def _given(self, real: object, place: int) -> object:
        def call(*arguments: object) -> object:
            self.keys.add(bytes(arguments[place]))  # type: ignore[call-overload]
            return real(*arguments)  # type: ignore[operator]

        return call

    def _returned(self, real: object) -> object:
        def call(*arguments: object) -> object:
            found = real(*arguments)  # type: ignore[operator]
            self.keys.add(bytes(found))
            return found

        return call


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Terminal, Seen, list[Said]]:
    """Ingest to release, an erasure, the end of its epoch, a rotation, and a refusal."""
    terminal, seen = Terminal(tmp_path_factory.mktemp("terminal")), Seen()
    at = ("--home", terminal.home)
    with seen.watching():
        said = [
            terminal.run(),
            terminal.privet("erase", "customer-3", "--case", "T-1", *at),
            terminal.privet("retention", "--ahead", "40", *at),
            terminal.privet("keys", "rotate", *at),
            terminal.privet("keys", "list", *at),
            terminal.privet("journal", "show", "--json", *at),
            terminal.privet("keys", "destroy", "--domain", "test_chat/raw", "--yes", "test_chat/raw", *at),
        ]
    assert [s.code for s in said] == [0] * len(said), [s.err for s in said]
    seen.keys.add(bytes.fromhex((terminal.home / "root.key").read_text()))
    return terminal, seen, said


def test_no_key_lies_in_a_file_or_was_said(lived: tuple[Terminal, Seen, list[Said]]) -> None:
    terminal, seen, said = lived
    assert len(seen.keys) > 60, "file keys, subject keys, domain keys and derived ones"
    scanner = LeakScanner(seen.spellings())
    assert scanner.scan(terminal.root, skip=[terminal.home / "root.key"]) == []
    assert scanner.search("".join(s.out + s.err for s in said).encode()) == set()


def test_the_search_finds_a_key_that_was_left_behind(lived: tuple[Terminal, Seen, list[Said]], tmp_path: Path) -> None:
    _, seen, _ = lived
    for number, spelling in enumerate(seen.spellings()):
        if number < 8:
            (tmp_path / str(number)).write_bytes(b"xyz" + (spelling if isinstance(spelling, bytes) else spelling.encode()))
    assert len({line.split(":")[0] for line in LeakScanner(seen.spellings()).scan(tmp_path)}) == 8
