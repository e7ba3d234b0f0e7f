"""May coarse vectors of texts leave? An attack tries to tell from them which personal data stands in a text.

Attack: a made-up value stands in a text that the attacker knows but for it; from the released vector, the attacker who has the
model picks among _CANDIDATES values the one whose vector is nearest. Fresh values every run; nothing of it comes from data.
Guarantee: the vectors pass only when the share that is picked right is shown, at 95 %, to be at most _MOST (chance is 1 in
_CANDIDATES). What can't be computed is "not evaluated".
Not covered: attacks that train on many vectors, longer lists of candidates, and what vectors tell besides such values (topic,
language, author). A pass is no proof that nothing can be inverted.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.audit_case import Opened
from pipeline.canary_values import KINDS
from pipeline.slip_through import LEVEL, miss_bound
from privacy.canonical import Json
from privacy.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHECK = "audit.embeddings"
_CANDIDATES = 20
_MOST = 0.15
_TEXTS = {"en": "please help me, {before}{value}{after} thank you", "zh": "请帮我处理，{before}{value}{after} 谢谢"}


def embeddings(opened: Opened | None, prompts: Sequence[str]) -> tuple[Verdict, dict[str, Json], Json]:
    """Verdict, what the attack found, and the coarse vectors of `prompts` (redacted ones)."""
    vectors = None if opened is None else _coarse(opened, prompts or ["-"])
    if opened is None or vectors is None:
        return Verdict(CHECK, "not_evaluated", "there is no model with vectors that an attack could be tried on"), {}, []
    draw = random.SystemRandom()
    right = tried = 0
    for kind in KINDS:
        made = [kind.make(draw) for _ in range(_CANDIDATES)]
        texts = [_TEXTS[kind.language].format(before=made[0][0], value=value, after=made[0][2]) for _, value, _ in made]
        released = _coarse(opened, texts)
        if released is None:
            return Verdict(CHECK, "not_evaluated", "the model made no vectors of the texts of the attack"), {}, []
        right += nearest(released, released, draw)
        tried += _CANDIDATES
    bound = miss_bound(right, tried, LEVEL)
    found: dict[str, Json] = {
        "tried": tried, "reconstructed": right, "upper_bound": bound, "level": LEVEL, "chance": 1 / _CANDIDATES, "most": _MOST,
        "attack": "nearest of 20 candidates; the attacker has the model and knows the text but for the value",
    }  # fmt: skip
    said = (
        f"{right} of {tried} made-up values were told from coarse vectors (at most {bound:.3f} at {LEVEL:g}; {_MOST:g} allowed)"
    )
    return Verdict(CHECK, "passed" if bound <= _MOST else "failed", said), found, vectors.tolist() if prompts else []


def nearest(released: npt.NDArray[np.int8], candidates: npt.NDArray[np.int8], draw: random.Random) -> int:
    """How many rows of `released` lie nearest to the candidate of the same place; ties are broken by lot."""
    import numpy as np

    right = 0
    for place, vector in enumerate(released):
        apart = np.abs(candidates.astype(np.int64) - vector).sum(1)
        right += draw.choice(np.flatnonzero(apart == apart.min()).tolist()) == place
    return right


def _coarse(opened: Opened, texts: Sequence[str]) -> npt.NDArray[np.int8] | None:
    from training.embeddings import embed, quantise
    from training.recipes import recipe_of

    recipe = recipe_of(opened.config)
    vectors = embed(recipe, opened.model, texts, opened.config) if recipe.classifies else None
    return None if vectors is None else quantise(vectors)
