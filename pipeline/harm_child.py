"""The process that runs a policy's harm classifier: foreign code, which may hang, print or die, and then only this one does.

A script of its own (it imports nothing of Privet): plugin and texts come as JSON on standard input, scores go back as JSON.
Whatever the plugin prints goes nowhere, since it could quote a text; of a failure only its kind is said.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import sys


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    request = json.load(sys.stdin)
    json.dump(_asked(request["plugin"], request["texts"]), answer)
    answer.flush()
    return 0


def _asked(plugin: str, texts: list[str]) -> dict[str, object]:
    module, _, name = plugin.partition(":")
    try:
        classify = getattr(importlib.import_module(module), name)
    except BaseException:  # whatever an import of foreign code does
        return {"fault": "it could not be imported"}
    try:
        found = classify(list(texts))
        scores = [float(value) for value in found]
        kinds = all(isinstance(value, bool | int | float) or type(value).__module__ == "numpy" for value in found)
    except BaseException:
        return {"fault": "it raised an error"}
    if not kinds or len(scores) != len(texts) or not all(math.isfinite(s) and 0 <= s <= 1 for s in scores):
        return {"fault": "it did not give one truth value, or one score from 0 to 1, for each text"}
    return {"scores": scores}


if __name__ == "__main__":
    raise SystemExit(main())
