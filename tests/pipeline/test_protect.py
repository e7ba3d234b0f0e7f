"""De-identified rows under tokens, originals in the vault, the raw batch gone."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import date

import pyarrow as pa
import pytest

import pipeline.store
from pipeline.ingest import ingest
from pipeline.protect import protect
from pipeline.read import read_protected
from pipeline.stage import StageResult, load_manifest
from privacy.detect import Finding
from tests.worlds.chats import PLANTED, BlindDetector, EmailDetector, World, code_of, lines, record, records


def protected(world: World, values: list[dict[str, object]], **changes: object) -> StageResult:
    world.write("a.jsonl", lines(values))
    ctx = world.context(**changes)
    return protect(ctx, ingest(ctx, str(world.source)).digest, EmailDetector())


def rows(world: World, result: StageResult) -> list[dict[str, object]]:
    got: list[dict[str, object]] = read_protected(world.home, result.manifest).to_pylist()
    return got


def test_identifiers_become_tokens_and_text_becomes_placeholders(world: World) -> None:
    result = protected(world, records(10))
    got = rows(world, result)
    assert [r["text"] for r in got] == [f"hello, number {n} here, write to <EMAIL_ADDRESS>" for n in range(10)]
    assert {r["time"] for r in got} == {date(2026, 3, 4)}
    assert [r["label"] for r in got] == [r["intent"] for r in records(10)]
    assert [r["unit"] for r in got] == world.home.vault.tokens("test_chat", [f"customer-{n % 5}" for n in range(10)])
    assert all(str(r["record_id"]).startswith("r") and len(str(r["record_id"])) == 25 for r in got)
    assert set(got[0]) == {"unit", "record_id", "time", "lang", "text", "label", "channel"}
    facts = result.manifest.facts
    assert (facts["records"], facts["units"], facts["suppressed"], facts["entities.EMAIL_ADDRESS"]) == (10, 5, 0, 10)


def test_kept_fields_are_scanned_like_text(world: World) -> None:
    result = protected(world, [record(1, channel=f"mail from {PLANTED}", text="nothing here"), record(2, channel=None)])
    assert [r["channel"] for r in rows(world, result)] == ["mail from <EMAIL_ADDRESS>", ""]


def test_the_original_is_sealed_under_its_subject(world: World) -> None:
    result = protected(world, records(10))
    token = world.home.vault.token("test_chat", "customer-3")
    originals = [json.loads(payload) for _, payload in world.home.vault.reveal("test_chat", token)]
    assert sorted(o["id"] for o in originals) == ["m3", "m8"]
    ids = {record_id for record_id, _ in world.home.vault.reveal("test_chat", token)}
    assert ids == {r["record_id"] for r in rows(world, result) if r["unit"] == token}


def test_the_raw_batch_is_destroyed_and_a_retry_still_works(world: World) -> None:
    result = protected(world, records(10))
    ctx = world.context()
    ingested = result.manifest.inputs["ingest"]
    raw = load_manifest(world.home, ingested).outputs["raw"]
    assert not world.home.store.exists(raw)
    again = protect(ctx, ingested, BlindDetector())
    assert (again.digest, again.reused) == (result.digest, True)
    other = world.context(**{"privacy_unit.max_records": 3})  # another policy: the raw batch is gone, and it says so
    assert code_of(protect, other, ingested, EmailDetector()) == "E-PROTECT-002"


def test_a_crash_between_commit_and_shredding_is_mended_by_the_next_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write("a.jsonl", lines(records(3)))
    ctx = world.context()
    ingested = ingest(ctx, str(world.source))
    store = world.home.store
    with monkeypatch.context() as patched:
        patched.setattr(type(store), "shred", lambda self, ref: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            protect(ctx, ingested.digest, EmailDetector())
    assert store.exists(ingested.manifest.outputs["raw"])
    assert protect(ctx, ingested.digest, EmailDetector()).reused
    assert not store.exists(ingested.manifest.outputs["raw"])


def test_a_racer_that_destroys_the_raw_batch_while_we_read_it_hands_us_its_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write("a.jsonl", lines(records(3)))
    ctx = world.context()
    ingested = ingest(ctx, str(world.source))
    digest_file, won = pipeline.store._digest_file, []

    def racer_first(file: io.FileIO) -> str:
        if not won:
            won.append("")  # the racer's own read comes through here too
            won[0] = protect(ctx, ingested.digest, EmailDetector()).digest
        return digest_file(file)

    monkeypatch.setattr(pipeline.store, "_digest_file", racer_first)
    ours = protect(ctx, ingested.digest, EmailDetector())
    assert (ours.digest, ours.reused) == (won[0], True)


def test_a_crash_in_the_middle_loses_and_doubles_nothing(world: World) -> None:
    world.write("a.jsonl", lines(records(600)))
    ctx = world.context()
    ingested = ingest(ctx, str(world.source))

    class Dying(EmailDetector):
        calls = 0

        def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
            self.calls += 1
            if self.calls > 3:  # two batches of texts and the one kept value went well
                raise KeyboardInterrupt
            return super().analyze_batch(texts, language)

    with pytest.raises(KeyboardInterrupt):
        protect(ctx, ingested.digest, Dying())
    result = protect(ctx, ingested.digest, EmailDetector())
    assert result.manifest.facts["records"] == 600
    token = world.home.vault.token("test_chat", "customer-0")
    assert len(world.home.vault.reveal("test_chat", token)) == 120


def test_erased_subjects_are_suppressed_and_counted(world: World) -> None:
    world.home.vault.erase("test_chat", "CUSTOMER-3 ", "case-1")  # spelling does not matter
    result = protected(world, records(10))
    assert (result.manifest.facts["suppressed"], result.manifest.facts["records"]) == (2, 8)
    token = world.home.vault.token("test_chat", "customer-3")
    assert world.home.vault.reveal("test_chat", token) == []
    assert token not in {r["unit"] for r in rows(world, result)}


def test_a_dataset_of_erased_subjects_only_is_an_error(world: World) -> None:
    world.home.vault.erase("test_chat", "customer-1", "case-1")
    world.write("a.jsonl", lines([record(1)]))
    ctx = world.context()
    assert code_of(protect, ctx, ingest(ctx, str(world.source)).digest, EmailDetector()) == "E-PROTECT-003"


def test_an_erasure_after_protect_closes_the_reader_at_once(world: World) -> None:
    result = protected(world, records(10))
    world.home.vault.erase("test_chat", "customer-3", "case-1")
    got = rows(world, result)
    assert len(got) == 8
    assert world.home.vault.token("test_chat", "customer-3") not in {r["unit"] for r in got}


def test_records_beyond_the_bound_are_counted_not_dropped(world: World) -> None:
    result = protected(world, records(10), **{"privacy_unit.max_records": 1})
    facts = result.manifest.facts
    assert (facts["records"], facts["records_beyond_bound"]) == (10, 5)


def test_no_fact_is_about_one_single_unit(world: World) -> None:
    """The longest history is that of one customer; facts leave with the bundle."""
    values = [*records(4), *(record(n, customer="customer-0") for n in range(100, 137))]
    facts = protected(world, values).manifest.facts
    assert not {38, 37} & {value for value in facts.values() if isinstance(value, int)}


def test_a_unit_has_no_say_in_what_becomes_of_another_units_records(world: World) -> None:
    """Sensitivity is bounded for one unit's own records only; ids it shares with others must not remove theirs."""
    others = records(10)
    squatter = [record(n, customer="customer-9") for n in range(10)]
    with_it = rows(world, protected(world, [*squatter, *others]))
    alone = rows(world, protected(world, others))
    token = world.home.vault.token("test_chat", "customer-9")
    assert [r for r in with_it if r["unit"] != token] == alone
    assert len({r["record_id"] for r in with_it}) == len(with_it) == 20


def test_tokens_differ_between_datasets(world: World) -> None:
    first = rows(world, protected(world, records(3)))
    second = rows(world, protected(world, records(3), dataset="other_chat"))
    assert not {r["unit"] for r in first} & {r["unit"] for r in second}
    assert not {r["record_id"] for r in first} & {r["record_id"] for r in second}


def test_a_detector_that_skips_a_text_stops_the_stage(world: World) -> None:
    class Short(EmailDetector):
        def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
            return super().analyze_batch(texts, language)[1:]

    world.write("a.jsonl", lines(records(3)))
    ctx = world.context()
    assert code_of(protect, ctx, ingest(ctx, str(world.source)).digest, Short()) == "E-PROTECT-004"


def test_nothing_of_a_person_lies_in_the_clear_after_protect(world: World) -> None:
    result = protected(world, [record(n, customer=f"person-{n}@example.org", text=f"I am {PLANTED}") for n in range(5)])
    stored = world.objects_without_key()
    assert PLANTED.encode() not in stored
    assert b"person-" not in stored
    assert b"person-" not in json.dumps(result.manifest.to_json()).encode()


def test_a_manifest_without_a_raw_batch_is_refused(world: World) -> None:
    result = protected(world, records(3))
    assert code_of(protect, world.context(), result.digest) == "E-PROTECT-001"
    assert code_of(read_protected, world.home, load_manifest(world.home, result.manifest.inputs["ingest"])) == "E-READ-001"
    world.home.store.shred(result.manifest.outputs["protected"])
    assert code_of(read_protected, world.home, result.manifest) == "E-READ-002"


def test_a_language_that_the_policy_forgot_is_scanned_all_the_same(world: World) -> None:
    """With the real recognizers: a Chinese record under an English-only policy."""
    world.write("a.jsonl", lines([record(1, text="我的手机号是13812345678，请尽快联系我")]))
    ctx = world.context(languages=["en"])
    result = protect(ctx, ingest(ctx, str(world.source)).digest, EmailDetector())
    (row,) = rows(world, result)
    assert "13812345678" not in str(row["text"])
    assert (row["lang"], result.manifest.facts["undeclared_language"]) == ("zh", 1)


def test_the_table_has_the_declared_types(world: World) -> None:
    table = read_protected(world.home, protected(world, records(3)).manifest)
    assert table.schema.field("time").type == pa.date32()
    assert {f.type for f in table.schema if f.name != "time"} == {pa.string()}
