"""One subject leaves: what is destroyed, what is only bounded, and what Privet can't reach is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.erase import erase
from pipeline.ingest import ingest
from pipeline.protect import protect
from pipeline.read import read_protected
from pipeline.receipt import ERASURE_TYPE
from pipeline.renew import renew
from pipeline.retain import run_retention
from pipeline.stage import StageContext, StageOutput, StageResult, load_manifest, run_stage
from pipeline.subject import answer
from pipeline.training_budget import only_trainer
from pipeline.training_watch import journal_end, journal_start
from pipeline.validate import validate
from privacy.canonical import canonical_json
from privacy.errors import PrivetError
from privacy.signing import open_envelope
from tests.worlds.chats import EmailDetector, World, code_of, lines, record, records
from tests.worlds.traces import trace

SUBJECT = "customer-3"


def protected(world: World, ctx: StageContext) -> StageResult:
    return protect(ctx, ingest(ctx, str(world.source)).digest, EmailDetector())


def trained(world: World, ctx: StageContext, done: StageResult, private: bool) -> StageResult:
    """A stand-in for the train stage: same lineage, same outputs."""

    def body() -> StageOutput:
        found = trace(epsilon=8.0, delta=1e-4).to_json()
        value = found if private else {**found, "mechanism": "none"}
        data = canonical_json(value)
        ref = world.home.store.put_plain(data, dataset="test_chat", path="trace.json", data_class="trace")
        return StageOutput({"trace": ref}, {})

    return run_stage(ctx, "train", {"protect": done.digest}, body)


@pytest.fixture
def lived(world: World) -> tuple[World, StageResult]:
    world.write("a.jsonl", lines(records(20)) + b'{"customer": "customer-3", "broken\n')
    return world, protected(world, world.context())


def test_the_original_is_gone_and_the_reader_closed(lived: tuple[World, StageResult]) -> None:
    world, done = lived
    receipt = erase(world.home, " CUSTOMER-3", "DSAR-17", "demo_officer")
    token = world.home.vault.token("test_chat", SUBJECT)
    assert world.home.vault.reveal("test_chat", token) == []
    assert token not in {r["unit"] for r in read_protected(world.home, done.manifest).to_pylist()}
    (dataset,) = receipt.datasets
    assert (dataset.vault_records, dataset.was_known, receipt.was_known) == (4, True, True)
    assert [(a.kind, a.manifest, a.records) for a in receipt.artifacts if a.kind == "protected"] == [
        ("protected", done.digest, 4)
    ]


def test_a_quarantine_that_names_the_subject_is_destroyed(lived: tuple[World, StageResult]) -> None:
    world, done = lived
    quarantine = load_manifest(world.home, done.manifest.inputs["ingest"]).outputs["quarantine"]
    other = erase(world.home, "ustomer-3", "DSAR-16", "demo_officer")  # part of a word is another subject
    assert other.artifacts == ()
    assert world.home.store.exists(quarantine)
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    assert [(a.kind, a.records) for a in receipt.artifacts][-1] == ("quarantine", 1)
    assert not world.home.store.exists(quarantine)


def test_a_quarantine_of_others_is_left_alone(lived: tuple[World, StageResult]) -> None:
    world, _ = lived
    receipt = erase(world.home, "customer-4", "DSAR-17", "demo_officer")
    assert [a.kind for a in receipt.artifacts] == ["protected"]


def test_a_later_ingest_does_not_bring_the_subject_back(lived: tuple[World, StageResult]) -> None:
    world, _ = lived
    erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    world.write("b.jsonl", lines([record(n) for n in range(100, 110)]))
    again = protected(world, world.context("run-2"))
    assert again.manifest.facts["suppressed"] == 6
    assert world.home.vault.reveal("test_chat", world.home.vault.token("test_chat", SUBJECT)) == []


def test_models_and_releases_are_named_with_an_honest_remedy(lived: tuple[World, StageResult]) -> None:
    world, done = lived
    private = trained(world, world.context("run-dp"), done, private=True)
    ctx = world.context("run-np", **{"recipe.mechanism": "non_private"})
    open_model = trained(world, ctx, done, private=False)
    stranger = StageContext(world.home, ctx.policy, ctx.policy_digest, "run-other", "demo_engineer")
    run_stage(stranger, "train", {"protect": "sha256:" + "0" * 64}, lambda: StageOutput({}, {}))
    world.home.journal.append("release", {"run": "run-dp", "policy": ctx.policy_digest, "policy_name": "test_chat"})
    world.home.journal.append("release", {"run": "elsewhere", "models": {"one": [open_model.digest]}})
    world.home.journal.append("release", {"run": "run-other", "policy": ctx.policy_digest})
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    found = {m.manifest: m for m in receipt.models}
    assert set(found) == {private.digest, open_model.digest}
    assert found[private.digest].remedy.startswith("bounded by (epsilon 8, delta 0.0001); to train without")
    assert (found[private.digest].action, found[open_model.digest].action) == ("dp_bound", "withdraw")
    assert found[open_model.digest].mechanism == "non_private"
    assert len(receipt.releases) == 2
    assert any(line.startswith(f"  release test_chat of {receipt.releases[0].at}: ") for line in receipt.lines())


def test_lineage_is_followed_through_stages_between(lived: tuple[World, StageResult]) -> None:
    world, done = lived
    ctx = world.context()
    checked = validate(ctx, done.digest)
    later = run_stage(ctx, "train", {"validation": checked.digest}, lambda: StageOutput({}, {}))
    assert [m.manifest for m in erase(world.home, SUBJECT, "DSAR-17", "demo_officer").models] == [later.digest]


def test_the_receipt_is_signed_stored_and_journalled_without_the_subject(lived: tuple[World, StageResult]) -> None:
    world, _ = lived
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    assert receipt.envelope is not None
    envelope = world.home.store.get_plain(receipt.envelope)
    signed = open_envelope(envelope, world.home.trust)
    assert (signed.predicate_type, signed.predicate, signed.signer.name) == (
        ERASURE_TYPE,
        receipt.predicate(),
        "privet-pipeline",
    )
    entry = world.home.journal.entries()[-1]
    assert (entry.kind, entry.facts["receipt"]) == ("erasure", receipt.envelope)
    token = world.home.vault.token("test_chat", SUBJECT)
    told = envelope.decode() + json.dumps(entry.to_json()) + "\n".join(receipt.lines()) + json.dumps(receipt.to_json())
    assert SUBJECT not in told
    assert token not in told  # a token would link the receipt to the rows
    assert "landing" in told


def test_commitments_of_two_cases_do_not_link_one_subject(lived: tuple[World, StageResult]) -> None:
    world, _ = lived
    first = erase(world.home, SUBJECT, "DSAR-17", "demo_officer").datasets[0]
    again = erase(world.home, SUBJECT, "DSAR-17", "demo_officer").datasets[0]
    other = erase(world.home, SUBJECT, "DSAR-18", "demo_officer").datasets[0]
    assert first.commitment == again.commitment != other.commitment
    assert (again.vault_records, again.was_known) == (0, True)


def test_an_unknown_subject_is_told_so_and_still_kept_out(lived: tuple[World, StageResult]) -> None:
    world, _ = lived
    receipt = erase(world.home, "customer-9999", "DSAR-17", "demo_officer")
    assert not receipt.was_known
    assert "nothing was found" in receipt.lines()[0]
    assert world.home.vault.is_erased("test_chat", world.home.vault.token("test_chat", "customer-9999"))


def test_a_home_without_a_dataset_does_not_claim_a_tombstone(world: World) -> None:
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    assert (receipt.datasets, receipt.was_known) == ((), False)
    assert "no dataset yet" in receipt.lines()[0]


def test_a_raw_batch_that_waits_for_protect_is_named_and_then_suppressed(world: World) -> None:
    world.write("a.jsonl", lines(records(20)))
    ctx = world.context()
    waiting = ingest(ctx, str(world.source))
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    assert [(a.kind, a.manifest, a.records) for a in receipt.artifacts] == [("raw", waiting.digest, 4)]
    assert protect(ctx, waiting.digest, EmailDetector()).manifest.facts["suppressed"] == 4


def test_every_dataset_that_holds_the_subject_is_reached(world: World) -> None:
    world.write("a.jsonl", lines(records(20)))
    for name in ("test_chat", "other_chat"):
        protected(world, world.context(dataset=name))
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    assert [(d.dataset, d.vault_records) for d in receipt.datasets] == [("other_chat", 4), ("test_chat", 4)]


def audited(world: World, ctx: StageContext, model: StageResult, outcome: str, check: str = "audit.canary_reveal") -> None:
    said = {check: outcome, "audit.ledger_match": "passed"}
    verdicts = canonical_json([{"check": c, "outcome": o, "reason": "r", "evidence": None} for c, o in said.items()])
    ref = world.home.store.put_plain(verdicts, dataset="test_chat", path="verdicts.json", data_class="evidence")
    run_stage(ctx, "audit", {"train": model.digest}, lambda: StageOutput({"verdicts": ref}, {}))


@pytest.mark.parametrize(
    ("limit", "outcome", "check", "released", "action"),
    [
        (8.0, None, "", False, "dp_bound"),
        (8.0, "passed", "audit.canary_reveal", True, "dp_bound"),
        (8.0, "failed", "audit.utility", True, "dp_bound"),
        (8.0, "failed", "audit.canary_reveal", False, "retrain"),
        (8.0, "not_evaluated", "probe.clipping", True, "withdraw"),
        (7.9, "passed", "audit.canary_reveal", False, "retrain"),
        (7.9, None, "", True, "withdraw"),
    ],
)
def test_the_remedy_of_a_model_follows_the_stated_rule(
    world: World, limit: float, outcome: str | None, check: str, released: bool, action: str
) -> None:
    """A bound is a remedy only within the policy's limit and while no audit of privacy speaks against it."""
    world.write("a.jsonl", lines(records(20)))
    ctx = world.context(**{"retention.erasure_epsilon": limit})
    model = trained(world, ctx, protected(world, ctx), private=True)
    if outcome is not None:
        audited(world, ctx, model, outcome, check)
    if released:
        world.home.journal.append("release", {"run": "run-1", "policy_name": "test_chat"})
    (found,) = erase(world.home, SUBJECT, "DSAR-17", "demo_officer").models
    assert (found.manifest, found.action) == (model.digest, action)


def test_the_receipt_promises_the_strictest_day_of_the_datasets_policies(lived: tuple[World, StageResult]) -> None:
    world, _ = lived
    world.write("b.jsonl", lines(records(4)))
    protected(world, world.context("run-2", **{"name": "other_policy", "retention.erasure_days": 9}))
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    expected = (datetime.fromisoformat(receipt.at) + timedelta(days=9)).date().isoformat()
    assert [d.gone_by for d in receipt.datasets] == [expected]
    assert world.home.journal.entries()[-1].facts["due"] == {"test_chat": expected}
    assert f"open no more by {expected}" in receipt.lines()[1]


def test_models_stay_named_when_the_rows_that_led_to_them_are_gone(lived: tuple[World, StageResult]) -> None:
    world, done = lived
    model = trained(world, world.context(), done, private=True)
    erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    renew(world.home, "test_chat")
    again = erase(world.home, SUBJECT, "DSAR-18", "demo_officer")
    assert [m.manifest for m in again.models] == [model.digest]
    assert [a for a in again.artifacts if a.kind == "protected"] == []
    other = erase(world.home, "customer-9999", "DSAR-19", "demo_officer")
    assert other.models == ()


def test_a_dataset_that_was_destroyed_before_counts_as_touched(lived: tuple[World, StageResult]) -> None:
    world, done = lived
    model = trained(world, world.context(), done, private=False)
    world.home.store.shred(done.manifest.outputs["protected"])
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    (lost,) = [a for a in receipt.artifacts if a.kind == "protected"]
    assert (lost.records, lost.state) == (None, "gone")
    assert [m.manifest for m in receipt.models] == [model.digest]


def test_a_lost_manifest_does_not_stop_an_erasure_and_is_named(lived: tuple[World, StageResult]) -> None:
    world, done = lived
    name = done.digest.removeprefix("sha256:")
    (world.home.path / "objects" / name[:2] / name).unlink()
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    assert receipt.unreadable == (done.digest,)
    assert world.home.vault.reveal("test_chat", world.home.vault.token("test_chat", SUBJECT)) == []
    assert any("nobody knows what it touches" in line for line in receipt.lines())


def test_a_training_that_runs_is_named_and_one_that_ended_is_not(lived: tuple[World, StageResult]) -> None:
    world, done = lived
    ctx = world.context()
    for key in ("train-a", "train-b", "train-c"):
        journal_start(ctx, done.digest, "sha256:" + key[-1] * 64, key)
    journal_start(ctx, "sha256:" + "0" * 64, "sha256:" + "0" * 64, "train-elsewhere")
    journal_end(ctx, "train-c", "sha256:" + "1" * 64, None)
    with only_trainer(world.home, "train-a"):
        receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    assert [(t.ledger_key, t.state) for t in receipt.trainings] == [("train-a", "running"), ("train-b", "interrupted")]
    assert "no result yet" not in receipt.lines()[0]
    assert any(line.startswith("  training train-a (running): it stops at its next lease") for line in receipt.lines())


def test_no_journal_entry_holds_the_identifier_or_a_token(lived: tuple[World, StageResult]) -> None:
    """Nor a salt; and the commitments of two requests about one person have nothing in common."""
    world, done = lived
    trained(world, world.context(), done, private=True)
    answer(world.home, SUBJECT, "ASK-1", "demo_officer")
    erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    run_retention(world.home, datetime.now(UTC) + timedelta(days=30))
    told = json.dumps([entry.to_json() for entry in world.home.journal.entries()])
    token = world.home.vault.token("test_chat", SUBJECT)
    assert SUBJECT not in told
    assert SUBJECT.upper() not in told
    assert token not in told
    assert token[1:] not in told
    entries = {e.kind: e.facts["subject"]["test_chat"] for e in world.home.journal.entries() if "subject" in e.facts}  # type: ignore[index, call-overload]
    assert set(entries) == {"subject_access", "erasure"}
    assert entries["subject_access"] != entries["erasure"]
    assert world.home.vault.known_commitment("test_chat", token, "DSAR-17") == entries["erasure"]
    assert world.home.vault.known_commitment("test_chat", token, "ASK-1") is None  # erased with the subject


@pytest.mark.parametrize(
    ("subject", "case", "by", "code"),
    [
        ("  ", "DSAR-1", "officer", "E-ERASE-001"),
        ("wei@example.org", "about-wei@example.org", "officer", "E-ERASE-002"),
        ("customer-3", "DSAR-customer-3", "officer", "E-ERASE-002"),
        ("customer-3", "DSAR-1", "Customer-3", "E-ERASE-002"),
        ("customer-3", "", "officer", "E-ERASE-002"),
        ("customer-3", "DSAR 1\n", "officer", "E-ERASE-002"),
    ],
)
def test_the_subject_cannot_slip_into_the_journal_by_the_case_name(
    world: World, subject: str, case: str, by: str, code: str
) -> None:
    assert code_of(erase, world.home, subject, case, by) == code


def test_an_interrupted_erasure_is_finished_by_repeating_it(
    lived: tuple[World, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, done = lived
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.erase.seal_envelope", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    assert receipt.was_known
    assert [a.manifest for a in receipt.artifacts if a.kind == "protected"] == [done.digest]


def test_a_forged_receipt_does_not_open(lived: tuple[World, StageResult]) -> None:
    world, _ = lived
    receipt = erase(world.home, SUBJECT, "DSAR-17", "demo_officer")
    envelope = world.home.store.get_plain(str(receipt.envelope))
    with pytest.raises(PrivetError):
        open_envelope(envelope.replace(b'"sig":"A', b'"sig":"B').replace(b'"payload":"e', b'"payload":"f'), world.home.trust)
    assert Path(world.home.path).is_dir()
