"""A short run of the fuzzer with its seed corpus; CONTRIBUTING.md has the long one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import fuzz_structure

pytest.importorskip("atheris", reason="the fuzzer is an extra")


@pytest.mark.slow
def test_half_a_minute_of_fuzzing_breaks_nothing(tmp_path: Path) -> None:
    seeds = tmp_path / "corpus"
    shutil.copytree(fuzz_structure.CORPUS, seeds)  # libFuzzer writes what it finds there
    command = [sys.executable, fuzz_structure.__file__, "-max_total_time=25", "-max_len=600", "-len_control=0",
               "-rss_limit_mb=6144",  # the language models alone take 2 GB, libFuzzer's usual limit
               f"-artifact_prefix={tmp_path}/crash-", str(seeds)]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Done" in run.stderr


def test_the_check_notices_what_it_is_there_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the fitting of replacements to JSON, a number that is found must make the check fail."""
    from privacy import deidentify

    monkeypatch.setattr(deidentify, "fit", lambda text, edits: list(edits))
    with pytest.raises(AssertionError):
        fuzz_structure.check('{"phone":5551234567}')
