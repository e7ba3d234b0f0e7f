"""`privet search` and `privet compress` from the command line: what they print, and what they leave where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.home import Home
from privacy.policy import Policy
from tests.pipeline.test_search import COMPOSED, PROXY, SELECTION, write_public
from tests.worlds.policies import policy_value

SMALL = {"recipe": {"steps": 5, "hash_buckets": 64, "embedding_width": 4, "max_tokens": 8}}


def policy_file(folder: Path, **changes: object) -> Path:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy_value(**{**SMALL, **changes})))
    return path


def test_a_search_on_a_public_set_prints_its_trials_and_writes_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_public(tmp_path)
    policy = policy_file(tmp_path, search=PROXY)
    home = tmp_path / "home"
    Home.create(home, demo_identities=True)
    assert main(["search", str(policy), "--home", str(home), "--out", str(tmp_path / "won.yaml")]) == 0
    said = capsys.readouterr().out
    assert "epsilon 0 was spent" in said
    assert "learning_rate" in said
    won = yaml.safe_load((tmp_path / "won.yaml").read_text())
    Policy.model_validate(policy_value(**{**SMALL, "recipe": {**SMALL["recipe"], **won["recipe"]}}))
    assert main(["search", str(policy), "--home", str(home), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["winner"]["settings"] == won["recipe"]


@pytest.mark.parametrize("block", [SELECTION, COMPOSED], ids=["selection", "composition"])
def test_the_plan_of_a_search_costs_and_writes_nothing(
    block: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = policy_file(tmp_path, search=block)
    before = sorted(tmp_path.rglob("*"))
    assert main(["search", str(policy), "--plan", "--json", "--home", str(tmp_path / "home")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 7.9 < found["epsilon"] <= 8.0
    assert 0 < found["trial_epsilon"] < found["epsilon"]
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["search", str(policy), "--plan"]) == 0
    assert "the search reserves epsilon" in capsys.readouterr().out


def test_what_is_missing_is_said_with_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    Home.create(home, demo_identities=True)
    bare = policy_file(tmp_path)
    assert main(["search", str(bare), "--home", str(home)]) == 2
    assert "E-SEARCH-005" in capsys.readouterr().err
    assert main(["compress", str(bare), "sha256:" + "0" * 64, "--home", str(home)]) == 2
    assert "E-COMPRESS-006" in capsys.readouterr().err
    private = policy_file(tmp_path, search=SELECTION)
    assert main(["search", str(private), "--home", str(home)]) == 3
    assert "E-SEARCH-006" in capsys.readouterr().err
