"""A journal is never erased, so nothing in it may be about a person: not in clear, not as a token of the protected dataset."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.tables import read_batches
from privacy.checkpoint import TlogProof
from tests.worlds.chats import record
from tests.worlds.leaks import LeakScanner
from tests.worlds.terminal import ADDRESS, Terminal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Ingest to release, rejects, an erasure, a second run: every kind of entry that a home writes."""
    terminal = Terminal(tmp_path_factory.mktemp("terminal"))
    broken = [record(n, customer=f"customer-{n % 60}", id=7) for n in range(3)]
    terminal.write_source([record(n, customer=f"customer-{n % 60}") for n in range(180)] + broken)
    assert terminal.run().code == 0
    assert terminal.privet("erase", "customer-3", "--case", "T-1", "--home", terminal.home).code == 0
    terminal.write_policy(**{"budget.epsilon": 4.5})
    terminal.run()
    return terminal


def test_no_entry_names_a_person_in_clear_or_by_token(lived: Terminal) -> None:
    home = lived.opened()
    entries = home.journal.entries()
    text = "\n".join(json.dumps(e.to_json(), ensure_ascii=False) for e in entries)
    assert {"stage", "approval", "release", "erasure", "canary_commitment"} <= {e.kind for e in entries}
    assert not ADDRESS.search(text)
    tokens = [home.vault.token("test_chat", f"customer-{n}") for n in range(60)]
    assert [t for t in tokens if t in text] == []
    assert home.vault.erased_tokens("test_chat") & set(tokens), "the erased one's token must be among those looked for"


def test_the_tokens_looked_for_are_those_of_the_dataset(lived: Terminal) -> None:
    """Or the test above would look for nothing."""
    home = lived.opened()
    tokens = {home.vault.token("test_chat", f"customer-{n}") for n in range(60)}
    found: set[str] = set()
    from pipeline.stage import load_manifest

    for entry in home.journal.entries():
        if entry.kind == "stage" and entry.facts["stage"] == "protect":
            ref = load_manifest(home, str(entry.facts["manifest"])).outputs["protected"]
            if home.store.exists(ref):
                for batch in read_batches(home.store, ref, ["unit"]):
                    assert isinstance(batch, pa.RecordBatch)
                    found |= set(batch.column(0).to_pylist())
    assert len(found & tokens) >= 50


def test_neither_the_database_nor_what_is_carried_away_holds_a_person(lived: Terminal, tmp_path: Path) -> None:
    home = lived.opened()
    values = [f"user.{letter}@example.org" for letter in "abcdefghij"] + [f"customer-{n}" for n in range(10, 60)]
    scanner = LeakScanner([*values, *(home.vault.token("test_chat", f"customer-{n}") for n in range(60))])
    for name in ("journal.sqlite", "journal.sqlite-wal"):
        if (home.path / name).exists():
            (tmp_path / name).write_bytes((home.path / name).read_bytes())
    bundle = home.releases_dir / "test_chat" / "bundle"
    for path in (*bundle.glob("journal.json"), *bundle.glob("proofs/*")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        if path.suffix == ".tlog-proof":
            (tmp_path / f"{path.name}.entry").write_bytes(TlogProof.parse(path.read_text()).extra or b"")
    assert len(list(tmp_path.iterdir())) > 12
    assert scanner.scan(tmp_path) == []
    (tmp_path / "planted").write_bytes(base64.b64encode(b"xx user.c@example.org and customer-12 yy" * 3))
    assert len(scanner.scan(tmp_path)) == 1, "the scanner must find what is planted"
