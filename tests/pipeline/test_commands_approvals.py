"""The commands of the gates, as people type them: conditions, referral, delegation, revocation and its list."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.home import add_person, write_key_file
from pipeline.verify import verify_bundle
from privacy.revocation import read_revocations
from privacy.signing import Person, SigningKey
from tests.worlds.release_world import World


class Desk:
    """A home whose release waits, and the people's key files."""

    def __init__(self, path: Path) -> None:
        self.world = World(path)
        self.world.keys["sam"] = SigningKey.generate()
        add_person(self.world.home, Person("sam", self.world.keys["sam"].public_hex, ("engineer",)))
        self.world.run()
        self.path = path
        for name, key in self.world.keys.items():
            write_key_file(path / f"{name}.key", key)

    def run(self, *words: str, by: str = "", role: str = "") -> int:
        who = ["--as", by, "--role", role, "--reason", "read it all", "--key", str(self.path / f"{by}.key")] if by else []
        return main([*words, *who, "--home", str(self.world.home.path)])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_conditions_and_a_lent_role_from_the_command_line(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    one = desk.world.request.id
    sign = ("approvals", "sign", one)
    assert desk.run(*sign, "--condition", "epsilon <= 1", by="grace", role="steward") == 3
    assert "E-GATE-043" in capsys.readouterr().err
    assert desk.run(*sign, "--condition", "rubbish", by="grace", role="steward") == 4
    assert desk.run(*sign, "--refer-to", "steward", by="grace", role="steward") == 2
    assert desk.run(*sign, "--condition", "epsilon <= 8", "--condition", "release test_chat", by="grace", role="steward") == 0
    lend = ("approvals", "delegate", "--to", "sam", "--policy", "test_chat", "--gate", "release", "--until")
    assert desk.run(*lend, "yesterday", by="ada", role="privacy_officer") == 2
    until = (desk.world.now - timedelta(days=1)).date().isoformat()
    assert desk.run(*lend, until, by="ada", role="privacy_officer") == 2  # over before it began
    end = f"{(desk.world.now + timedelta(days=2)).date()}T00:00:00+00:00"
    assert desk.run(*lend, end, by="ada", role="privacy_officer") == 0
    assert desk.run(*sign, by="sam", role="privacy_officer") == 0
    capsys.readouterr()
    assert desk.run("approvals", "show", one, "--facts") == 0
    shown = capsys.readouterr().out
    for line in ("if epsilon <= 8, if release == test_chat", "lent by ada", "epsilon: ", "verdict.probe.clipping: passed"):
        assert line in shown
    assert desk.run("approvals", "list") == 0
    assert "lent: privacy_officer of ada to sam" in capsys.readouterr().out
    assert verify_bundle(desk.world.release().path, desk.world.trust).exit_code == 0


def test_a_referral_from_the_command_line_is_shown_as_such(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("approvals", "sign", desk.world.request.id, "--decision", "refer", "--refer-to", "privacy_officer")
    assert desk.run(*words, by="grace", role="steward") == 0
    assert desk.run("approvals", "list") == 0
    assert "referred" in capsys.readouterr().out


def test_a_release_is_revoked_by_its_folder_and_the_list_is_written(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.world.sign_quorum()
    bundle = desk.world.release().path
    out = desk.path / "revocations.dsse.json"
    assert desk.run("release", "revocations", "--out", str(out)) == 0
    assert verify_bundle(bundle, desk.world.trust, None, out.read_bytes()).exit_code == 0
    assert desk.run("release", "revoke", str(desk.path), by="grace", role="steward") == 2
    assert desk.run("release", "revoke", str(bundle), "--code", "erasure", by="sam", role="engineer") == 3
    assert desk.run("release", "revoke", str(bundle), "--code", "erasure", by="grace", role="steward") == 0
    assert desk.run("release", "revocations", "--out", str(out), "--days", "0") == 2
    officer = ("--as", "ada", "--key", str(desk.path / "ada.key"))
    assert desk.run("release", "revocations", "--out", str(out), "--days", "3", *officer) == 0
    found = read_revocations(out.read_bytes(), desk.world.trust)
    assert (found.number, found.signer, [e.reason for e in found.entries]) == (2, "ada", ["erasure"])
    assert verify_bundle(bundle, desk.world.trust, None, out.read_bytes()).exit_code == 3
    assert [p.name for p in desk.path.iterdir() if p.name.startswith(".")] == []
    steward = ("--as", "grace", "--key", str(desk.path / "grace.key"))
    assert desk.run("release", "revocations", "--out", str(out), *steward) == 4  # a steward signs no list
    assert "E-REVOKE-001" in capsys.readouterr().err
