"""Keeps the memory of a process that holds keys out of core files and out of the reach of its user's debuggers.

Promise, and no more: no core file, and no ptrace or /proc/PID/mem by another process of the same user that lacks
CAP_SYS_PTRACE. Not covered: Python and OpenSSL do not wipe every copy of a key, so keys stay in memory until the process
ends (open them in short-lived processes); swap and hibernation (encrypt them, or switch them off); root.
"""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def harden_process() -> bool:
    """RLIMIT_CORE = 0 and, on Linux, PR_SET_DUMPABLE = 0. Returns whether both hold; can't be undone by this process.

    A child of fork inherits both; a program that is executed later is dumpable again, and keeps the limit.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        return False
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False
