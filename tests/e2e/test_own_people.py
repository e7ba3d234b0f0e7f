"""The README's way with real people: each keeps their own key, signs in a terminal, and the run continues."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.home import Home
from pipeline.logs import LogSpec, generate_logs
from pipeline.verify import verify_bundle

pytestmark = pytest.mark.slow
POLICY = Path(__file__).resolve().parents[2] / "dags" / "policies" / "demo_support_chat.yaml"


def test_people_with_their_own_keys_take_a_run_from_logs_to_a_verified_release(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home, logs = str(tmp_path / "home"), tmp_path / "logs"
    generate_logs(logs, LogSpec(seed=5, customers=700))

    def privet(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        seen = capfd.readouterr()
        return code, seen.out, seen.err

    def sign(gate: str, name: str, role: str) -> int:
        listed = [json.loads(line) for line in privet("approvals", "list", "--json", "--home", home)[1].splitlines()]
        request = next(r["id"] for r in listed if r["gate"] == gate)
        shown = privet("approvals", "show", request, "--home", home)[1]
        assert "demo_support_chat" in shown
        key, reason = str(tmp_path / f"{name}.key"), "looked at the evidence"
        return privet(
            "approvals", "sign", request, "--as", name, "--role", role, "--key", key, "--reason", reason, "--home", home
        )[0]

    run = ("run", str(POLICY), "--source", str(logs), "--home", home)
    assert privet("init", "--home", home)[0] == 0
    for name, role in (("ada", "steward"), ("olga", "privacy_officer"), ("erin", "engineer"), ("alan", "auditor")):
        public = privet("identity", "new", "--key", str(tmp_path / f"{name}.key"))[1].strip()
        assert privet("identity", "enrol", name, "--public", public, "--role", role, "--home", home)[0] == 0
    code, _, err = privet(*run, "--as", "erin")
    assert code == 3
    assert "E-RUN-001" in err
    assert sign("use", "erin", "steward") == 3  # the requester, and not a steward either
    assert sign("use", "ada", "steward") == 0
    code, _, err = privet(*run, "--as", "erin")
    assert code == 3
    assert "E-AUDIT-010" in err  # nobody drew the coins of the canaries
    draw = ("audit", "coins", "--as", "alan", "--key", str(tmp_path / "alan.key"), "--canaries", "200", "--home", home)
    assert privet(*draw, "--count", "2")[0] == 0
    assert privet(*run, "--as", "erin")[0] == 3  # trained and audited; now the release gate waits
    assert sign("release", "ada", "steward") == 0
    assert privet(*run, "--as", "erin")[0] == 3  # a quorum of two roles is not met by one
    assert sign("release", "olga", "privacy_officer") == 0
    code, _, err = privet(*run, "--as", "erin")
    assert code == 0, err
    bundle = Path(home) / "releases" / "demo_support_chat" / "bundle"
    verification = verify_bundle(bundle, Home.open(Path(home)).trust, datetime.now(UTC))
    assert verification.exit_code == 0
    assert verification.conclusion == "verified"
    assert "drawn and signed by alan, an auditor" in next(r.evidence for r in verification.rows if "canary coins" in r.claim)
    assert "hold their own keys" in next(r.evidence for r in verification.rows if r.claim == "whose decision it was")
