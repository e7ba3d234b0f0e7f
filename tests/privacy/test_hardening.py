"""No core file, no debugger; and keys that no repr, pickle or traceback shows."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from privacy.domain_key import DomainKey
from privacy.errors import IntegrityError
from privacy.keys import Keyring

PROBE = """
import ctypes, os, resource, signal, sys
from privacy.hardening import harden_process
before = (resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
held = harden_process()
child = os.fork()
if child == 0:
    os._exit(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
own = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
print(held, resource.getrlimit(resource.RLIMIT_CORE), own, os.waitpid(child, 0)[1], before[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_DUMPABLE is Linux")
def test_a_hardened_process_and_its_children_leave_no_core_and_no_debugger_in() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True (0, 0) 0 0 1"


@pytest.mark.parametrize(
    ("module", "command", "arguments"),
    [
        ("commands", "init", ["init", "--home", "h"]),
        ("commands_journal", "journal_witness", ["journal", "witness", "c", "--state", "s", "--key", "k", "--as", "w"]),
        ("commands", "identity_new", ["identity", "new", "--key", "k"]),
    ],
)
def test_commands_that_may_open_keys_are_hardened(module: str, command: str, arguments: list[str]) -> None:
    code = (
        f"import ctypes, resource, sys; from pipeline import cli, {module}\n"
        "dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        f"{module}.{command} = lambda args: print(resource.getrlimit(resource.RLIMIT_CORE), dumpable()) or 0\n"
        f"cli.main({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(0, 0) 0" or not sys.platform.startswith("linux")


def test_no_key_is_in_a_repr_a_pickle_a_copy_or_a_traceback(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "keyring.json", tmp_path / "root.key")
    root = (tmp_path / "root.key").read_text().strip()
    wrapped = keyring.wrap("chat/raw", b"d" * 32, b"")
    derived = keyring.derive("chat/token", "x")
    key = DomainKey.of(b"s" * 32)
    cached = next(iter(keyring._keys.values()))
    secrets = [root, derived.hex(), repr(derived), repr(b"s" * 32), (b"s" * 32).hex(), key.deriving.hex(), repr(key.deriving)]
    shown = [repr(keyring), repr(keyring.kms), repr(key), repr(cached), repr(keyring.state), str(keyring)]
    with pytest.raises(IntegrityError) as caught:
        keyring.unwrap(wrapped, b"elsewhere")
    shown += traceback.format_exception(caught.value)
    assert caught.value.__cause__ is None
    assert [secret for secret in secrets for text in shown if secret in text] == []
    for thing in (keyring, keyring.kms, key):
        for leak in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                leak(thing)
