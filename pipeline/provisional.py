"""Sealed objects that no result names yet are destroyed when the work that made them does not commit.

Guarantee: a stage that fails, or that loses a race, leaves no sealed object behind that nothing refers to and that no
erasure or retention would ever find. For a process that is killed in between, the store's notes say what it had made, and
the next process that opens the store destroys it (pipeline.store_notes).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from privacy.errors import PrivetError

if TYPE_CHECKING:
    from pipeline.stage import ArtifactRef
    from pipeline.store import Store

# One set per work in progress, the outermost first; a context variable, so that threads do not see each other's.
_Made = dict[str, tuple["Store", "ArtifactRef"]]
_made: ContextVar[tuple[_Made, ...]] = ContextVar("made", default=())


@contextmanager
def provisional(store: Store) -> Iterator[None]:
    """Shred, at the end of the block, what was sealed in it and not kept."""
    mine: _Made = {}
    owner = os.getpid()
    token = _made.set((*_made.get(), mine))
    try:
        yield
    finally:
        _made.reset(token)
        for ref in [ref for _, ref in mine.values() if os.getpid() == owner]:  # a child that ends in here owns nothing
            with suppress(PrivetError):  # a disk that fails here fails the block too, with the better reason
                store.shred(ref)
                store.notes.settle(ref.digest)


def note(store: Store, ref: ArtifactRef) -> None:
    """Called by the store for each new sealed object, before it has its name. Outside such a block its caller owns it."""
    if _made.get():
        store.notes.add(ref.digest)
    for made in _made.get():
        made[ref.digest] = (store, ref)


def keep(refs: Iterable[ArtifactRef]) -> None:
    """Something durable names these objects now."""
    for ref in refs:
        for made in _made.get():
            if ref.digest in made:
                made.pop(ref.digest)[0].notes.settle(ref.digest)
