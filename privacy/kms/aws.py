"""AWS KMS. A version is a KMS key of its own behind an alias `alias/<key id>-v<n>`.

Why not AWS's own rotation: it keeps all old key material as one key, so no older version could ever be destroyed alone.
Guarantee: the context is AWS's encryption context; a blob is decrypted under the key of its version only (KeyId given);
every call has a deadline and few retries; credentials come from AWS's own chain, never from arguments of ours.
Not covered: `destroy` disables the key at once, but AWS deletes it only after its waiting period (7 days, its least), in
which an administrator can take it back.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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

_WAITING_DAYS = 7
_DENIED = {"AccessDeniedException", "AccessDenied", "KMSAccessDeniedException"}
_TOKEN = {
    "ExpiredTokenException",
    "ExpiredToken",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationToken",
}
_WRONG = {"InvalidCiphertextException", "IncorrectKeyException", "ValidationException"}
_GONE = {"DisabledException", "KMSInvalidStateException", "KeyUnavailableException"}


@dataclass(frozen=True, slots=True)
class AwsPlace:
    """No secret in it."""

    region: str
    endpoint: str = ""
    timeout_seconds: float = 10.0


class AwsKms:
    """Safe for threads; each process makes its own client."""

    __slots__ = ("_made", "_pid", "_place")

    def __init__(self, place: AwsPlace) -> None:
        self._place = place
        self._made: Any = None
        self._pid = 0

    @property
    def backend(self) -> str:
        return "aws"

    def create(self, key_id: str) -> None:
        with self._faults() as client:
            if not self._numbers(client, checked_key_id(key_id)):
                self._make(client, key_id, 1)

    def wrap(self, key_id: str, dek: bytes, ctx: Context) -> Wrapped:
        checked_dek(dek)
        with self._faults() as client:
            number = self._newest(client, checked_key_id(key_id))
            made = client.encrypt(KeyId=_alias(key_id, number), Plaintext=dek, EncryptionContext=_context(ctx))
        return Wrapped(key_id, number, base64.b64encode(made["CiphertextBlob"]).decode())

    def unwrap(self, wrapped: Wrapped, ctx: Context) -> bytes:
        blob = _blob(wrapped)
        with self._faults() as client:
            alias = _alias(checked_key_id(wrapped.key_id), wrapped.version)
            opened = client.decrypt(KeyId=alias, CiphertextBlob=blob, EncryptionContext=_context(ctx))
            return bytes(opened["Plaintext"])

    def rewrap(self, wrapped: Wrapped, ctx: Context) -> Wrapped:
        blob = _blob(wrapped)
        with self._faults() as client:
            number = self._newest(client, checked_key_id(wrapped.key_id))
            moved = client.re_encrypt(
                CiphertextBlob=blob,
                SourceKeyId=_alias(wrapped.key_id, wrapped.version),
                SourceEncryptionContext=_context(ctx),
                DestinationKeyId=_alias(wrapped.key_id, number),
                DestinationEncryptionContext=_context(ctx),
            )
        return Wrapped(wrapped.key_id, number, base64.b64encode(moved["CiphertextBlob"]).decode())

    def rewrap_many(self, items: Sequence[tuple[Wrapped, Context]]) -> list[Wrapped]:
        return [self.rewrap(wrapped, ctx) for wrapped, ctx in items]

    def rotate(self, key_id: str) -> int:
        with self._faults() as client:
            number = self._newest(client, checked_key_id(key_id)) + 1
            self._make(client, key_id, number)
        return number

    def destroy(self, key_id: str, version: int) -> None:
        with self._faults() as client:
            if version >= self._newest(client, checked_key_id(key_id)):
                raise newest_stays()
            for number in self._numbers(client, key_id):
                if number <= version and self._state(client, key_id, number) not in ("PendingDeletion", "PendingImport"):
                    client.disable_key(KeyId=self._real_id(client, key_id, number))
                    client.schedule_key_deletion(KeyId=self._real_id(client, key_id, number), PendingWindowInDays=_WAITING_DAYS)

    def versions(self, key_id: str) -> tuple[KeyVersion, ...]:
        with self._faults() as client:
            numbers = self._numbers(client, checked_key_id(key_id))
            if not numbers:
                raise no_such_key()
            states = [(n, self._state(client, key_id, n)) for n in numbers]
        return tuple(KeyVersion(n, "live" if state == "Enabled" else "destroyed") for n, state in states)

    def __repr__(self) -> str:
        return f"AwsKms({self._place.region})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a key service is not picklable")

    def _make(self, client: Any, key_id: str, number: int) -> None:
        made = client.create_key(Description=f"Privet {key_id} version {number}")
        client.create_alias(AliasName=_alias(key_id, number), TargetKeyId=made["KeyMetadata"]["KeyId"])

    def _newest(self, client: Any, key_id: str) -> int:
        numbers = self._numbers(client, key_id)
        if not numbers:
            raise no_such_key()
        return numbers[-1]

    def _numbers(self, client: Any, key_id: str) -> list[int]:
        start = _alias(key_id, 0)[:-1]
        pages = client.get_paginator("list_aliases").paginate()
        names = [alias["AliasName"] for page in pages for alias in page["Aliases"]]
        return sorted(int(n[len(start) :]) for n in names if n.startswith(start) and n[len(start) :].isdigit())

    def _state(self, client: Any, key_id: str, number: int) -> str:
        return str(client.describe_key(KeyId=_alias(key_id, number))["KeyMetadata"]["KeyState"])

    def _real_id(self, client: Any, key_id: str, number: int) -> str:
        return str(client.describe_key(KeyId=_alias(key_id, number))["KeyMetadata"]["KeyId"])

    @contextmanager
    def _faults(self) -> Iterator[Any]:
        """AWS's faults as ours; its messages name accounts and keys, so none gets out."""
        try:
            from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
        except ImportError:
            raise driver_missing(self.backend, "boto3") from None
        fault: PrivetError
        try:
            yield self._client()
            return
        except ClientError as error:
            fault = _fault(str(error.response.get("Error", {}).get("Code", "")))
        except (NoCredentialsError, PartialCredentialsError):
            fault = bad_token(self.backend)
        except (BotoCoreError, OSError):
            fault = unreachable(self.backend)
        raise fault from None

    def _client(self) -> Any:
        import os

        if self._made is None or self._pid != os.getpid():
            import boto3
            from botocore.config import Config

            seconds = self._place.timeout_seconds
            retries = {"max_attempts": 2, "mode": "standard"}
            config = Config(connect_timeout=seconds, read_timeout=seconds, retries=retries)
            where = {"endpoint_url": self._place.endpoint} if self._place.endpoint else {}
            self._made = boto3.session.Session().client("kms", region_name=self._place.region, config=config, **where)
            self._pid = os.getpid()
        return self._made


def _fault(code: str) -> PrivetError:
    if code in _DENIED:
        return denied("aws")
    if code in _TOKEN:
        return bad_token("aws")
    if code in _WRONG:
        return not_unwrappable()
    if code in _GONE:
        return destroyed()
    if code == "NotFoundException":
        return no_such_key()
    return unwell("aws", code if code.isalnum() and len(code) < 60 else "unknown code")


def _alias(key_id: str, number: int) -> str:
    return f"alias/{key_id}-v{number}"


def _context(ctx: Context) -> dict[str, str]:
    """One entry: the whole context, canonical, so that no two contexts look alike to AWS."""
    return {"privet": bound(ctx).decode()}


def _blob(wrapped: Wrapped) -> bytes:
    try:
        return base64.b64decode(wrapped.blob, validate=True)
    except (binascii.Error, ValueError):
        raise not_unwrappable() from None
