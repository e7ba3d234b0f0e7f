"""Where a sealed object lies now: the end of an epoch writes objects anew, and every manifest keeps its first address.

Guarantee: a move counts only from the verified journal, so nobody without the pipeline's key can send a reader elsewhere;
what a reader gets under an old address is what it got before the move, for `pipeline.read` leaves erased units out anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.stage import ArtifactRef
from privacy.canonical import Digest
from privacy.errors import PrivetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.home import Home
    from privacy.journal import Entry

KIND = "resealed"
Moves = Mapping[Digest, ArtifactRef | None]


def moves(entries: Sequence[Entry], after: int = -1) -> Moves:
    """New place by old digest, of the entries after that number; None where nothing of the object was left."""
    found: dict[Digest, ArtifactRef | None] = {}
    for entry in entries:
        old = entry.facts.get("old")
        if entry.kind == KIND and entry.seq > after and isinstance(old, str):
            new = entry.facts.get("new")
            found[old] = None if new is None else ArtifactRef.from_json(new)
    return found


def chain(known: Moves, ref: ArtifactRef) -> list[ArtifactRef]:
    """`ref` and every later place, the newest last."""
    places = [ref]
    while (new := known.get(places[-1].digest)) is not None and new not in places:
        places.append(new)
    return places


def current(home: Home, ref: ArtifactRef) -> ArtifactRef:
    """Where the object lies today; `ref` itself where it never moved, the last place where it is gone for good."""
    if home.store.exists(ref):
        return ref
    places = chain(moves(home.journal.entries()), ref)
    return next((place for place in reversed(places) if home.store.exists(place)), places[-1])


def is_there(home: Home, ref: ArtifactRef) -> bool:
    try:
        return home.store.exists(current(home, ref))
    except PrivetError:
        return False
