"""The gate's rules one by one: conditions, referrals, risk, delegation, a broken glass; each limit by who tries to pass it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.canonical import Json, digest_bytes, digest_of
from privacy.conditions import Condition, Facts, parse_condition, read_conditions, unmet
from privacy.delegation import Delegation, delegation_envelope, open_delegation
from privacy.errors import IntegrityError
from privacy.gates import APPROVAL_TYPE, BREAK_GLASS, Approval, Requirement, approval_of, approval_predicate, decide_gate
from privacy.signing import Person, SigningKey, TrustRoot, make_statement, open_envelope, seal_envelope
from privacy.verdict import Verdict

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DIGEST = digest_bytes(b"evidence")
KEYS = {name: SigningKey(name.encode().ljust(32, b".")) for name in ("asker", "grace", "ada", "sam", "olga", "eve")}
ROLES = {
    "asker": ("steward",),
    "grace": ("steward",),
    "ada": ("privacy_officer", "steward"),
    "sam": ("engineer",),
    "olga": ("privacy_officer",),
    "eve": ("engineer",),
}
TRUST = TrustRoot(tuple(Person(name, KEYS[name].public_hex, roles) for name, roles in ROLES.items()))
NEED = Requirement("release", {"steward": 1, "privacy_officer": 1}, 168, "asker", "chat")
FACTS = Facts({"epsilon": 2.5, "release": "chat", "verdict.audit.utility": "passed", "utility": 0.81})


def vote(name: str, role: str, decision: str = "approve", hours: float = 0.0, **more: object) -> Approval:
    """Signed and opened again, so that what is tested is what an envelope can say."""
    body = approval_predicate(
        more.pop("gate", "release"), more.pop("digest", DIGEST), decision, role, more.pop("reason", "read it all"),  # type: ignore[arg-type]
        NOW + timedelta(hours=hours), **more,  # type: ignore[arg-type]
    )  # fmt: skip
    about = str(body["digest"])
    return approval_of(
        open_envelope(seal_envelope(make_statement({"evidence": about}, APPROVAL_TYPE, body), KEYS[name]), TRUST)
    )


def when(*texts: str) -> tuple[Condition, ...]:
    return tuple(parse_condition(text) for text in texts)


def lend(by: str = "ada", role: str = "privacy_officer", to: str = "sam", days: float = 10, **more: object) -> Delegation:
    gates, policy = more.get("gates", ("release",)), more.get("policy", "chat")
    signed = NOW + timedelta(hours=float(more.get("hours", -1)))  # type: ignore[arg-type]
    data = delegation_envelope(
        role, (to, KEYS[to].public_hex), gates, policy, NOW + timedelta(days=days), "on leave", signed, KEYS[by]  # type: ignore[arg-type]
    )  # fmt: skip
    return open_delegation(data, TRUST)


def decide(
    *votes: Approval, need: Requirement = NEED, facts: Facts = FACTS, lent: tuple[Delegation, ...] = (), hours: float = 0
) -> Verdict:
    return decide_gate(DIGEST, votes, need, TRUST, NOW + timedelta(hours=hours), facts, lent)


GRACE, OLGA = vote("grace", "steward"), vote("olga", "privacy_officer")


def test_two_plain_approvals_open_the_gate() -> None:
    assert decide(GRACE, OLGA).outcome == "passed"


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        (("epsilon <= 3", "verdict audit.utility passed", "release chat", "utility >= 0.7", "expires before 2026-12-01"), None),
        (("epsilon <= 2",), "E-GATE-043"),
        (("epsilon <= 3", "utility >= 0.9"), "E-GATE-043"),
        (("verdict audit.utility failed",), "E-GATE-043"),
        (("release other",), "E-GATE-043"),
        (("expires before 2026-11-23",), "E-GATE-043"),
        (("verdict audit.membership passed",), "E-GATE-042"),  # the evidence does not say
        (("epsilon == low",), "E-GATE-042"),  # a number is no word
        (("release == 3",), "E-GATE-042"),
        (("unheard_of <= 3",), "E-GATE-042"),
    ],
)
def test_an_approval_counts_only_while_its_conditions_hold(texts: tuple[str, ...], code: str | None) -> None:
    found = decide(GRACE, vote("olga", "privacy_officer", conditions=when(*texts)))
    assert found.blocks == (code is not None)
    assert code is None or found.reason.startswith(code)


def test_without_facts_no_condition_holds() -> None:
    found = decide_gate(DIGEST, [GRACE, vote("olga", "privacy_officer", conditions=when("epsilon <= 3"))], NEED, TRUST, NOW)
    assert found.reason.startswith("E-GATE-042")


def test_a_condition_on_what_comes_later_waits_and_no_longer_than_that() -> None:
    early = Facts({"epsilon": 8.0}, later=("verdict",))
    conditions = when("verdict audit.utility passed")
    assert unmet(conditions, early, NOW) is None
    assert (unmet(conditions, Facts({"epsilon": 8.0}), NOW) or "").startswith("E-GATE-042")
    assert (unmet(when("verdicts.x == passed"), early, NOW) or "").startswith("E-GATE-042")  # a prefix is a whole word


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        "epsilon <= 3",
        [{"field": "epsilon", "op": "<="}],
        [{"field": "epsilon", "op": "<=", "value": True}],
        [{"field": "epsilon", "op": "<=", "value": "3"}],
        [{"field": "epsilon", "op": "!=", "value": 3}],
        [{"field": "__class__", "op": "==", "value": 3}],
        [{"field": "epsilon", "op": "<=", "value": 3, "or": 1}],
        [{"field": "epsilon", "op": "before", "value": "2027-01-01"}],
        [{"field": "expires", "op": "<", "value": 3}],
        [{"field": "expires", "op": "before", "value": "soon"}],
        [{"field": "release", "op": "==", "value": "a\nb"}],
        [{"field": "epsilon", "op": "<=", "value": 3}] * 21,
    ],
)
def test_a_malformed_condition_is_no_approval_at_all(value: Json) -> None:
    with pytest.raises(IntegrityError, match="E-GATE-050"):
        read_conditions(value)
    body = {**approval_predicate("release", DIGEST, "approve", "steward", "read it", NOW), "conditions": value}
    with pytest.raises(IntegrityError, match="E-GATE-050"):
        approval_of(
            open_envelope(seal_envelope(make_statement({"evidence": DIGEST}, APPROVAL_TYPE, body), KEYS["grace"]), TRUST)
        )


@pytest.mark.parametrize("number", ["1_000", "٣", "３", "+3", ".5", "5.", "nan", "inf", "1e", "0x3", "3,5", "½"])
def test_a_number_that_only_a_program_reads_as_one_is_refused(number: str) -> None:
    with pytest.raises(IntegrityError, match="E-GATE-050"):
        parse_condition(f"epsilon <= {number}")
    for good, value in (("3", 3), ("-3", -3), ("0.5", 0.5), ("1e-5", 1e-5)):
        assert parse_condition(f"epsilon <= {good}").value == value


@given(st.text(max_size=60))
def test_no_text_makes_a_condition_that_does_not_read_back(text: str) -> None:
    try:
        made = parse_condition(text)
    except IntegrityError:
        return
    assert read_conditions([made.to_json()]) == (made,)


@pytest.mark.parametrize(
    "more",
    [
        {"condition": []},  # a key that nobody reads
        {"refer_to": "privacy_officer"},  # on an approval
        {"delegation": "ada"},
        {"conditions": None},
    ],
)
def test_what_is_not_understood_is_not_an_approval(more: dict[str, Json]) -> None:
    body = {**approval_predicate("release", DIGEST, "approve", "steward", "read it", NOW), **more}
    with pytest.raises(IntegrityError, match=r"E-GATE-0(20|50)"):
        approval_of(
            open_envelope(seal_envelope(make_statement({"evidence": DIGEST}, APPROVAL_TYPE, body), KEYS["grace"]), TRUST)
        )


def test_a_referral_holds_the_gate_until_that_role_has_decided_since() -> None:
    referral = vote("grace", "steward", "refer", refer_to="privacy_officer")
    assert decide(referral).reason.startswith("E-GATE-044")
    assert decide(referral, vote("ada", "steward"), vote("olga", "privacy_officer", hours=-1)).reason.startswith("E-GATE-044")
    after = vote("olga", "privacy_officer", hours=1)
    assert decide(referral, vote("ada", "steward"), after, hours=2).outcome == "passed"
    assert decide(referral, vote("ada", "steward"), vote("olga", "privacy_officer", "reject", 1)).reason.startswith(
        "E-GATE-012"
    )


def test_a_referral_to_nobody_present_stays_open_and_its_author_cannot_close_it() -> None:
    away = vote("grace", "steward", "refer", refer_to="authority")
    assert decide(away, GRACE, OLGA, hours=1).reason.startswith("E-GATE-044")
    own = vote("ada", "steward", "refer", refer_to="privacy_officer")
    assert decide(own, GRACE, vote("ada", "privacy_officer", hours=1), hours=2).reason.startswith("E-GATE-044")


def test_a_referral_is_no_approval_and_a_stranger_to_the_role_holds_nothing() -> None:
    assert decide(vote("grace", "steward", "refer", refer_to="privacy_officer"), OLGA).blocks
    assert decide(GRACE, OLGA, vote("eve", "steward", "refer", refer_to="privacy_officer")).outcome == "passed"


def test_a_reject_is_final_over_every_other_decision() -> None:
    no = vote("ada", "steward", "reject", hours=-300)
    glass = replace(NEED, break_glass=("steward", "privacy_officer"))
    breakers = vote("grace", "steward", "break_glass"), vote("olga", "privacy_officer", "break_glass")
    assert decide(no, GRACE, OLGA, *breakers, need=glass).reason.startswith("E-GATE-012")


def test_high_risk_takes_two_people_and_the_officer_whatever_the_quorum_says() -> None:
    low = replace(NEED, quorum={"steward": 1})
    high = replace(low, risk="high")
    assert decide(GRACE, need=low).outcome == "passed"
    assert "1 more privacy_officer" in decide(GRACE, need=high).reason
    assert decide(GRACE, OLGA, need=high).outcome == "passed"
    alone = replace(high, quorum={"privacy_officer": 1})
    assert decide(OLGA, need=alone).reason.startswith("E-GATE-045")
    assert "1 more steward" in decide(OLGA, vote("ada", "privacy_officer"), need=high).reason
    named = replace(high, officer="chief_officer", quorum={"steward": 2})
    assert "1 more chief_officer" in decide(GRACE, vote("ada", "steward"), need=named).reason
    assert decide(vote("grace", "steward", gate="use"), need=replace(high, gate="use")).outcome == "passed"


def test_a_lent_role_counts_within_its_time_gate_and_policy() -> None:
    lent = lend()
    own = vote("sam", "privacy_officer", delegation=lent.digest)
    good = decide(GRACE, own, lent=(lent,))
    assert good.outcome == "passed"
    assert "lent by ada" in good.reason
    assert decide(GRACE, own).reason.startswith("E-GATE-046")  # the delegation is not there
    assert decide(GRACE, vote("sam", "privacy_officer"), lent=(lent,)).reason.startswith("E-GATE-014")  # not named


@pytest.mark.parametrize(
    ("lent", "hours"),
    [
        (lend(days=1), 25),  # ended since
        (lend(days=0.01, hours=-100), 1),
        (lend(hours=3), 0),  # signed before it began
        (lend(gates=("use",)), 0),
        (lend(policy="other"), 0),
        (lend(to="eve"), 0),  # to somebody else
        (lend(role="steward"), 0),  # another role
        (lend(by="grace"), 0),  # grace is no officer: nobody lends what is not theirs
        (lend(by="sam", to="sam"), 0),
        (lend(days=200), 0),
    ],
    ids=[
        "ended",
        "ended-before",
        "not-begun",
        "gate",
        "policy",
        "other-delegate",
        "other-role",
        "not-held",
        "to-self",
        "too-long",
    ],
)
def test_a_lent_role_counts_nowhere_else(lent: Delegation, hours: float) -> None:
    found = decide(GRACE, vote("sam", "privacy_officer", delegation=lent.digest), lent=(lent,), hours=hours)
    assert found.reason.startswith("E-GATE-046"), found.reason


def test_a_lent_role_cannot_be_lent_on() -> None:
    first = lend()
    second = lend(by="sam", to="eve")
    found = decide(GRACE, vote("eve", "privacy_officer", delegation=second.digest), lent=(first, second))
    assert found.reason.startswith("E-GATE-046")


def test_lender_and_borrower_make_one_vote() -> None:
    lent = lend(role="steward")
    borrowed = vote("sam", "steward", delegation=lent.digest)
    for votes in ((borrowed, vote("ada", "privacy_officer")), (vote("ada", "privacy_officer"), borrowed)):
        assert decide(*votes, lent=(lent,)).reason.startswith("E-GATE-048")
    assert decide(borrowed, OLGA, lent=(lent,)).outcome == "passed"
    both = (lend(role="steward"), lend(role="privacy_officer", to="eve"))
    votes = vote("sam", "steward", delegation=both[0].digest), vote("eve", "privacy_officer", delegation=both[1].digest)
    assert decide(*votes, lent=both).reason.startswith("E-GATE-048")


def test_a_requester_gets_no_vote_by_lending_or_borrowing() -> None:
    out = lend(by="asker", role="steward")
    assert decide(OLGA, vote("sam", "steward", delegation=out.digest), lent=(out,)).reason.startswith("E-GATE-015")
    back = lend(to="asker")
    assert decide(GRACE, vote("asker", "privacy_officer", delegation=back.digest), lent=(back,)).reason.startswith("E-GATE-015")


def test_a_reject_in_a_lent_role_outlives_the_delegation() -> None:
    lent = lend(days=1)
    no = vote("sam", "privacy_officer", "reject", delegation=lent.digest)
    assert decide(GRACE, OLGA, no, lent=(lent,), hours=100).reason.startswith("E-GATE-012")


GLASS = replace(NEED, break_glass=("steward", "engineer"))
SAM, EVE = vote("sam", "engineer", "break_glass"), vote("eve", "engineer", "break_glass")


def test_two_people_open_the_quorum_under_break_glass_and_it_is_said() -> None:
    found = decide(SAM, EVE, need=GLASS)
    assert found.outcome == "passed"
    assert found.reason.startswith(BREAK_GLASS)
    assert not decide(GRACE, OLGA, SAM, EVE, need=GLASS).reason.startswith(BREAK_GLASS)  # the quorum was there


@pytest.mark.parametrize(
    ("votes", "need", "hours"),
    [
        ((SAM,), GLASS, 0),
        ((SAM, vote("sam", "engineer", "break_glass", 1)), GLASS, 1),  # one person twice
        ((SAM, EVE), NEED, 0),  # the policy names nobody
        ((SAM, EVE), replace(GLASS, break_glass=("steward",)), 0),
        ((SAM, EVE), GLASS, 24.1),
        ((SAM, vote("asker", "steward", "break_glass")), GLASS, 0),  # the requester
        ((SAM, vote("eve", "engineer", "break_glass", reason=" ")), GLASS, 0),
        ((SAM, vote("eve", "steward", "break_glass")), GLASS, 0),  # a role not held
        ((SAM, vote("eve", "engineer")), GLASS, 0),  # an approval is no emergency
        ((SAM, vote("eve", "engineer", "break_glass", conditions=when("epsilon <= 1"))), GLASS, 0),
        ((SAM, EVE, vote("grace", "steward", "refer", refer_to="privacy_officer")), GLASS, 0),
        ((vote("sam", "engineer", "break_glass", 1), EVE), GLASS, 0),  # from the future
    ],
)
def test_the_glass_does_not_break_otherwise(votes: tuple[Approval, ...], need: Requirement, hours: float) -> None:
    assert decide(*votes, need=need, hours=hours).outcome == "failed"


def test_the_glass_is_of_the_release_gate_alone_and_of_roles_of_ones_own() -> None:
    for body in (
        approval_predicate("use", DIGEST, "break_glass", "engineer", "now", NOW),
        approval_predicate("release", DIGEST, "break_glass", "engineer", "now", NOW, delegation=digest_of(1)),
    ):
        data = seal_envelope(make_statement({"evidence": DIGEST}, APPROVAL_TYPE, body), KEYS["sam"])
        with pytest.raises(IntegrityError, match="E-GATE-020"):
            approval_of(open_envelope(data, TRUST))
    used = [replace(SAM, gate="use"), replace(EVE, gate="use")]  # past the reader
    assert decide(*used, need=replace(GLASS, gate="use")).blocks


def test_an_old_approval_expires_to_the_second() -> None:
    old = vote("grace", "steward", hours=-168), vote("olga", "privacy_officer", hours=-168)
    assert decide(*old).outcome == "passed"
    assert decide(*old, hours=0.001).reason.startswith("E-GATE-013")


def test_a_delegation_altered_or_of_a_stranger_is_refused() -> None:
    stranger = SigningKey(b"m" * 32)
    data = delegation_envelope("steward", ("sam", KEYS["sam"].public_hex), ("use",), "chat", NOW, "on leave", NOW, stranger)
    with pytest.raises(IntegrityError, match="E-SIGN-002"):
        open_delegation(data, TRUST)
    body = {"role": "steward", "delegate": "sam"}
    half = seal_envelope(make_statement({"delegation": digest_of(body)}, APPROVAL_TYPE, body), KEYS["ada"])
    with pytest.raises(IntegrityError, match="E-GATE-049"):
        open_delegation(half, TRUST)
