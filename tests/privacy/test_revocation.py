"""A revocation list that is unsigned, stale, of the wrong key or malformed says nothing; a good one takes releases back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from privacy.canonical import Json, digest_of
from privacy.errors import IntegrityError
from privacy.revocation import (
    MAX_DAYS,
    REVOCATIONS_TYPE,
    Revocation,
    RevocationList,
    read_revocations,
    seal_revocations,
)
from privacy.signing import Person, SigningKey, TrustRoot, make_statement, seal_envelope

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PIPE, OFFICER, STEWARD, EVE = (SigningKey(bytes([n]) * 32) for n in range(1, 5))
TRUST = TrustRoot(
    (
        Person("pipe", PIPE.public_hex, ("pipeline",)),
        Person("olga", OFFICER.public_hex, ("privacy_officer",)),
        Person("grace", STEWARD.public_hex, ("steward",)),
    )
)
ROOT, MODEL, OTHER = digest_of("root"), digest_of("model"), digest_of("other")
ENTRY = Revocation(ROOT, MODEL, NOW - timedelta(days=1), "erasure")
LIST = RevocationList(3, NOW, NOW + timedelta(days=7), (ENTRY,))


def test_a_signed_list_reads_back_and_takes_release_and_model_back() -> None:
    for key, name in ((PIPE, "pipe"), (OFFICER, "olga")):
        found = read_revocations(seal_revocations(LIST, key), TRUST)
        assert found == replace(LIST, signer=name, signer_key=key.public_hex, by_officer=key is OFFICER)
        assert found.speaks_for(PIPE.public_hex)
        assert found.speaks_for(STEWARD.public_hex) is (key is OFFICER)  # another pipeline's bundle
        assert (found.fault(ROOT, OTHER, NOW) or "").startswith("E-REVOKE-003: this release was revoked")
        assert (found.fault(OTHER, MODEL, NOW) or "").startswith("E-REVOKE-003: this model was revoked")
        assert found.fault(OTHER, OTHER, NOW) is None


def test_a_list_that_would_hide_what_is_revoked_for_years_is_none() -> None:
    for days, good in ((MAX_DAYS, True), (MAX_DAYS + 1, False), (36_500, False)):
        sealed = seal_revocations(replace(LIST, next_update=NOW + timedelta(days=days)), PIPE)
        if good:
            assert read_revocations(sealed, TRUST).number == 3
            continue
        with pytest.raises(IntegrityError) as caught:
            read_revocations(sealed, TRUST)
        assert caught.value.code == "E-REVOKE-014"


def test_wrong_evidence_takes_back_one_bundle_and_not_its_model() -> None:
    found = replace(LIST, entries=(replace(ENTRY, model=None, reason="wrong_evidence"),))
    assert found.fault(OTHER, MODEL, NOW) is None
    assert found.fault(OTHER, None, NOW) is None
    assert found.fault(ROOT, MODEL, NOW) is not None


def test_a_list_past_its_time_or_from_the_future_clears_nobody() -> None:
    assert (LIST.fault(OTHER, OTHER, NOW + timedelta(days=7)) or "").startswith("E-REVOKE-004")
    assert (LIST.fault(OTHER, OTHER, NOW - timedelta(hours=1)) or "").startswith("E-REVOKE-005")
    assert (LIST.fault(ROOT, OTHER, NOW + timedelta(days=70)) or "").startswith("E-REVOKE-003")  # stale, and still revoked


@pytest.mark.parametrize(("key", "code"), [(STEWARD, "E-REVOKE-001"), (EVE, "E-SIGN-002")])
def test_only_the_pipeline_or_an_officer_signs_lists(key: SigningKey, code: str) -> None:
    with pytest.raises(IntegrityError, match=code):
        read_revocations(seal_revocations(LIST, key), TRUST)


def test_every_changed_byte_is_refused() -> None:
    data = seal_revocations(LIST, PIPE)
    for place in range(0, len(data), 7):
        with pytest.raises(IntegrityError):
            read_revocations(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], TRUST)
    for cut in (b"", b"{}", LIST.to_json().__repr__().encode()):
        with pytest.raises(IntegrityError):
            read_revocations(cut, TRUST)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0},
        {"number": True},
        {"number": "3"},
        {"next_update": "2026-11-23T12:00:00+00:00"},  # no time at all
        {"issued_at": "2026-11-23T12:00:00"},  # no zone
        {"entries": [{**ENTRY.to_json(), "reason": "whatever"}]},
        {"entries": [{**ENTRY.to_json(), "evidence_root": "abc"}]},
        {"entries": [ENTRY.to_json(), ENTRY.to_json()]},
        {"entries": [{**ENTRY.to_json(), "note": 1}]},
        {"more": 1},
    ],
)
def test_a_signed_list_of_another_shape_is_refused(change: dict[str, Json]) -> None:
    body = {**LIST.to_json(), **change}
    data = seal_envelope(make_statement({"revocations": digest_of(body)}, REVOCATIONS_TYPE, body), PIPE)
    with pytest.raises(IntegrityError, match="E-REVOKE-002"):
        read_revocations(data, TRUST)


def test_another_statement_of_the_pipeline_is_no_list() -> None:
    body = LIST.to_json()
    for kind, subject in (("https://example.com/x", digest_of(body)), (REVOCATIONS_TYPE, OTHER)):
        with pytest.raises(IntegrityError, match="E-REVOKE-002"):
            read_revocations(seal_envelope(make_statement({"revocations": subject}, kind, body), PIPE), TRUST)
