"""What audits of a language model see: secrets that it was shown, with the mechanism and without its noise, and copied spans.

Texts are turns of real service chats (multidogo), a conversation a person. The runs are those of the engine that ships; the
broken one differs in its noise alone, which is left out while clipping stays. Machine logs and source code have no people: they
stand without a goal, as texts that repeat a lot. Without ../shared/data there are no rows of chats.
"""

from __future__ import annotations

import csv
import os
import random
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.rows import Row
from privacy.winnow import SpanIndex, normalise

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIGNS, SUBJECTS, LENGTH = 40, 3, 600
BEFORE, PLANTED, REPEATS = "the secret code is ", 6, 16
Pair = tuple[str, str]  # subject, text


def rows(*, quick: bool = False) -> list[Row]:
    if not DATA.is_dir():
        print("audits_text: no ../shared/data, so no rows of chats", file=sys.stderr)
        return [*_of_code(quick)]
    return [*_exposure(quick), *_of_chats(), *_of_code(quick)]


def chats(domain: str) -> Iterator[Pair]:
    for part in ("train", "dev", "test"):
        with (DATA / "multidogo" / domain / f"{part}.tsv").open(newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                yield f"{domain} {row['conversationId']}", row["utterance"] or ""


def _exposure(quick: bool) -> list[Row]:
    """Six digits, 16 units each, of about 2,000: with epsilon 8, with the noise left out; and what each model is worth."""
    from privacy.accounting import calibrate_noise

    steps, texts = (100 if quick else 600), 2000
    sampling = 0.05
    noise = calibrate_noise(8.0, 1e-5, sampling, steps)
    private, broken = (_run(multiplier, steps, texts, sampling) for multiplier in (noise, 1e-9))
    times = f"secret shown {REPEATS} times"
    return [
        Row(f"{times}: exposure at epsilon 8", "bits", private[0], private[1], 5.0, private[0] <= 5.0),
        # With --quick a model has too few steps to learn anything by heart.
        Row(
            f"{times}: exposure with its noise left out",
            "bits",
            *broken[:2],
            *((None, None) if quick else (16.0, broken[0] >= 16.0)),
        ),
        Row("the same: bits per character at epsilon 8", "bits", private[2], broken[2]),
        Row("the same: audit of 12 secrets among a million candidates", "s", private[3]),
        Row("the same: both trainings", "s", private[4] + broken[4]),
    ]


def _run(noise: float, steps: int, texts: int, sampling: float) -> tuple[float, float, float, float, float]:
    """Mean exposure of shown secrets and of controls, bits per character, seconds of the audit and of the training."""
    import torch

    from privacy.policy import Recipe
    from training.config import TrainingConfig
    from training.data import Record
    from training.evaluate import load_released
    from training.exposure import exposures
    from training.models.causal_lm import CausalLm
    from training.recipes import recipe_of
    from training.trainer import Unmetered, train_model

    torch.set_num_threads(1)
    shape = {"model": "causal_lm", "embedding_width": 64, "hidden_layers": 2, "heads": 4, "max_tokens": 48}
    recipe = Recipe.model_validate({**shape, "steps": steps, "learning_rate": 0.01, "clipping_norm": 1.0})
    config = TrainingConfig(recipe, ("a", "b"), 1, noise, sampling, int(texts * sampling), 20)
    draw = random.Random(1)  # noqa: S311
    said = [text for domain in ("finance", "airline") for _, text in chats(domain) if 25 <= len(text) <= 200]
    draw.shuffle(said)
    holdout = {f"{n:05d}": [Record("", str(n), text, "a")] for n, text in enumerate(said[texts : texts + 300])}
    units = {f"{n:05d}": [Record("", str(n), text, "a")] for n, text in enumerate(said[:texts])}
    codes = [f"{number:06d}" for number in draw.sample(range(10**6), 2 * PLANTED)]
    for place, code in enumerate(codes[:PLANTED]):
        units |= {f"planted {place} {n}": [Record("", "", BEFORE + code, "a")] for n in range(REPEATS)}
    made, began = recipe_of(config), time.perf_counter()
    outcome = train_model(
        config, made.encode(units, config), lambda: Unmetered(steps), _Nowhere(), lambda said: None, lambda done, all: None
    )
    trained = time.perf_counter() - began
    model = load_released(made.build(config), outcome.weights)
    assert isinstance(model, CausalLm)
    began = time.perf_counter()
    found = exposures(model, config, 0, BEFORE, codes).bits
    audited = time.perf_counter() - began
    utility = made.utility(model, made.encode(holdout, config), config)
    assert utility is not None
    shown, controls = (sum(part) / PLANTED for part in (found[:PLANTED], found[PLANTED:]))
    return round(shown, 1), round(controls, 1), utility.more["bits_per_character"], round(audited, 1), round(trained, 1)


class _Nowhere:
    """Keeps no checkpoint."""

    def load(self) -> bytes | None:
        return None

    def save(self, data: bytes) -> None:
        pass


def _of_chats() -> list[Row]:
    """Half of the people are in the index; copies are taken from them, false flags are of the other half."""
    draw, flags = random.Random(2), []  # noqa: S311
    for domain in ("finance", "airline"):
        inside, outside = _halves(list(chats(domain)), draw)
        index = SpanIndex(inside, SIGNS, os.urandom(32))
        flags += [bool(index.rare_spans(text, SUBJECTS)) for _, text in outside]
    inside, outside = _halves([pair for domain in ("finance", "airline") for pair in chats(domain)], draw)
    index = SpanIndex(inside, SIGNS, os.urandom(32))
    copies = _rare_copies(inside, draw, 400)
    filler = " ".join(text for _, text in outside)
    share = round(sum(flags) / len(flags), 4)
    return [
        *(_recall(name, index, copies, filler, change, draw) for name, change in _CHANGES.items()),
        Row("chat turns of people outside: flagged", "share", share, None, 0.02, share <= 0.02),
        Row("lines of machine logs, where no people are: flagged", "share", _of_logs(draw)),
    ]


def _spaced(text: str) -> str:
    return "  ".join(text.upper()[n : n + 7] for n in range(0, len(text), 7))


_CHANGES: dict[str, Callable[[str], str]] = {"word for word": lambda text: text, "other case and spaces": _spaced}


def _recall(
    name: str, index: SpanIndex, copies: Sequence[str], filler: str, change: Callable[[str], str], draw: random.Random
) -> Row:
    """Each copy in the middle of a text of strangers."""
    hits = 0
    for copy in copies:
        at = draw.randrange(len(filler) - LENGTH)
        text = filler[at : at + LENGTH // 2] + " " + change(copy) + " " + filler[at + LENGTH // 2 : at + LENGTH]
        whole, own = normalise(text), normalise(copy)
        place = whole.index(own)
        hits += any(span.start <= place and place + len(own) <= span.end for span in index.rare_spans(text, SUBJECTS))
    recall = round(hits / len(copies), 4)
    return Row(f"copied spans of 40 signs or more, {name}: found whole", "share", recall, None, 0.99, recall >= 0.99)


def _rare_copies(inside: Sequence[Pair], draw: random.Random, count: int) -> list[str]:
    """Parts of records, of 40 signs or more, every window of which stands in fewer than three people's records: by counting."""
    people: dict[str, set[str]] = {}
    for subject, text in inside:
        whole = normalise(text)
        for start in range(len(whole) - SIGNS + 1):
            people.setdefault(whole[start : start + SIGNS], set()).add(subject)
    long = [text for _, text in inside if len(normalise(text)) >= SIGNS]
    found: list[str] = []
    while len(found) < count:
        text = draw.choice(long)
        begin = draw.randrange(len(text))
        part = text[begin : begin + draw.randrange(SIGNS, 200)]
        whole = normalise(part)
        windows = [whole[n : n + SIGNS] for n in range(len(whole) - SIGNS + 1)]
        if windows and all(len(people[window]) < SUBJECTS for window in windows):
            found.append(part)
    return found


def _of_logs(draw: random.Random) -> float:
    """Share of lines flagged, lines of half of each system against the other half, each line a subject of its own."""
    import re

    head = re.compile(r"^(?:\[[^\]]*\] |[A-Z][a-z]{2} +\d+ [\d:]+ |- \d+ \S+ \S+ \S+ \S+ |\d\S* \d\S* (?:- )?)")
    flags = []
    for path in sorted((DATA / "loghub").glob("*/*_2k.log")):
        lines = [head.sub("", line.strip()) for line in path.read_text(errors="replace").splitlines()]
        inside, outside = _halves([(str(n), line) for n, line in enumerate(lines)], draw)
        index = SpanIndex(inside, SIGNS, os.urandom(32))
        flags += [bool(index.rare_spans(line, SUBJECTS)) for _, line in outside]
    return round(sum(flags) / len(flags), 4)


def _halves(pairs: Sequence[Pair], draw: random.Random) -> tuple[list[Pair], list[Pair]]:
    """By subject."""
    subjects = sorted({subject for subject, _ in pairs})
    draw.shuffle(subjects)
    chosen = set(subjects[: len(subjects) // 2])
    return [p for p in pairs if p[0] in chosen], [p for p in pairs if p[0] not in chosen]


def _of_code(quick: bool) -> list[Row]:
    """Time at size: an index of 16 million characters of Python's standard library and what is installed, a file a subject."""
    texts, size, most = [], 0, 2_000_000 if quick else 18_000_000
    for base in (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"]):
        for path in sorted(Path(base).rglob("*.py")):
            if size < most and "site-packages" not in path.relative_to(base).parts:
                text = path.read_text(errors="ignore")
                texts.append((str(path), text))
                size += len(text)
    draw = random.Random(3)  # noqa: S311
    draw.shuffle(texts)
    cut = int(len(texts) * 0.9)
    began = time.perf_counter()
    index = SpanIndex(texts[:cut], SIGNS, os.urandom(32))
    build = time.perf_counter() - began
    held, known = (" ".join(text for _, text in part) for part in (texts[cut:], texts[:cut]))
    asked = []
    for number in range(400):
        source = known if number % 2 else held  # every other text is a copy from end to end: the dearest there is
        at = draw.randrange(len(source) - LENGTH)
        asked.append(source[at : at + LENGTH])
    seconds = []
    for text in asked:
        began = time.perf_counter()
        index.rare_spans(text, SUBJECTS)
        seconds.append(time.perf_counter() - began)
    spent = round(1000 * sum(seconds) / len(seconds), 2)
    return [
        Row(f"{LENGTH} characters against an index of {size / 1e6:.0f} million", "ms", spent, 1.2, 2.0, spent <= 2.0),
        Row("the same: making the index", "s", round(build, 1), 12.0),
    ]
