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
    logs = ["logs", "generate", "x"]
    for arguments in (
        *([], ["nonsense"], ["verify"], ["verify", "--nope", "x"]),
        *([*logs, "--bad-lines", "-1"], [*logs, "--app-lines", "-1"], [*logs, "--customers", "0"], [*logs, "--customers", "x"]),
        ["demo", "--customers", "-3"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize("arguments", [["identity", "new", "--key"], ["logs", "generate", "--customers", "1"]])
@pytest.mark.parametrize("place", ["absent/deeper/x", "file/x"])
def test_a_mistyped_path_is_no_defect(
    arguments: list[str], place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    if arguments[0] == "logs" and place.startswith("absent"):
        place = "file"  # a folder of logs is made when missing
    code, out, err = call(capsys, *arguments, str(tmp_path / place))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("privet: E-DISK-003")


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


def test_policy_check_notes_a_role_that_nobody_of_the_home_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, home = tmp_path / "p.yaml", str(tmp_path / "home")
    value = policy_value(**{"approvals.release.quorum": {"stewart": 1, "privacy_officer": 1}})
    path.write_text(yaml.safe_dump(value))
    assert call(capsys, "init", "--demo-identities", "--home", home)[0] == 0
    code, out, _ = call(capsys, "policy", "check", str(path), "--home", home)
    assert code == 0
    assert "note: the release gate asks for 1 stewart, and this home names 0" in out
    assert "privacy_officer, and" not in out
    assert "note" not in call(capsys, "policy", "check", str(path), "--home", str(tmp_path))[1]  # no home there


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
    assert call(capsys, "journal", "verify", "--home", home)[0] == 3
    assert call(capsys, "journal", "verify", "--home", home, "--no-anchor")[0] == 0
    assert call(capsys, "journal", "verify", "--home", home, "--anchor", "nonsense")[0] == 2
