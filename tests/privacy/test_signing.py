from __future__ import annotations

import base64
import json
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.canonical import canonical_json, digest_of
from privacy.errors import IntegrityError
from privacy.gates import APPROVAL_TYPE, Approval, Requirement, approval_of, approval_predicate, decide_gate
from privacy.signing import Person, SigningKey, TrustRoot, make_statement, open_envelope, seal_envelope

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
STEWARD, OFFICER, ENGINEER, STRANGER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3, 4))
TRUST = TrustRoot(
    (
        Person("steward", STEWARD.public_hex, ("steward",)),
        Person("officer", OFFICER.public_hex, ("privacy_officer", "steward")),
        Person("engineer", ENGINEER.public_hex, ("steward",)),
    )
)
EVIDENCE = digest_of({"model": 1})
NEED = Requirement("release", {"steward": 1, "privacy_officer": 1}, 24, "engineer")


def vote(
    key: SigningKey,
    role: str,
    digest: str = EVIDENCE,
    decision: str = "approve",
    at: datetime = NOW,
    reason: str = "looked at it",
) -> Approval:
    predicate = approval_predicate("release", digest, decision, role, reason, at)
    return approval_of(open_envelope(seal_envelope(make_statement({"evidence": digest}, APPROVAL_TYPE, predicate), key), TRUST))


def test_a_full_quorum_opens_the_gate() -> None:
    verdict = decide_gate(EVIDENCE, [vote(STEWARD, "steward"), vote(OFFICER, "privacy_officer")], NEED, TRUST, NOW)
    assert verdict.outcome == "passed"


@pytest.mark.parametrize(
    ("approvals", "code"),
    [
        ([], "E-GATE-010"),
        ([vote(STEWARD, "steward", digest_of({"model": 2}))], "E-GATE-011"),
        ([vote(STEWARD, "steward"), vote(OFFICER, "privacy_officer", decision="reject")], "E-GATE-012"),
        ([vote(STEWARD, "steward", at=NOW - timedelta(hours=25)), vote(OFFICER, "privacy_officer")], "E-GATE-013"),
        ([vote(STEWARD, "privacy_officer"), vote(OFFICER, "steward")], "E-GATE-014"),
        ([vote(ENGINEER, "steward"), vote(OFFICER, "privacy_officer")], "E-GATE-015"),
        ([vote(OFFICER, "steward"), vote(OFFICER, "privacy_officer")], "E-GATE-016"),
        ([vote(STEWARD, "steward")], "E-GATE-017"),
        ([vote(STEWARD, "steward", at=NOW + timedelta(hours=1)), vote(OFFICER, "privacy_officer")], "E-GATE-018"),
        ([vote(STEWARD, "steward", reason="  "), vote(OFFICER, "privacy_officer")], "E-GATE-019"),
    ],
)
def test_the_gate_stays_closed(approvals: list[Approval], code: str) -> None:
    verdict = decide_gate(EVIDENCE, approvals, NEED, TRUST, NOW)
    assert verdict.blocks
    assert code in verdict.reason


def test_a_rejection_by_someone_without_the_role_does_not_count() -> None:
    votes = [vote(STEWARD, "steward"), vote(OFFICER, "privacy_officer"), vote(STEWARD, "privacy_officer", decision="reject")]
    assert decide_gate(EVIDENCE, votes, NEED, TRUST, NOW).outcome == "passed"


def test_an_approval_of_the_use_gate_does_not_open_the_release_gate() -> None:
    predicate = approval_predicate("use", EVIDENCE, "approve", "steward", "fine", NOW)
    envelope = seal_envelope(make_statement({"evidence": EVIDENCE}, APPROVAL_TYPE, predicate), STEWARD)
    use = approval_of(open_envelope(envelope, TRUST))
    assert decide_gate(EVIDENCE, [use], NEED, TRUST, NOW).outcome == "failed"


def test_an_envelope_of_a_stranger_is_refused() -> None:
    envelope = seal_envelope(make_statement({"x": EVIDENCE}, "t", {}), STRANGER)
    with pytest.raises(IntegrityError) as caught:
        open_envelope(envelope, TRUST)
    assert caught.value.code == "E-SIGN-002"


@settings(max_examples=300)
@given(st.data())
def test_no_byte_of_an_envelope_is_free(data: st.DataObject) -> None:
    envelope = seal_envelope(make_statement({"x": EVIDENCE}, "t", {"n": 1}), STEWARD)
    position = data.draw(st.integers(0, len(envelope) - 1))
    flipped = bytearray(envelope)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IntegrityError):
        open_envelope(bytes(flipped), TRUST)


def test_a_second_spelling_of_base64_is_refused() -> None:
    value = json.loads(seal_envelope(make_statement({"x": EVIDENCE}, "t", {"n": 1}), STEWARD))
    raw = value["signatures"][0]["sig"]
    last = raw.rstrip("=")[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = raw.rstrip("=")[:-1] + alphabet[alphabet.index(last) ^ 1] + "=="
    assert base64.b64decode(other) == base64.b64decode(raw)  # same bytes, other text
    value["signatures"][0]["sig"] = other
    with pytest.raises(IntegrityError):
        open_envelope(canonical_json(value), TRUST)


def test_a_trust_root_with_one_key_for_two_names_is_refused() -> None:
    with pytest.raises(IntegrityError) as caught:
        TrustRoot((Person("a", STEWARD.public_hex, ()), Person("b", STEWARD.public_hex, ())))
    assert caught.value.code == "E-TRUST-001"
    with pytest.raises(IntegrityError):
        TrustRoot.from_json({"trust_root": 1, "people": [{"name": "a", "public_hex": "zz", "roles": [], "custody": "own"}]})
    assert TrustRoot.from_json(TRUST.to_json()).digest == TRUST.digest


def test_a_private_key_shows_nowhere() -> None:
    secret = STEWARD.export_seed().hex()
    assert secret not in repr(STEWARD) + str(STEWARD)
    with pytest.raises(TypeError):
        pickle.dumps(STEWARD)


def test_a_renewed_vote_counts_and_its_expired_one_shadows_nothing() -> None:
    old, new = vote(STEWARD, "steward", at=NOW - timedelta(hours=25)), vote(STEWARD, "steward")
    officer = vote(OFFICER, "privacy_officer")
    for votes in ([old, new, officer], [new, old, officer]):
        assert decide_gate(EVIDENCE, votes, NEED, TRUST, NOW).outcome == "passed"
    lacking = decide_gate(EVIDENCE, [old, new], NEED, TRUST, NOW)
    assert lacking.reason == "E-GATE-017: the quorum is not met; still needed: 1 more privacy_officer"


def test_two_votes_of_one_key_never_make_two_seats() -> None:
    two = Requirement("release", {"steward": 2}, 24, "engineer")
    votes = [vote(STEWARD, "steward"), vote(STEWARD, "steward", at=NOW - timedelta(hours=1))]
    assert decide_gate(EVIDENCE, votes, two, TRUST, NOW).outcome == "failed"


@pytest.mark.parametrize("quorum", [{}, {"steward": 0}, {"steward": -1}, {"steward": 1, "privacy_officer": 0}])
def test_a_quorum_of_nobody_is_never_met(quorum: dict[str, int]) -> None:
    need = Requirement("release", quorum, 24, "engineer")
    verdict = decide_gate(EVIDENCE, [vote(STEWARD, "steward")], need, TRUST, NOW)
    assert "E-GATE-026" in verdict.reason


def test_a_date_at_the_end_of_the_calendar_is_a_verdict_and_no_crash() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    verdict = decide_gate(EVIDENCE, [vote(STEWARD, "steward", at=last)], NEED, TRUST, NOW)
    assert "E-GATE-018" in verdict.reason
