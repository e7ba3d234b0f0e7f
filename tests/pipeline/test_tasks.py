"""What the scheduler gets to see of a failure: never a record."""

from __future__ import annotations

import errno
import pickle
import traceback
from pathlib import Path

import pytest

from pipeline.faults import InternalFault
from pipeline.home import Home
from pipeline.tasks import enrolled_requester, run_protect, value_free
from privacy.errors import DataError, GateClosed, IntegrityError, PrivetError

POLICY = Path(__file__).resolve().parents[2] / "dags" / "policies" / "customer_service.yaml"
SECRET = "wei.zhang@example.com"


@value_free
def parses() -> None:
    raise ValueError(f"bad record: {SECRET}")


@value_free
def wraps() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise DataError("E-TEST-001", "a record is malformed", "Mend it") from error


@pytest.mark.parametrize(
    ("call", "code", "kind"), [(parses, "E-INTERNAL-001", InternalFault), (wraps, "E-TEST-001", DataError)]
)
def test_a_librarys_exception_cannot_quote_a_record(call: object, code: str, kind: type[PrivetError]) -> None:
    with pytest.raises(kind) as caught:
        call()  # type: ignore[operator]
    shown = "".join(traceback.format_exception(caught.value))
    assert caught.value.code == code
    assert SECRET not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SECRET not in str(pickle.loads(pickle.dumps(caught.value)))


def test_an_error_names_the_type_that_was_withheld() -> None:
    with pytest.raises(InternalFault, match="ValueError"):
        parses()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", SECRET), "E-DISK-001"),
        (MemoryError(SECRET), "E-MEMORY-001"),
        (KeyError(SECRET), "E-INTERNAL-001"),
    ],
)
def test_what_the_machine_lacks_has_its_own_code_in_a_task_too(error: Exception, code: str) -> None:
    @value_free
    def stops() -> None:
        raise error

    with pytest.raises(PrivetError, match=code) as caught:
        stops()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_value_that_is_no_digest_never_reaches_a_stage(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home", demo_identities=True)
    with pytest.raises(IntegrityError, match="E-STAGE-002") as caught:
        run_protect(home.path, POLICY, SECRET, "run", "demo_engineer")
    assert SECRET not in str(caught.value)


def test_a_manifest_of_another_stage_is_refused(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home", demo_identities=True)
    digest = home.store.put_json(_manifest("train", "sha256:" + "0" * 64))
    with pytest.raises(IntegrityError, match="E-STAGE-003"):
        run_protect(home.path, POLICY, digest, "run", "demo_engineer")


def test_a_policy_edited_during_a_run_does_not_inherit_its_results(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home", demo_identities=True)
    digest = home.store.put_json(_manifest("ingest", "sha256:" + "0" * 64))
    with pytest.raises(PrivetError, match="E-STAGE-004"):
        run_protect(home.path, POLICY, digest, "run", "demo_engineer")


def test_an_unknown_requester_cannot_start_a_run(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home", demo_identities=True)
    assert enrolled_requester(home.path, POLICY, None) == "demo_engineer"
    assert enrolled_requester(home.path, POLICY, "demo_officer") == "demo_officer"
    with pytest.raises(GateClosed, match="E-GATE-040"):
        enrolled_requester(home.path, POLICY, "root")


def _manifest(stage: str, policy: str) -> dict[str, object]:
    return {
        "stage": stage,
        "policy_digest": policy,
        "dataset": "x",
        "inputs": {},
        "outputs": {},
        "facts": {},
        "code_version": "0.1.0",
        "created_at": "2026-01-01T00:00:00+00:00",
    }
