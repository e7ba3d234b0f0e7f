"""Lists of revoked releases that an honest bundle must not pass under, nor hide behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from privacy.canonical import Digest, digest_of
from privacy.revocation import REVOCATIONS_TYPE, Revocation, RevocationList, seal_revocations
from privacy.signing import Person, SigningKey, make_statement, seal_envelope
from tests.worlds import release_world
from tests.worlds.bad_bundles.cases import STRANGER
from tests.worlds.release_world import World


@dataclass(frozen=True)
class RevocationCase:
    """`make`: the bytes that are given with --revocations, for an honest bundle of this world. also: whom you trust besides."""

    name: str
    code: str
    make: Callable[[World], bytes]
    also: tuple[Person, ...] = ()


def revocations(
    world: World,
    revoked: Digest,
    model: Digest | None = None,
    key: SigningKey | None = None,
    issued_hours: float = -1.0,
    due_hours: float = 24.0,
    number: int = 3,
) -> bytes:
    entry = Revocation(revoked, model, world.now - timedelta(hours=2), "withdrawn")
    issued, due = world.now + timedelta(hours=issued_hours), world.now + timedelta(hours=due_hours)
    return seal_revocations(RevocationList(number, issued, due, (entry,)), key or world.home.key)


def _revoked_model(world: World) -> bytes:
    """The same weights under other evidence."""
    return revocations(world, OTHER, model="sha256:" + hashlib.sha256(release_world.MODEL).hexdigest())


def _not_a_list(world: World) -> bytes:
    return seal_envelope(make_statement({"revocations": OTHER}, REVOCATIONS_TYPE, {"entries": []}), world.home.key)


def _cut(world: World) -> bytes:
    return revocations(world, world.root)[:-40]


def _emptied(world: World) -> bytes:
    """The signature of the list that names this release, over one that does not."""
    full, other = revocations(world, world.root), revocations(world, OTHER)
    return full.replace(json.loads(full)["payload"].encode(), json.loads(other)["payload"].encode())


OTHER = digest_of("another release")
OTHER_PIPELINE = SigningKey(b"p" * 32)
LISTS: tuple[RevocationCase, ...] = (
    RevocationCase("revoked_release", "E-REVOKE-003", lambda w: revocations(w, w.root)),
    RevocationCase("revoked_model_under_other_evidence", "E-REVOKE-003", _revoked_model),
    RevocationCase("revoked_by_the_privacy_officer", "E-REVOKE-003", lambda w: revocations(w, w.root, key=w.keys["ada"])),
    RevocationCase("revoked_in_a_stale_list", "E-REVOKE-003", lambda w: revocations(w, w.root, due_hours=-0.5)),
    RevocationCase("rolled_back_to_an_older_list", "E-REVOKE-004", lambda w: revocations(w, OTHER, None, None, -90, -1, 2)),
    RevocationCase("list_dated_ahead", "E-REVOKE-005", lambda w: revocations(w, OTHER, issued_hours=3)),
    RevocationCase("list_by_a_stranger", "E-SIGN-002", lambda w: revocations(w, OTHER, key=STRANGER)),
    RevocationCase("list_by_who_may_not_revoke", "E-REVOKE-001", lambda w: revocations(w, OTHER, key=w.keys["grace"])),
    RevocationCase("list_good_for_a_hundred_years", "E-REVOKE-014", lambda w: revocations(w, OTHER, due_hours=24 * 36_500)),
    RevocationCase(
        "list_by_another_pipeline",
        "E-REVOKE-013",
        lambda w: revocations(w, OTHER, key=OTHER_PIPELINE),
        (Person("other-pipeline", OTHER_PIPELINE.public_hex, ("pipeline",)),),  # with a journal of its own
    ),
    RevocationCase("list_that_is_none", "E-REVOKE-002", _not_a_list),
    RevocationCase("list_cut_short", "E-CANON-002", _cut),
    RevocationCase("list_emptied_under_its_signature", "E-SIGN-002", _emptied),
)
