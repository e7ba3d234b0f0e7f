"""OpenBao or HashiCorp Vault, Transit engine, over HTTPS.

Guarantee: keys are `derived`, so the context is part of the key that wraps (a wrong one fails) and rewrap keeps it; the
token is read from a 0600 file for each request, so an agent may renew it and no listing shows it; every request has a
deadline; nothing that the server said gets into an error.
Assumption: the server's name comes from the home's kms.json, never from key material; certificates are checked, and plain
HTTP is for loopback only. Not covered: what the server's administrators can do.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from privacy.canonical import Json, parse_json
from privacy.errors import PrivetError, UsageError
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
    newest_stays,
    no_such_key,
    not_unwrappable,
    unreachable,
    unwell,
)
from privacy.owner_only import read_owner_only

if TYPE_CHECKING:
    import httpx

_BATCH = 200  # the server refuses about 400 ("JSON complexity")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BLOB = re.compile(r"vault:v([1-9]\d{0,8}):[A-Za-z0-9+/=]+")
_MAX_ANSWER = 4 << 20


@dataclass(frozen=True, slots=True)
class OpenBaoPlace:
    """Where the service is; no secret in it. `token_file` names the file that holds the token."""

    address: str
    token_file: Path
    mount: str = "transit"
    namespace: str = ""
    ca_file: Path | None = None
    timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Raises UsageError E-KMS-008."""
        url = urlsplit(self.address)
        secure = url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK)
        if not secure or not url.hostname or url.username or url.query or not re.fullmatch(r"[A-Za-z0-9_/-]+", self.mount):
            raise UsageError(
                "E-KMS-008",
                "the address of the key service is not an https:// address (http:// is for this machine only)",
                "Mend kms.json",
            )


class OpenBaoKms:
    """Safe for threads and forks: it holds no connection between two requests of different processes."""

    __slots__ = ("_client", "_known", "_pid", "_place")

    def __init__(self, place: OpenBaoPlace) -> None:
        self._place = place
        self._client: httpx.Client | None = None
        self._pid = 0
        self._known: set[str] = set()

    @property
    def backend(self) -> str:
        return "openbao"

    def create(self, key_id: str) -> None:
        checked_key_id(key_id)
        self._call("POST", f"keys/{key_id}", {"type": "aes256-gcm96", "derived": True, "exportable": False})

    def wrap(self, key_id: str, dek: bytes, ctx: Context) -> Wrapped:
        checked_dek(dek)
        if key_id not in self._known:  # or the server would make the key, for a token that may
            self._known.add(key_id if self.versions(key_id) else "")
        body: dict[str, Json] = {"plaintext": base64.b64encode(dek).decode(), "context": _context(ctx)}
        data = self._call("POST", f"encrypt/{checked_key_id(key_id)}", body)
        return self._wrapped(key_id, data.get("ciphertext"))

    def unwrap(self, wrapped: Wrapped, ctx: Context) -> bytes:
        body: dict[str, Json] = {"ciphertext": _blob(wrapped), "context": _context(ctx)}
        data = self._call("POST", f"decrypt/{checked_key_id(wrapped.key_id)}", body)
        try:
            return base64.b64decode(str(data.get("plaintext")), validate=True)
        except binascii.Error:
            raise unwell(self.backend, "no plaintext") from None

    def rewrap(self, wrapped: Wrapped, ctx: Context) -> Wrapped:
        body: dict[str, Json] = {"ciphertext": _blob(wrapped), "context": _context(ctx)}
        data = self._call("POST", f"rewrap/{checked_key_id(wrapped.key_id)}", body)
        return self._wrapped(wrapped.key_id, data.get("ciphertext"))

    def rewrap_many(self, items: Sequence[tuple[Wrapped, Context]]) -> list[Wrapped]:
        """In batches of at most 200; either all are rewrapped or this raises."""
        done: list[Wrapped] = []
        for key_id, group in groupby(items, key=lambda item: item[0].key_id):
            for batch in _batches(list(group)):
                done += self._rewrap_batch(checked_key_id(key_id), batch)
        return done

    def rotate(self, key_id: str) -> int:
        self._latest(key_id)  # says plainly when there is none
        self._call("POST", f"keys/{key_id}/rotate", {})
        return self._latest(key_id)

    def destroy(self, key_id: str, version: int) -> None:
        if version >= self._latest(key_id):
            raise newest_stays()
        least = version + 1
        # Trim deletes the key material; the server asks that nothing may still use it.
        limits: dict[str, Json] = {"min_decryption_version": least, "min_encryption_version": least}
        self._call("POST", f"keys/{key_id}/config", limits)
        self._call("POST", f"keys/{key_id}/trim", {"min_available_version": least})

    def versions(self, key_id: str) -> tuple[KeyVersion, ...]:
        data = self._call("GET", f"keys/{checked_key_id(key_id)}")
        latest = _count(data.get("latest_version"))
        least = max(1, _count(data.get("min_available_version")), _count(data.get("min_decryption_version")))
        return tuple(KeyVersion(n, "live" if n >= least else "destroyed") for n in range(1, latest + 1))

    def __repr__(self) -> str:
        return f"OpenBaoKms({self._place.mount})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a key service is not picklable")

    def _latest(self, key_id: str) -> int:
        return self.versions(key_id)[-1].version

    def _rewrap_batch(self, key_id: str, batch: Sequence[tuple[Wrapped, Context]]) -> list[Wrapped]:
        listed: list[Json] = [{"ciphertext": _blob(wrapped), "context": _context(ctx)} for wrapped, ctx in batch]
        results = self._call("POST", f"rewrap/{key_id}", {"batch_input": listed}).get("batch_results")
        if not isinstance(results, list) or len(results) != len(batch):
            raise unwell(self.backend, "a batch came back short")
        found = []
        for result in results:
            if not isinstance(result, Mapping) or result.get("error"):
                raise not_unwrappable()
            found.append(self._wrapped(key_id, result.get("ciphertext")))
        return found

    def _wrapped(self, key_id: str, blob: Json) -> Wrapped:
        match = _BLOB.fullmatch(blob) if isinstance(blob, str) else None
        if match is None:
            raise unwell(self.backend, "no ciphertext")
        return Wrapped(key_id, int(match[1]), match[0])

    def _call(self, method: str, path: str, body: Mapping[str, Json] | None = None) -> Mapping[str, Json]:
        import httpx

        try:
            response = self._http().request(
                method, f"/v1/{self._place.mount}/{path}", json=body, headers={"X-Vault-Token": self._token()}
            )
        except (httpx.TransportError, httpx.InvalidURL, OSError):
            raise unreachable(self.backend) from None
        if response.status_code >= 300:
            raise self._fault(response.status_code, response.text[:4096])
        if response.status_code == 204 or not response.content:
            return {}
        if len(response.content) <= _MAX_ANSWER:
            try:
                value = parse_json(response.content)
            except PrivetError:
                value = None
            if isinstance(value, Mapping) and isinstance(data := value.get("data") or {}, Mapping):
                return data
        raise unwell(self.backend, "not an answer of this service")

    def _fault(self, status: int, said: str) -> PrivetError:
        """By status and by known words; the text itself goes no further."""
        if status == 403:
            return denied(self.backend) if self._token_lives() else bad_token(self.backend)
        if status == 404 or "encryption key not found" in said or "no existing key named" in said:
            return no_such_key()
        if "too old" in said or "version is disallowed" in said:
            return destroyed()
        if status == 400:
            return not_unwrappable()
        return unwell(self.backend, f"HTTP {status}")

    def _token_lives(self) -> bool:
        import httpx

        try:
            response = self._http().get("/v1/auth/token/lookup-self", headers={"X-Vault-Token": self._token()})
        except (httpx.TransportError, OSError):
            return True
        return response.status_code == 200

    def _token(self) -> str:
        text = read_owner_only(self._place.token_file)[0].decode("ascii", "replace").strip()
        if not re.fullmatch(r"[\x21-\x7e]{1,4096}", text):
            raise bad_token(self.backend)
        return text

    def _http(self) -> httpx.Client:
        """One client a process: a connection must not be shared with a child of fork."""
        import os
        import ssl

        import httpx

        if self._client is None or self._pid != os.getpid():
            place = self._place
            verify: ssl.SSLContext | bool = True
            if place.ca_file is not None:
                verify = ssl.create_default_context(cafile=str(place.ca_file))
            headers = {"X-Vault-Request": "true"} | ({"X-Vault-Namespace": place.namespace} if place.namespace else {})
            self._client = httpx.Client(
                base_url=place.address.rstrip("/"),
                timeout=place.timeout_seconds,
                verify=verify,
                headers=headers,
                trust_env=False,  # no proxy gets to see a token because of an environment variable
                follow_redirects=False,  # a token goes where kms.json says and nowhere else
            )
            self._pid = os.getpid()
        return self._client


def _batches(items: list[tuple[Wrapped, Context]]) -> Iterator[list[tuple[Wrapped, Context]]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _context(ctx: Context) -> str:
    return base64.b64encode(bound(ctx)).decode()


def _blob(wrapped: Wrapped) -> str:
    match = _BLOB.fullmatch(wrapped.blob)
    if match is None or int(match[1]) != wrapped.version:
        raise not_unwrappable()
    return wrapped.blob


def _count(value: Json) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
