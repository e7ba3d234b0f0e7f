"""A receipt is checked by a stranger: with its file, a trust root and the day, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta

import pytest

from pipeline.receipt import (
    COMPLETED_TYPE,
    ERASURE_TYPE,
    ArtifactTouched,
    DatasetTouched,
    ErasureReceipt,
    ModelTouched,
    TrainingTouched,
)
from pipeline.receipt_check import ReceiptCheck, check_receipt
from privacy.errors import PrivetError
from privacy.signing import Person, SigningKey, TrustRoot, make_statement, seal_envelope

DAY = date(2026, 6, 1)
COMMITMENT = "sha256:" + "c" * 64
MODEL = "sha256:" + "a" * 64
PIPELINE, STEWARD = SigningKey(bytes(32)), SigningKey(bytes(31) + b"\1")
TRUST = TrustRoot(
    (Person("privet-pipeline", PIPELINE.public_hex, ("pipeline",)), Person("eve", STEWARD.public_hex, ("steward",)))
)
RECEIPT = ErasureReceipt(
    case_id="DSAR-1",
    by="officer",
    at="2026-05-02T10:00:00+00:00",
    datasets=(DatasetTouched("chat", COMMITMENT, 4, True, True, DAY.isoformat()),),
    artifacts=(ArtifactTouched("protected", "chat", MODEL, None, "closed", DAY.isoformat(), "closed"),),
    models=(ModelTouched(MODEL, "dp_sgd", 2.0, 1e-6, "dp_bound", "bounded"),),
    trainings=(TrainingTouched("train-1", "run", "chat", "running", "stops"),),
    releases=(),
    exports=(),
    unreadable=("sha256:" + "b" * 64,),
)


def signed(receipt: ErasureReceipt = RECEIPT, key: SigningKey = PIPELINE, kind: str = ERASURE_TYPE, **changes: object) -> bytes:
    subjects = {d.dataset: d.commitment for d in receipt.datasets}
    predicate = {**receipt.predicate(), **changes}
    return seal_envelope(make_statement(subjects, kind, predicate), key)  # type: ignore[arg-type]


def completed(case: str = "DSAR-1", dataset: str = "chat", commitment: str = COMMITMENT, key: SigningKey = PIPELINE) -> bytes:
    return seal_envelope(make_statement({case: commitment}, COMPLETED_TYPE, {"dataset": dataset}), key)


def states(check: ReceiptCheck) -> list[str]:
    return [p.state for p in check.promises]


def test_a_receipt_says_what_is_promised_and_by_when() -> None:
    check = check_receipt(signed(), TRUST, DAY)
    assert (check.case, check.signer, states(check), check.exit_code) == ("DSAR-1", "privet-pipeline", ["waiting"], 0)
    assert dict(check.actions) == {MODEL: "dp_bound"}
    assert (check.trainings, check.unreadable) == (1, 1)
    said = "\n".join(check.lines())
    assert "open no more by 2026-06-01" in said
    assert "what they touch is not in it" in said
    assert json.dumps(check.to_json())


def test_a_day_that_has_passed_without_a_statement_is_not_passed_over() -> None:
    late = check_receipt(signed(), TRUST, DAY + timedelta(days=1))
    assert (states(late), late.exit_code) == (["overdue"], 3)
    done = check_receipt(signed(), TRUST, DAY + timedelta(days=1), [completed()])
    assert (states(done), done.exit_code) == (["completed"], 0)


@pytest.mark.parametrize(
    "other",
    [
        completed(case="DSAR-2"),
        completed(dataset="shop"),
        completed(commitment="sha256:" + "d" * 64),
    ],
)
def test_the_statement_of_another_case_completes_nothing(other: bytes) -> None:
    assert states(check_receipt(signed(), TRUST, DAY + timedelta(days=1), [other])) == ["overdue"]


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (signed(key=STEWARD), "E-ERASE-003"),  # a person of the trust root, but no pipeline
        (signed(key=SigningKey.generate()), "E-SIGN-002"),
        (signed(kind=COMPLETED_TYPE), "E-ERASE-004"),
        (signed(models=[{"manifest": MODEL, "action": "forgotten"}]), "E-ERASE-004"),
        (signed(datasets=[]), "E-ERASE-004"),  # promises less than it was signed over
        (signed(datasets=[{**RECEIPT.datasets[0].to_json(), "commitment": MODEL}]), "E-ERASE-004"),
        (signed(datasets=[{**RECEIPT.datasets[0].to_json(), "gone_by": "soon"}]), "E-ERASE-004"),
        (signed(case=7), "E-ERASE-004"),
        (signed().replace(b'"payload":"e', b'"payload":"f'), "E-SIGN"),
        (b"{}", "E-SIGN-001"),
        (b"", "E-CANON"),
    ],
)
def test_a_receipt_that_is_not_what_was_signed_is_refused(envelope: bytes, code: str) -> None:
    with pytest.raises(PrivetError, match=code):
        check_receipt(envelope, TRUST, DAY)


def test_a_statement_that_nobody_trusted_signed_is_refused() -> None:
    with pytest.raises(PrivetError, match="E-ERASE-003"):
        check_receipt(signed(), TRUST, DAY, [completed(key=STEWARD)])
    with pytest.raises(PrivetError, match="E-ERASE-004"):
        check_receipt(signed(), TRUST, DAY, [signed()])


def test_a_receipt_of_an_empty_home_promises_nothing() -> None:
    check = check_receipt(signed(replace(RECEIPT, datasets=(), artifacts=(), models=())), TRUST, DAY)
    assert (check.promises, check.exit_code) == ((), 0)
