"""The policy's rules reach the detector, the de-identifier, the second scan and the privacy unit."""

from __future__ import annotations

import gzip
from datetime import date
from pathlib import Path

import pytest
import yaml

from pipeline.erase import erase
from pipeline.examples import before_and_after
from pipeline.home import Home
from pipeline.ingest import ingest
from pipeline.protect import protect
from pipeline.quarantine import Reject, names_subject
from pipeline.read import read_protected
from pipeline.readers import Row
from pipeline.sealed_secrets import SealedSecrets, secret_name
from pipeline.stage import StageResult
from pipeline.subject import answer
from pipeline.treatment import checking_detector, deidentifier_of, detector_of, left_behind
from pipeline.validate import validate
from privacy.detect import build_pattern_detector
from privacy.errors import PolicyError
from privacy.policy_rules import denied_values, detection_rules
from privacy.tokens import spelled_anywhere, spelled_subject
from tests.worlds.chats import World, code_of, lines, record
from tests.worlds.policies import policy_value

DATES = {"DATE_OF_BIRTH": "date_shift", "DATE_TIME": "date_shift"}
REALISTIC = {"EMAIL_ADDRESS": "surrogate", "PHONE_NUMBER": "surrogate", **DATES}


def run(world: World, values: list[dict[str, object]], **changes: object) -> tuple[StageResult, list[dict[str, object]]]:
    world.write("a.jsonl", lines(values))
    ctx = world.context(**changes)
    done = protect(ctx, ingest(ctx, str(world.source)).digest, build_pattern_detector())
    got: list[dict[str, object]] = read_protected(world.home, done.manifest).to_pylist()
    return done, got


def test_surrogates_go_through_protect_and_validate_does_not_count_them(world: World) -> None:
    values = [record(n, text=f"mail bob{n}@corp.com, date of birth: 1990-12-{n + 10}, call 415-555-2671") for n in range(12)]
    changes = {"pii.entities": REALISTIC}
    done, got = run(world, values, **changes)
    assert all("@example." in str(row["text"]) for row in got)
    facts = validate(world.context(**changes), done.digest).manifest.facts
    assert facts["residual_pii"] == 0
    found = build_pattern_detector().analyze_batch([str(row["text"]) for row in got], "en")
    assert sum(map(len, found)) >= 12  # a scan without the mark takes them for raw


def test_validate_still_counts_what_is_raw_beside_surrogates(world: World) -> None:
    class Forgetful:
        version = "forgets phones"

        def analyze_batch(self, texts: list[str], language: str) -> list[list[object]]:
            found = build_pattern_detector().analyze_batch(texts, language)
            return [[f for f in each if f.entity == "EMAIL_ADDRESS"] for each in found]

    changes = {"pii.entities": REALISTIC}
    world.write("a.jsonl", lines([record(n, text=f"mail bob{n}@corp.com or call 415-555-2671") for n in range(6)]))
    ctx = world.context(**changes)
    done = protect(ctx, ingest(ctx, str(world.source)).digest, Forgetful())  # type: ignore[arg-type]
    assert code_of(validate, ctx, done.digest) == "E-VALIDATE-001"


def test_the_day_of_a_record_moves_with_the_dates_of_its_texts(world: World) -> None:
    values = [record(n, text="date of birth: 1990-12-31", time="2026-03-04T10:00:00+00:00") for n in range(5)]
    _, got = run(world, values, **{"pii.entities": REALISTIC})
    for row in got:
        moved, born = row["time"], date.fromisoformat(str(row["text"]).split()[-1])
        assert isinstance(moved, date)
        assert moved - born == date(2026, 3, 4) - date(1990, 12, 31)
    assert len({row["time"] for row in got}) > 1  # each subject by a number of its own


def test_pseudonyms_of_two_domains_are_unlinkable_and_of_one_are_stable(world: World) -> None:
    def of(domain: str | None) -> str:
        policy = world.context(**{"pii.domain": domain} if domain else {}).policy
        return deidentifier_of(world.home, policy)._placeholder("PERSON", "Alice") + str(
            deidentifier_of(world.home, world.context(**{"pii.default": "pseudonym", "pii.domain": domain}).policy).pseudonyms(
                __import__("pyarrow").array(["Alice"]), "PERSON"
            )
        )

    assert of("release_one") == of("release_one") != of("release_two")


def test_patterns_thresholds_and_allow_lists_reach_the_detector(world: World) -> None:
    policy = world.context(
        **{
            "languages": ["zh"],
            "pii.allow": ["help@corp.com"],
            "pii.patterns": {"badge": {"entity": "CUSTOMER_NUMBER", "pattern": "wx-[0-9]{5}", "examples": ["WX-12345"]}},
            "pii.thresholds": {"PHONE_NUMBER": 1.0},
        }
    ).policy
    text = "我的 WX-70001 help@corp.com bob@corp.com"
    for detector in (detector_of(world.home, policy), checking_detector(policy)):
        found = {text[f.start : f.end]: f.entity for f in detector.analyze_batch([text], "zh")[0]}
        assert found == {"WX-70001": "CUSTOMER_NUMBER", "bob@corp.com": "EMAIL_ADDRESS"}


def test_a_sealed_list_is_found_and_its_values_stand_nowhere(world: World) -> None:
    SealedSecrets(world.home).set(secret_name("list", "staff"), "Zebulon Quartermain\n\nOttoline Frobisher\n")
    policy = world.context(**{"languages": ["zh"], "pii.deny": {"staff": "PERSON"}}).policy
    detector = detector_of(world.home, policy)
    (found,) = detector.analyze_batch(["请找 zebulon quartermain 谢谢"], "zh")[0]
    assert found.entity == "PERSON"
    values, mark = denied_values(policy, lambda name: "Zebulon Quartermain", b"k" * 32)
    assert "Quartermain" not in str(detection_rules(policy, values, mark).facts())
    assert denied_values(policy, lambda name: "Zebulon Quartermain", b"x" * 32)[1] != mark


def test_a_steward_opens_the_lists_and_a_trainer_does_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protect runs as steward; connections of Airflow are the operator's alone. Validate runs as trainer."""
    SealedSecrets(world.home).set(secret_name("list", "staff"), "Zebulon Quartermain\n")
    SealedSecrets(world.home).set(secret_name("config", "staff"), "of Airflow")
    policy = world.context(**{"languages": ["zh"], "pii.deny": {"staff": "PERSON"}}).policy
    text = "zebulon quartermain"
    monkeypatch.setenv("PRIVET_ROLE", "steward")
    steward = Home.open(world.home.path)
    assert len(detector_of(steward, policy).analyze_batch([text], "zh")[0]) == 1
    with pytest.raises(PolicyError, match="E-KEY-011"):
        SealedSecrets(steward).get(secret_name("config", "staff"))
    monkeypatch.setenv("PRIVET_ROLE", "trainer")
    trainer = Home.open(world.home.path)
    with pytest.raises(PolicyError, match="E-KEY-011"):
        detector_of(trainer, policy)
    assert checking_detector(policy).analyze_batch([text], "zh")[0] == []


def test_protect_counts_what_was_left_of_a_sealed_list_and_validate_asks_for_it(world: World) -> None:
    SealedSecrets(world.home).set(secret_name("list", "staff"), "quartermain\n")
    changes = {"pii.deny": {"staff": "PERSON"}, "pii.canaries_per_type": 0}
    values = [record(n, text="Quartermain called") for n in range(6)]
    done, _ = run(world, values, **changes)  # a detector that does not know the list
    assert done.manifest.facts["denied_left"] == 6
    assert code_of(validate, world.context(**changes), done.digest) == "E-VALIDATE-001"
    ctx = world.context(**changes, **{"pii.score_threshold": 0.5})
    done = protect(ctx, ingest(ctx, str(world.source)).digest)
    assert done.manifest.facts["denied_left"] == 0
    assert validate(ctx, done.digest).manifest.facts["verdict"] == "passed"
    assert left_behind(world.home, world.context(**{**changes, "pii.entities": {"PERSON": "keep"}}).policy) is None


def test_a_denied_value_counts_whatever_the_policy_says_of_its_type(world: World) -> None:
    SealedSecrets(world.home).set(secret_name("list", "staff"), "Quartermain\n")
    changes = {"pii.deny": {"staff": "PERSON"}, "pii.detect": ["EMAIL_ADDRESS"], "pii.allow": ["quartermain"]}
    policy = world.context(**{"languages": ["zh"], **changes}).policy
    assert [f.entity for f in detector_of(world.home, policy).analyze_batch(["问 Quartermain"], "zh")[0]] == ["PERSON"]


def test_the_demo_shows_what_protect_would_do(world: World, tmp_path: Path) -> None:
    SealedSecrets(world.home).set(secret_name("list", "staff"), "quartermain\n")
    policy = tmp_path / "policy.yaml"
    changes = {"languages": ["zh"], "pii.deny": {"staff": "PERSON"}, "pii.entities": {"EMAIL_ADDRESS": "surrogate"}}
    policy.write_text(yaml.safe_dump(policy_value(**changes)))
    with gzip.open(tmp_path / "chats-zh.jsonl.gz", "wt") as file:
        file.write('broken\n{"text": "请问一下今天 quartermain 先生或者 bob@corp.com 在不在这里"}\n')
    ((before, after),) = before_and_after(world.home, tmp_path, policy, 3)
    assert "quartermain" in before
    assert "<PERSON>" in after
    assert "@example." in after


@pytest.mark.parametrize("sealed", [None, "", " \n", "\n".join(f"value {n}" for n in range(1001))])
def test_a_list_that_is_not_there_empty_or_too_long_stops_the_run(world: World, sealed: str | None) -> None:
    policy = world.context(**{"pii.deny": {"staff": "PERSON"}}).policy
    with pytest.raises(PolicyError, match="E-DETECT-010") as caught:
        denied_values(policy, lambda name: sealed, b"k" * 32)
    assert "value 1" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "spellings", "other"),
    [
        ("id", ["AB-12.34/5", "ab12345", " ＡＢ 12-345", "AB\u200b12345"], "ab12346"),
        ("email", ["Bob@Corp.com", "mailto:bob@corp.com", "<BOB@corp.com>"], "bob2@corp.com"),
        ("phone", ["(415) 555-2671", "415.555.2671", "４１５５５５２６７１"], "415 555 2672"),
        ("name", ["Smith, Alice", "alice  smith", "ALICE SMITH."], "Alice Smythe"),
        ("plain", ["Bob", "bob ", "ＢＯＢ"], "b-ob"),
    ],
)
def test_the_unit_is_one_however_it_is_spelled(world: World, kind: str, spellings: list[str], other: str) -> None:
    values = [record(n, customer=spelling, id=f"m{n}") for n, spelling in enumerate([*spellings, other])]
    _, got = run(world, values, **{"source.fields.subject_kind": kind})
    assert len({row["unit"] for row in got}) == 2
    assert sum(row["unit"] == got[-1]["unit"] for row in got) == 1


def test_a_spelling_is_stable_and_never_empty() -> None:
    for kind in ("plain", "id", "email", "phone", "name"):
        for subject in ("--", "no digits", "Bob, ", "+1 (415) 555-2671", "张 伟"):
            once = spelled_subject(subject, kind)
            assert once.strip()
            assert spelled_subject(once, kind) == once


@pytest.mark.parametrize(
    ("kind", "subject", "raw", "others"),
    [
        ("id", "ab12345", '{"customer": "AB-12.34/5", "text"', '{"customer": "AB-12.34/56"'),
        ("id", "AB 12 345", "cut AB\u200b12345", "cab12345"),
        ("email", "mailto:Bob@Corp.com", "x,<bob@corp.com>,y", "x,jbob@corp.com,y"),
        ("phone", "+1 (415) 555-2671", '"001-415-555-2671', '"1-415-555-26719'),
        ("phone", "4155552671", "tel ４１５.555.2671", "tel 415.555.2672"),
        ("name", "Alice Smith", "SMITH, Alice|", "Smithson, Alice"),
        ("name", "Zoë Żak", '{"c": "\\u017bak, Zo\\u00eb"', '{"c": "Zoe Zak"'),
        ("plain", "Bob", "id=ｂｏｂ;", "id=bobby;"),
    ],
)
def test_a_quarantine_is_searched_for_every_spelling_of_the_unit(kind: str, subject: str, raw: str, others: str) -> None:
    spelled = spelled_anywhere(subject, kind)
    for text, wanted in ((raw, True), (others, False)):
        row = Row(3, text.encode(), code="E-INGEST-101")
        assert names_subject(Reject("E-INGEST-101", "a.jsonl", None, row), spelled) is wanted


def test_access_and_erasure_find_the_unit_by_any_of_its_spellings(world: World) -> None:
    values = [record(n, customer="+1 (415) 555-2671", id=f"m{n}") for n in range(3)] + [record(9)]
    run(world, values, **{"source.fields.subject_kind": "phone"})
    found = answer(world.home, "1-415-555-2671", "case-1", "operator")
    assert [d.originals for d in found.datasets] == [3]
    receipt = erase(world.home, "1 415 555 2671", "case-2", "operator")
    assert [d.vault_records for d in receipt.datasets] == [3]
