"""Tells whether header and chunks of a sealed file are authentic, and never what they hold.

For finding out what was done to a file that is refused already: a probe gives no plaintext away, so it may look at files
that nobody may open. Assumption: the caller has the key; without one there is nothing to tell altered from foreign.
"""

from __future__ import annotations

from privacy.seal import CHUNK, HEADER, SALT, SEALED_CHUNK, TAG, SealedChunks


class SealedProbe:
    """Looks at the chunks of one file."""

    def __init__(self, header: bytes, key: bytes, context: bytes) -> None:
        """header: the first HEADER bytes. `belongs` says whether they commit to this key and context."""
        self._chunks = SealedChunks(key, header[:SALT], context)
        self._scratch = memoryview(bytearray(CHUNK))
        self.belongs = self._chunks.begins(header[:HEADER])

    def authentic(self, index: int, sealed: bytes) -> bool:
        """Whether these are the bytes of chunk `index`: of the last chunk, when they are shorter than SEALED_CHUNK."""
        if not TAG <= len(sealed) <= SEALED_CHUNK:
            return False
        size = len(sealed) - TAG
        return self._chunks.unseal(index, [memoryview(sealed)], [self._scratch[:size]]) == 1


def salt_was_altered(header: bytes, key: bytes, context: bytes) -> bool:
    """Whether one flipped bit of the salt explains a header that does not belong to its key."""
    salt = int.from_bytes(header[:SALT], "big")
    tries = ((salt ^ (1 << bit)).to_bytes(SALT, "big") for bit in range(SALT * 8))
    return any(SealedChunks(key, each, context).begins(header[:HEADER]) for each in tries)
