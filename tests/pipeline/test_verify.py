"""The offline verifier against honest bundles, bundles somebody changed, and bundles of a dishonest pipeline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.verify import Verification, verify_bundle
from privacy.canonical import canonical_json
from privacy.errors import UsageError
from privacy.signing import TrustRoot
from tests.worlds.bad_bundles import INSIDERS, OUTSIDERS, Insider, Outsider
from tests.worlds.release_world import World

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world")).run().sign_quorum()
    made.release()
    return made


@pytest.fixture(scope="module")
def good(world: World) -> Path:
    return world.home.releases_dir / "test_chat" / "bundle"


@pytest.fixture(scope="module")
def other(world: World, good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle of another run of the same pipeline and people: the best material for a swap."""
    second = World.__new__(World)
    second.__dict__.update(world.__dict__)
    second.policy = world.policy.model_copy(update={"name": "other_chat", "dataset": "other_chat"})
    second.ctx = second.context("run-2")
    second._ledger_key = "train-2"
    second.run().sign_quorum()
    return second.release().path


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "bundle"))


def codes(result: Verification) -> set[str]:
    return {row.code for row in result.failures}


def test_an_honest_bundle_verifies(world: World, good: Path) -> None:
    result = verify_bundle(good, world.trust)
    assert result.failures == ()
    assert result.exit_code == 0
    assert any("recomputed" in row.evidence for row in result.rows)


@pytest.mark.parametrize("case", OUTSIDERS, ids=[case.name for case in OUTSIDERS])
def test_a_changed_bundle_is_refused(case: Outsider, world: World, folder: Path, other: Path) -> None:
    case.cheat(folder, world, other)
    for trust in (world.trust, None):
        result = verify_bundle(folder, trust)
        assert case.code in codes(result), result.failures
        assert result.exit_code == case.exit_code


@pytest.mark.parametrize("case", INSIDERS, ids=[case.name for case in INSIDERS])
def test_a_dishonest_pipeline_is_found_out(case: Insider, tmp_path: Path) -> None:
    world, bundle = case.build(tmp_path)
    result = verify_bundle(bundle, world.trust)
    assert case.code in codes(result), result.failures
    assert result.exit_code == case.exit_code


def test_every_cheat_has_its_own_name() -> None:
    names = [case.name for case in OUTSIDERS] + [case.name for case in INSIDERS]
    assert len(set(names)) == len(names) >= 15


def test_one_flipped_byte_in_any_file_is_named(world: World, good: Path, folder: Path) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        for position in {0, 1, len(data) // 3, len(data) // 2, len(data) - 2, len(data) - 1}:
            for bit in (0, 5):
                changed = bytearray(data)
                changed[position] ^= 1 << bit
                path.write_bytes(bytes(changed))
                for trust in (world.trust, None):
                    result = verify_bundle(folder, trust)
                    assert result.exit_code == 4, (name, position)
                    assert any(name in row.evidence for row in result.failures), (name, position, result.failures)
        for changed_data in (data[:-1], data + b"\n", b""):
            path.write_bytes(changed_data)
            assert verify_bundle(folder, world.trust).exit_code == 4, name
        path.write_bytes(data)
    assert verify_bundle(folder, world.trust).exit_code == 0


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_of_a_bundle_is_free(data: st.DataObject, world: World, folder: Path) -> None:
    path = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())))
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(changed))
    try:
        assert verify_bundle(folder, world.trust).exit_code == 4
    finally:
        path.write_bytes(original)


def test_a_world_of_the_attackers_own_is_refused_by_your_trust_root(world: World, tmp_path: Path) -> None:
    """Everything in it is consistent; only who signed it is wrong."""
    theirs = World(tmp_path).run().sign_quorum()
    bundle = theirs.release().path
    assert verify_bundle(bundle, world.trust).exit_code == 4
    alone = verify_bundle(bundle, None)
    assert alone.exit_code == 0
    assert any("identities are self-declared; pass --trust" in row.evidence for row in alone.rows)


def test_a_key_that_lost_its_role_in_your_trust_root_does_not_count(world: World, good: Path) -> None:
    people = tuple(p if p.name != "ada" else type(p)(p.name, p.public_hex, ("steward",)) for p in world.trust.people)
    result = verify_bundle(good, TrustRoot(people))
    assert result.exit_code == 3
    assert "E-GATE-014" in codes(result)


def test_an_approval_does_not_expire_after_the_release(world: World, good: Path) -> None:
    assert verify_bundle(good, world.trust, world.now + timedelta(days=900)).exit_code == 0


def test_a_release_dated_ahead_is_refused(world: World, good: Path) -> None:
    result = verify_bundle(good, world.trust, world.now - timedelta(days=1))
    assert (result.exit_code, codes(result)) == (3, {"E-CLAIM-012"})


def test_demo_custody_is_said_in_plain_words(tmp_path: Path) -> None:
    world = World(tmp_path, custody="demo").run().sign_quorum()
    result = verify_bundle(world.release().path, world.trust)
    assert result.exit_code == 0
    assert any("no person's decision" in row.evidence for row in result.rows)


def test_no_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        verify_bundle(tmp_path / "nothing")
    assert (caught.value.code, caught.value.exit_code) == ("E-BUNDLE-001", 2)


def test_hostile_json_becomes_a_row_and_never_a_traceback(world: World, folder: Path) -> None:
    deep = b"[" * 50_000 + b"]" * 50_000
    for name in ("evidence.json", "trust.json", "release.dsse.json", "journal.json"):
        original = (folder / name).read_bytes()
        for bad in (deep, b"null", b"[]", b'{"entries":7}', b"\xff", b"1e999", json.dumps({"a": "\ud800"}).encode()):
            (folder / name).write_bytes(bad)
            assert verify_bundle(folder, None).exit_code == 4
        (folder / name).write_bytes(original)


_CLOSURE = """
import sys, socket, sqlite3
def refuse(*args, **kwargs): raise SystemExit("the verifier touched the network or a database")
socket.socket = sqlite3.connect = refuse
from pathlib import Path
from pipeline.verify import verify_bundle
code = verify_bundle(Path(sys.argv[1])).exit_code
# charset_normalizer comes with numpy (f2py) where it is installed
known = {"charset_normalizer", "__main__"} | set(sys.stdlib_module_names)
known |= {"cryptography", "numpy", "scipy", "_cffi_backend", "cffi", "privacy", "pipeline"}
tops = {n.split(".")[0] for n, m in sys.modules.items() if getattr(m, "__file__", None)}
print(code, sorted(t for t in tops if t not in known and not t.startswith("_")))
print(sorted(n for n in sys.modules if n.startswith("pipeline.")))
"""


def test_the_verifier_needs_no_network_no_database_and_no_other_library(good: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CLOSURE, str(good)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        check=False,
    )
    assert done.stdout.splitlines()[0] == "0 []", done.stdout + done.stderr
    assert done.stdout.splitlines()[1] == str(
        [f"pipeline.{m}" for m in ("bundle", "claims", "evidence", "journal_claims", "verify")]
    )


_ALONE = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"rich", "pydantic", "yaml", "pyarrow", "torch", "opacus", "spacy", "airflow", "httpx"}:
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Refuse())
sys.argv[0] = "verify"
runpy.run_module("pipeline.verify", run_name="__main__", alter_sys=True)
"""


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline.verify` where nothing but cryptography, numpy and scipy is installed."""
    return subprocess.run(
        [sys.executable, "-c", _ALONE, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_a_stranger_without_privet_sees_the_same_rows_and_exit_codes(world: World, good: Path, tmp_path: Path) -> None:
    trust = tmp_path / "trust.json"
    trust.write_bytes(canonical_json(world.trust.to_json()))
    done = alone(good, "--trust", trust, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == verify_bundle(good, world.trust).to_json()
    shown = alone(good)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "epsilon recomputed" in shown.stdout
    assert "verified (exit 0)" not in shown.stdout  # nobody vouches for who the signers are


def test_a_stranger_is_told_of_a_changed_bundle_a_closed_gate_and_a_wrong_path(world: World, good: Path, folder: Path) -> None:
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes() + b"x")
    changed = alone(folder)
    assert (changed.returncode, changed.stdout.splitlines()[-1]) == (4, "integrity broken (exit 4)")
    people = tuple(p if p.name != "ada" else type(p)(p.name, p.public_hex, ("steward",)) for p in world.trust.people)
    trust = folder.parent / "trust.json"
    trust.write_bytes(canonical_json(TrustRoot(people).to_json()))
    closed = alone(good, "--trust", trust)
    assert (closed.returncode, closed.stdout.splitlines()[-1]) == (3, "gate closed (exit 3)")
    assert "E-GATE-014" in closed.stdout
    absent, wrong = alone(folder / "absent"), alone()
    assert (absent.returncode, wrong.returncode, absent.stdout) == (2, 2, "")
    assert "E-BUNDLE-001" in absent.stderr
