"""What slips through is measured in every run, in memory, and bounded; a blind detector shows."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence

import pytest

from pipeline.canary_values import KINDS
from pipeline.ingest import ingest
from pipeline.protect import protect
from pipeline.read import read_protected
from pipeline.slip_through import Carriers, Planted, SlipThrough, measure, miss_bound, share_at_least
from pipeline.stage import StageResult
from pipeline.validate import validate
from privacy.detect import Finding, build_pattern_detector
from privacy.entities import ENTITY_TYPES
from tests.worlds.chats import BlindDetector, EmailDetector, World, code_of, lines, records


def run(world: World, detector: object, **changes: object) -> StageResult:
    world.write("a.jsonl", lines(records(40)))
    ctx = world.context(**changes)
    return protect(ctx, ingest(ctx, str(world.source)).digest, detector)  # type: ignore[arg-type]


def tail(missed: int, planted: int, rate: float) -> float:
    return sum(math.comb(planted, k) * rate**k * (1 - rate) ** (planted - k) for k in range(missed + 1))


@pytest.mark.parametrize(("missed", "planted"), [(0, 1), (0, 20), (3, 20), (19, 20), (0, 2640), (7, 500)])
def test_the_bound_is_clopper_pearson_rounded_up(missed: int, planted: int) -> None:
    bound = miss_bound(missed, planted, 0.95)
    assert tail(missed, planted, bound) <= 0.05 + 1e-9
    assert tail(missed, planted, bound - 2e-6) > 0.05
    if missed == 0:
        assert bound == pytest.approx(1 - 0.05 ** (1 / planted), abs=2e-6)


def test_bounds_of_nonsense_are_refused_and_of_all_missed_are_one() -> None:
    assert miss_bound(5, 5, 0.95) == 1.0
    for missed, planted in ((0, 0), (6, 5), (-1, 5)):
        with pytest.raises(ValueError, match="canary"):
            miss_bound(missed, planted, 0.95)


def test_planted_values_stand_where_they_are_said_to_and_every_kind_is_of_a_known_type() -> None:
    carriers = Carriers(random.Random(5))
    carriers.offer(["the parcel never came and I want my money back", "我的包裹没有收到", "x"])
    planted = carriers.plant(("en", "zh"), 3, frozenset())
    assert len(planted) == 3 * len(KINDS)
    assert {kind.entity for kind in KINDS} <= ENTITY_TYPES
    for item in planted:
        value = item.text[item.start : item.end]
        assert value.strip() == value
        assert len(value) >= 3
    assert len({item.text for item in planted}) == len(planted)
    assert carriers.plant(("zh",), 1, frozenset({"PERSON"})) != []
    assert all(p.entity != "PERSON" for p in carriers.plant(("en", "zh"), 1, frozenset({"PERSON"})))


def test_the_carriers_are_a_bounded_uniform_sample() -> None:
    hits = [0] * 640
    for seed in range(300):
        carriers = Carriers(random.Random(seed))
        carriers.offer([str(n) for n in range(640)])
        for text in carriers._kept:
            hits[int(text)] += 1
    assert sum(hits) == 300 * 64
    assert max(hits[:320]) < 70
    assert abs(sum(hits[:320]) - sum(hits[320:])) < 1500


def test_one_letter_left_is_a_miss_and_so_is_a_value_that_is_kept() -> None:
    item = Planted("call a@b.com now", 5, 12, "EMAIL_ADDRESS")

    def of(start: int, end: int, treated: str, entity: str = "EMAIL_ADDRESS") -> int:
        found = [Finding(start, end, entity, 1.0, "t", "1")]
        return measure([item], lambda texts: [(treated, found)], frozenset({"URL"})).missed.get("EMAIL_ADDRESS", 0)

    assert of(5, 12, "call <EMAIL_ADDRESS> now") == 0
    assert of(4, 13, "call<PERSON>now", "PERSON") == 0
    assert of(6, 12, "call a<EMAIL_ADDRESS> now") == 1
    assert of(5, 12, "call a@b.com now") == 1
    assert of(5, 12, "call <URL> now", "URL") == 1


def test_every_run_reports_a_bound_and_a_blind_detector_gets_the_worst(world: World) -> None:
    result = run(world, BlindDetector())
    facts = result.manifest.facts
    assert facts["canaries_planted"] == facts["canaries_missed"] == 10 * len(KINDS)
    assert facts["miss_bound"] == 1.0
    evidence = json.loads(world.home.store.read_plain(result.manifest.outputs["slip_through"]))
    assert "canary" not in json.dumps(evidence["types"])
    assert "only" in evidence["holds_for"]
    assert evidence["level"] == 0.95
    assert evidence["types"]["EMAIL_ADDRESS"] == {"planted": 20, "missed": 20, "miss_bound": 1.0}


def test_types_that_are_found_are_told_from_those_that_are_not(world: World) -> None:
    facts = json.loads(world.home.store.read_plain(run(world, EmailDetector()).manifest.outputs["slip_through"]))["types"]
    assert facts["CREDIT_CARD"]["missed"] == facts["CREDIT_CARD"]["planted"]
    assert facts["EMAIL_ADDRESS"]["miss_bound"] <= 1.0


def test_nothing_planted_enters_the_dataset_or_the_home(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Watching(EmailDetector):
        def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
            seen.extend(texts)
            return super().analyze_batch(texts, language)

    result = run(world, Watching())
    got = read_protected(world.home, result.manifest)
    assert got.num_rows == 40
    planted = [text for text in seen if "number" not in text or "AKIA" in text]
    assert len(planted) > 10
    kept = "\n".join(got["text"].to_pylist())
    assert "AKIA" not in kept
    assert b"AKIA" not in world.objects_without_key()


def test_the_policy_may_ask_for_a_bound_and_a_run_above_it_is_refused(world: World) -> None:
    changes = {"expectations.max_miss_bound": 0.5}
    assert code_of(validate, world.context(**changes), run(world, BlindDetector(), **changes).digest) == "E-VALIDATE-001"


def test_a_policy_that_asks_for_a_bound_and_plants_nothing_is_refused(world: World) -> None:
    changes = {"expectations.max_miss_bound": 0.5, "pii.canaries_per_type": 0}
    result = run(world, EmailDetector(), **changes)
    assert "miss_bound" not in result.manifest.facts
    assert code_of(validate, world.context(**changes), result.digest) == "E-VALIDATE-001"


def test_without_a_bound_a_detection_that_is_shown_to_be_broken_is_refused_and_a_small_run_is_not(world: World) -> None:
    changes: dict[str, object] = {"expectations.max_miss_bound": None}
    assert code_of(validate, world.context(**changes), run(world, BlindDetector(), **changes).digest) == "E-VALIDATE-001"
    small = {**changes, "pii.canaries_per_type": 1, "pii.detect": ["EMAIL_ADDRESS"]}
    result = run(world, build_pattern_detector(), **small)
    assert result.manifest.facts["miss_bound"] > 0.5  # type: ignore[operator]  # two planted: what no run so small could better
    assert validate(world.context(**small), result.digest).manifest.facts["verdict"] == "passed"


def test_the_lower_bound_is_clopper_pearson() -> None:
    assert share_at_least(0, 10) == 0.0
    assert share_at_least(10, 10) == pytest.approx(0.05 ** (1 / 10))
    for missed in range(1, 10):
        at = share_at_least(missed, 10)
        assert sum(math.comb(10, k) * at**k * (1 - at) ** (10 - k) for k in range(missed, 11)) == pytest.approx(0.05)


def test_the_mean_rate_is_bounded_over_types() -> None:
    slipped = SlipThrough({"A": 100, "B": 100}, {"B": 2})
    assert slipped.bound == miss_bound(2, 200, 0.95)
    assert SlipThrough({}, {}).bound is None
