from __future__ import annotations

import errno
import os
import pickle
import sqlite3
from pathlib import Path

import pytest

from pipeline.faults import as_privet_error
from privacy.errors import DataError, PrivetError


def test_what_a_library_said_about_a_value_does_not_get_out() -> None:
    try:
        int("ada@example.com")
    except ValueError as error:
        fault = as_privet_error(error)
    assert fault.code == "E-INTERNAL-001"
    assert "ada@example.com" not in str(fault) + repr(fault.args)
    assert "ValueError" in str(fault)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence(number: int) -> None:
    assert as_privet_error(OSError(number, "x")).code == "E-DISK-001"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((n, "E-DISK-002") for n in (errno.EACCES, errno.EPERM, errno.EROFS)),
        *((n, "E-DISK-003") for n in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)),
    ],
)
def test_a_wrong_or_forbidden_path_is_no_defect_and_is_not_quoted(number: int, code: str) -> None:
    fault = as_privet_error(OSError(number, os.strerror(number), "ada@example.com"))
    assert (fault.code, fault.exit_code) == (code, 2)
    assert os.strerror(number) in fault.cause
    assert "ada" not in str(fault)


def test_a_full_database_is_a_full_disk(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "x.sqlite")
    database.execute("pragma max_page_count=2")
    with pytest.raises(sqlite3.OperationalError) as caught:
        database.execute("create table t as select zeroblob(100000)")
    assert as_privet_error(caught.value).code == "E-DISK-001"


def test_our_own_errors_pass_through_and_survive_pickling() -> None:
    ours = DataError("E-TEST-001", "cause", "remedy")
    assert as_privet_error(ours) is ours
    again: PrivetError = pickle.loads(pickle.dumps(ours))
    assert (again.code, again.cause, again.remedy, str(again)) == ("E-TEST-001", "cause", "remedy", str(ours))
