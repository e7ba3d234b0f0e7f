from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from tests.worlds.policies import policy_value


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_usage_errors_exit_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["nonsense"], ["verify"], ["verify", "--nope", "x"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    capsys.readouterr()


def test_policy_check_names_every_fault_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(policy_value(**{"budget.epsilon": -1, "colour": "green"}), sort_keys=False))
    code, _, err = call(capsys, "policy", "check", str(path))
    assert code == 2
    assert "colour: unknown field" in err
    assert "budget.epsilon: Input should be greater than 0" in err
    assert "E-POLICY-002" in err


def test_policy_check_prints_the_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(policy_value()))
    code, out, _ = call(capsys, "policy", "check", str(path))
    assert code == 0
    assert "sha256:" in out
    code, out, _ = call(capsys, "policy", "schema")
    assert code == 0
    assert json.loads(out)["additionalProperties"] is False


def test_a_missing_home_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "budget", "--home", str(tmp_path / "none"))
    assert (code, out) == (2, "")
    assert err.startswith("privet: E-HOME-001")
    assert err.count("\n") == 1


def test_an_unexpected_error_shows_its_type_but_not_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(path: Path) -> None:
        raise ValueError("ada@example.com")

    monkeypatch.setattr("privacy.policy_file.load_policy", explode)
    code, out, err = call(capsys, "policy", "check", "x.yaml")
    assert code == 1
    assert "E-INTERNAL-001" in err
    assert "ValueError" in err
    assert "ada" not in out + err


def test_people_can_be_enrolled_and_sign_with_their_own_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(tmp_path / "home")
    assert call(capsys, "init", "--home", home)[0] == 0
    code, public, _ = call(capsys, "identity", "new", "--key", str(tmp_path / "ada.key"))
    assert code == 0
    assert call(capsys, "identity", "new", "--key", str(tmp_path / "ada.key"))[0] == 2  # never overwritten
    assert call(capsys, "identity", "enrol", "ada", "--public", public.strip(), "--role", "steward", "--home", home)[0] == 0
    assert call(capsys, "identity", "enrol", "ada", "--public", public.strip(), "--role", "steward", "--home", home)[0] == 4
    code, out, _ = call(capsys, "identity", "list", "--home", home)
    assert code == 0
    assert "ada" in out
    assert call(capsys, "journal", "verify", "--home", home)[0] == 0
    assert call(capsys, "journal", "verify", "--home", home, "--anchor", "nonsense")[0] == 2
