"""Synthetic texts: redacted or withheld, never written as the model said them; examples: made up, and the same each time."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

import pipeline.synthesize as synthesis
from pipeline.example_data import make_example
from pipeline.output_scan import make_prompts, scan
from pipeline.synthesize import Style, Synthesis
from privacy.errors import DataError, UsageError
from privacy.policy_file import load_policy
from privacy.redact import OutputRedactor
from tests.worlds.chats import EmailDetector
from tests.worlds.policies import make_policy

POLICIES = Path(__file__).resolve().parents[2] / "dags" / "policies"
SAYS = ["write to ada.lovelace@example.org today", "  ", "UNSEARCHABLE", "all is well", "<PERSON> called"]


class Stumbles(EmailDetector):
    """Breaks on one text, as a detector may."""

    def analyze_batch(self, texts: object, language: str) -> object:  # type: ignore[override]
        if any("UNSEARCHABLE" in text for text in texts):  # type: ignore[attr-defined]
            raise RuntimeError("no")
        return super().analyze_batch(texts, language)  # type: ignore[arg-type]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Synthesis]:
    monkeypatch.setattr(synthesis, "_released", lambda *_: (make_policy(), b""))
    monkeypatch.setattr(synthesis, "_model", lambda *_: (None, None))
    monkeypatch.setattr(synthesis, "_written", lambda *_: (("refund", text) for text in SAYS))
    monkeypatch.setattr(synthesis, "_redactor", lambda *_: OutputRedactor(Stumbles()))
    out = tmp_path / "out.jsonl"
    return out, synthesis.synthesize(tmp_path, out, 5, None, Style(), datetime.now(UTC))


def test_what_can_not_be_shown_clean_is_withheld_and_the_rest_is_redacted(made: tuple[Path, Synthesis]) -> None:
    out, found = made
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["text"] for row in rows] == ["write to <EMAIL_ADDRESS> today", "all is well", "<PERSON> called"]
    assert (found.texts, found.withheld, dict(found.removed)) == (3, 2, {"EMAIL_ADDRESS": 1})
    assert "UNSEARCHABLE" not in out.read_text()


def test_a_file_that_is_there_is_never_overwritten(made: tuple[Path, Synthesis], tmp_path: Path) -> None:
    out, _ = made
    before = out.read_bytes()
    with pytest.raises(UsageError, match="E-SYNTH-003"):
        synthesis.synthesize(tmp_path, out, 5, None, Style(), datetime.now(UTC))
    assert out.read_bytes() == before


def test_the_audit_keeps_no_free_text_of_a_model_as_it_was_said() -> None:
    """A label passes; what a language model wrote is redacted, and withheld where that can't be shown."""
    prompts = make_prompts(("refund", "delivery"), ("en",))
    answers = ["refund", "mail bob@example.org", "UNSEARCHABLE", *["delivery"] * (len(prompts) - 3)]
    redactor = OutputRedactor(Stumbles(), [p.value for p in prompts])
    found = scan(prompts, answers, redactor, ("refund", "delivery"))
    assert [answer for _, answer in found.rows][:4] == ["refund", "mail <EMAIL_ADDRESS>", "<withheld>", "delivery"]
    with pytest.raises(DataError, match="E-REDACT-001"):  # a prompt of ours that can't be searched is a fault of the redactor
        scan([prompts[0].__class__("UNSEARCHABLE", "x", False)], ["refund"], redactor, ("refund",))


@pytest.mark.parametrize("name", ["images", "recommendation", "private_text"])
def test_examples_are_the_same_bytes_for_the_same_seed_and_fit_their_policy(name: str, tmp_path: Path) -> None:
    policy = load_policy(POLICIES / f"{name}.yaml")
    one, two, other = (make_example(policy, tmp_path / n, 12, seed) for n, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert one == two
    assert one != other
    assert one.records >= 12
    assert len(one.planted) >= 10
    written = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.gz")}
    assert written == {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.gz")}


def test_no_example_for_a_policy_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E-LOGS-002"):
        make_example(make_policy(), tmp_path, 5, 1)
    with pytest.raises(UsageError, match="E-LOGS-001"):
        make_example(load_policy(POLICIES / "images.yaml"), tmp_path, 0, 1)
    assert list(tmp_path.iterdir()) == []
