"""What may pass between tasks: references and small scalars by exact form; everything a person could be found by is refused."""

from __future__ import annotations

import ast
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.airflow_xcom import ReferenceXCom
from pipeline.references import check_handover, is_reference
from privacy.errors import IntegrityError, PrivetError, UsageError

DIGEST = "sha256:" + "0a" * 32
KEY = "ledger:train-" + "0b" * 16
PASSES = [
    DIGEST, f"run:{DIGEST}", f"report:{DIGEST}", f"sealed:{DIGEST}", KEY, KEY + ".2", "passed", "failed", "not_evaluated",
    None, True, False, 0, -7, 9_999_999, 0.5, -1e-9, 3.141593, 0.1 + 0.2 - 0.3 == 0, [], [DIGEST, KEY],
]  # fmt: skip
REFUSED = [
    "x@y", "wei.zhang@mail.example", "run:wei", f"run:{DIGEST}@y", f"{DIGEST}\n", f" {DIGEST}", DIGEST.upper(), DIGEST[:-1],
    DIGEST + "0", "sha256:" + "１" * 64, "mail:" + DIGEST, "run:run:" + DIGEST, "ledger:train-x", KEY + ".0", KEY + ".1000",
    "run:13800138000", "sealed:110101199003074477", "13800138000", "4111111111111111", "", "Passed", "passed ", "hello",
    13800138000, 10_000_000, -10_000_000, 123456789.0, 0.12345678, float("nan"), float("inf"), -float("inf"), 1e300,
    b"sha256:" + b"0a" * 32, {"email": "x@y"}, {}, {"digest": DIGEST}, (DIGEST,), {DIGEST}, [[DIGEST]], ["x@y"], [DIGEST, 1],
    [DIGEST] * 1001, BaseException(), Path("/x"), 1 + 2j, range(3),
]  # fmt: skip


class Smuggler(str):
    """Equal to a reference, and prints something else."""

    def __str__(self) -> str:
        return "wei.zhang@mail.example"


class Word(StrEnum):
    PASSED = "passed"


@pytest.mark.parametrize("value", PASSES, ids=repr)
def test_references_and_small_scalars_pass_unchanged(value: Any) -> None:
    check_handover("return_value", value)
    stored: Any = ReferenceXCom.serialize_value(value, key="return_value")
    assert ReferenceXCom.deserialize_value(SimpleNamespace(value=stored)) == value


@pytest.mark.parametrize("value", [*REFUSED, Smuggler(DIGEST), Word.PASSED], ids=lambda v: repr(v)[:40])
def test_anything_else_is_refused_and_not_quoted(value: Any) -> None:
    with pytest.raises(UsageError, match="E-XCOM-001") as refused:
        ReferenceXCom.serialize_value(value, key="return_value")
    assert refused.value.__cause__ is None
    assert len(str(value)) < 4 or str(value) not in str(refused.value)


@pytest.mark.parametrize("value", REFUSED, ids=lambda v: repr(v)[:40])
def test_what_somebody_else_wrote_into_the_table_is_not_read(value: Any) -> None:
    with pytest.raises(IntegrityError, match="E-XCOM-003"):
        ReferenceXCom.deserialize_value(SimpleNamespace(value=value))


def test_a_stored_class_name_is_not_imported() -> None:
    stored = {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [DIGEST]}
    with pytest.raises(IntegrityError, match="E-XCOM-003"):
        ReferenceXCom.deserialize_value(SimpleNamespace(value=stored))


class Agreeable(str):
    """Equals everything."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False


@pytest.mark.parametrize(
    "key", ["wei.zhang@mail.example", "", "Return_value", None, "return_value ", Agreeable("wei.zhang@mail.example")]
)
def test_a_key_chosen_at_run_time_is_refused_and_not_quoted(key: Any) -> None:
    with pytest.raises(UsageError, match="E-XCOM-002") as refused:
        ReferenceXCom.serialize_value(DIGEST, key=key)
    assert "wei" not in str(refused.value)


def test_links_do_not_get_around_it() -> None:
    with pytest.raises(UsageError, match="E-XCOM"):
        ReferenceXCom._set_xcom_in_db("_link", "http://x/?who=wei", dag_id="d", task_id="t", run_id="r")


def test_every_public_way_in_goes_through_the_check() -> None:
    """A release of Airflow that adds a way to store must be looked at here."""
    from airflow.sdk.bases import xcom

    tree = ast.parse(Path(xcom.__file__).read_text())
    stores = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        if any(isinstance(n, ast.Call) and getattr(n.func, "id", "") == "SetXCom" for n in ast.walk(function))
    }
    assert stores == {"set", "aset", "_set_xcom_in_db"}


@given(st.text(max_size=120))
def test_no_text_but_a_reference_or_a_word_of_the_list_passes(text: str) -> None:
    try:
        check_handover("return_value", text)
    except PrivetError:
        return
    assert is_reference(text) or text in ("passed", "failed", "not_evaluated", "approve", "reject", "skipped")


@given(st.integers() | st.floats())
def test_no_number_that_passes_has_more_than_seven_digits(number: float) -> None:
    try:
        check_handover("return_value", number)
    except PrivetError:
        return
    digits = f"{number!r}".partition("e")[0].replace(".0", "").replace(".", "").lstrip("-0")
    assert len(digits) <= 7


def test_the_error_names_no_class_of_the_caller() -> None:
    made = type("Wei_Zhang_1990", (), {})
    with pytest.raises(UsageError) as refused:
        check_handover("return_value", made())
    assert "Wei" not in str(refused.value)
