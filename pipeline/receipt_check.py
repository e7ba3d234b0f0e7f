"""Checks an erasure receipt offline: who signed it, what it promised by when, and which promises a signed statement completes.

Guarantee: needs the files and a trust root, no home and no network; a receipt or statement that the pipeline's key did not
sign, or that contradicts itself, is refused. Not covered: that the pipeline told the truth; its journal is for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from pipeline.receipt import COMPLETED_TYPE, ERASURE_TYPE
from privacy.canonical import Digest, Json
from privacy.errors import IntegrityError
from privacy.signing import Signed, TrustRoot, open_envelope

State = Literal["completed", "waiting", "overdue"]


@dataclass(frozen=True, slots=True)
class Promise:
    """By which day old copies of one dataset open no more, and whether a signed statement says that they don't."""

    dataset: str
    commitment: Digest
    gone_by: date
    state: State


@dataclass(frozen=True, slots=True)
class ReceiptCheck:
    """What a receipt proves. Exit code 3: a day has passed without a statement of completion."""

    case: str
    by: str
    at: str
    signer: str
    promises: tuple[Promise, ...]
    actions: Mapping[Digest, str]
    trainings: int
    unreadable: int

    @property
    def exit_code(self) -> int:
        return 3 if any(p.state == "overdue" for p in self.promises) else 0

    def to_json(self) -> dict[str, Json]:
        promises: list[Json] = [
            {"dataset": p.dataset, "commitment": p.commitment, "gone_by": p.gone_by.isoformat(), "state": p.state}
            for p in self.promises
        ]
        return {
            "case": self.case,
            "by": self.by,
            "at": self.at,
            "signer": self.signer,
            "promises": promises,
            "models": dict(self.actions),
            "trainings": self.trainings,
            "unreadable": self.unreadable,
        }

    def lines(self) -> list[str]:
        lines = [f"receipt of erasure {self.case}, carried out by {self.by} at {self.at}, signed by {self.signer}"]
        said = {
            "completed": "and a signed statement says that it is so",
            "waiting": "which is still to come",
            "overdue": "and no statement of completion was given: ask for it",
        }
        for p in self.promises:
            lines.append(f"  {p.dataset}: live data gone; old copies open no more by {p.gone_by}, {said[p.state]}")
        lines += [f"  model {digest.removeprefix('sha256:')[:12]}: {action}" for digest, action in self.actions.items()]
        if self.trainings:
            lines.append(f"  {self.trainings} trainings had no result yet when it was written")
        if self.unreadable:
            lines.append(f"  {self.unreadable} results could not be read when it was written: what they touch is not in it")
        return lines


def check_receipt(envelope: bytes, trust: TrustRoot, today: date, completions: Sequence[bytes] = ()) -> ReceiptCheck:
    """Raises IntegrityError E-SIGN-001, 002 (not signed), E-ERASE-003 (by whom), E-ERASE-004 (malformed, contradictory)."""
    receipt = _opened(envelope, trust, ERASURE_TYPE)
    done = [_opened(one, trust, COMPLETED_TYPE) for one in completions]
    match receipt.predicate:
        case {
            "case": str(case),
            "by": str(by),
            "at": str(at),
            "datasets": list(datasets),
            "models": list(models),
            "trainings": list(trainings),
            "unreadable": list(unreadable),
        }:
            promises = tuple(_promise(case, value, receipt, done, today) for value in datasets)
            if len(promises) == len(receipt.subject):
                name = receipt.signer.name
                return ReceiptCheck(case, by, at, name, promises, _actions(models), len(trainings), len(unreadable))
    raise _malformed()


def _promise(case: str, value: Json, receipt: Signed, done: Sequence[Signed], today: date) -> Promise:
    match value:
        case {"dataset": str(dataset), "commitment": str(commitment), "gone_by": str(gone_by)}:
            try:
                by = date.fromisoformat(gone_by)
            except ValueError:
                raise _malformed() from None
            if receipt.subject.get(dataset) != commitment:
                raise _malformed()
            completed = any(s.predicate.get("dataset") == dataset and s.subject.get(case) == commitment for s in done)
            return Promise(dataset, commitment, by, "completed" if completed else "overdue" if today > by else "waiting")
    raise _malformed()


def _actions(models: Sequence[Json]) -> dict[Digest, str]:
    found: dict[Digest, str] = {}
    for model in models:
        match model:
            case {"manifest": str(manifest), "action": "dp_bound" | "retrain" | "withdraw" as action}:
                found[manifest] = action
            case _:
                raise _malformed()
    return found


def _opened(envelope: bytes, trust: TrustRoot, predicate_type: str) -> Signed:
    signed = open_envelope(envelope, trust)
    if "pipeline" not in signed.signer.roles:
        raise IntegrityError(
            "E-ERASE-003", "the receipt is not signed by a pipeline of the trust root", "Ask the controller for the original"
        )
    if signed.predicate_type != predicate_type:
        raise _malformed()
    return signed


def _malformed() -> IntegrityError:
    return IntegrityError(
        "E-ERASE-004",
        "a receipt or statement is malformed, of another kind, or contradicts itself",
        "Ask the controller for the original",
    )
