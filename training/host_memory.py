"""Lets a training process keep the memory that it frees, since every step asks for the same sizes again.

The C library gives large blocks back to the kernel at once and gets them again page by page, each zeroed by a fault: 15 to 40 %
of a step of a small model, private or not. Guarantee: results do not change. Assumption: glibc; elsewhere nothing is done.
Not covered: freed memory stays with the process until it ends, so call it where training is all that the process does.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Whether the C library took the setting."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  mallopt of another C library may mean something else
        return bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST) and library.mallopt(_TRIM_THRESHOLD, _LARGEST))
    except (AttributeError, OSError):
        return False
