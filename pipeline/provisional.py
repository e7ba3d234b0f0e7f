"""Sealed objects that no result names yet are destroyed when the work that made them does not commit.

Guarantee: a stage that fails, or that loses a race, leaves no sealed object behind that nothing refers to and that no
erasure or retention would ever find. Not covered: a process that is killed between writing an object and committing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from privacy.errors import PrivetError

if TYPE_CHECKING:
    from pipeline.stage import ArtifactRef
    from pipeline.store import Store

# One set per work in progress, the outermost first; a context variable, so that threads do not see each other's.
_made: ContextVar[tuple[dict[str, ArtifactRef], ...]] = ContextVar("made", default=())


@contextmanager
def provisional(store: Store) -> Iterator[None]:
    """Shred, at the end of the block, what was sealed in it and not kept."""
    mine: dict[str, ArtifactRef] = {}
    token = _made.set((*_made.get(), mine))
    try:
        yield
    finally:
        _made.reset(token)
        for ref in mine.values():
            with suppress(PrivetError):  # a disk that fails here fails the block too, with the better reason
                store.shred(ref)


def note(ref: ArtifactRef) -> None:
    """Called by the store for each new sealed object."""
    for made in _made.get():
        made[ref.digest] = ref


def keep(refs: Iterable[ArtifactRef]) -> None:
    """Something durable names these objects now."""
    for ref in refs:
        for made in _made.get():
            made.pop(ref.digest, None)
