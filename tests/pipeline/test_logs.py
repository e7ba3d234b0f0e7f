"""The generator: same seed, same bytes; truth that is true; numbers that are valid; intents that can be learnt."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from pipeline.log_people import SLOT_TYPES
from pipeline.log_phrases import APP_MESSAGES, CORES, DETAILS, FILLS, INTENTS
from pipeline.logs import APP_LOG_PATTERN, GeneratedLogs, LogSpec, generate_logs
from privacy.detect import build_pattern_detector
from privacy.errors import UsageError
from privacy.recognizers.cn import resident_id_valid
from privacy.recognizers.spec import luhn

SHAPES = {
    "EMAIL_ADDRESS": r"[a-z0-9.]{5,}@[a-z.]+\.(?:com|org|net)",
    "CN_RESIDENT_ID": r"[0-9]{17}[0-9X]",
    "CUSTOMER_NUMBER": r"C-[0-9]{7}",
    "IBAN": r"GB[0-9]{2}TEST[0-9]{14}",
}
SPEC = LogSpec(seed=3, customers=160, app_lines=300, bad_lines=7)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> GeneratedLogs:
    return generate_logs(tmp_path_factory.mktemp("landing"), SPEC)


def lines_of(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def chats(logs: GeneratedLogs) -> dict[str, dict[str, str]]:
    good: dict[str, dict[str, str]] = {}
    for path in logs.files:
        if path.name.startswith("chats-"):
            for line in lines_of(path):
                try:
                    record = json.loads(line)
                    good.setdefault(record["message_id"], record) if "customer" in record else None
                except (ValueError, TypeError):
                    continue
    return {key: record for key, record in good.items() if not key.startswith("bad-")}


def app_lines(logs: GeneratedLogs) -> list[str]:
    return [line for path in logs.files if path.name.startswith("app-") for line in lines_of(path)]


def truth(logs: GeneratedLogs) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines_of(logs.truth_path)]


def texts(logs: GeneratedLogs) -> dict[str, str]:
    return {k: r["text"] for k, r in chats(logs).items()} | {f"app:{n}": line for n, line in enumerate(app_lines(logs))}


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(logs: GeneratedLogs, tmp_path: Path) -> None:
    again = generate_logs(tmp_path / "again", SPEC)
    assert [p.name for p in again.files] == [p.name for p in logs.files]
    assert [p.read_bytes() for p in again.files] == [p.read_bytes() for p in logs.files]
    assert again.planted == logs.planted
    assert all(p.read_bytes()[4:8] == bytes(4) for p in logs.files), "a time in the gzip header changes with the clock"
    other = generate_logs(tmp_path / "other", LogSpec(seed=4, customers=160))
    assert other.files[0].read_bytes() != logs.files[0].read_bytes()


def test_the_ground_truth_points_at_what_it_names(logs: GeneratedLogs) -> None:
    by_record = texts(logs)
    rows = truth(logs)
    assert {r["record"] for r in rows} == set(by_record)
    assert len(rows) == logs.records
    for row in rows:
        for span in row["spans"]:  # type: ignore[attr-defined]
            assert by_record[str(row["record"])][span["start"] : span["end"]] == span["value"]
            if span["type"] in SHAPES:
                assert re.fullmatch(SHAPES[span["type"]], span["value"]), "the span must hold the whole value"


def test_planted_numbers_carry_valid_checksums(logs: GeneratedLogs) -> None:
    spans = [span for row in truth(logs) for span in row["spans"]]  # type: ignore[attr-defined]
    cards = [re.sub(r"\D", "", s["value"]) for s in spans if s["type"] in ("CREDIT_CARD", "CN_BANK_CARD")]
    cards = [c for c in cards if len(c) > 4]
    assert cards
    assert all(luhn(card) for card in cards)
    ids = [s["value"] for s in spans if s["type"] == "CN_RESIDENT_ID"]
    assert ids
    for value in ids:  # ISO 7064 mod 11-2; the region was never assigned, so the recognizer's own check refuses it
        assert sum(pow(2, 17 - i, 11) * (10 if c == "X" else int(c)) for i, c in enumerate(value)) % 11 == 1
        assert not resident_id_valid(value)


def test_every_planted_value_was_written_and_is_distinctive(logs: GeneratedLogs) -> None:
    everything = "\n".join([*texts(logs).values(), *(r["customer"] for r in chats(logs).values())])
    assert len(logs.planted) == len(set(logs.planted)) > 300
    assert all(value in everything for value in logs.planted)
    assert all(len(value.encode()) >= 6 for value in logs.planted)


def test_the_truth_is_not_read_as_a_source(logs: GeneratedLogs) -> None:
    folder = logs.files[0].parent
    read = set(folder.glob("chats-*.jsonl.gz")) | set(folder.glob("app-*.log.gz"))
    assert read == set(logs.files)
    assert logs.truth_path not in read


def test_customers_speak_one_language_about_several_matters(logs: GeneratedLogs) -> None:
    intents: dict[str, set[str]] = defaultdict(set)
    languages: dict[str, set[str]] = defaultdict(set)
    for record in chats(logs).values():
        intents[record["customer"]].add(record["intent"])
        languages[record["customer"]].add(record["lang"])
    assert len(intents) == SPEC.customers
    assert sum(len(s) > 1 for s in intents.values()) > SPEC.customers / 2
    assert all(len(s) == 1 for s in languages.values())
    assert Counter(lang for s in languages.values() for lang in s) == {"en": 80, "zh": 80}
    assert {r["intent"] for r in chats(logs).values()} == set(INTENTS)


def test_intents_are_learnable_from_other_customers_words(logs: GeneratedLogs) -> None:
    """Naive Bayes over words and Han pairs, trained on half of the customers, must beat chance by far on the rest."""
    import math

    records = list(chats(logs).values())
    groups = sorted({r["customer"] for r in records})
    train_side = set(groups[: len(groups) // 2])
    counts: dict[str, Counter[str]] = {intent: Counter() for intent in INTENTS}
    for record in records:
        if record["customer"] in train_side:
            counts[record["intent"]].update(_tokens(record["text"]))
    held_out = [r for r in records if r["customer"] not in train_side]

    def guess(text: str) -> str:
        def score(intent: str) -> float:
            total = sum(counts[intent].values()) + 1000
            return sum(math.log((counts[intent][t] + 0.2) / total) for t in _tokens(text))

        return max(INTENTS, key=score)

    accuracy = sum(guess(r["text"]) == r["intent"] for r in held_out) / len(held_out)
    assert 0.75 < accuracy < 0.995, accuracy  # learnable, and not a lookup table


def _tokens(text: str) -> list[str]:
    return re.findall(r"[a-z]{3,}", text.lower()) + [text[i : i + 2] for i in range(len(text) - 1) if text[i] > "\u3400"]


def test_bad_lines_are_there_and_never_first(logs: GeneratedLogs) -> None:
    broken = 0
    for path in logs.files:
        if path.name.startswith("chats-"):
            lines = lines_of(path)
            assert json.loads(lines[0])["customer"]
            for line in lines:
                try:
                    pairs = json.loads(line, object_pairs_hook=list)
                    keys = (
                        [k for k, _ in pairs]
                        if isinstance(pairs, list) and pairs and isinstance(pairs[0], (list, tuple))
                        else []
                    )
                    broken += len(set(keys)) != len(keys) or "customer" not in keys or "\\u0000" in line
                except ValueError:
                    broken += 1
    assert broken == SPEC.bad_lines


def test_app_lines_fit_the_pattern_that_a_policy_can_use(logs: GeneratedLogs) -> None:
    lines = app_lines(logs)
    assert len(lines) == SPEC.app_lines
    levels = Counter(match["level"] for line in lines if (match := re.match(APP_LOG_PATTERN, line)))
    assert sum(levels.values()) == len(lines)
    assert set(levels) == set(APP_MESSAGES)


def test_every_slot_has_a_type_or_a_filling() -> None:
    for language, fills in FILLS.items():
        assert set(CORES[language]) == set(INTENTS)
        for template in [*DETAILS[language], *(t for ts in CORES[language].values() for t in ts)]:
            for slot in re.findall(r"\{([a-z_0-9]+)\}", template):
                assert slot in SLOT_TYPES or slot in fills


def test_a_spec_that_makes_nothing_is_refused(tmp_path: Path) -> None:
    for spec in (LogSpec(1, 0), LogSpec(1, 5, (3, 2)), LogSpec(1, 5, languages=("de",)), LogSpec(1, 5, languages=())):
        with pytest.raises(UsageError, match="E-LOGS-001"):
            generate_logs(tmp_path, spec)


def test_our_rules_alone_find_nearly_all_that_was_planted(logs: GeneratedLogs) -> None:
    """A floor against regressions, not a figure of quality: rules and carriers have one author."""
    by_record = texts(logs)
    rows = truth(logs)
    results = build_pattern_detector(0.4).analyze_batch([by_record[str(r["record"])] for r in rows], "en")
    hit: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row, findings in zip(rows, results, strict=True):
        covered = {i for f in findings for i in range(f.start, f.end)}
        for span in row["spans"]:  # type: ignore[attr-defined]
            wanted = {i for i in range(span["start"], span["end"]) if by_record[str(row["record"])][i].isalnum()}
            total[span["type"]] += 1
            hit[span["type"]] += wanted <= covered
    for entity, count in total.items():
        floor = 0.9 if entity in ("PERSON", "ADDRESS") else 0.99
        assert hit[entity] / count >= floor, (entity, hit[entity], count)
