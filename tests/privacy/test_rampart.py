"""The second model: pinned files, findings that no batch changes, and a rebuilt graph that says what the shipped one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from privacy.errors import EnvironmentFault
from privacy.recognizers import rampart
from privacy.recognizers.rampart import Rampart, available

pytestmark = pytest.mark.skipif(not available(), reason="the optional extra `rampart` is not installed")

SENTENCES = [
    "My name is Ngozi Adeyemi and I live at 48 Larkspur Crescent, Boise, ID 83702.",
    "hello, myself priyanka raghunathan, i moved to 12 hill road",
    "thangavel",
    "no thanks, that is all",
    "The cheque goes to Karolína Dvořáková at Třída Míru 7, Olomouc.",
    "Tell Siobhan that the parcel is in Galway.",
]


@pytest.fixture(scope="module")
def model() -> Rampart:
    return Rampart()


def groups(model: Rampart, text: str) -> dict[str, str]:
    return {
        text[w.start : w.end]: "name" if w.name > w.place else "place" for w in model.read([text])[0] if w.name + w.place > 0.5
    }


def test_names_and_addresses_are_told_apart(model: Rampart) -> None:
    found = groups(model, SENTENCES[0])
    assert {found[word] for word in ("Ngozi", "Adeyemi")} == {"name"}
    assert {found[word] for word in ("48", "Larkspur", "Crescent", "Boise", "83702")} == {"place"}
    assert groups(model, SENTENCES[3]) == {}


def test_a_batch_changes_nothing(model: Rampart) -> None:
    assert model.read(SENTENCES * 3) == [model.read([text])[0] for text in SENTENCES] * 3


def test_every_word_of_a_long_text_is_read_once(model: Rampart) -> None:
    text = "we talked about it for a while and " * 60 + "then Ngozi Adeyemi left"
    words = model.read([text])[0]
    assert [text[w.start : w.end] for w in words] == text.split()
    assert words[-3].name > 0.5


def test_signs_that_no_tokenizer_takes_do_not_stop_it(model: Rampart) -> None:
    for text in ("", " ", "\ud800 Ngozi", "\x00", "\u200b", "İ" * 300):
        assert all(0 <= w.start < w.end <= len(text) for w in model.read([text])[0])


def test_the_rebuilt_graph_agrees_with_the_shipped_one(model: Rampart) -> None:
    """Same group for all but a few words of our sentences; research saw 79 % equal records with 8-bit weights."""
    import numpy as np
    import onnxruntime

    shipped = onnxruntime.InferenceSession(
        str(rampart._folder() / "onnx" / "model_q4.onnx"), providers=["CPUExecutionProvider"]
    )
    _, tokenizer = rampart._load()
    differ = total = 0
    for text in SENTENCES:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        logits: Any = shipped.run(None, inputs)[0]
        places = np.arange(ids.shape[1], dtype=np.int64)
        ours: Any = model._session.run(None, {"ids": ids, "places": places})[0]
        assert float(np.abs(ours - logits).max()) < 2.5
        grouping = model._grouping
        differ += int(((ours @ grouping).argmax(2) != (logits @ grouping).argmax(2)).sum())
        total += ids.size
    assert differ <= total * 0.03


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model_q4.onnx"
    path.write_bytes(b"something else")
    for candidate in (path, tmp_path / "missing"):
        with pytest.raises(EnvironmentFault, match="E-DETECT-006"):
            rampart._checked(candidate, "0" * 64)


def test_none_of_the_packages_code_is_imported(model: Rampart) -> None:
    import sys

    assert model.read(["Ngozi"])
    assert rampart.PACKAGE not in sys.modules
