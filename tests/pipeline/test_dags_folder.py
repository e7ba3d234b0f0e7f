"""Where DAG and policies come from, when the package is installed without them too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline import dags_folder as module
from pipeline.cli import main
from pipeline.dags_folder import dags_folder
from pipeline.demo import NON_PRIVATE, PRIVATE, demo_policy
from privacy.errors import UsageError
from privacy.policy_file import load_policy

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkout_finds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRIVET_DAGS", raising=False)
    assert dags_folder() == ROOT / "dags"


def test_the_setting_moves_the_demo_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "dags", tmp_path / "elsewhere")
    monkeypatch.setenv("PRIVET_DAGS", str(tmp_path / "elsewhere"))
    for name in (PRIVATE, NON_PRIVATE):
        assert demo_policy(name).is_relative_to(tmp_path)
        assert load_policy(demo_policy(name)).name == name


def test_an_installed_package_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PRIVET_DAGS", raising=False)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / "pipeline" / "dags_folder.py"))
    assert main(["demo", "--home", str(tmp_path / "home")]) == 2
    assert capsys.readouterr().err.startswith("privet: E-DAG-007")
    assert not (tmp_path / "home").exists()


def test_a_folder_without_the_dag_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVET_DAGS", str(tmp_path))
    with pytest.raises(UsageError, match="E-DAG-007"):
        dags_folder()
