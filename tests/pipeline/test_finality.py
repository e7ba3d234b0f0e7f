"""A rejection is final and a renewed approval counts, whoever deletes, doctors or delays what."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline import release as releasing
from pipeline.approve import record_envelope, refuse_altered_request, sign_request
from pipeline.home import Home, add_person, withdraw_person
from pipeline.release import ReleaseRefusal
from pipeline.run import gate_verdict
from privacy.canonical import Json, canonical_json, digest_of, parse_json
from privacy.errors import GateClosed, IntegrityError, PrivetError, UsageError
from privacy.journal import Entry, Journal
from privacy.signing import Person, SigningKey, TrustRoot
from tests.worlds.bad_bundles import envelope
from tests.worlds.release_world import World


def refusal(world: World) -> str:
    with pytest.raises(ReleaseRefusal) as caught:
        world.release()
    folder = world.home.releases_dir / world.policy.name
    assert [p.name for p in folder.iterdir() if p.name != ".lock"] == []
    return "\n".join(caught.value.details)


def delete_envelopes(world: World, decision: str) -> None:
    """What whoever can write the home's files can do without any key."""
    kept = len(world.home.approvals.envelopes(world.root))
    folder = world.home.path / "approvals" / "envelopes" / world.root.removeprefix("sha256:")
    for path in folder.iterdir():
        value = parse_json(path.read_bytes())
        assert isinstance(value, dict)
        if f'"decision":"{decision}"'.encode() in base64.b64decode(str(value["payload"])):
            path.unlink()
    assert len(world.home.approvals.envelopes(world.root)) == kept - 1


def test_a_reject_after_the_quorum_has_signed_closes_the_release(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    world.sign("ada", "privacy_officer", "reject")
    assert "E-GATE-012" in refusal(world)


def test_deleting_the_envelope_of_a_reject_does_not_take_it_back(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    world.sign("ada", "privacy_officer", "reject")
    delete_envelopes(world, "reject")
    assert "E-GATE-012" in refusal(world)
    assert "E-GATE-012" in gate_verdict(world.home, world.request).reason
    world.later(24 * 8)  # so that the earlier approval of the same key does not stand in the way
    with pytest.raises(GateClosed, match="E-GATE-012"):
        world.sign("grace", "steward")


def test_a_reject_while_the_bundle_is_being_written_still_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path).run().sign_quorum()
    write = releasing._write

    def slowly(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        world.sign("ada", "privacy_officer", "reject")

    monkeypatch.setattr(releasing, "_write", slowly)
    assert "E-GATE-012" in refusal(world)
    assert [e.kind for e in world.home.journal.entries()].count("release") == 0


def test_a_reject_of_the_use_stops_the_release_of_what_was_trained_before_it(tmp_path: Path) -> None:
    from pipeline.approve import request_use

    world = World(tmp_path).run().sign_quorum()
    request = request_use(world.ctx, world.digests.protect, world.digests.validate)
    sign_request(world.home, request, "ada", "steward", "reject", "not this purpose", world.keys["ada"], world.now)
    assert "E-GATE-012" in refusal(world)


def test_a_renewed_approval_counts_and_an_unexpired_one_is_not_renewed(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    with pytest.raises(GateClosed, match="E-GATE-016"):
        world.sign("grace", "steward", at=world.now + timedelta(seconds=1))
    world.later(24 * 8)
    assert "E-GATE-013" in refusal(world)
    world.sign("grace", "steward")
    world.sign("ada", "privacy_officer")
    assert world.release().path.exists()


def test_a_charge_to_another_dataset_does_not_cover_this_training(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    real = world.home.ledger.spend

    class Ledger:
        def __getattr__(self, name: str) -> object:
            return getattr(world.home.ledger, name)

        def spend(self, key: str) -> object:
            found = real(key)
            assert found is not None
            return replace(found, scopes=("another/customer",))

    class Proxy:
        ledger = Ledger()

        def __getattr__(self, name: str) -> object:
            return getattr(world.home, name)

    with pytest.raises(ReleaseRefusal) as caught:
        releasing.release(replace(world.ctx, home=Proxy()), world.assembled.digest)  # type: ignore[arg-type]
    assert "E-RELEASE-003" in "\n".join(caught.value.details)


def test_a_person_enrolled_by_editing_the_trust_root_releases_nothing(tmp_path: Path) -> None:
    """The journal knows every trust root that was made on purpose; a file is all that an editor of files can change."""
    world = World(tmp_path)
    for name, roles in (("mallory", ("steward",)), ("eve", ("privacy_officer",))):
        world.keys[name] = SigningKey.generate()
        people = (*world.trust.people, Person(name, world.keys[name].public_hex, roles))
        (world.home.path / "trust.json").write_bytes(canonical_json(TrustRoot(people).to_json()))
    with pytest.raises(PrivetError, match="E-TRUST-003"):
        world.run()  # nobody can sign the use of the data


def test_a_trust_root_changed_after_everybody_signed_releases_nothing(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    world.sign("grace", "steward")
    eve = SigningKey.generate()
    people = (*world.trust.people, Person("eve", eve.public_hex, ("privacy_officer",)))
    (world.home.path / "trust.json").write_bytes(canonical_json(TrustRoot(people).to_json()))
    with pytest.raises(IntegrityError, match="E-TRUST-003"):
        record_envelope(world.home, world.request, envelope(world, eve, "privacy_officer"), world.now)
    world.home.approvals.add(envelope(world, eve, "privacy_officer"), world.trust, world.now)  # past the front door
    assert "E-TRUST-003" in refusal(world)


def test_enrolling_cut_short_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.create(tmp_path / "home")
    ann = Person("ann", SigningKey.generate().public_hex, ("steward",))

    append = Journal.append

    def dies(*arguments: object) -> None:
        raise KeyboardInterrupt

    def dies_at_the_end(journal: Journal, kind: str, facts: Mapping[str, Json]) -> Entry:
        if kind == "trust_changed":
            raise KeyboardInterrupt
        return append(journal, kind, facts)

    cuts = (("privacy.journal.Journal.append", dies), ("pipeline.home._replace", dies))
    for place, cut in (*cuts, ("privacy.journal.Journal.append", dies_at_the_end)):
        with monkeypatch.context() as patch:
            patch.setattr(place, cut)
            with pytest.raises(KeyboardInterrupt):
                add_person(home, ann)
        assert home.journalled_trust() == home.trust
    assert add_person(home, ann).digest == home.journalled_trust().digest
    assert withdraw_person(home, "ann").by_name("ann") is None
    with pytest.raises(UsageError, match="E-HOME-011"):
        withdraw_person(home, "privet-pipeline")


def test_a_request_whose_journal_entry_was_rewritten_is_not_signed(tmp_path: Path) -> None:
    """Both files altered to fit: the entry no longer gives the signed root, and who read it before remembers it."""
    world = World(tmp_path).run()
    altered = replace(world.request, shown=(("epsilon asked", "0.1"),))
    path = world.home.path / "approvals" / "requests" / f"{world.request.id}.json"
    path.write_bytes(canonical_json(altered.to_json()))
    entry = next(e for e in world.home.journal.entries() if e.facts.get("request") == world.request.id)
    facts = {**entry.facts, "request_digest": digest_of(altered.to_json())}
    body = replace(entry, facts=facts).body
    with sqlite3.connect(world.home.path / "journal.sqlite") as database:
        database.execute("DROP TRIGGER entry_update")
        database.execute("UPDATE entry SET body = ? WHERE seq = ?", (body, entry.seq))
    for home, code in ((world.home, "E-APPROVE-004"), (Home.open(world.home.path), "E-JOURNAL-002")):
        with pytest.raises(IntegrityError, match=code):
            refuse_altered_request(home, home.approvals.get(world.request.id))
