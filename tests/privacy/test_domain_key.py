"""What one domain's secret does, and that the primitives underneath agree with public vectors."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from hypothesis import given
from hypothesis import strategies as st

from privacy.domain_key import DomainKey, WrappedKey, wrap_for_public
from privacy.errors import IntegrityError
from privacy.signing import verify_signature

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors"
KEY = DomainKey.of(b"s" * 32)


@given(st.binary(min_size=16, max_size=64), st.binary(max_size=40), st.integers(1, 999_999_999), st.booleans())
def test_what_is_wrapped_opens_in_its_place(dek: bytes, context: bytes, epoch: int, public: bool) -> None:
    made = wrap_for_public(KEY.public, "chat/raw", epoch, dek, context) if public else KEY.wrap("chat/raw", epoch, dek, context)
    read = WrappedKey.parse(made.text)
    assert read == made
    assert KEY.unwrap(read, context) == dek
    for other in (
        WrappedKey("chat/rax", epoch, public, made.sealed),
        WrappedKey("chat/raw", epoch % 999_999_999 + 1, public, made.sealed),
        WrappedKey("chat/raw", epoch, not public, made.sealed),
    ):
        with pytest.raises(IntegrityError, match="E-KEY-005"):
            KEY.unwrap(other, context)
    with pytest.raises(IntegrityError, match="E-KEY-005"):
        KEY.unwrap(read, context + b"x")
    with pytest.raises(IntegrityError, match="E-KEY-005"):
        DomainKey.of(b"t" * 32).unwrap(read, context)


@given(st.text(max_size=60))
def test_no_text_makes_the_parser_do_anything_but_refuse(text: str) -> None:
    with suppress(IntegrityError):
        assert WrappedKey.parse(text).text == text


@pytest.mark.parametrize("epoch", ["0", "01", "-1", "1e3", "9999999999", "１"])
def test_an_epoch_has_one_spelling(epoch: str) -> None:
    sealed = KEY.wrap("a/raw", 1, b"d" * 32, b"").text.partition(":")[2]
    with pytest.raises(IntegrityError, match="E-KEY-005"):
        WrappedKey.parse(f"a/raw@{epoch}:{sealed}")


# Wycheproof: a library that disagrees with the vectors must not carry the format


def groups(name: str) -> list[dict[str, Any]]:
    if not VECTORS.is_dir():
        pytest.skip("the Wycheproof vectors are not beside the checkout")
    return list(json.loads((VECTORS / name).read_bytes())["testGroups"])


@pytest.mark.shared_data
def test_aes_gcm_agrees_with_the_public_vectors() -> None:
    agreed, other_sizes = 0, 0
    for group in groups("aes_gcm_test.json"):
        for case in group["tests"]:
            key, nonce, aad, plain = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg"))
            sealed = bytes.fromhex(case["ct"]) + bytes.fromhex(case["tag"])
            if not 8 <= len(nonce) <= 128:  # the library takes no others, and we use 12
                other_sizes += 1
                continue
            try:
                assert AESGCM(key).decrypt(nonce, sealed, aad) == plain, case["tcId"]
                assert AESGCM(key).encrypt(nonce, plain, aad) == sealed, case["tcId"]
                assert case["result"] != "invalid", case["tcId"]
            except InvalidTag:
                assert case["result"] != "valid", case["tcId"]
            agreed += 1
    assert agreed >= 280, (agreed, other_sizes)


@pytest.mark.shared_data
def test_aes_key_wrap_agrees_with_the_public_vectors() -> None:
    agreed = 0
    for group in groups("aes_wrap_test.json"):
        for case in group["tests"]:
            key, plain, wrapped = (bytes.fromhex(case[name]) for name in ("key", "msg", "ct"))
            try:
                opened = aes_key_unwrap(key, wrapped)
                assert opened == plain, case["tcId"]
                assert aes_key_wrap(key, plain) == wrapped, case["tcId"]
                assert case["result"] != "invalid", case["tcId"]
            except (InvalidUnwrap, ValueError):
                assert case["result"] != "valid", case["tcId"]
            agreed += 1
    assert agreed == 165


@pytest.mark.shared_data
def test_hkdf_agrees_with_the_public_vectors() -> None:
    agreed = 0
    for group in groups("hkdf_sha256_test.json"):
        for case in group["tests"]:
            ikm, salt, info, okm = (bytes.fromhex(case[name]) for name in ("ikm", "salt", "info", "okm"))
            try:
                assert HKDF(SHA256(), case["size"], salt or None, info).derive(ikm) == okm, case["tcId"]
                assert case["result"] != "invalid", case["tcId"]
            except ValueError:
                assert case["result"] != "valid", case["tcId"]
            agreed += 1
    assert agreed == 86


@pytest.mark.shared_data
def test_ed25519_agrees_with_the_public_vectors() -> None:
    agreed = 0
    for group in groups("ed25519_test.json"):
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
            good = case["result"] == "valid"
            assert verify_signature(public.hex(), signature, message) == good, case["tcId"]
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
                assert good, case["tcId"]
            except InvalidSignature:
                assert not good, case["tcId"]
            agreed += 1
    assert agreed >= 145
