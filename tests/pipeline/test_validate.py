"""A validation that checked nothing does not pass, and its evidence holds no value."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipeline.ingest import ingest
from pipeline.protect import protect
from pipeline.residual import without_residual
from pipeline.stage import StageResult, load_manifest
from pipeline.validate import Checked, _checked, _outcome, build_suite, judge, run_suite, validate, what_failed
from privacy.errors import PrivetError
from privacy.policy import Policy
from tests.worlds.chats import PLANTED, BlindDetector, EmailDetector, World, lines, record, records
from tests.worlds.policies import make_policy

RANK = "privet.record_of_unit"


def frame(count: int = 12, /, **changes: object) -> pd.DataFrame:
    units = [f"u{'abcdef'[n % 6] * 24}" for n in range(count)]
    table = {
        "unit": units,
        "record_id": [f"r{'abcdefghijklmnopqrstuvwxyz'[n] * 24}" for n in range(count)],
        "time": [None] * count,
        "lang": ["en"] * count,
        "text": ["where is my parcel"] * count,
        "label": ["refund"] * count,
        "channel": ["web"] * count,
    }
    made = pd.DataFrame({**table, **changes})
    made[RANK] = made.groupby("unit").cumcount() + 1
    return made


def failing(made: pd.DataFrame, policy: Policy | None = None) -> set[str]:
    return {f"{c.expectation}:{c.column}" for c in run_suite(made, policy or make_policy()) if c.outcome != "passed"}


def twelve(first: object, rest: object) -> list[object]:
    return [first] + [rest] * 11


def test_a_good_dataset_passes_every_expectation() -> None:
    checked = run_suite(frame(), make_policy())
    assert [c for c in checked if c.outcome != "passed"] == []
    assert judge(checked) == "passed"
    assert len(checked) == len(build_suite(make_policy()).expectations) == 16


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        ({"record_id": ["r" + "a" * 24] * 12}, "expect_column_values_to_be_unique:record_id"),
        ({"record_id": twelve(None, "r" + "b" * 24)}, "expect_column_values_to_not_be_null:record_id"),
        ({"record_id": twelve("m1", "r" + "b" * 24)}, "expect_column_values_to_match_regex:record_id"),
        ({"unit": twelve(None, "u" + "b" * 24)}, "expect_column_values_to_not_be_null:unit"),
        ({"unit": twelve("wei@example.org", "u" + "b" * 24)}, "expect_column_values_to_match_regex:unit"),
        ({"unit": twelve("u" + "b" * 24 + "\n", "u" + "b" * 24)}, "expect_column_values_to_match_regex:unit"),
        ({"label": twelve("Refund", "refund")}, "expect_column_values_to_be_in_set:label"),
        ({"label": twelve(None, "refund")}, "expect_column_values_to_not_be_null:label"),
        ({"text": twelve("  ", "hello")}, "expect_column_values_to_match_regex:text"),
        ({"text": twelve(f"mail {PLANTED}", "hello")}, "expect_column_values_to_hold_no_residual_pii:text"),
        ({"channel": twelve(PLANTED, "web")}, "expect_column_values_to_hold_no_residual_pii:channel"),
        ({"subject": ["x"] * 12}, "expect_table_columns_to_match_set:None"),
        ({"unit": ["u" + "a" * 24] * 12}, f"expect_column_values_to_be_between:{RANK}"),
    ],
)
def test_each_fault_is_caught_by_the_expectation_that_is_there_for_it(change: dict[str, object], caught: str) -> None:
    assert caught in failing(frame(**change))


def test_too_few_records_and_units_fail() -> None:
    policy = make_policy(**{"expectations.min_records": 13, "expectations.min_units": 7})
    assert failing(frame(), policy) == {
        "expect_table_row_count_to_be_between:None",
        "expect_column_unique_value_count_to_be_between:unit",
    }


def test_a_missing_column_is_an_error_and_not_a_pass() -> None:
    checked = run_suite(frame().drop(columns=["text"]), make_policy())
    raised = [c for c in checked if c.errored]
    assert {c.column for c in raised} == {"text"}
    assert all(c.outcome == "not_evaluated" for c in raised)
    assert judge(checked) == "failed"


def test_an_empty_dataset_is_not_evaluated_rather_than_passed() -> None:
    checked = run_suite(frame(0), make_policy())
    assert judge(checked) == "not_evaluated"
    assert all(c.outcome != "passed" for c in checked if "element_count" in c.counts)


def test_residual_pii_may_be_tolerated_only_up_to_the_declared_rate() -> None:
    made = frame(text=twelve(f"mail {PLANTED}", "hello"))
    assert failing(made, make_policy(**{"expectations.max_residual_pii_rate": 0.1})) == set()
    assert failing(made, make_policy(**{"expectations.max_residual_pii_rate": 0.05})) != set()


def test_types_kept_on_purpose_are_not_residual() -> None:
    assert without_residual([f"mail {PLANTED}"], ["EMAIL_ADDRESS"], 0.4) == [True]
    assert without_residual([f"mail {PLANTED}", "<EMAIL_ADDRESS>", "<EMAIL_ADDRESS_3fa9c1>"], [], 0.4) == [False, True, True]


def test_no_value_passes_the_projection() -> None:
    """Canary: every column but the counts holds the planted value; no output may."""
    made = frame(**{name: [PLANTED] * 12 for name in ("unit", "record_id", "text", "label", "channel", "lang")})
    checked = run_suite(made, make_policy())
    assert sum(c.outcome == "failed" for c in checked) >= 6
    assert PLANTED not in json.dumps([c.to_json() for c in checked])
    assert PLANTED not in repr(checked)


def test_the_projection_drops_what_the_library_would_tell() -> None:
    told = {
        "success": False,
        "expectation_config": {
            "type": "expect_x",
            "kwargs": {"column": "text", "value_set": [PLANTED]},
            "meta": {"note": PLANTED},
        },
        "result": {
            "element_count": 3,
            "unexpected_count": 1,
            "partial_unexpected_list": [PLANTED],
            "observed_value": PLANTED,
            "details": {"mismatched": PLANTED},
        },
        "exception_info": {"raised_exception": False, "exception_message": PLANTED},
    }
    assert _checked(told) == Checked("expect_x", "text", "failed", False, {"element_count": 3, "unexpected_count": 1})


@pytest.mark.parametrize(
    ("success", "errored", "counts", "has_result", "outcome"),
    [
        (True, False, {"element_count": 3, "unexpected_count": 0}, True, "passed"),
        (True, False, {"element_count": 0, "unexpected_count": 0}, True, "not_evaluated"),
        (True, False, {"element_count": 3, "missing_count": 3, "unexpected_count": 0}, True, "not_evaluated"),
        (True, True, {"element_count": 3}, True, "not_evaluated"),
        (True, False, {}, False, "not_evaluated"),
        (False, False, {"element_count": 3}, True, "failed"),
    ],
)
def test_success_over_nothing_is_not_success(
    success: bool, errored: bool, counts: dict[str, int], has_result: bool, outcome: str
) -> None:
    assert _outcome(success, errored, counts, has_result) == outcome


def chain(world: World, values: list[dict[str, object]], detector: object = None, **changes: object) -> StageResult:
    world.write("a.jsonl", lines(values))
    ctx = world.context(**changes)
    done = protect(ctx, ingest(ctx, str(world.source)).digest, detector or EmailDetector())  # type: ignore[arg-type]
    return validate(ctx, done.digest)


def test_the_stage_passes_and_its_evidence_is_found_again(world: World) -> None:
    result = chain(world, records(20))
    facts = result.manifest.facts
    assert (facts["verdict"], facts["records"], facts["units"], facts["residual_pii"]) == ("passed", 20, 5, 0)
    assert facts["evaluated"] == facts["expectations"] == 16
    told = json.loads(world.home.store.read_plain(result.manifest.outputs["validation"]))
    assert told["verdict"] == "passed"
    assert told["protect"] == result.manifest.inputs["protect"]
    assert validate(world.context(), result.manifest.inputs["protect"]).reused


def test_a_blind_detector_does_not_get_past_validation(world: World) -> None:
    """The detector missed a planted address: the second look closes the gate, keeps evidence, and shows no value."""
    with pytest.raises(PrivetError) as caught:
        chain(world, [*records(8), record(9, text=f"mail {PLANTED}")], BlindDetector())
    assert caught.value.code == "E-VALIDATE-001"
    assert caught.value.exit_code == 3
    assert "expectations.max_residual_pii_rate: 9 of 9 records hold personal data in text" in caught.value.cause
    entry = world.home.journal.entries()[-1]
    assert entry.kind == "validation_failed"
    evidence = world.home.store.get_plain(str(entry.facts["evidence"]))
    assert json.loads(evidence)["facts"]["residual_pii"] == 9
    assert PLANTED.encode() not in evidence + str(caught.value).encode()
    assert PLANTED.encode() not in world.objects_without_key()


def test_a_closed_gate_names_the_key_of_the_policy_and_counts(world: World) -> None:
    with pytest.raises(PrivetError) as caught:
        chain(world, records(12), **{"expectations.min_units": 100, "expectations.min_records": 13})
    said = f"{caught.value.cause} {caught.value.remedy}"
    assert "expectations.min_records: 12 of 13 wanted" in said
    assert re.search(r"expectations\.min_units: \d+ of 100 wanted", said)
    assert "expect_" not in said
    assert "sha256:" not in said


KEYS = {
    *(f"expectations.{k}" for k in ("labels", "min_records", "min_units", "text_completeness", "max_residual_pii_rate")),
    *(f"source.fields.{k}" for k in ("subject", "record_id", "label", "text", "keep")),
    "source.fields",
    "privacy_unit.max_records",
}


def test_every_expectation_of_the_suite_has_a_key_of_the_policy() -> None:
    """Whatever the suite asks, what is said when it fails names a key that the policy knows, and no value."""
    policy = make_policy(**{"expectations.min_records": 13})
    spoilt = frame(**{name: [PLANTED] * 12 for name in ("unit", "record_id", "text", "label", "channel", "lang")})
    for checked in (run_suite(spoilt, policy), run_suite(frame(0), policy), run_suite(frame().drop(columns=["text"]), policy)):
        for item in checked:
            said = what_failed(item, policy)
            assert said.split(": ")[0] in KEYS, said
            assert PLANTED not in said
            assert "expect_" not in said


def test_a_dataset_emptied_by_erasure_was_not_validated(world: World) -> None:
    world.write("a.jsonl", lines([record(1), record(6)]))
    ctx = world.context()
    done = protect(ctx, ingest(ctx, str(world.source)).digest, EmailDetector())
    world.home.vault.erase("test_chat", "customer-1", "case-1")
    with pytest.raises(PrivetError) as caught:
        validate(ctx, done.digest)
    assert caught.value.code == "E-VALIDATE-002"
    assert load_manifest(world.home, done.digest).facts["records"] == 2


def test_the_library_writes_no_file_and_says_nothing(tmp_path: Path) -> None:
    """In a process of its own, with its own HOME: nothing on disk, nothing on stdout or stderr, analytics off."""
    code = (
        "import logging, os, tests.pipeline.test_validate as t\n"
        "logging.basicConfig(level=logging.INFO)\n"  # as an Airflow task does
        f"os.chdir({str(tmp_path)!r})\n"
        "made = t.frame(text=t.twelve('mail ' + t.PLANTED, 'hi'))\n"
        "assert t.judge(t.run_suite(made, t.make_policy())) == 'failed'\n"
        "assert os.environ['GX_ANALYTICS_ENABLED'] == 'false'\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.rglob("*")) == []
