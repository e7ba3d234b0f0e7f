"""Raising a cap: two people, two roles, one raise of one ledger; everything else leaves the cap where it is."""

from __future__ import annotations

import io
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import cap_book
from pipeline.cap_book import RAISED, ask_raise, file_vote, record_digest, refuse_unsigned_caps
from pipeline.caps import CAP_TYPE, QUORUM, CapRaise, CapVote, counted_votes, decide_raise, role_for, sign_raise, vote_of
from pipeline.cli import main
from pipeline.home import Home, add_person, withdraw_person, write_key_file
from privacy.canonical import canonical_json
from privacy.errors import GateClosed, IntegrityError, PolicyError, PrivetError, UsageError
from privacy.ledger import CapRecord, Ledger
from privacy.signing import Person, SigningKey, TrustRoot, make_statement, open_envelope, seal_envelope

SCOPE = "support/customer"
NOW = datetime.now(UTC)
WHY = "two more releases this year"
KEYS = {name: SigningKey.generate() for name in ("olga", "stan", "both", "eve", "engineer")}
ROLES = {
    "olga": ("privacy_officer",),
    "stan": ("steward",),
    "both": ("privacy_officer", "steward"),
    "engineer": ("engineer",),
}
PEOPLE = tuple(Person(name, KEYS[name].public_hex, roles) for name, roles in ROLES.items())
TRUST = TrustRoot(PEOPLE)
ASKED = CapRaise("ab" * 32, SCOPE, "customer", 1e-6, 8.0, 12.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.create(tmp_path / "home")
    for person in PEOPLE:
        add_person(home, person)
    home.ledger.open_scope(SCOPE, "customer", 8.0, 1e-6)
    return home


def signed(asked: CapRaise, name: str, role: str, at: datetime = NOW, reason: str = WHY) -> bytes:
    return sign_raise(asked, role, reason, KEYS[name], at)


def vote(name: str, role: str, asked: CapRaise = ASKED, at: datetime = NOW) -> CapVote:
    envelope = signed(asked, name, role, at)
    return vote_of(open_envelope(envelope, TRUST), "sha256:" + envelope.hex()[-64:])


# ---- the decision


def test_an_officer_and_a_steward_raise_it() -> None:
    verdict = decide_raise(ASKED, [vote("stan", "steward"), vote("olga", "privacy_officer")], TRUST, NOW)
    assert verdict.outcome == "passed"
    assert "olga" in verdict.reason


@pytest.mark.parametrize(
    ("votes", "missing"),
    [
        ([], "1 privacy_officer and 1 steward"),
        ([("olga", "privacy_officer")], "1 steward"),
        ([("both", "privacy_officer"), ("both", "steward")], "1 "),  # of the two seats it can take only one
        ([("olga", "privacy_officer"), ("olga", "privacy_officer")], "1 steward"),
        ([("olga", "steward"), ("stan", "privacy_officer")], "1 privacy_officer and 1 steward"),
        ([("engineer", "engineer"), ("stan", "steward")], "1 privacy_officer"),
    ],
)
def test_anything_less_does_not(votes: list[tuple[str, str]], missing: str) -> None:
    verdict = decide_raise(ASKED, [vote(*v) for v in votes], TRUST, NOW)
    assert verdict.blocks
    assert f"still needed: {missing}" in verdict.reason


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, cap_after=13.0),
        replace(ASKED, cap_before=7.0),
        replace(ASKED, delta=1e-5),
        replace(ASKED, scope="support/session"),
        replace(ASKED, ledger="cd" * 32),
        replace(ASKED, unit="session"),
    ],
)
def test_a_signature_under_another_raise_does_not_count(other: CapRaise) -> None:
    verdict = decide_raise(ASKED, [vote("stan", "steward"), vote("olga", "privacy_officer", other)], TRUST, NOW)
    assert verdict.blocks
    assert "E-CAP-003" in verdict.reason


@pytest.mark.parametrize("at", [NOW - timedelta(days=7, seconds=2), NOW + timedelta(minutes=6)])
def test_an_old_or_future_signature_does_not_count(at: datetime) -> None:
    verdict = decide_raise(ASKED, [vote("stan", "steward"), vote("olga", "privacy_officer", at=at)], TRUST, NOW)
    assert "E-CAP-005" in verdict.reason


def test_somebody_who_left_the_trust_root_does_not_count() -> None:
    left = TrustRoot(tuple(p for p in PEOPLE if p.name != "olga"))
    assert decide_raise(ASKED, [vote("stan", "steward"), vote("olga", "privacy_officer")], left, NOW).blocks


def test_the_pipelines_key_raises_nothing() -> None:
    machine = Person("machine", KEYS["eve"].public_hex, ("pipeline", "steward"))
    trust = TrustRoot((*PEOPLE, machine))
    envelope = signed(ASKED, "eve", "steward")
    fake = vote_of(open_envelope(envelope, trust), "sha256:" + "0" * 64)
    assert decide_raise(ASKED, [fake, vote("olga", "privacy_officer")], trust, NOW).blocks


@given(st.permutations(["olga", "stan", "both", "both2", "late"]))
def test_the_votes_that_count_do_not_depend_on_the_order_they_are_read_in(order: list[str]) -> None:
    votes = {
        "olga": vote("olga", "privacy_officer"),
        "stan": vote("stan", "steward", at=NOW - timedelta(hours=2)),
        "both": vote("both", "steward", at=NOW - timedelta(hours=1)),
        "both2": vote("both", "privacy_officer", at=NOW - timedelta(hours=3)),
        "late": vote("olga", "privacy_officer", at=NOW - timedelta(days=30)),
    }
    counted = counted_votes(ASKED, [votes[name] for name in order], TRUST, NOW)
    assert [(v.signer.name, v.role) for v in counted] == [("both", "privacy_officer"), ("stan", "steward")]


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(0.1, 999))
def test_a_cap_only_rises(to: float, before: float) -> None:
    body = replace(ASKED, cap_before=before, cap_after=to).to_json()
    if before < to <= 1000:
        assert CapRaise.from_json(body).cap_after == to
    else:
        with pytest.raises(PrivetError, match="E-CAP-001"):
            CapRaise.from_json(body)


@pytest.mark.parametrize("reason", ["", "  ", "ab", "x" * 501, "two\nlines"])
def test_a_signature_gives_a_reason(reason: str) -> None:
    with pytest.raises(UsageError, match="E-CAP-006"):
        sign_raise(ASKED, "steward", reason, KEYS["stan"], NOW)


@pytest.mark.parametrize(
    ("kind", "subject", "predicate"),
    [
        ("https://privet.dev/predicate/approval/v1", None, {}),
        (CAP_TYPE, {"budget-cap": "sha256:" + "0" * 64}, {}),
        (CAP_TYPE, {"evidence": ASKED.digest}, {}),
        (CAP_TYPE, None, {"extra": 1}),
        (CAP_TYPE, None, {"signed_at": "yesterday"}),
        (CAP_TYPE, None, {"signed_at": "2026-01-01T00:00:00"}),
        (CAP_TYPE, None, {"raise": {}}),
        (CAP_TYPE, None, {"raise": {**ASKED.to_json(), "delta": "1e-6"}}),
        (CAP_TYPE, None, {"raise": {**ASKED.to_json(), "more": 1}}),
    ],
)
def test_any_other_statement_is_not_a_raise(kind: str, subject: dict[str, str] | None, predicate: dict[str, object]) -> None:
    body: dict[str, object] = {"raise": ASKED.to_json(), "role": "steward", "reason": WHY, "signed_at": NOW.isoformat()}
    statement = make_statement(subject or {"budget-cap": ASKED.digest}, kind, {**body, **predicate})  # type: ignore[dict-item]
    with pytest.raises(IntegrityError, match="E-CAP-002"):
        vote_of(open_envelope(seal_envelope(statement, KEYS["stan"]), TRUST), "sha256:" + "0" * 64)


def test_the_role_is_the_one_you_hold() -> None:
    olga, _, both, engineer = PEOPLE
    assert role_for(olga, None) == "privacy_officer"
    assert role_for(both, "steward") == "steward"
    for person, role in ((both, None), (engineer, None), (olga, "steward"), (olga, "pipeline")):
        with pytest.raises(UsageError, match="E-CAP-004"):
            role_for(person, role)


# ---- carried out


def raise_to(home: Home, to: float) -> CapRaise:
    asked = ask_raise(home, SCOPE, to)
    file_vote(home, signed(asked, "olga", "privacy_officer"), NOW)
    assert file_vote(home, signed(asked, "stan", "steward"), NOW).verdict.outcome == "passed"
    return asked


def test_the_cap_rises_when_both_have_signed_and_the_journal_says_why(home: Home) -> None:
    asked = ask_raise(home, SCOPE, 12.0)
    first = file_vote(home, signed(asked, "olga", "privacy_officer"), NOW)
    assert first.verdict.blocks
    assert home.ledger.cap_epsilon(SCOPE) == 8.0
    second = file_vote(home, signed(asked, "stan", "steward"), NOW)
    assert second.verdict.outcome == "passed"
    assert home.ledger.cap_epsilon(SCOPE) == 12.0
    (entry,) = [e for e in home.journal.entries() if e.kind == RAISED]
    assert (entry.facts["cap_before"], entry.facts["cap_after"], entry.facts["scope"]) == (8.0, 12.0, SCOPE)
    cap = home.ledger.caps(SCOPE)[1]
    assert cap.envelope == entry.facts["record"] == record_digest(asked.digest, list(entry.facts["envelopes"]))  # type: ignore[arg-type]
    assert "olga as privacy_officer" in cap.by
    assert WHY in cap.reason
    refuse_unsigned_caps(home)
    assert home.ledger.self_audit() == []


def test_filing_again_changes_nothing(home: Home) -> None:
    asked = ask_raise(home, SCOPE, 12.0)
    envelopes = [signed(asked, "olga", "privacy_officer"), signed(asked, "stan", "steward")]
    for envelope in envelopes + envelopes:
        file_vote(home, envelope, NOW)
    assert len(home.ledger.caps(SCOPE)) == 2
    kinds = [e.kind for e in home.journal.entries() if "cap" in e.kind]
    assert kinds == ["budget_cap_signed", "budget_cap_signed", RAISED]


def test_old_signatures_do_not_raise_a_second_time(home: Home) -> None:
    first = raise_to(home, 12.0)
    raise_to(home, 20.0)
    file_vote(home, signed(first, "olga", "privacy_officer"), NOW)
    assert home.ledger.cap_epsilon(SCOPE) == 20.0
    with pytest.raises(PolicyError, match="E-CAP-001"):
        ask_raise(home, SCOPE, 20.0)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda a: signed(replace(a, cap_before=5.0), "olga", "privacy_officer"), "E-CAP-003"),
        (lambda a: signed(replace(a, ledger="00" * 32), "olga", "privacy_officer"), "E-CAP-003"),
        (lambda a: signed(a, "engineer", "engineer"), "E-CAP-004"),
        (lambda a: signed(a, "olga", "steward"), "E-CAP-004"),
        (lambda a: signed(a, "olga", "privacy_officer", NOW - timedelta(days=8)), "E-CAP-005"),
        (lambda a: signed(a, "eve", "steward"), "E-SIGN-002"),
        (lambda a: signed(replace(a, scope="nobody/customer"), "olga", "privacy_officer"), "E-LEDGER-002"),
        (lambda a: b"{}", "E-SIGN-001"),
    ],
)
def test_a_signature_that_can_not_count_is_not_kept(home: Home, make: Callable[[CapRaise], bytes], code: str) -> None:
    asked = ask_raise(home, SCOPE, 12.0)
    with pytest.raises(PrivetError, match=code):
        file_vote(home, make(asked), NOW)
    assert list((home.path / "caps").rglob("*.json")) == []
    assert not any("cap" in e.kind for e in home.journal.entries())


def test_a_second_signature_of_one_key_is_refused(home: Home) -> None:
    asked = ask_raise(home, SCOPE, 12.0)
    file_vote(home, signed(asked, "both", "steward"), NOW)
    with pytest.raises(GateClosed, match="E-CAP-008"):
        file_vote(home, signed(asked, "both", "privacy_officer"), NOW)


def test_a_signer_who_leaves_before_the_second_signs_does_not_count(home: Home) -> None:
    asked = ask_raise(home, SCOPE, 12.0)
    file_vote(home, signed(asked, "olga", "privacy_officer"), NOW)
    withdraw_person(home, "olga")
    assert file_vote(home, signed(asked, "stan", "steward"), NOW).verdict.blocks
    assert home.ledger.cap_epsilon(SCOPE) == 8.0


def test_a_signer_who_leaves_afterwards_takes_no_cap_with_them(home: Home) -> None:
    raise_to(home, 12.0)
    withdraw_person(home, "olga")
    refuse_unsigned_caps(home)


@pytest.mark.parametrize("where", ["raise_cap", "journal", "_write_once"])
def test_cut_short_anywhere_filing_again_completes_it(home: Home, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    asked = ask_raise(home, SCOPE, 12.0)
    file_vote(home, signed(asked, "olga", "privacy_officer"), NOW)
    last = signed(asked, "stan", "steward")

    def cut(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "raise_cap":
            patch.setattr(Ledger, "raise_cap", cut)
        elif where == "journal":
            patch.setattr(cap_book, "decide_raise", cut)
        else:
            patch.setattr(cap_book, "_write_once", cut)
        with pytest.raises(KeyboardInterrupt):
            file_vote(home, last, NOW)
    assert home.ledger.cap_epsilon(SCOPE) == 8.0
    assert file_vote(home, last, NOW).verdict.outcome == "passed"
    assert home.ledger.cap_epsilon(SCOPE) == 12.0
    assert sum(e.kind == RAISED for e in home.journal.entries()) == 1
    refuse_unsigned_caps(home)


def test_a_cap_that_somebody_wrote_into_the_ledger_is_refused(home: Home) -> None:
    home.ledger.raise_cap(SCOPE, CapRecord(500.0, 1e-6, "sha256:" + "0" * 64, "because", "eve"))
    assert home.ledger.self_audit() == []  # the rows agree with each other; only the journal knows better
    with pytest.raises(IntegrityError, match="E-CAP-009"):
        refuse_unsigned_caps(home)
    assert main(["budget", "--home", str(home.path)]) == 4


def test_a_signed_cap_that_somebody_made_larger_is_refused(home: Home) -> None:
    raise_to(home, 12.0)
    with sqlite3.connect(home.path / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER cap_update")
        database.execute("UPDATE cap SET cap_epsilon = 900")
    database.close()
    with pytest.raises(IntegrityError, match="E-CAP-009"):
        refuse_unsigned_caps(Home.open(home.path))


def test_after_a_raise_a_policy_may_name_the_old_cap_or_the_new_one(home: Home) -> None:
    with pytest.raises(PolicyError, match="E-LEDGER-001"):
        home.ledger.open_scope(SCOPE, "customer", 12.0, 1e-6)  # a policy alone raises nothing
    raise_to(home, 12.0)
    home.ledger.open_scope(SCOPE, "customer", 8.0, 1e-6)
    home.ledger.open_scope(SCOPE, "customer", 12.0, 1e-6)
    for cap in (11.0, 13.0, 7.0):
        with pytest.raises(PolicyError, match="E-LEDGER-001"):
            home.ledger.open_scope(SCOPE, "customer", cap, 1e-6)
    assert home.ledger.cap_epsilon(SCOPE) == 12.0


# ---- the command


def run(*arguments: str) -> int:
    return main(["budget", "raise", *arguments])


def test_the_command_raises_with_two_key_files(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("olga", "stan", "both"):
        write_key_file(tmp_path / f"{name}.key", KEYS[name])
    base = ["--home", str(home.path), "--reason", WHY]
    to = [SCOPE, "--to", "12"]
    assert run(*to, *base, "--as", "olga", "--key", str(tmp_path / "olga.key")) == 0
    assert "still needed: 1 steward" in capsys.readouterr().out
    assert run(*to, *base, "--as", "both", "--key", str(tmp_path / "both.key")) == 2  # which role?
    assert run(*to, *base, "--as", "nobody", "--key", str(tmp_path / "stan.key")) == 2
    assert run(*to, "--home", str(home.path), "--as", "stan", "--key", str(tmp_path / "stan.key")) == 2  # no reason
    assert run(SCOPE, "--to", "8", *base, "--as", "stan") == 2
    assert run(*base) == 2
    assert run(*to, *base, "--as", "stan", "--key", str(tmp_path / "stan.key")) == 0
    assert "the cap is epsilon 12 now" in capsys.readouterr().out
    assert home.ledger.cap_epsilon(SCOPE) == 12.0


def test_a_signature_can_be_made_where_there_is_no_home(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(SCOPE, "--to", "12", "--home", str(home.path)) == 0
    (tmp_path / "request.json").write_text(capsys.readouterr().out)
    assert json.loads((tmp_path / "request.json").read_text())["cap_after"] == 12.0
    assert not any("cap" in e.kind for e in home.journal.entries())
    for name, role in (("olga", "privacy_officer"), ("stan", "steward")):
        write_key_file(tmp_path / f"{name}.key", KEYS[name])
        elsewhere = ["--request", str(tmp_path / "request.json"), "--home", str(tmp_path / "none"), "--as", name]
        elsewhere += ["--role", role, "--reason", WHY, "--key", str(tmp_path / f"{name}.key"), "--print"]
        assert run(*elsewhere) == 0
        (tmp_path / f"{name}.dsse.json").write_text(capsys.readouterr().out)
        assert run(*elsewhere[:-1]) == 2  # there is nowhere to file it
        capsys.readouterr()
    assert not (tmp_path / "none").exists()
    for name in ("olga", "stan"):
        assert run("--file", str(tmp_path / f"{name}.dsse.json"), "--home", str(home.path)) == 0
    assert home.ledger.cap_epsilon(SCOPE) == 12.0
    assert io.StringIO(capsys.readouterr().out).read().count("signed by") == 2


@pytest.mark.parametrize("field", ["ledger", "scope", "unit"])
def test_a_request_that_could_rewrite_what_the_signer_is_shown_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    request = {**ASKED.to_json(), field: "chat/customer from epsilon 8.0 to 8.1\r\x1b[8m"}
    (tmp_path / "request.json").write_bytes(canonical_json(request))
    write_key_file(tmp_path / "olga.key", KEYS["olga"])
    elsewhere = ["--request", str(tmp_path / "request.json"), "--home", str(tmp_path / "none"), "--as", "olga"]
    elsewhere += ["--role", "privacy_officer", "--reason", WHY, "--key", str(tmp_path / "olga.key"), "--print"]
    assert run(*elsewhere) == 4
    shown = capsys.readouterr()
    assert "E-CAP-002" in shown.err
    assert "\x1b" not in shown.out + shown.err


def test_a_request_that_is_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert run("--request", str(tmp_path / "pipe"), "--as", "olga") == 4
    assert run("--file", str(tmp_path / "pipe"), "--home", str(Home.create(tmp_path / "h").path)) == 4
    assert "E-CANON-002" in capsys.readouterr().err


def test_there_is_no_way_down_and_no_reset() -> None:
    from pipeline.cli import build_parser

    for words in (["budget", "reset"], ["budget", "lower", SCOPE], ["budget", "raise", SCOPE, "--force"]):
        with pytest.raises(SystemExit):
            build_parser().parse_args(words)
    assert sum(QUORUM.values()) == 2
