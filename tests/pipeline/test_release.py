"""The release stage: it believes bytes and signatures, writes a whole bundle or nothing, and says every reason."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import release as releasing
from pipeline.assemble import assemble
from pipeline.bundle import write_files
from pipeline.home import add_person
from pipeline.release import ReleaseRefusal
from pipeline.verify import verify_bundle
from privacy.canonical import digest_of
from privacy.errors import EnvironmentFault, IntegrityError, UsageError
from privacy.signing import Person, SigningKey
from tests.worlds.bad_bundles import INSIDERS, Insider
from tests.worlds.release_world import MODEL, Lies, World


def refusal(world: World) -> ReleaseRefusal:
    with pytest.raises(ReleaseRefusal) as caught:
        world.release()
    assert not (world.home.releases_dir / world.policy.name / "bundle").exists()
    assert not (world.home.releases_dir / world.policy.name / ".bundle-tmp").exists()
    return caught.value


def reasons(found: ReleaseRefusal) -> str:
    return "\n".join(found.details)


def test_an_honest_run_is_released_and_verifies(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    result = world.release()
    assert result.path == world.home.releases_dir / "test_chat" / "bundle"
    assert (result.path / "model.safetensors").read_bytes() == MODEL
    assert verify_bundle(result.path, world.trust).exit_code == 0
    last = world.home.journal.entries()[-1]
    assert (last.kind, last.facts["evidence_root"]) == ("release", world.root)
    assert result.manifest.facts["evidence_root"] == world.root


@pytest.mark.parametrize("case", [c for c in INSIDERS if c.votes is None], ids=lambda case: str(case.name))
def test_release_refuses_what_the_verifier_would_refuse(case: Insider, tmp_path: Path) -> None:
    with case.code_of_the_stages():
        world = World(tmp_path, case.lies, "own", case.witness, **dict(case.changes)).run()
    world.sign_quorum()
    found = refusal(world)
    assert case.code in reasons(found), found.details


def test_a_refusal_counts_lists_and_journals_its_reasons(tmp_path: Path) -> None:
    world = World(tmp_path, Lies(verdicts={"probe.clipping": "failed", "audit.utility": "not_evaluated"})).run()
    found = refusal(world)
    assert (found.code, found.exit_code, len(found.verdicts)) == ("E-RELEASE-001", 3, 3)
    assert f"{len(found.details)} reasons" in found.cause
    entry = world.home.journal.entries()[-1]
    assert entry.kind == "refusal"
    journalled = entry.facts["reasons"]
    assert journalled == [v.to_json() for v in found.verdicts]
    again = pickle.loads(pickle.dumps(found))
    assert (again.verdicts, str(again)) == (found.verdicts, str(found))


def test_a_model_that_is_not_private_hears_every_reason(tmp_path: Path) -> None:
    world = World(tmp_path, **{"recipe.mechanism": "non_private"}).run()  # type: ignore[arg-type]
    said = reasons(refusal(world))
    for reason in ("no mechanism that bounds the privacy loss", "ledger", "release gate", "mechanism"):
        assert reason in said


def test_a_refusal_says_each_reason_once_and_the_plainest_first(tmp_path: Path) -> None:
    """Four checks stop at the same missing mechanism; every one of them stays in the journal and in `verdicts`."""
    found = refusal(World(tmp_path, **{"recipe.mechanism": "non_private"}).run())  # type: ignore[arg-type]
    assert found.details[0].startswith("mechanism (failed): E-CLAIM-016: the model was not trained with")
    said = [line for line in found.details if "no mechanism that bounds the privacy loss" in line]
    assert len(said) == 1
    met = [v.check for v in found.verdicts if "no mechanism that bounds the privacy loss" in v.reason]
    assert len(met) >= 4
    assert all(f"{check} (" in said[0] for check in met)
    assert f"refused for {len(found.details)} reasons" in found.cause
    assert world_reasons(found) == {v.reason for v in found.verdicts}


def world_reasons(found: ReleaseRefusal) -> set[str]:
    return {line.split("): ", 1)[1] for line in found.details}


def test_the_plain_model_is_nowhere_on_disk_before_the_release(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    assert _holding(world.home.path, MODEL[8:]) == []
    world.release()
    assert [p.name for p in _holding(world.home.path, MODEL[8:])] == ["model.safetensors"]


def _holding(folder: Path, needle: bytes) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and needle in p.read_bytes()]


def test_a_ledger_that_charged_more_than_the_trace_says_blocks(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    real = world.home.ledger.spend

    class Thief:
        def __getattr__(self, name: str) -> object:
            return getattr(world.home.ledger, name)

        def spend(self, key: str) -> object:
            found = real(key)
            assert found is not None
            return replace(found, settled=19)

    fake = _Proxy(world.home, Thief())
    ctx = type(world.ctx)(fake, world.policy, world.ctx.policy_digest, "run-1", "demo_engineer", clock=world.ctx.clock)  # type: ignore[arg-type]
    with pytest.raises(ReleaseRefusal) as caught:
        releasing.release(ctx, world.assembled.digest)
    assert [v.check for v in caught.value.verdicts] == ["ledger"]


class _Proxy:
    def __init__(self, home: object, ledger: object) -> None:
        self._home, self.ledger = home, ledger

    def __getattr__(self, name: str) -> object:
        return getattr(self._home, name)


def test_a_trace_whose_ledger_key_was_never_charged_blocks(tmp_path: Path) -> None:
    world = World(tmp_path, Lies(trace={"ledger_key": "made-up"})).run().sign_quorum()
    assert "E-RELEASE-003" in reasons(refusal(world))


def test_somebody_else_may_not_release_the_evidence_of_a_requester(tmp_path: Path) -> None:
    """Otherwise the requester could approve by letting another account ask for the release."""
    world = World(tmp_path).run().sign_quorum()
    world.ctx = world.context(requested_by="grace")
    assert "E-RELEASE-004" in reasons(refusal(world))


def test_evidence_under_an_older_trust_root_is_not_released(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    add_person(world.home, Person("mallory", SigningKey.generate().public_hex, ("steward",)))
    assert "E-RELEASE-005" in reasons(refusal(world))


def test_an_approval_that_expired_while_waiting_does_not_count(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    world.later(24 * 8)
    assert "E-GATE-013" in reasons(refusal(world))


def test_an_approval_of_yesterdays_evidence_does_not_release_todays(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    add_person(world.home, Person("iris", SigningKey.generate().public_hex, ("steward",)))
    world.digests = replace(world.digests, report=world._report(replace(world.digests, report=None)))
    before = world.root
    world.assembled = assemble(world.ctx, world.digests)
    assert world.root != before
    assert "E-GATE-010" in reasons(refusal(world))


def test_releasing_twice_is_the_same_release(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    first = world.release()
    before = {p.name: p.read_bytes() for p in first.path.rglob("*") if p.is_file()}
    world.later(1)
    second = world.release()
    assert (second.reused, second.digest) == (True, first.digest)
    assert {p.name: p.read_bytes() for p in first.path.rglob("*") if p.is_file()} == before
    assert [e.kind for e in world.home.journal.entries()].count("release") == 1


def test_an_older_bundle_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    first = world.release()
    add_person(world.home, Person("iris", SigningKey.generate().public_hex, ("steward",)))
    world.run().sign_quorum()
    second = world.release()
    kept = second.path.with_name(f"bundle-{first.evidence_root.removeprefix('sha256:')[:12]}")
    assert verify_bundle(kept, world.trust).exit_code == 0
    assert verify_bundle(second.path, world.trust).exit_code == 0
    assert dict(world.request.shown)["what changed"].startswith(f"replaces {first.evidence_root}")


def test_a_damaged_bundle_is_put_aside_and_made_anew(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    first = world.release()
    (first.path / "CARD.md").write_text("nothing to see")
    second = world.release()
    assert not second.reused
    assert verify_bundle(second.path, world.trust).exit_code == 0


@pytest.mark.parametrize("moment", ["fsync", "rename"])
def test_a_full_disk_leaves_no_bundle_and_running_again_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    world = World(tmp_path).run().sign_quorum()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.bundle.os.fsync" if moment == "fsync" else "pipeline.bundle.shutil.copyfileobj", full)
        with pytest.raises(EnvironmentFault) as caught:
            world.release()
    assert caught.value.code in {"E-BUNDLE-007", "E-STORE-010"}
    folder = world.home.releases_dir / "test_chat"
    assert [p.name for p in folder.iterdir() if p.name != ".lock"] == []
    assert verify_bundle(world.release().path, world.trust).exit_code == 0


def test_what_a_killed_release_left_is_swept_away(tmp_path: Path) -> None:
    world = World(tmp_path).run().sign_quorum()
    left = world.home.releases_dir / "test_chat" / ".bundle-tmp"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    world.release()
    assert not left.exists()


def test_a_bundle_that_does_not_verify_from_disk_is_not_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path).run().sign_quorum()
    write: Callable[..., None] = write_files

    def bad_disk(folder: Path, *rest: object) -> None:
        write(folder, *rest)
        (folder / "CARD.md").write_bytes(b"rotten")

    monkeypatch.setattr(releasing, "write_files", bad_disk)
    with pytest.raises(IntegrityError) as caught:
        world.release()
    assert caught.value.code == "E-RELEASE-007"
    assert [p.name for p in (world.home.releases_dir / "test_chat").iterdir()] == [".lock"]


def test_assembling_twice_gives_the_same_root(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    world.later(2)
    again = assemble(world.ctx, world.digests)
    assert (again.reused, again.manifest.facts["evidence_root"]) == (True, world.root)


def test_a_later_run_that_found_earlier_results_still_has_them_in_its_journal(tmp_path: Path) -> None:
    """Stages found rather than made leave no entry under the new run's name."""
    world = World(tmp_path).run()
    world.ctx = world.context("run-2")
    add_person(world.home, Person("iris", SigningKey.generate().public_hex, ("steward",)))
    world.run().sign_quorum()
    assert verify_bundle(world.release().path, world.trust).exit_code == 0


def test_assembling_without_a_report_is_a_usage_error(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    bare = replace(world.digests, report=None)
    with pytest.raises(UsageError) as caught:
        assemble(world.ctx, bare)
    assert caught.value.code == "E-ASSEMBLE-001"


def test_a_digest_that_is_not_assembled_evidence_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    with pytest.raises(IntegrityError) as caught:
        releasing.release(world.ctx, world.digests.train)
    assert caught.value.code == "E-RELEASE-002"
    with pytest.raises(IntegrityError):
        releasing.release(world.ctx, digest_of("nothing"))


def test_bundle_files_are_private_to_their_owner(tmp_path: Path) -> None:
    bundle = World(tmp_path).run().sign_quorum().release().path
    assert {p.stat().st_mode & 0o077 for p in [bundle, *bundle.rglob("*")]} == {0}
