"""The chain with vault, journal and ledger on a real PostgreSQL: the same results, also when the server dies in the middle."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.worlds.postgres import PostgresServer
from tests.worlds.terminal import Said, Terminal

pytestmark = pytest.mark.slow
SCOPE = "test_chat/customer"


@pytest.fixture
def terminal(tmp_path: Path, postgres_server: PostgresServer) -> Terminal:
    terminal = Terminal(tmp_path)
    made = terminal.privet("init", "--home", terminal.home, "--demo-identities", "--database", postgres_server.dsn)
    assert made.code == 0, made.err
    return terminal


def ends_with_a_release(terminal: Terminal) -> None:
    said = terminal.run()
    assert said.code == 0, said.err
    bundle = terminal.home / "releases" / "test_chat" / "bundle"
    assert terminal.privet("verify", bundle, "--trust", terminal.home / "trust.json").code == 0
    assert terminal.privet("journal", "verify", "--home", terminal.home, "--anchor", bundle).code == 0
    assert terminal.opened().ledger.self_audit() == []
    assert not list(terminal.home.rglob("*.sqlite"))


def test_a_model_is_released_and_a_customer_erased(terminal: Terminal) -> None:
    ends_with_a_release(terminal)
    assert len(terminal.opened().ledger.spends(SCOPE)) == 1
    ends_with_a_release(terminal)  # again: found, not made, and charged once
    assert len(terminal.opened().ledger.spends(SCOPE)) == 1
    erased = terminal.privet("erase", "customer-3", "--case", "C-1", "--home", terminal.home, "--json")
    assert erased.code == 0, erased.err
    receipt = json.loads(erased.out)
    assert receipt["was_known"]
    assert len(receipt["models"]) == 1
    vault = terminal.opened().vault
    token = vault.token("test_chat", "customer-3")
    assert vault.is_erased("test_chat", token)
    assert vault.reveal("test_chat", token) == []


@pytest.mark.parametrize("leased", [0, 12])
def test_a_server_that_dies_in_the_middle_costs_nothing_and_doubles_nothing(
    terminal: Terminal, postgres_server: PostgresServer, leased: int
) -> None:
    terminal.write_policy(**{"recipe.steps": 200})
    running = terminal.start()
    wait_for_lease(terminal, leased)
    postgres_server.kill9()
    try:
        out, err = running.communicate(timeout=100)
    finally:
        postgres_server.start()
    said = Said(running.returncode, out, err)
    assert said.code == 0 or said.fault == "E-DB-005", err
    before = [spend.leased for spend in terminal.opened().ledger.spends(SCOPE)]
    ends_with_a_release(terminal)
    (after,) = terminal.opened().ledger.spends(SCOPE)
    assert before in ([], [after.leased]) or before[0] <= after.leased
    assert after.settled is not None
    trace = json.loads((terminal.home / "releases" / "test_chat" / "bundle" / "trace.json").read_bytes())
    assert trace["steps"] == after.settled >= 200


def wait_for_lease(terminal: Terminal, steps: int) -> None:
    """Until the run has leased so many steps, or for 0 until it has journalled its first stage."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        home = terminal.opened()
        if steps == 0 and any(entry.kind == "stage" for entry in home.journal.entries()):
            return
        if any(0 < steps <= spend.leased for scope in home.ledger.scopes() for spend in home.ledger.spends(scope)):
            return
        time.sleep(0.05)
    raise AssertionError("the run did not come that far")
