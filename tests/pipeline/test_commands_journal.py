"""`privet journal`: what it says with an anchor, without one, and after each kind of attack; and the way to a witness."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.anchors import age_of
from pipeline.cli import main
from pipeline.commands_journal import _duration
from pipeline.home import Home, write_key_file
from pipeline.verify import verify_bundle
from privacy.checkpoint import TlogProof, Verifier
from privacy.database import Place, PostgresPlace
from privacy.entries import journal_verifier
from privacy.journal_audit import Anchor
from privacy.merkle import EMPTY_ROOT
from privacy.signing import SigningKey
from tests.worlds.intruder import Intruder
from tests.worlds.release_world import World

Call = Callable[..., tuple[int, str, str]]
NAME = "witness.example/w1"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["journal", *map(str, arguments)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def home(place: Place, tmp_path: Path) -> Home:
    """On either ground."""
    made = Home.create(tmp_path / "home", database=place.dsn if isinstance(place, PostgresPlace) else None)
    made.journal.append_many([("stage", {"run": "run-1", "number": n}) for n in range(99)])
    assert made.journal.checkpoint().size == 100
    return made


def test_without_an_anchor_it_says_so_and_is_not_passed(home: Home, call: Call) -> None:
    code, out, err = call("verify", "--home", home.path)
    assert code == 3
    assert "consistent in itself: 100 entries" in out
    assert "ok" not in out
    assert "E-JOURNAL-016: no anchor was given" in err
    code, out, err = call("verify", "--no-anchor", "--home", home.path)
    assert (code, err) == (0, "")
    code, out, _ = call("verify", "--json", "--home", home.path)
    assert (code, json.loads(out)["outcome"]) == (3, "not_evaluated")


def test_every_form_of_an_anchor_counts_and_its_age_is_told(home: Home, call: Call, tmp_path: Path) -> None:
    point = home.journal.checkpoint()
    note, request, proof = tmp_path / "note", tmp_path / "request", tmp_path / "proof"
    assert call("checkpoint", "--out", note, "--home", home.path)[0] == 0
    assert call("checkpoint", "--since", 0, "--out", request, "--home", home.path)[0] == 0
    assert call("prove", 7, "--out", proof, "--home", home.path)[0] == 0
    home.journal.append_many([("later", {}) for _ in range(5)])
    forms = (note, request, proof, f"100:{point.root_digest}", f"100:{point.root.hex()}", f"100:{point.note.splitlines()[2]}")
    for form in forms:
        code, out, err = call("verify", "--anchor", form, "--home", home.path)
        assert (code, err) == (0, "")
        assert "size 100, under a minute old; 5 entries came since" in out
    code, out, _ = call("verify", "--json", *(x for form in forms for x in ("--anchor", form)), "--home", home.path)
    told = json.loads(out)
    assert (code, told["outcome"], told["size"], len(told["anchors"])) == (0, "passed", 105, len(forms))
    assert {a["entries_since"] for a in told["anchors"]} == {5}


@pytest.mark.parametrize(
    "anchor",
    ["nonsense", "100", "100:", "-1:" + "0" * 64, "1:sha256:" + "g" * 64, f"0:{EMPTY_ROOT.hex()}", "/dev/zero"],
)
def test_what_is_no_anchor_is_a_usage_error(anchor: str, tmp_path: Path, call: Call) -> None:
    made = Home.create(tmp_path / "home")
    code, _, err = call("verify", f"--anchor={anchor}", "--home", made.path)
    assert (code, "E-JOURNAL-009" in err) == (2, True)


def test_a_checkpoint_of_another_journal_is_no_anchor(home: Home, call: Call, tmp_path: Path) -> None:
    other = Home.create(tmp_path / "other")
    note = tmp_path / "note"
    note.write_text(other.journal.checkpoint().note)
    code, _, err = call("verify", "--anchor", note, "--home", home.path)
    assert (code, "E-NOTE-003" in err) == (4, True)


def test_a_cut_tail_is_named_truncated(home: Home, call: Call, tmp_path: Path) -> None:
    home.journal.append_many([("later", {}) for _ in range(5)])
    note = tmp_path / "note"
    call("checkpoint", "--out", note, "--home", home.path)
    Intruder(home.place("journal")).cut(100)
    assert call("verify", "--no-anchor", "--home", home.path)[0] == 0
    code, _, err = call("verify", "--anchor", note, "--home", home.path)
    assert (code, "E-JOURNAL-010: TRUNCATED: the journal has size 100 < 105, which note has seen" in err) == (4, True)
    code, out, err = call("verify", "--json", "--anchor", note, "--home", home.path)
    assert (code, json.loads(out)["outcome"], json.loads(out)["code"], err) == (4, "failed", "E-JOURNAL-010", "")


def test_history_rewritten_with_the_stolen_key_is_named_a_fork(home: Home, call: Call, tmp_path: Path) -> None:
    note = tmp_path / "note"
    call("checkpoint", "--out", note, "--home", home.path)
    attacker = Intruder(home.place("journal"))
    attacker.replace(7, attacker.body(7).replace(b'"number":6', b'"number":7'))
    attacker.sign_again(home.key)
    assert call("verify", "--no-anchor", "--home", home.path)[0] == 0
    code, _, err = call("verify", "--anchor", note, "--home", home.path)
    assert (code, "E-JOURNAL-011: FORK: two roots at 100" in err) == (4, True)


def test_a_released_bundle_and_its_report_are_anchors(tmp_path: Path, call: Call) -> None:
    world = World(tmp_path).run().sign_quorum()
    bundle = world.release().path
    kept = Path(shutil.copytree(bundle, tmp_path / "kept"))
    code, out, err = call("verify", "--anchor", kept, "--home", world.home.path)
    assert (code, err) == (0, "")
    assert out.count("anchor: ") == 2
    commands = next(s for s in json.loads((kept / "report.json").read_bytes())["sections"] if s["key"] == "verify")["commands"]
    from_report = commands[1].split()[-1]
    assert from_report in (kept / "report.html").read_text()
    assert call("verify", "--anchor", from_report, "--home", world.home.path)[0] == 0
    shown = next(row.evidence for row in verify_bundle(kept, world.trust).rows if row.claim == "checkpoint of the journal")
    from_verifier = shown.split()[4].rstrip(",")
    assert call("verify", "--anchor", from_verifier, "--home", world.home.path)[0] == 0
    newest = Intruder(world.home.path / "journal.sqlite")("SELECT size FROM checkpoint ORDER BY size DESC LIMIT 12")
    Intruder(world.home.path / "journal.sqlite").cut(newest[-1][0])
    for anchor in (kept, from_report, from_verifier):
        code, _, err = call("verify", "--anchor", anchor, "--home", world.home.path)
        assert (code, "TRUNCATED" in err) == (4, True)


def test_show_is_for_people_or_for_machines(home: Home, call: Call) -> None:
    code, out, _ = call("show", "--home", home.path)
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 100)
    assert lines[0].split()[0] == "0"
    assert "home_created" in lines[0]
    code, out, _ = call("show", "--json", "--home", home.path)
    values = [json.loads(line) for line in out.splitlines()]
    assert [v["seq"] for v in values] == list(range(100))
    assert values[0]["digest"] == home.journal.entries()[0].digest


def test_a_proof_stands_for_itself(home: Home, call: Call) -> None:
    code, out, _ = call("prove", 42, "--home", home.path)
    proof = TlogProof.parse(out)
    assert code == 0
    assert proof.extra == home.journal.entries()[42].body
    code, key, _ = call("key", "--home", home.path)
    assert proof.verify(proof.extra or b"", Verifier.from_text(key)).size == 100
    assert Verifier.from_text(key) == journal_verifier(home.key.public_hex)
    code, _, err = call("prove", 100, "--home", home.path)
    assert (code, "E-JOURNAL-008" in err) == (2, True)
    code, _, err = call("checkpoint", "--since", 101, "--home", home.path)
    assert (code, "E-JOURNAL-008" in err) == (2, True)
    code, _, err = call("checkpoint", "--out", home.path / "no" / "where", "--home", home.path)
    assert (code, "E-JOURNAL-018" in err) == (2, True)


def test_to_a_witness_without_access_to_the_home_and_back(home: Home, call: Call, tmp_path: Path) -> None:
    """The whole round, with the files that people carry; the home is out of reach while the witness works."""
    key, public = tmp_path / "w.key", SigningKey.generate()
    write_key_file(key, public)
    assert main(["identity", "enrol", NAME, "--public", public.public_hex, "--role", "witness", "--home", str(home.path)]) == 0
    first, second, back = tmp_path / "first", tmp_path / "second", tmp_path / "back"
    log = call("key", "--home", home.path)[1].split()[-1]
    assert call("checkpoint", "--since", 0, "--out", first, "--home", home.path)[0] == 0
    at_witness = ("--state", tmp_path / "elsewhere", "--key", key, "--as", NAME)
    hidden = home.path.rename(tmp_path / "hidden")
    code, _, err = call("witness", first, *at_witness)
    assert (code, "E-WITNESS-001" in err) == (2, True)
    code, cosigned, _ = call("witness", first, *at_witness, "--log", log)
    assert (code, cosigned.count("— ")) == (0, 2)
    hidden.rename(home.path)
    home.journal.append("more", {})
    assert call("checkpoint", "--since", 102, "--out", second, "--home", home.path)[0] == 0
    assert call("witness", second, *at_witness, "--out", back)[0] == 0
    code, out, _ = call("accept", back, "--home", home.path)
    assert (code, out) == (0, f"kept: size 103, cosigned by {NAME}\n")
    code, out, _ = call("verify", "--anchor", back, "--home", home.path)
    assert (code, f"back, cosigned by {NAME}, size 103" in out) == (0, True)
    Intruder(home.place("journal")).cut(102)
    code, note, _ = call("checkpoint", "--home", home.path)
    (tmp_path / "cut").write_text(note)
    code, _, err = call("witness", tmp_path / "cut", *at_witness)
    assert (code, "E-WITNESS-002: ROLLBACK" in err) == (4, True)


def test_a_proof_may_be_a_file_of_its_own(home: Home, call: Call, tmp_path: Path) -> None:
    key = tmp_path / "w.key"
    write_key_file(key, SigningKey.generate())
    at_witness = ("--state", tmp_path / "elsewhere", "--key", key, "--as", NAME)
    log = call("key", "--home", home.path)[1].strip()
    note, proof = tmp_path / "note", tmp_path / "proof"
    note.write_text(home.journal.checkpoint().note)
    assert call("witness", note, *at_witness, "--log", log)[0] == 0
    home.journal.append("more", {})
    text = call("checkpoint", "--since", 100, "--home", home.path)[1]
    proof.write_text(text.partition("\n\n")[0] + "\n")
    note.write_text(text.partition("\n\n")[2])
    assert call("witness", note, *at_witness)[0] == 2
    assert call("witness", note, *at_witness, "--proof", proof)[0] == 0


def test_a_witness_nobody_enrolled_is_not_taken(home: Home, call: Call, tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text(home.journal.checkpoint().note)
    code, _, err = call("accept", note, "--home", home.path)
    assert (code, "E-JOURNAL-017" in err) == (2, True)
    spaced = ["identity", "enrol", "a witness", "--public", "ab" * 32, "--role", "witness", "--home", str(home.path)]
    assert main(spaced) == 2  # such a name can't stand in a signature line
    key = tmp_path / "w.key"
    write_key_file(key, SigningKey.generate())
    for name, log, fault in ((NAME, "nonsense", "E-WITNESS-010"), ("a+b", "x", "E-WITNESS-011")):
        code, _, err = call("witness", note, "--state", tmp_path / "w", "--key", key, "--as", name, "--log", log)
        assert (code, fault in err) == (2, True)


def test_ages_in_words() -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    cases = ((10, "under a minute"), (60, "1 minute"), (7200, "2 hours"), (86400 * 3, "3 days"))
    for seconds, said in cases:
        noted = Anchor(1, b"", "x", (now - timedelta(seconds=seconds)).isoformat())
        age = age_of(noted, None, now)
        assert age == seconds
        assert _duration(age) == said
    assert age_of(Anchor(1, b"", "x"), None, now) is None
    assert age_of(Anchor(1, b"", "x", "2099-01-01T00:00:00+00:00"), None, now) == 0.0
