"""Our envelopes and statements against the reference libraries, both ways (docs/decisions/0014-libraries-as-oracles.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage  # type: ignore[attr-defined]
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from privacy.canonical import Json, canonical_json
from privacy.errors import IntegrityError
from privacy.signing import (
    PAYLOAD_TYPE,
    Person,
    SigningKey,
    TrustRoot,
    key_id,
    make_statement,
    open_envelope,
    seal_envelope,
)
from tests.worlds.release_world import World

KEY = SigningKey(b"k" * 32)
TRUST = TrustRoot((Person("pipeline", KEY.public_hex, ("pipeline",)),))
SUBJECT = {"model": "sha256:" + "ab" * 32, "policy": "sha256:" + "cd" * 32}
TYPE = "https://privet.dev/predicate/training/v1"


@pytest.fixture(scope="module")
def envelopes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[bytes, str]]:
    """Every envelope of a real bundle, with the public key of who signed it."""
    world = World(tmp_path_factory.mktemp("world")).run().sign_quorum()
    bundle: Path = world.release().path
    found = {}
    for path in sorted(bundle.rglob("*.dsse.json")):
        data = path.read_bytes()
        found[path.relative_to(bundle).as_posix()] = (data, open_envelope(data, world.trust).signer.public_hex)
    return found


def theirs(public_hex: str) -> SSlibKey:
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex))
    return SSlibKey.from_crypto(public, keyid=key_id(public_hex))


def test_the_reference_library_verifies_every_envelope_of_a_bundle(envelopes: Mapping[str, tuple[bytes, str]]) -> None:
    assert len(envelopes) >= 9
    for name, (data, public_hex) in envelopes.items():
        accepted = Envelope.from_dict(json.loads(data)).verify([theirs(public_hex)], 1)
        assert list(accepted) == [key_id(public_hex)], name


def test_the_reference_library_refuses_what_we_refuse(envelopes: Mapping[str, tuple[bytes, str]]) -> None:
    data, public_hex = envelopes["release.dsse.json"]
    changed = json.loads(data)
    changed["payload"] = json.loads(envelopes["statements/audit.dsse.json"][0])["payload"]
    with pytest.raises(VerificationError):
        Envelope.from_dict(changed).verify([theirs(public_hex)], 1)
    with pytest.raises((VerificationError, UnverifiedSignatureError)):
        Envelope.from_dict(json.loads(data)).verify([theirs(KEY.public_hex)], 1)


def test_every_statement_of_a_bundle_is_an_in_toto_statement(envelopes: Mapping[str, tuple[bytes, str]]) -> None:
    for name, (data, _) in envelopes.items():
        payload = Envelope.from_dict(json.loads(data)).payload
        message = json_format.Parse(payload, StatementMessage(), ignore_unknown_fields=False)
        statement = Statement.copy_from_pb(message)
        statement.validate()
        assert {s.name for s in statement.pb.subject}, name
        assert all(set(s.digest) == {"sha256"} for s in statement.pb.subject), name
        # Nothing of it was lost on the way through their types.
        assert json_format.MessageToDict(message) == json.loads(payload), name


def sealed_by_them(payload: bytes, private: Ed25519PrivateKey, public_hex: str) -> bytes:
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(private, theirs(public_hex)))
    value: Json = envelope.to_dict()
    return canonical_json(value)


def test_we_open_what_the_reference_library_seals() -> None:
    private = Ed25519PrivateKey.from_private_bytes(KEY.export_seed())
    payload = make_statement(SUBJECT, TYPE, {"steps": 3})
    data = sealed_by_them(payload, private, KEY.public_hex)
    assert data == seal_envelope(payload, KEY)  # Ed25519 and both encodings leave no choice
    opened = open_envelope(data, TRUST)
    assert (dict(opened.subject), opened.predicate_type, opened.predicate) == (SUBJECT, TYPE, {"steps": 3})


def test_their_spelling_is_refused_unless_it_is_the_canonical_one() -> None:
    """A file with two spellings has bytes that are free to change, so one of them is not ours."""
    data = seal_envelope(make_statement(SUBJECT, TYPE, {}), KEY)
    with pytest.raises(IntegrityError, match="E-CANON-003"):
        open_envelope(json.dumps(json.loads(data), indent=1).encode(), TRUST)


def test_a_statement_made_by_their_types_is_one_of_ours() -> None:
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor

    subjects = [ResourceDescriptor(name=n, digest={"sha256": d.removeprefix("sha256:")}).pb for n, d in SUBJECT.items()]
    statement = Statement(subjects, TYPE, {"verdict": "passed"})
    statement.validate()
    payload = canonical_json(json_format.MessageToDict(statement.pb))
    assert payload == make_statement(SUBJECT, TYPE, {"verdict": "passed"})
    assert open_envelope(seal_envelope(payload, KEY), TRUST).predicate == {"verdict": "passed"}


@given(payload=st.binary(max_size=200))
def test_both_sign_the_same_bytes(payload: bytes) -> None:
    """The pre-authentication encoding, for any payload."""
    envelope = Envelope.from_dict(json.loads(seal_envelope(payload, KEY)))
    assert envelope.payload == payload
    assert list(envelope.verify([theirs(KEY.public_hex)], 1)) == [key_id(KEY.public_hex)]
