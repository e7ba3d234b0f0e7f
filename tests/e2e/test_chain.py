"""The whole chain in one process: what leaves, what is refused, and that no personal data is left lying about."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.home import Home
from pipeline.logs import GeneratedLogs, LogSpec, generate_logs
from pipeline.verify import verify_bundle
from tests.worlds.leaks import LeakScanner

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "dags" / "policies"
FINANCE = ROOT.parent / "shared" / "data" / "multidogo" / "finance"


@dataclass(frozen=True)
class Chain:
    home: Path
    logs: GeneratedLogs
    folder: Path
    bundle: Path
    printed: str
    refusal: str


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Both demo policies, run as a user would; the output of the commands is kept for the leak test."""
    root = tmp_path_factory.mktemp("chain")
    home, folder = root / "home", root / "landing"
    logs = generate_logs(folder, LogSpec(seed=7, customers=700, app_lines=50, bad_lines=9))
    environment = {**os.environ, "PRIVET_HOME": str(home), "OMP_NUM_THREADS": "2"}

    def privet(policy: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pipeline.cli",
            "run",
            str(POLICIES / policy),
            "--source",
            str(folder),
            "--demo-approvals",
        ]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)

    refused = privet("demo_support_chat_non_private.yaml")
    assert refused.returncode == 3, refused.stderr[-3000:]
    released = privet("demo_support_chat.yaml")
    assert released.returncode == 0, released.stderr[-3000:]
    printed = refused.stdout + refused.stderr + released.stdout + released.stderr
    return Chain(home, logs, folder, home / "releases" / "demo_support_chat" / "bundle", printed, refused.stderr)


def test_the_bundle_verifies_with_nothing_but_its_files(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain.bundle, tmp_path / "bundle")
    trust = Home.open(chain.home).trust
    assert verify_bundle(tmp_path / "bundle", trust, datetime.now(UTC)).exit_code == 0


def test_the_non_private_model_is_refused_with_its_reasons(chain: Chain) -> None:
    assert "E-RELEASE" in chain.refusal
    for reason in ("epsilon", "noise"):
        assert reason in chain.refusal
    assert not (chain.home / "releases" / "demo_support_chat_non_private" / "bundle").exists()


def test_no_planted_value_lies_anywhere_in_the_home(chain: Chain) -> None:
    scanner = LeakScanner(chain.logs.planted)
    assert len(scanner.values) > 500
    assert scanner.scan(chain.folder), "the scanner must find the values where they were planted"
    assert scanner.scan(chain.home) == []
    assert scanner.search(chain.printed.encode()) == set()


def test_running_again_finds_its_own_results(chain: Chain, capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(p.name for p in (chain.home / "objects").rglob("*"))
    spent = Home.open(chain.home).ledger.spends("demo_support_chat/customer")
    policy = POLICIES / "demo_support_chat.yaml"
    code = main(["run", str(policy), "--source", str(chain.folder), "--home", str(chain.home), "--demo-approvals"])
    assert code == 0, capfd.readouterr().err
    assert sorted(p.name for p in (chain.home / "objects").rglob("*")) == before
    assert Home.open(chain.home).ledger.spends("demo_support_chat/customer") == spent


def test_a_changed_policy_voids_the_approval(chain: Chain, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    value = yaml.safe_load((POLICIES / "demo_support_chat.yaml").read_text())
    value["purpose"] += " And for something nobody approved."
    policy = tmp_path / "demo_support_chat.yaml"
    policy.write_text(yaml.safe_dump(value, allow_unicode=True))
    code = main(["run", str(policy), "--source", str(chain.folder), "--home", str(chain.home)])
    assert code == 3
    assert "E-RUN-001" in capfd.readouterr().err


def test_erasing_a_customer_names_what_it_touches(chain: Chain, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(chain.home, home, symlinks=True)
    subject = json.loads(next(iter(_lines(chain.folder))))["customer"]
    assert main(["erase", subject, "--case", "T-1", "--home", str(home), "--json"]) == 0
    printed = capfd.readouterr().out
    receipt = json.loads(printed)
    assert subject not in printed
    assert "demo_support_chat" in json.dumps(receipt)
    opened = Home.open(home)
    token = opened.vault.token("demo_support_chat", subject)
    assert opened.vault.is_erased("demo_support_chat", token)
    assert opened.vault.reveal("demo_support_chat", token) == []


@pytest.mark.shared_data
@pytest.mark.skipif(not FINANCE.is_dir(), reason="the MultiDoGO finance chats are not beside this checkout")
def test_customer_service_runs_on_real_chats(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    policy = POLICIES / "customer_service.yaml"
    code = main(["run", str(policy), "--source", str(FINANCE), "--home", str(home), "--demo-approvals"])
    assert code == 0, capfd.readouterr().err
    bundle = home / "releases" / "customer_service" / "bundle"
    assert verify_bundle(bundle, Home.open(home).trust, datetime.now(UTC)).exit_code == 0


def _lines(folder: Path) -> list[str]:
    import gzip

    with gzip.open(sorted(folder.glob("chats-*.jsonl.gz"))[0], "rt") as file:
        return [next(file) for _ in range(3)]
