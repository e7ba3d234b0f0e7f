"""Every way to get a gate open without the right person's signature, and that none works."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.approval_book import ApprovalRequest, request_id
from pipeline.approve import ask
from pipeline.gate_answer import Answer, AnswerRefused, Seat, check_shown, record_answer
from pipeline.home import Home, add_person
from pipeline.run import gate_verdict
from privacy.canonical import digest_bytes
from privacy.errors import GateClosed, IntegrityError
from privacy.gates import APPROVAL_TYPE, approval_predicate
from privacy.signing import Person, SigningKey, make_statement, seal_envelope

DIGEST = digest_bytes(b"what was shown")
OTHER = digest_bytes(b"something else")
STEWARD = Seat("use", "steward", 1, ("demo_steward", "ann", "demo_engineer"))
ANN = SigningKey(b"a" * 32)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.create(tmp_path / "home", demo_identities=True)
    add_person(home, Person("ann", ANN.public_hex, ("steward",)))
    return home


@pytest.fixture
def request_(home: Home) -> ApprovalRequest:
    return ask(
        home,
        ApprovalRequest(
            request_id("use", DIGEST, "run"),
            "use",
            DIGEST,
            "run",
            "chat",
            (("epsilon", "4"),),
            {"steward": 1},
            168,
            "demo_engineer",
            "2026-01-01T00:00:00+00:00",
        ),
    )


def answer(who: str = "demo_steward", decision: str = "approve", reason: str = "looks right", envelope: str = "") -> Answer:
    return Answer(who, decision, reason, envelope)  # type: ignore[arg-type]


def envelope(digest: str = DIGEST, decision: str = "approve", role: str = "steward", key: SigningKey = ANN) -> str:
    predicate = approval_predicate("use", digest, decision, role, "read it all", datetime.now(UTC))
    return seal_envelope(make_statement({"evidence": digest}, APPROVAL_TYPE, predicate), key).decode()


def votes(home: Home) -> list[tuple[str, str]]:
    return [(a.signer, a.decision) for a in home.approvals.approvals(DIGEST, home.trust)]


def refused(home: Home, request: ApprovalRequest, given: Answer, seat: Seat = STEWARD) -> str:
    with pytest.raises(AnswerRefused) as caught:
        record_answer(home, request, seat, given, datetime.now(UTC))
    assert votes(home) == []
    return caught.value.code


def test_a_demo_identity_signs_what_was_shown(home: Home, request_: ApprovalRequest) -> None:
    made = record_answer(home, request_, STEWARD, answer(), datetime.now(UTC))
    assert (made.signer, made.digest, made.custody, made.reason) == ("demo_steward", DIGEST, "demo", "looks right")
    assert votes(home) == [("demo_steward", "approve")]


def test_a_person_who_is_not_assigned_does_not_count(home: Home, request_: ApprovalRequest) -> None:
    assert refused(home, request_, answer("demo_officer")) == "E-GATE-030"


def test_the_requester_cannot_approve_even_when_assigned(home: Home, request_: ApprovalRequest) -> None:
    assert refused(home, request_, answer("demo_engineer")) == "E-GATE-031"


@pytest.mark.parametrize("reason", ["", "  ", "ok", "a\nb c"])
def test_an_answer_without_a_reason_does_not_count(home: Home, request_: ApprovalRequest, reason: str) -> None:
    assert refused(home, request_, answer(reason=reason)) == "E-APPROVE-006"


def test_a_click_is_no_signature_for_people_with_their_own_key(home: Home, request_: ApprovalRequest) -> None:
    assert refused(home, request_, answer("ann")) == "E-GATE-036"


def test_a_pasted_envelope_counts(home: Home, request_: ApprovalRequest) -> None:
    made = record_answer(home, request_, STEWARD, answer("ann", envelope=f" {envelope()}\n"), datetime.now(UTC))
    assert (made.signer, made.custody) == ("ann", "own")


@pytest.mark.parametrize(
    ("pasted", "code"),
    [
        ("rubbish", "E-GATE-034"),
        ("x" * 30_000, "E-GATE-034"),
        (envelope(key=SigningKey(b"m" * 32)), "E-GATE-034"),  # nobody of the trust root
        (envelope(digest=OTHER), "E-GATE-035"),
        (envelope(decision="reject"), "E-GATE-035"),
        (envelope(role="privacy_officer"), "E-GATE-035"),
    ],
    ids=["rubbish", "flood", "stranger", "other-digest", "reject-as-approve", "other-role"],
)
def test_a_pasted_envelope_about_something_else_does_not_count(
    home: Home, request_: ApprovalRequest, pasted: str, code: str
) -> None:
    assert refused(home, request_, answer("ann", envelope=pasted)) == code


def test_somebody_elses_envelope_does_not_count(home: Home, request_: ApprovalRequest) -> None:
    assert refused(home, request_, answer("demo_steward", envelope=envelope())) == "E-GATE-035"


def test_a_signature_given_in_a_terminal_is_found(home: Home, request_: ApprovalRequest) -> None:
    home.approvals.add(envelope().encode(), home.trust)
    assert record_answer(home, request_, STEWARD, answer("ann", reason=""), datetime.now(UTC)).signer == "ann"


def test_answering_again_after_airflows_race_signs_once(home: Home, request_: ApprovalRequest) -> None:
    for _ in range(2):
        record_answer(home, request_, STEWARD, answer(), datetime.now(UTC))
    assert votes(home) == [("demo_steward", "approve")]


def test_one_person_cannot_fill_two_seats(home: Home, request_: ApprovalRequest) -> None:
    record_answer(home, request_, STEWARD, answer(), datetime.now(UTC))
    second = replace(STEWARD, number=2)
    with pytest.raises(AnswerRefused) as caught:
        record_answer(home, request_, second, answer(), datetime.now(UTC))
    assert caught.value.code == "E-GATE-033"
    assert record_answer(home, request_, second, answer("ann", envelope=envelope()), datetime.now(UTC)).signer == "ann"


def test_a_reject_is_signed_and_final(home: Home, request_: ApprovalRequest) -> None:
    record_answer(home, request_, STEWARD, answer(decision="reject"), datetime.now(UTC))
    assert votes(home) == [("demo_steward", "reject")]
    with pytest.raises(GateClosed) as caught:
        record_answer(home, request_, STEWARD, answer("ann", envelope=envelope()), datetime.now(UTC))
    assert caught.value.code == "E-GATE-012"
    assert not isinstance(caught.value, AnswerRefused)  # it must not be asked again


def test_a_person_withdrawn_while_the_gate_waited_does_not_count(home: Home, request_: ApprovalRequest) -> None:
    from privacy.canonical import canonical_json
    from privacy.signing import TrustRoot

    pasted = envelope()
    left = TrustRoot(tuple(p for p in home.trust.people if p.name != "ann"))
    (home.path / "trust.json").write_bytes(canonical_json(left.to_json()))
    assert refused(home, request_, answer("ann", envelope=pasted)) == "E-GATE-034"


def test_an_answer_about_other_bytes_than_shown_is_an_integrity_fault(request_: ApprovalRequest) -> None:
    check_shown(request_, DIGEST)
    with pytest.raises(IntegrityError, match="E-GATE-038"):
        check_shown(request_, OTHER)


def test_an_expired_signature_does_not_fill_the_seat_again(home: Home, request_: ApprovalRequest) -> None:
    """It would pass the task, and the training would then be refused for good."""
    begun = datetime.now(UTC)
    record_answer(home, request_, STEWARD, answer(), begun)
    later = begun + timedelta(hours=169)
    renewed = record_answer(home, request_, STEWARD, answer(), later)
    assert renewed.signed_at > begun
    assert votes(home) == [("demo_steward", "approve")] * 2
    with pytest.raises(AnswerRefused, match="E-GATE-033"):  # the expired one of the same person is no second voter
        record_answer(home, request_, replace(STEWARD, number=2), answer(), later)


def test_a_signature_from_before_a_reject_does_not_pass_the_seat(home: Home, request_: ApprovalRequest) -> None:
    record_answer(home, request_, STEWARD, answer(), datetime.now(UTC))
    record_answer(home, request_, STEWARD, answer("ann", "reject", envelope=envelope(decision="reject")), datetime.now(UTC))
    with pytest.raises(GateClosed, match="E-GATE-012") as caught:
        record_answer(home, request_, STEWARD, answer(), datetime.now(UTC))
    assert not isinstance(caught.value, AnswerRefused)


def test_an_unsigned_reject_is_final_too(home: Home, request_: ApprovalRequest) -> None:
    """Otherwise the task could be cleared or marked successful, and a vote of somebody else would carry the day."""
    record_answer(home, request_, STEWARD, answer(), datetime.now(UTC))
    with pytest.raises(GateClosed, match="E-GATE-039") as caught:
        record_answer(home, request_, STEWARD, answer("ann", "reject"), datetime.now(UTC))
    assert not isinstance(caught.value, AnswerRefused)
    assert "E-GATE-012" in gate_verdict(home, request_).reason
    with pytest.raises(GateClosed, match="E-GATE-012"):
        record_answer(home, request_, STEWARD, answer("ann", envelope=envelope()), datetime.now(UTC))


def test_an_approval_with_conditions_is_signed_with_them(home: Home, request_: ApprovalRequest) -> None:
    given = replace(answer(), conditions="expires before 2999-01-01;\n verdict audit.utility passed")
    made = record_answer(home, request_, STEWARD, given, datetime.now(UTC))
    assert [str(c) for c in made.conditions] == ["expires before 2999-01-01", "verdict.audit.utility == passed"]


@pytest.mark.parametrize(
    ("text", "code"),
    [("epsilon at most 3", "E-GATE-050"), ("epsilon <= 3", "E-GATE-042"), ("expires before 2020-01-01", "E-GATE-043")],
)
def test_a_condition_that_is_none_or_does_not_hold_asks_again(
    home: Home, request_: ApprovalRequest, text: str, code: str
) -> None:
    assert refused(home, request_, replace(answer(), conditions=text)) == code


def test_a_click_on_refer_is_signed_and_others_wait_for_that_role(home: Home, request_: ApprovalRequest) -> None:
    made = record_answer(
        home, request_, STEWARD, replace(answer(decision="refer"), refer_to="privacy_officer"), datetime.now(UTC)
    )
    assert (made.decision, made.refer_to) == ("refer", "privacy_officer")
    with pytest.raises(AnswerRefused, match="E-GATE-044"):
        record_answer(home, request_, STEWARD, answer("ann", envelope=envelope()), datetime.now(UTC))
    officer = Seat("use", "privacy_officer", 1, ("demo_officer",))
    later = datetime.now(UTC) + timedelta(seconds=2)
    record_answer(home, request_, officer, answer("demo_officer"), later)
    assert gate_verdict(home, request_).outcome == "failed"  # the officer decided; no steward has approved
    record_answer(home, request_, STEWARD, answer("ann", envelope=envelope()), later)
    assert gate_verdict(home, request_).outcome == "passed"


def test_a_referral_names_a_role(home: Home, request_: ApprovalRequest) -> None:
    assert refused(home, request_, answer(decision="refer")) == "E-GATE-052"
