"""A keyring in one plain file: the smallest thing that has domains and epochs, for tests of what stands on them.

It keeps its keys in the clear, so a test can hold the file against what was promised. Steps can be counted and killed.
"""

from __future__ import annotations

import base64
import fcntl
import hmac
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.errors import IntegrityError


@dataclass(frozen=True)
class Epoch:
    epoch: int
    state: Literal["live", "destroyed"]


class EpochKeys:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.calls: list[str] = []
        if not path.exists():
            path.write_text("{}")

    def wrap(self, domain: str, dek: bytes, context: bytes) -> str:
        with self._changing() as keys:
            known = keys.setdefault(domain, {})
            if not any(known.values()):
                known[str(len(known) + 1)] = os.urandom(32).hex()
            epoch = max(int(e) for e in known)
            key = bytes.fromhex(known[str(epoch)])
        nonce = os.urandom(12)
        sealed = nonce + AESGCM(key).encrypt(nonce, dek, f"{domain}@{epoch}".encode() + context)
        return f"{domain}@{epoch}:{base64.urlsafe_b64encode(sealed).decode()}"

    def unwrap(self, wrapped: str, context: bytes) -> bytes:
        self.calls.append("unwrap")
        domain, epoch = self.epoch_of(wrapped)
        key = self._keys().get(domain, {}).get(str(epoch))
        if not key:
            raise IntegrityError("E-KEY-006", "the key of this domain is gone", "Nothing")
        sealed = base64.urlsafe_b64decode(wrapped.rsplit(":", 1)[1])
        try:
            return AESGCM(bytes.fromhex(key)).decrypt(sealed[:12], sealed[12:], f"{domain}@{epoch}".encode() + context)
        except InvalidTag:
            raise IntegrityError("E-KEY-005", "a wrapped key is altered", "Restore") from None

    def unwrap_many(self, wrapped: list[tuple[str, bytes]]) -> list[bytes]:
        return [self.unwrap(text, context) for text, context in wrapped]

    def rewrap(self, wrapped: str, context: bytes) -> str:
        self.calls.append("rewrap")
        return self.wrap(self.epoch_of(wrapped)[0], self.unwrap(wrapped, context), context)

    def derive(self, domain: str, label: str) -> bytes:
        self.wrap(domain, b"", b"")
        return hmac.digest(bytes.fromhex(self._keys()[domain]["1"]), label.encode(), "sha256")

    def new_epoch(self, domain: str) -> int:
        self.calls.append("new_epoch")
        with self._changing() as keys:
            known = keys.setdefault(domain, {})
            epoch = max((int(e) for e in known), default=0) + 1
            known[str(epoch)] = os.urandom(32).hex()
        return epoch

    def destroy_epoch(self, domain: str, epoch: int) -> bool:
        self.calls.append("destroy_epoch")
        with self._changing() as keys:
            known = keys.get(domain, {})
            live = bool(known.get(str(epoch)))
            known[str(epoch)] = ""
        return live

    def epoch_of(self, wrapped: str) -> tuple[str, int]:
        domain, _, rest = wrapped.partition("@")
        return domain, int(rest.split(":")[0])

    def epochs(self, domain: str) -> list[Epoch]:
        return [Epoch(int(e), "live" if key else "destroyed") for e, key in sorted(self._keys().get(domain, {}).items())]

    def _keys(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = json.loads(self._path.read_text())
        return found

    @contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, str]]]:
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self._keys()
            yield keys
            new = self._path.with_suffix(f".{os.getpid()}")
            new.write_text(json.dumps(keys))
            new.replace(self._path)
        finally:
            os.close(lock)
