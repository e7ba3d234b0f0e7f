"""The whole chain, each stage with its own role's key and the root key out of reach: nobody needs more than the table says."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest

from pipeline import tasks
from tests.worlds.terminal import Terminal

STAGES = {
    "ingest": "ingest",
    "protect": "steward",
    "validate": "trainer",
    "train": "trainer",
    "audit": "trainer",
    "report": "trainer",
    "assemble": "releaser",
    "release": "releaser",
}


def prepared(root: Path) -> Terminal:
    terminal = Terminal(root)
    at = ("--home", terminal.home)
    assert terminal.privet("init", *at, "--demo-identities").code == 0
    assert terminal.privet("keys", "init", "--dataset", "test_chat", *at).code == 0
    for role in ("ingest", "steward", "trainer", "releaser"):
        assert terminal.privet("keys", "grant", role, "--to", root / f"{role}.key", *at).code == 0
    (terminal.home / "root.key").rename(root / "root.key")
    return terminal


def run_in_roles(terminal: Terminal, roles: dict[str, str]) -> list[str]:
    """The codes of what went wrong, if anything did."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVET_ROLE_KEY", str(terminal.root / "ingest.key"))
        for stage, role in roles.items():
            real = getattr(tasks, f"run_{stage}")

            def in_role(*args: object, real: object = real, role: str = role) -> object:
                patch.setenv("PRIVET_ROLE_KEY", str(terminal.root / f"{role}.key"))
                return real(*args)  # type: ignore[operator]

            stack.enter_context(mock.patch.object(tasks, f"run_{stage}", in_role))
        said = terminal.run()
    return [] if said.code == 0 else [said.fault]


@pytest.mark.slow
def test_each_stage_needs_its_own_roles_key_and_no_other(tmp_path: Path) -> None:
    terminal = prepared(tmp_path)
    assert run_in_roles(terminal, STAGES) == []
    assert terminal.released()
    (tmp_path / "root.key").rename(terminal.home / "root.key")
    uses = [e.facts for e in terminal.opened().journal.entries() if e.kind == "key_use"]
    by_role = {str(use["role"]): {str(u["domain"]) for u in uses if u["role"] == use["role"]} for use in uses}
    assert "ingest" not in by_role, "it reads nothing"
    assert not any(domain.endswith(("/raw", "/vault", "/token")) for domain in by_role["trainer"])
    assert by_role["releaser"] == {"test_chat/model"}
    assert all(use.get("run") for use in uses)


@pytest.mark.parametrize(("stage", "role"), [("protect", "ingest"), ("protect", "trainer"), ("validate", "steward")])
def test_a_stage_with_another_roles_key_gets_nothing(tmp_path: Path, stage: str, role: str) -> None:
    terminal = prepared(tmp_path)
    assert run_in_roles(terminal, {**STAGES, stage: role}) == ["E-KEY-011"]
    assert not terminal.released()
