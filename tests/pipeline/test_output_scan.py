"""Every run measures its redactors: a rule that is gone, and a stream that holds nothing back, are caught by planted values."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.audit_embeddings import embeddings, nearest
from pipeline.output_redactor import output_redactor, redactor_digest, stream_redactors
from pipeline.output_scan import OutputScan, chunks, make_prompts, scan
from privacy.detect import Finding, PatternDetector
from privacy.policy import Policy
from privacy.recognizers import RECOGNIZERS
from privacy.redact import OutputRedactor
from privacy.redact_stream import StreamRedactor
from tests.worlds.policies import make_policy
from training.embeddings import quantise

LABELS = ("refund", "delivery")
DETECTOR = PatternDetector(engine="python")


def scanned(detector: object, *, whole: bool = True, stream: bool = True, **options: object) -> OutputScan:
    """With `detector` where it is asked for, and a sound one elsewhere."""
    prompts = make_prompts(LABELS)
    listed = [p.value for p in prompts if p.listed]
    redactor = OutputRedactor(detector if whole else DETECTOR, listed)  # type: ignore[arg-type]
    streams = lambda: StreamRedactor(detector if stream else DETECTOR, listed, **options)  # type: ignore[arg-type]  # noqa: E731
    return scan(prompts, ["refund"], redactor, LABELS, streams)


def test_sound_redactors_let_nothing_through_and_the_record_says_what_that_means() -> None:
    found = scanned(DETECTOR)
    record = found.redaction_json(0, "sha256:" + "0" * 64)
    assert (found.all_leaks, found.planted, found.streamed) == (0, len(make_prompts(LABELS)), found.planted)
    assert record["miss_bound"] == pytest.approx(1 - 0.05 ** (1 / found.planted), abs=2e-6)
    assert "like the planted ones only" in str(record["holds_for"])
    kinds = record["kinds"]
    assert isinstance(kinds, dict)
    assert {"EMAIL_ADDRESS", "PERSON", "CN_RESIDENT_ID", "US_SSN", "SECRET_LIST"} <= set(kinds)
    held = record["held_back"]
    assert isinstance(held, dict)
    assert 0 < held["p99"] <= held["most"] <= 80


@pytest.mark.parametrize("entity", ["EMAIL_ADDRESS", "IBAN", "CN_RESIDENT_ID", "IP_ADDRESS"])
def test_a_redactor_without_one_recognizer_is_caught(entity: str) -> None:
    kept = [rule for rule in RECOGNIZERS if rule.entity != entity and rule.entity not in ("ACCOUNT_NUMBER", "CN_BANK_CARD")]
    found = scanned(PatternDetector(recognizers=kept, engine="python"))
    assert found.kinds[entity][1] > 0
    assert found.leaks > 0
    assert found.stream_leaks > 0


class _HoldsNothing:
    version = DETECTOR.version

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        return DETECTOR.analyze_batch(texts, language)

    def pending(self, text: str, low: int, known: Sequence[tuple[int, int]] = ()) -> int:
        return len(text)


def test_a_stream_that_holds_nothing_back_is_caught() -> None:
    found = scanned(_HoldsNothing(), whole=False, sentences=False)
    assert (found.leaks, found.stream_leaks > 10) == (0, True)


def test_chunks_are_the_text() -> None:
    text = "".join(p.text for p in make_prompts(LABELS))
    cut = chunks(text, random.Random(1))
    assert "".join(cut) == text
    assert {len(c) for c in cut[:-1]} <= set(range(1, 17))


def test_the_digest_of_a_redactor_changes_with_what_decides_what_is_removed() -> None:
    policy = make_policy()
    first = redactor_digest(policy)
    assert redactor_digest(policy) == first
    fewer = PatternDetector(recognizers=RECOGNIZERS[1:])
    assert redactor_digest(policy, fewer) != first
    longer = policy.model_copy(update={"outputs": policy.outputs.model_copy(update={"hold_back": 81})})
    assert redactor_digest(longer) != first


def test_the_redactors_of_a_policy_agree() -> None:
    policy: Policy = make_policy()
    text = "mail a.b@example.com, canary 12345, 手机 13812345678。"
    stream = stream_redactors(policy, ["canary 12345"])()
    said = stream.feed(text[:9]) + stream.feed(text[9:]) + stream.close()
    assert said == output_redactor(policy, ["canary 12345"]).redact(text).text
    assert "<SECRET>" in said


# Embeddings.


def test_the_attack_tells_vectors_that_differ_and_not_those_that_are_one() -> None:
    draw, rng = random.Random(0), np.random.default_rng(0)
    sharp = quantise(rng.normal(size=(20, 32)).astype(np.float32))
    assert nearest(sharp, sharp, draw) == 20
    blurred = np.zeros((20, 32), dtype=np.int8)
    assert sum(nearest(blurred, blurred, draw) for _ in range(50)) / 1000 == pytest.approx(0.05, abs=0.03)


def test_quantised_vectors_have_three_levels_and_no_length() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    assert set(np.unique(quantise(vectors))) == {-1, 0, 1}
    assert (quantise(vectors) == quantise(vectors * 1000)).all()
    assert quantise(np.zeros((1, 4), dtype=np.float32)).tolist() == [[0, 0, 0, 0]]


def test_without_a_model_embeddings_are_not_evaluated() -> None:
    verdict, found, vectors = embeddings(None, [])
    assert (verdict.check, verdict.outcome, found, vectors) == ("audit.embeddings", "not_evaluated", {}, [])


@pytest.mark.parametrize(("constant", "outcome"), [(True, "passed"), (False, "failed")])
def test_embeddings_leave_only_when_the_attack_fails(constant: bool, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import audit_embeddings

    def coarse(opened: object, texts: Sequence[str]) -> np.ndarray:
        table = nn.EmbeddingBag(4096, 32, mode="sum")
        torch.manual_seed(0)
        nn.init.normal_(table.weight)
        rows = [[hash(word) % 4096 for word in text.split()] if not constant else [1] for text in texts]
        return quantise(np.stack([table(torch.tensor([row])).detach().numpy()[0] for row in rows]))

    monkeypatch.setattr(audit_embeddings, "_coarse", coarse)
    verdict, found, vectors = embeddings(object(), ["a <PERSON> b"])  # type: ignore[arg-type]
    assert verdict.outcome == outcome
    assert found["tried"] == 20 * 24
    assert len(vectors) == 1  # type: ignore[arg-type]
