"""Docs move with the code: commands, options, error codes and guarantees must be in them, and must exist."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.cli import build_parser
from pipeline.records import REASONS

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"\bE-[A-Z]+-[0-9]{3}\b")


def leaves(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(path), parser
    for group in groups:
        for name, child in group.choices.items():
            yield from leaves(child, (*path, name))


def source_files() -> list[Path]:
    return [p for top in ("privacy", "training", "pipeline", "dags") for p in (ROOT / top).rglob("*.py")]


def test_every_command_and_option_is_documented_and_has_help() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    for name, parser in leaves(build_parser()):
        assert f"`privet {name}" in text, name
        section = text.split(f"`privet {name}", 1)[1].split("\n## ", 1)[0]
        assert parser.description, name
        for action in parser._actions:
            for option in action.option_strings:
                if option not in ("-h", "--help"):
                    assert f"`{option}" in section or f"`{option}" in text.split("\n## ", 1)[0], f"{name} {option}"


def test_every_error_code_is_documented() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import make_errors; print(make_errors.table(), end='')"],
        cwd=ROOT / "docs",
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ROOT / "docs" / "errors.md").read_text() == made.stdout, "run: python docs/make_errors.py"
    used = {code for path in source_files() for code in CODE.findall(path.read_text())}
    assert sorted(code for code in used if f"| {code} |" not in made.stdout) == []


def test_every_row_of_the_error_table_says_something() -> None:
    """A code whose text was not found, or scraped from code beside it, tells nobody anything."""
    rows = re.findall(r"^\| (E-[A-Z]+-[0-9]{3}) \| (.*) \| (.*) \| (.*) \|$", (ROOT / "docs" / "errors.md").read_text(), re.M)
    kinds = {"reason"} | {kind for path in source_files() for kind in re.findall(r"^class (\w+)\(", path.read_text(), re.M)}
    assert len(rows) > 200
    assert [code for code, _, cause, _ in rows if len(re.findall(r"[A-Za-z][\w'.-]*", cause)) < 3] == []
    assert [code for code, _, cause, _ in rows if re.search(r"[(=]\w+=|\bfrom None\b|\belif\b|\w+=\w+", cause)] == []
    assert [(code, kind) for code, kind, _, _ in rows if kind not in kinds] == []
    assert [code for code, kind, _, remedy in rows if (kind != "reason") != bool(remedy.strip())] == []
    said = {code: cause for code, _, cause, _ in rows}
    assert {code: said[code] for code in REASONS} == dict(REASONS)


def test_every_guarantee_names_code_and_a_test_that_exist() -> None:
    rows = re.findall(r"^\| (?!claim|---)(.+?) \| (.+?) \| (.+?) \|$", (ROOT / "docs" / "guarantees.md").read_text(), re.M)
    assert len(rows) >= 15
    for claim, code, tests in rows:
        for name in re.findall(r"`([\w/.]+\.py)`", code):
            assert (ROOT / name).is_file(), f"{claim}: {name}"
        names_tests_that_exist(claim, tests)


def test_every_attack_of_the_threat_model_names_a_test_that_exists() -> None:
    rows = re.findall(
        r"^\| (?!attacker|---)(.+?) \| .+? \| .+? \| (.+?) \|$", (ROOT / "docs" / "threat-model.md").read_text(), re.M
    )
    assert len(rows) >= 20
    for attacker, tests in rows:
        names_tests_that_exist(attacker, tests)


def names_tests_that_exist(claim: str, tests: str) -> None:
    named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", tests)
    assert named, claim
    for file, test in named:
        assert (ROOT / file).is_file(), f"{claim}: {file}"
        if test:
            assert f"def {test}(" in (ROOT / file).read_text(), f"{claim}: {file}::{test}"


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} → {target}"
