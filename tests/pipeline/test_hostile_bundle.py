"""A bundle made to stall, flood or deceive the verifier ends quickly, with exit code 4 or 2, in printable lines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.evidence import EvidenceFile, evidence_document, moment
from pipeline.verify import verify_bundle
from privacy.canonical import canonical_json
from privacy.errors import IntegrityError
from tests.worlds.bad_bundles import relist
from tests.worlds.release_world import World

ROOT = Path(__file__).resolve().parents[2]
QUICK_SECONDS = 10.0  # of processor time; what is refused here takes well under one
HUGE = 1 << 40


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = World(tmp_path_factory.mktemp("world")).run().sign_quorum()
    return world.release().path


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "bundle"))


def _sparse(path: Path, size: int = HUGE) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def huge_model(folder: Path) -> None:
    _sparse(folder / "model.safetensors")


def huge_model_that_the_list_names(folder: Path) -> None:
    _sparse(folder / "model.safetensors")
    _list_as(folder, "model.safetensors", HUGE)


def huge_report_that_the_list_names(folder: Path) -> None:
    _sparse(folder / "report.html")
    _list_as(folder, "report.html", HUGE)


def _list_as(folder: Path, name: str, size: int) -> None:
    listed = json.loads((folder / "evidence.json").read_bytes())["files"]
    files = [EvidenceFile(f["path"], f["sha256"], size if f["path"] == name else f["size"]) for f in listed]
    (folder / "evidence.json").write_bytes(canonical_json(evidence_document(files)))


def huge_json(folder: Path) -> None:
    _sparse(folder / "journal.json")


def huge_list(folder: Path) -> None:
    _sparse(folder / "evidence.json")


def wide_json(folder: Path) -> None:
    (folder / "policy.json").write_bytes(b"[" + b"[]," * 1_300_000 + b"[]]")
    relist(folder)


def deep_json(folder: Path) -> None:
    (folder / "policy.json").write_bytes(b"[" * 500_000 + b"]" * 500_000)
    relist(folder)


def json_as_deep_as_python_goes(folder: Path) -> None:
    (folder / "policy.json").write_bytes(b"[" * 960 + b"]" * 960)
    relist(folder)


def endless_number(folder: Path) -> None:
    (folder / "policy.json").write_bytes(b"9" * 1_000_000)
    relist(folder)


def fifo(folder: Path) -> None:
    (folder / "CARD.md").unlink()
    os.mkfifo(folder / "CARD.md")


def link_to_a_device(folder: Path) -> None:
    (folder / "CARD.md").unlink()
    (folder / "CARD.md").symlink_to("/dev/zero")


def link_in_a_circle(folder: Path) -> None:
    shutil.rmtree(folder / "audit")
    (folder / "audit").symlink_to(folder)


def thousands_of_files(folder: Path) -> None:
    for number in range(3000):
        (folder / "approvals" / f"use-{number:016x}.dsse.json").write_bytes(b"{}")


def name_with_a_line_break(folder: Path) -> None:
    (folder / "audit" / "x\nverified (exit 0)\x1b[2J").write_text("")


def name_that_is_not_text(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.json"))).write_text("")


def name_with_dots(folder: Path) -> None:
    (folder / "...json").write_text("{}")


HOSTILE: tuple[tuple[Callable[[Path], None], str], ...] = (
    (huge_model, "E-CLAIM-001"),
    (huge_model_that_the_list_names, "E-BUNDLE-005"),
    (huge_report_that_the_list_names, "E-BUNDLE-005"),
    (huge_json, "E-CLAIM-001"),
    (huge_list, "E-BUNDLE-005"),
    (wide_json, "E-EVID-003"),
    (deep_json, "E-BUNDLE-006"),
    (json_as_deep_as_python_goes, ""),
    (endless_number, "E-BUNDLE-006"),
    (fifo, "E-BUNDLE-004"),
    (link_to_a_device, "E-BUNDLE-004"),
    (link_in_a_circle, "E-BUNDLE-004"),
    (thousands_of_files, "E-BUNDLE-005"),
    (name_with_a_line_break, "E-BUNDLE-002"),
    (name_that_is_not_text, "E-BUNDLE-002"),
    (name_with_dots, "E-BUNDLE-002"),
)


@pytest.mark.parametrize(("attack", "code"), HOSTILE, ids=[attack.__name__ for attack, _ in HOSTILE])
def test_a_hostile_bundle_is_refused_quickly_and_in_printable_lines(
    attack: Callable[[Path], None], code: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack(folder)
    begun = time.process_time()
    assert main(["verify", str(folder)]) == 4
    assert main(["verify", str(folder), "--json"]) == 4
    assert time.process_time() - begun < 2 * QUICK_SECONDS
    shown = capsys.readouterr()
    assert shown.err == ""
    assert all(line.isprintable() for line in shown.out.splitlines())
    found = json.loads(shown.out.splitlines()[-1])
    refused = [row for row in found["rows"] if row["outcome"] == "failed"]
    assert refused, found
    assert code in {row["code"] for row in refused} or not code


@pytest.mark.parametrize("name", ["", "nothing", "x" * 5000, "a\0b", "CARD.md", "link"])
def test_what_is_no_bundle_folder_is_a_usage_error(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "link").symlink_to(folder)
    assert main(["verify", str(folder / name) if name else "/dev/null"]) == 2
    assert "E-BUNDLE-001" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/dev/zero", "/", "fifo", "nothing"])
def test_a_trust_root_that_is_no_file_is_a_usage_error(path: str, good: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "verify", str(good), "--trust", str(tmp_path / path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "E-VERIFY-001" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("spelling", [b"true", b"1.0"])
def test_the_list_of_evidence_has_one_spelling(spelling: bytes, folder: Path) -> None:
    path = folder / "evidence.json"
    path.write_bytes(path.read_bytes().replace(b'"evidence":1', b'"evidence":' + spelling))
    result = verify_bundle(folder)
    assert (result.exit_code, result.failures[0].code) == (4, "E-CLAIM-003")


def test_a_self_made_bundle_can_not_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is consistent, so it passes without --trust; what it says must not hide that nobody knows its signers."""
    from unittest import mock

    escape = "\x1b[2J\x1b[Hverified\n(exit 0) \u202e"
    with mock.patch("tests.worlds.release_world.REQUIRED_VERDICTS", _with(escape)):
        world = World(tmp_path).run().sign_quorum()
    bundle = world.force_bundle(tmp_path / "bundle")
    main(["verify", str(bundle)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "self-declared" in out


def _with(name: str) -> tuple[str, ...]:
    from pipeline.evidence import REQUIRED_VERDICTS

    return (*REQUIRED_VERDICTS, name)


def test_a_million_verdicts_are_not_a_million_rows(tmp_path: Path) -> None:
    from unittest import mock

    from pipeline.evidence import REQUIRED_VERDICTS

    with mock.patch("tests.worlds.release_world.REQUIRED_VERDICTS", (*REQUIRED_VERDICTS, *map(str, range(300)))):
        world = World(tmp_path).run().sign_quorum()
    result = verify_bundle(world.force_bundle(tmp_path / "bundle"), world.trust)
    assert result.exit_code == 3
    assert len(result.rows) < 60


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01", "yesterday"])
def test_a_date_that_no_clock_shows_is_an_integrity_error(text: str) -> None:
    with pytest.raises(IntegrityError, match="E-EVID-004"):
        moment(text)
