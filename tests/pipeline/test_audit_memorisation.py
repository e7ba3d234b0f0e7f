"""Verbatim memorisation: a parrot is caught, common phrases are not its fault, and no span leaves the audit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline import audit_memorisation, repeat_guard
from pipeline import synthesize as synthesis
from pipeline.audit_attacks import attacks
from pipeline.audit_case import AuditCase, open_case
from pipeline.audit_memorisation import memorised_spans, span_index
from pipeline.planted_secrets import BEFORE, planted_secrets
from pipeline.repeat_guard import guard_of, guard_without_home
from pipeline.synthesize import Style
from pipeline.train import ledger_key, train
from privacy.canonical import canonical_json
from privacy.errors import UsageError
from privacy.policy_audit import Memorisation
from privacy.redact import OutputRedactor
from tests.pipeline.test_planted_secrets import AUDIT, RECIPE
from tests.pipeline.training_world import TrainingWorld
from tests.worlds.chats import EmailDetector

RARE = "on the ninth of may my sister is operated in uppsala, so please send the parcel to the office"
COMMON = "thank you very much for your patience and for all the help that you gave me today"


class World(TrainingWorld):
    """One person said something that nobody else did; everybody said the common phrase."""

    def _rows(self, ctx: object) -> object:
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [
            {"unit": f"u{n:04d}", "record_id": f"r{n}", "text": COMMON if n else f"<PERSON_{n:06x}> {RARE}", "label": "refund"}
            for n in range(120)
        ]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        place = {"dataset": self.ctx.policy.dataset, "path": "protected", "data_class": "protected"}
        return self.ctx.home.store.put_sealed(buffer.getvalue(), **place)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> AuditCase:
    world = World(tmp_path_factory.mktemp("parrot"), recipe=RECIPE, audit=AUDIT)
    run = train(world.ctx, world.protect.digest, world.approve())
    return open_case(world.ctx, world.protect.digest, run.digest)


def outcome(case: AuditCase, says: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setattr(audit_memorisation, "_written", lambda *_: says)
    part = attacks(case)
    [verdict] = [v for v in part.verdicts if v.check == "audit.memorisation"]
    return verdict.outcome, json.dumps(part.documents["attacks"]) + verdict.reason


def test_a_parrot_fails_and_no_span_of_it_is_written(case: AuditCase, monkeypatch: pytest.MonkeyPatch) -> None:
    found, said = outcome(case, ["hello", f"well <PERSON>, {RARE.upper()}", COMMON], monkeypatch)
    assert found == "failed"
    assert "1 spans" in said
    assert "uppsala" not in said.lower()
    assert "u0000" not in said


def test_what_everybody_says_is_nobodys(case: AuditCase, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(case, ["hello", COMMON, RARE[:30]], monkeypatch)[0] == "passed"


def test_the_model_itself_is_asked_for_as_many_texts_as_the_policy_says(case: AuditCase) -> None:
    assert case.opened is not None
    assert len(audit_memorisation._written(case.opened.model, case.opened.config, 7)) == 7  # type: ignore[arg-type]
    assert {v.check: v.outcome for v in attacks(case).verdicts}["audit.memorisation"] == "passed"


def test_a_missing_model_is_not_evaluated(case: AuditCase, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    assert outcome(replace(case, opened=None), [], monkeypatch)[0] == "not_evaluated"


def test_the_index_leaves_no_trace_in_the_home(case: AuditCase) -> None:
    before = {path: path.stat().st_size for path in case.ctx.home.path.rglob("*") if path.is_file()}
    index = span_index(case.ctx.home, case.ctx.policy, case.protect_digest)
    assert index is not None
    assert memorised_spans(index, case.ctx.policy, [RARE, COMMON]) == [1, 0]
    written = {p for p in case.ctx.home.path.rglob("*") if p.is_file() and p.suffix not in (".db", ".db-wal", ".db-shm")}
    assert {p.name for p in written - set(before)} == set()


def bundle_of(case: AuditCase, folder: Path) -> Path:
    """What the guard reads of a bundle."""
    (folder / "manifests.json").write_bytes(canonical_json({"train": {"inputs": dict(case.trained.inputs)}}))
    return folder


def test_synthesize_keeps_back_what_repeats_people_or_a_planted_secret(
    case: AuditCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, home = case.ctx.policy, case.ctx.home
    drawn = planted_secrets(home, policy, ledger_key(case.ctx.policy_digest, case.protect_digest, case.trained.inputs["use"]))
    assert drawn is not None
    says = [f"so: {RARE}", f"number {drawn.shown[0]}", f"{BEFORE}0000", COMMON, "all is well"]
    monkeypatch.setattr(synthesis, "_released", lambda *_: (policy, b""))
    monkeypatch.setattr(synthesis, "_model", lambda *_: (None, None))
    monkeypatch.setattr(synthesis, "_written", lambda *_: (("refund", text) for text in says))
    monkeypatch.setattr(synthesis, "_redactor", lambda *_: OutputRedactor(EmailDetector()))
    bundle, now = bundle_of(case, tmp_path), datetime.now(UTC)
    made = synthesis.synthesize(bundle, tmp_path / "with", 5, None, Style(), now, home)
    assert (made.texts, made.withheld, made.repeating, made.compared) == (2, 3, 3, True)
    assert [json.loads(line)["text"] for line in (tmp_path / "with").read_text().splitlines()] == says[3:]
    without = synthesis.synthesize(bundle, tmp_path / "without", 5, None, Style(), now)
    assert (without.texts, without.repeating, without.compared) == (4, 1, False)


def test_the_guard_of_another_home_is_refused(case: AuditCase, tmp_path: Path) -> None:
    other = TrainingWorld(tmp_path, recipe={**RECIPE, "steps": 11}, audit=AUDIT)
    with pytest.raises(UsageError, match="E-SYNTH-005"):
        guard_of(other.home, case.ctx.policy, bundle_of(case, tmp_path))
    with pytest.raises(UsageError, match="E-SYNTH-005"):
        repeat_guard._inputs({"train": {"inputs": {}}})


def test_without_planted_secrets_ordinary_words_are_kept(case: AuditCase) -> None:
    plain = case.ctx.policy.model_copy(update={"audit": case.ctx.policy.audit.model_copy(update={"secrets": None})})
    assert not guard_without_home(plain).repeats(f"{BEFORE}4711")
    assert guard_without_home(case.ctx.policy).repeats(f"{BEFORE}4711")


def test_a_span_too_short_to_mean_anything_can_not_be_asked_for() -> None:
    with pytest.raises(ValidationError):
        Memorisation(signs=10)
