"""A few lines before and after de-identification, for a person to look at; nothing is stored.

Only the demo calls this, on logs that it generated itself. Detector and treatments come from where protect gets them
(`pipeline.treatment`), sealed lists, own patterns and guarded surrogates included; only the key is another.
"""

from __future__ import annotations

import gzip
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.treatment import deidentifier_by, detector_of
from privacy.detect import detect_language
from privacy.policy_file import load_policy

if TYPE_CHECKING:
    from pipeline.home import Home

_LOOK_AT = 400  # lines per file to choose from


def before_and_after(home: Home, logs: Path, policy_path: Path, limit: int) -> list[tuple[str, str]]:
    """The `limit` texts with most findings, taken in turns from the files, so that each language shows."""
    policy = load_policy(policy_path)
    # A throw-away key: the pseudonyms shown here are not those of the dataset.
    treat = deidentifier_by(secrets.token_bytes(32), policy)
    declared = treat.guard(detector_of(home, policy))
    per_file: list[list[tuple[int, str, str]]] = []
    for path in sorted(logs.glob("chats-*.jsonl.gz")):
        texts = list(_texts(path, policy.source.fields.text[0]))
        ranked: list[tuple[int, str, str]] = []
        for language in sorted({detect_language(t) for t in texts}):
            own = [t for t in texts if detect_language(t) == language]
            detector = declared
            if language not in policy.languages:  # read all the same, as protect does
                detector = treat.guard(detector_of(home, policy, (language,)))
            for text, findings in zip(own, detector.analyze_batch(own, language), strict=True):
                ranked.append((len({f.entity for f in findings}), text, treat.apply(text, findings)[0]))
        per_file.append(sorted(ranked, reverse=True))
    turns = [row for rank in range(limit) for ranked in per_file for row in ranked[rank : rank + 1]]
    return [(before, after) for _, before, after in turns[:limit]]


def _texts(path: Path, field: str) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8", errors="ignore") as lines:
        for number, line in enumerate(lines):
            if number >= _LOOK_AT:
                return
            try:
                text = json.loads(line)[field]
            except (ValueError, KeyError, TypeError):
                continue  # the generator mixes in broken lines on purpose
            if isinstance(text, str):
                yield text
