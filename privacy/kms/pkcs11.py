"""A hardware token through PKCS#11: key-encryption keys that never leave it.

A version is one AES-256 key on the token, sensitive and not extractable, labelled `<key id>.v<n>`. AES key wrap has no
associated data, so the token wraps a fresh 32-byte key, and AES-256-GCM under that binds context and wrapped bytes here.
Guarantee: the contract of `privacy.kms`; the PIN is read from a 0600 file. Assumption: the library is the vendor's (its
path comes from kms.json). Not covered: the fresh key is in this process's memory while it is used.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.canonical import canonical_json
from privacy.errors import PrivetError
from privacy.kms import (
    Context,
    KeyVersion,
    Wrapped,
    bad_token,
    bound,
    checked_dek,
    checked_key_id,
    denied,
    destroyed,
    driver_missing,
    newest_stays,
    no_such_key,
    not_unwrappable,
    unreachable,
    unwell,
)
from privacy.owner_only import read_owner_only

_NONCE = 12
_INNER = 40  # a 32-byte key under AES key wrap


@dataclass(frozen=True, slots=True)
class Pkcs11Place:
    """No secret in it; `pin_file` names the file that holds the user PIN."""

    library: Path
    token_label: str
    pin_file: Path


class Pkcs11Kms:
    """Safe for threads (one at a time) and for forks (a child logs in anew)."""

    __slots__ = ("_lock", "_pid", "_place", "_session")

    def __init__(self, place: Pkcs11Place) -> None:
        self._place = place
        self._lock = Lock()
        self._session: Any = None
        self._pid = 0

    @property
    def backend(self) -> str:
        return "pkcs11"

    def create(self, key_id: str) -> None:
        with self._token() as session:
            if not self._numbers(session, checked_key_id(key_id)):
                self._make(session, key_id, 1)

    def wrap(self, key_id: str, dek: bytes, ctx: Context) -> Wrapped:
        checked_dek(dek)
        with self._token() as session:
            number = self._newest(session, checked_key_id(key_id))
            return self._wrap(session, key_id, number, dek, ctx)

    def unwrap(self, wrapped: Wrapped, ctx: Context) -> bytes:
        with self._token() as session:
            return self._unwrap(session, wrapped, ctx)

    def rewrap(self, wrapped: Wrapped, ctx: Context) -> Wrapped:
        with self._token() as session:
            number = self._newest(session, checked_key_id(wrapped.key_id))
            return self._wrap(session, wrapped.key_id, number, self._unwrap(session, wrapped, ctx), ctx)

    def rewrap_many(self, items: Sequence[tuple[Wrapped, Context]]) -> list[Wrapped]:
        return [self.rewrap(wrapped, ctx) for wrapped, ctx in items]

    def rotate(self, key_id: str) -> int:
        with self._token() as session:
            number = self._newest(session, checked_key_id(key_id)) + 1
            self._make(session, key_id, number)
        return number

    def destroy(self, key_id: str, version: int) -> None:
        with self._token() as session:
            if version >= self._newest(session, checked_key_id(key_id)):
                raise newest_stays()
            for number in self._numbers(session, key_id):
                if number <= version:
                    self._key(session, key_id, number).destroy()

    def versions(self, key_id: str) -> tuple[KeyVersion, ...]:
        with self._token() as session:
            numbers = self._numbers(session, checked_key_id(key_id))
        if not numbers:
            raise no_such_key()
        return tuple(KeyVersion(n, "live" if n in numbers else "destroyed") for n in range(1, numbers[-1] + 1))

    def __repr__(self) -> str:
        return "Pkcs11Kms()"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a key service is not picklable")

    def _wrap(self, session: Any, key_id: str, number: int, dek: bytes, ctx: Context) -> Wrapped:
        import pkcs11

        inner, nonce = os.urandom(32), os.urandom(_NONCE)
        template = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
            pkcs11.Attribute.VALUE: inner,
            pkcs11.Attribute.TOKEN: False,
            pkcs11.Attribute.EXTRACTABLE: True,
            pkcs11.Attribute.SENSITIVE: False,
        }
        passing = session.create_object(template)
        try:
            kek = self._key(session, key_id, number)
            outer = kek.wrap_key(passing, mechanism=pkcs11.Mechanism.AES_KEY_WRAP)
        finally:
            passing.destroy()
        blob = outer + nonce + AESGCM(inner).encrypt(nonce, dek, _bound(key_id, number, ctx))
        return Wrapped(key_id, number, base64.b64encode(blob).decode())

    def _unwrap(self, session: Any, wrapped: Wrapped, ctx: Context) -> bytes:
        import pkcs11

        try:
            blob = base64.b64decode(wrapped.blob, validate=True)
        except (binascii.Error, ValueError):
            raise not_unwrappable() from None
        template = {
            pkcs11.Attribute.TOKEN: False,
            pkcs11.Attribute.EXTRACTABLE: True,
            pkcs11.Attribute.SENSITIVE: False,
        }
        kek = self._key(session, checked_key_id(wrapped.key_id), wrapped.version)
        try:
            passing = kek.unwrap_key(
                pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.KeyType.AES,
                blob[:_INNER],
                mechanism=pkcs11.Mechanism.AES_KEY_WRAP,
                template=template,
            )
        except (pkcs11.exceptions.PKCS11Error, ValueError):
            raise not_unwrappable() from None
        try:
            inner = bytes(passing[pkcs11.Attribute.VALUE])
        finally:
            passing.destroy()
        nonce, sealed = blob[_INNER : _INNER + _NONCE], blob[_INNER + _NONCE :]
        try:
            return AESGCM(inner).decrypt(nonce, sealed, _bound(wrapped.key_id, wrapped.version, ctx))
        except (InvalidTag, ValueError):
            raise not_unwrappable() from None

    def _make(self, session: Any, key_id: str, number: int) -> None:
        import pkcs11

        usage = pkcs11.MechanismFlag.WRAP | pkcs11.MechanismFlag.UNWRAP
        template = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
        label = f"{key_id}.v{number}"
        session.generate_key(pkcs11.KeyType.AES, 256, label=label, store=True, capabilities=usage, template=template)

    def _newest(self, session: Any, key_id: str) -> int:
        numbers = self._numbers(session, key_id)
        if not numbers:
            raise no_such_key()
        return numbers[-1]

    def _numbers(self, session: Any, key_id: str) -> list[int]:
        import pkcs11

        start = f"{key_id}.v"
        keys = session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY, pkcs11.Attribute.TOKEN: True})
        labels = [key.label or "" for key in keys]
        return sorted(int(name[len(start) :]) for name in labels if name.startswith(start) and name[len(start) :].isdigit())

    def _key(self, session: Any, key_id: str, number: int) -> Any:
        import pkcs11

        try:
            return session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=f"{key_id}.v{number}")
        except pkcs11.NoSuchKey:
            numbers = self._numbers(session, key_id)
        raise destroyed() if any(number < n for n in numbers) else no_such_key()

    @contextmanager
    def _token(self) -> Iterator[Any]:
        try:
            import pkcs11
        except ImportError:
            raise driver_missing(self.backend, "python-pkcs11") from None
        fault: PrivetError
        with self._lock:
            try:
                yield self._logged_in(pkcs11)
                return
            except pkcs11.exceptions.PKCS11Error as error:
                self._session = None
                fault = _fault(type(error).__name__)
            except (RuntimeError, OSError):  # the library itself can't be loaded
                self._session = None
                fault = driver_missing(self.backend, "its PKCS#11 library")
        raise fault from None

    def _logged_in(self, pkcs11: Any) -> Any:
        if self._session is None or self._pid != os.getpid():
            if not self._place.library.exists():
                raise driver_missing(self.backend, "its PKCS#11 library")
            library = pkcs11.lib(str(self._place.library))
            if self._pid not in (0, os.getpid()):
                library.reinitialize()  # PKCS#11 state does not survive a fork
            pin = read_owner_only(self._place.pin_file)[0].decode("utf-8", "replace").strip()
            token = library.get_token(token_label=self._place.token_label)
            try:
                self._session = token.open(rw=True, user_pin=pin)
            except pkcs11.exceptions.UserAlreadyLoggedIn:  # PKCS#11 logs a whole process in, not one session
                self._session = token.open(rw=True)
            self._pid = os.getpid()
        return self._session


def _fault(name: str) -> PrivetError:
    if name in ("PinIncorrect", "PinExpired", "PinLocked", "PinInvalid", "PinLenRange"):
        return bad_token("pkcs11")
    if name in ("NoSuchToken", "TokenNotPresent", "DeviceRemoved", "SlotIDInvalid"):
        return unreachable("pkcs11")
    if name in ("UserNotLoggedIn", "SessionReadOnly", "TokenWriteProtected", "FunctionRejected"):
        return denied("pkcs11")
    return unwell("pkcs11", name)


def _bound(key_id: str, number: int, ctx: Context) -> bytes:
    return canonical_json([key_id, number, bound(ctx).hex()])
