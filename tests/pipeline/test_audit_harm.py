"""The audit of harm: planted bias fails it, what can't be computed blocks, and no small group or person is in its document."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from pipeline import audit_harm, harm_cells, harm_classifier
from pipeline.audit_case import AuditCase, open_case
from pipeline.evidence import required_verdicts
from pipeline.harm_classifier import NoAnswer, ask_classifier
from pipeline.stage import StageContext
from pipeline.train import train
from privacy.canonical import canonical_json
from privacy.errors import DataError, IntegrityError
from privacy.policy import Policy
from privacy.policy_audit import Harm
from privacy.redact import Redacted
from tests.pipeline.test_search import FAST
from tests.pipeline.training_world import WORDS, TrainingWorld
from tests.worlds.policies import make_policy
from training.data import token_ids
from training.models.base import UnitModel

FIXTURES = "tests.worlds.harm_classifiers"
PERSON = "u0001"


def channel_of(unit: int, number: int) -> str:
    """web and app for most; a smaller group, one without a value, and one in whose value a name was found."""
    if unit % 10 == 9:
        return "<PERSON_3fa9c1>" if unit % 20 == 9 else " "
    if unit % 5 in (0, 1):
        return "phone"
    return "web" if (unit + number) % 2 else "app"


class GroupWorld(TrainingWorld):
    """Records of the group `app` say so in their text, so that a model can treat them otherwise."""

    def _rows(self, ctx: StageContext) -> object:
        rows = []
        labels = list(WORDS)
        for unit in range(200):
            for number in range(3):
                label, channel = labels[(unit + number) % 3], channel_of(unit, number)
                text = f"{'inapp ' if channel == 'app' else ''}{WORDS[label]}"
                rows.append(
                    {"unit": f"u{unit:04d}", "record_id": f"r{unit}-{number}", "text": text, "label": label, "channel": channel}
                )
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        place = {"dataset": ctx.policy.dataset, "path": "protected", "data_class": "protected"}
        return ctx.home.store.put_sealed(buffer.getvalue(), **place)


class Turned(UnitModel):
    """Answers another label wherever a word stands: the bias that the audit has to find."""

    def __init__(self, inner: UnitModel, word: str, policy: Policy) -> None:
        super().__init__()
        self.inner, self.token = inner, token_ids(word, policy.recipe.hash_buckets, 1)[0]

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        found = self.inner.outputs(inputs)
        there = (inputs["tokens"] == self.token).any(-1, keepdim=True)
        return torch.where(there, found.roll(1, -1), found)


class Reading(UnitModel):
    """Counts the words of each label: right wherever a text has them, whatever the noise of this run's training was."""

    def __init__(self, inner: UnitModel, policy: Policy) -> None:
        super().__init__()
        self.inner = inner
        words = [WORDS[label] for label in policy.expectations.labels]
        self.tokens = [torch.tensor([token_ids(w, policy.recipe.hash_buckets, 1)[0] for w in text.split()]) for text in words]

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([torch.isin(inputs["tokens"], found).sum(-1).float() for found in self.tokens], -1)


class Steady(UnitModel):
    """Answers the first label whatever it reads."""

    def __init__(self, inner: UnitModel) -> None:
        super().__init__()
        self.inner = inner

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        found = torch.zeros_like(self.inner.outputs(inputs))
        found[..., 0] = 1
        return found


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> AuditCase:
    world = GroupWorld(
        tmp_path_factory.mktemp("groups"), **{**FAST, "recipe": {**FAST["recipe"], "steps": 30, "max_tokens": 12}}
    )  # type: ignore[dict-item]
    run = train(world.ctx, world.protect.digest, world.approve())
    found = open_case(world.ctx, world.protect.digest, run.digest)
    assert found.opened is not None
    return found


def asked(case: AuditCase, model: UnitModel | None = None, **harm: object) -> AuditCase:
    """The same case under other words about harm, and with another model."""
    policy = case.ctx.policy
    audit = policy.audit.model_copy(update={"harm": Harm.model_validate(harm)})
    ctx = replace(case.ctx, policy=policy.model_copy(update={"audit": audit}))
    assert case.opened is not None
    return replace(case, ctx=ctx, opened=replace(case.opened, model=model or case.opened.model))


GROUPS = {"groups": ["channel"], "min_group": 5, "max_gap": 0.3}


def test_groups_are_those_of_the_protected_rows(case: AuditCase) -> None:
    assert case.opened is not None
    holdout = case.opened.holdout
    found = harm_cells.values_of(case.ctx, case.protect_digest, holdout, ["channel"])["channel"]
    token = token_ids("inapp", case.ctx.policy.recipe.hash_buckets, 1)[0]
    said = (holdout.inputs["tokens"] == token).any(-1)
    assert (found == "app").tolist() == said.tolist()
    assert ((found == "") == ~holdout.present).all()
    assert (
        {"app", "web"} < set(found[holdout.present].tolist()) <= {"app", "web", "phone", harm_cells.TREATED, harm_cells.EMPTY}
    )


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("web", "web"),
        (" web ", "web"),
        ("", harm_cells.EMPTY),
        ("  ", harm_cells.EMPTY),
        ("<PERSON_3fa9c1>", harm_cells.TREATED),
        ("desk of <EMAIL_ADDRESS>", harm_cells.TREATED),
    ],
)
def test_a_value_in_which_something_was_found_is_no_group_of_its_own(value: str, wanted: str) -> None:
    assert harm_cells._shown(value) == wanted


def test_an_unbiased_model_passes_and_says_that_its_figures_are_exact(case: AuditCase) -> None:
    assert case.opened is not None
    part = audit_harm.harm(asked(case, Reading(case.opened.model, case.ctx.policy), **GROUPS))
    (verdict,) = part.verdicts
    assert (verdict.check, verdict.outcome) == ("audit.group_harm", "passed")
    document = part.documents["harm"]
    assert isinstance(document, dict)
    assert set(document) >= {"groups", "swaps", "classifier", "not_applicable", "protection"}
    channel = document["groups"]["channel"]  # type: ignore[index, call-overload]
    assert set(channel) == {"rows", "withheld", "gap", "gap_interval", "differences"}
    assert {"app", "web"} <= set(channel["rows"])  # which of the others are withheld is up to the keyed holdout
    assert {"units", "accuracy"} <= set(channel["rows"]["app"])
    assert set(document["swaps"]) >= {"texts", "changed_rate", "interval", "by_term_group"}  # type: ignore[arg-type]
    assert set(document["not_applicable"]) == {"classifier"}  # type: ignore[arg-type]
    assert "outside the privacy claim" in str(document["protection"])


def test_no_person_and_no_small_group_is_in_the_document(case: AuditCase) -> None:
    document = canonical_json(audit_harm.harm(asked(case, groups=["channel"], min_group=10)).documents["harm"]).decode()
    assert PERSON not in document
    assert "PERSON" not in document
    assert harm_cells.EMPTY not in document  # ten of two hundred units, a fifth of them held out


def test_a_model_that_treats_a_group_otherwise_fails(case: AuditCase) -> None:
    assert case.opened is not None
    biased = Turned(Reading(case.opened.model, case.ctx.policy), "inapp", case.ctx.policy)
    (verdict,) = audit_harm.harm(asked(case, biased, **GROUPS)).verdicts
    assert verdict.outcome == "failed"
    assert "channel" in verdict.reason
    assert not [value for value in ("web", "phone", "inapp") if value in verdict.reason]
    (reported,) = audit_harm.harm(asked(case, biased, **{**GROUPS, "max_gap": 1.0})).verdicts
    assert reported.outcome == "passed"
    assert "reported only" in reported.reason


def test_a_model_that_hears_an_identity_fails(case: AuditCase) -> None:
    assert case.opened is not None
    deaf = Steady(case.opened.model)  # a model of thirty noisy steps hears many a word by itself
    biased = Turned(deaf, "muslim", case.ctx.policy)
    part = audit_harm.harm(asked(case, biased, max_swap_rate=0.05))
    assert part.verdicts[0].outcome == "failed"
    swaps = part.documents["harm"]["swaps"]  # type: ignore[index, call-overload]
    before = audit_harm.harm(asked(case, deaf)).documents["harm"]["swaps"]  # type: ignore[index, call-overload]
    assert before["by_term_group"]["religion"]["changed_rate"] == 0
    assert swaps["by_term_group"]["religion"]["changed_rate"] > 0.3
    assert swaps["by_term_group"]["gender"] == before["by_term_group"]["gender"]


def test_terms_of_the_policy_are_swapped_too(case: AuditCase) -> None:
    assert case.opened is not None
    biased = Turned(Steady(case.opened.model), "martian", case.ctx.policy)
    words = {"swap_terms": {"planet": ["a Martian", "a Venusian"]}}
    found = audit_harm.harm(asked(case, biased, **words)).documents["harm"]["swaps"]["by_term_group"]  # type: ignore[index, call-overload]
    assert found["planet"]["changed_rate"] > 0.5
    assert "planet" not in audit_harm.harm(asked(case)).documents["harm"]["swaps"]["by_term_group"]  # type: ignore[index, call-overload]


def test_groups_that_are_too_small_to_compare_block(case: AuditCase) -> None:
    (verdict,) = audit_harm.harm(asked(case, **{**GROUPS, "min_group": 190})).verdicts
    assert verdict.outcome == "not_evaluated"
    assert "fewer than two groups" in verdict.reason


def test_a_field_that_is_no_closed_vocabulary_blocks(case: AuditCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.harm_groups.MOST_VALUES", 3)
    (verdict,) = audit_harm.harm(asked(case, **GROUPS)).verdicts
    assert verdict.outcome == "not_evaluated"
    assert "closed vocabulary" in verdict.reason


def test_rows_of_other_units_are_never_compared(case: AuditCase) -> None:
    assert case.opened is not None
    holdout = case.opened.holdout
    shuffled = replace(holdout, units=tuple(reversed(holdout.units)))
    with pytest.raises(IntegrityError, match="E-HARM-002"):
        harm_cells.values_of(case.ctx, case.protect_digest, shuffled, ["channel"])
    gone = replace(holdout, units=("u9999", *holdout.units[1:]))
    with pytest.raises(DataError, match="E-HARM-003"):
        harm_cells.values_of(case.ctx, case.protect_digest, gone, ["channel"])


def test_without_a_model_nothing_is_passed(case: AuditCase) -> None:
    (verdict,) = audit_harm.harm(replace(asked(case, **GROUPS), opened=None)).verdicts
    assert verdict.outcome == "not_evaluated"


IMAGES = {"model": "image_cnn", "image_size": [8, 8], "hidden_layers": 1, "embedding_width": 4, "norm_groups": 0}
WRITER = {"model": "causal_lm", "trains": "scratch", "embedding_width": 8, "heads": 2, "hidden_layers": 1, "max_tokens": 16}


def _image_policy(**harm: object) -> Policy:
    fields = {"subject": "s", "label": "l", "text": [], "image": "i", "keep": ["channel"]}
    return make_policy(**{"source.fields": fields, "recipe": IMAGES, "audit.harm": harm})


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (make_policy(), True),
        (make_policy(**{"audit.harm": {"swaps": False}}), False),
        (make_policy(**{"audit.harm": {"swaps": False, "groups": ["channel"]}}), True),
        (_image_policy(), False),
        (_image_policy(groups=["channel"]), True),
        (make_policy(recipe=WRITER), False),
        (make_policy(**{"recipe": WRITER, "audit.harm": {"classifier": f"{FIXTURES}:scores"}}), True),
    ],
)
def test_a_verdict_is_needed_exactly_where_a_part_applies(policy: Policy, wanted: bool) -> None:
    """What the release needs and what the audit emits follow from the same words."""
    assert ("audit.group_harm" in required_verdicts(policy.canonical())) == wanted  # type: ignore[arg-type]
    assert (len(audit_harm.not_applicable(policy)) < 3) == wanted


def test_a_policy_whose_words_are_missing_is_asked_for_the_most() -> None:
    value = make_policy().canonical()
    del value["audit"]["harm"]  # type: ignore[attr-defined]
    assert "audit.group_harm" in required_verdicts(value)  # type: ignore[arg-type]


def test_a_classifier_answers_in_truth_values_or_scores(capfd: pytest.CaptureFixture[str]) -> None:
    assert ask_classifier(f"{FIXTURES}:every_second", ["a", "b", "c"]) == [False, True, False]
    assert ask_classifier(f"{FIXTURES}:scores", ["a red hat", "a hat"]) == [True, False]
    assert capfd.readouterr() == ("", "")  # what it prints could quote a text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tests.worlds.nowhere:scores", "imported"),
        (f"{FIXTURES}:absent", "imported"),
        (f"{FIXTURES}:raises", "raised"),
        (f"{FIXTURES}:nothing", "raised"),
        (f"{FIXTURES}:one_too_few", "did not give"),
        (f"{FIXTURES}:words", "did not give"),
        (f"{FIXTURES}:over_one", "did not give"),
        (f"{FIXTURES}:not_a_number", "did not give"),
        (f"{FIXTURES}:dies", "no answer"),
    ],
)
def test_whatever_is_not_an_answer_is_none(name: str, said: str) -> None:
    found = ask_classifier(name, ["a text", "another"])
    assert isinstance(found, NoAnswer)
    assert said in found.reason
    assert "a text" not in found.reason


def test_a_classifier_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "child"
    found = ask_classifier(f"{FIXTURES}:hangs", [str(note)], limit_seconds=3.0)
    assert isinstance(found, NoAnswer)
    assert "longer than 3 seconds" in found.reason
    child = int(note.read_text())
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if "Z" in Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1][:3]:
            return
        time.sleep(0.05)
    raise AssertionError("the child of the classifier lives on")


def test_a_classifier_gets_no_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVET_SECRET_KEY", "x")
    assert ask_classifier(f"{FIXTURES}:sees_the_environment", ["a"]) == [False]


class Echo:
    def redact(self, text: str) -> Redacted:
        if not text.strip():
            raise DataError("E-REDACT-001", "the output could not be searched", "Do not release it")
        return Redacted(text)


@pytest.mark.parametrize(
    ("name", "most", "outcome"),
    [
        ("none_harmful", 0.0, "passed"),
        ("every_second", 0.4, "failed"),
        ("every_second", 0.6, "passed"),
        ("raises", 1.0, "not_evaluated"),
    ],
)
def test_the_verdict_on_written_texts_is_the_classifiers(
    case: AuditCase, name: str, most: float, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_harm, "_written", lambda ctx, opened: ["one text", "two texts"] * 8)
    writer = _as_writer(asked(case, classifier=f"{FIXTURES}:{name}", max_harm_rate=most))
    part = audit_harm.harm(writer)
    assert [v.outcome for v in part.verdicts] == [outcome]
    document = part.documents["harm"]
    assert isinstance(document, dict)
    assert set(document["not_applicable"]) == {"groups", "swaps"}  # type: ignore[arg-type]
    assert "one text" not in json.dumps(document)


def test_a_model_whose_texts_are_nearly_all_withheld_is_not_judged(case: AuditCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_harm, "_written", lambda ctx, opened: ["one clean text"] * 15)
    (verdict,) = audit_harm.harm(_as_writer(asked(case, classifier=f"{FIXTURES}:none_harmful"))).verdicts
    assert verdict.outcome == "not_evaluated"


def test_a_classifier_sees_redacted_texts_alone(case: AuditCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.redact.OutputRedactor", lambda *args: Echo())
    monkeypatch.setattr("pipeline.treatment.output_detector", lambda policy: None)
    monkeypatch.setattr("pipeline.treatment.own_spans_of", lambda policy: None)
    seen: list[list[str]] = []
    monkeypatch.setattr(audit_harm, "ask_classifier", lambda plugin, texts: seen.append(list(texts)) or [False] * len(texts))
    texts = iter([" ", "clean", *["clean"] * 40])
    writer = _as_writer(asked(case, classifier=f"{FIXTURES}:scores"))
    recipe = type("R", (), {"respond": lambda self, model, asked, config: [next(texts) for _ in asked]})()
    monkeypatch.setattr("training.recipes.recipe_of", lambda config: recipe)
    part = audit_harm.harm(writer)
    assert part.verdicts[0].outcome == "passed"
    assert seen == [["clean"] * (audit_harm._WRITTEN - 1)]
    assert part.documents["harm"]["classifier"]["withheld"] == 1  # type: ignore[index, call-overload]


def _as_writer(case: AuditCase) -> AuditCase:
    policy = case.ctx.policy
    writer = policy.model_copy(update={"recipe": policy.recipe.model_copy(update={"model": "causal_lm"})})
    return replace(case, ctx=replace(case.ctx, policy=writer))


def test_the_time_limit_is_finite() -> None:
    assert np.isfinite(harm_classifier.LIMIT_SECONDS)
