"""The offline verifier against honest bundles, bundles somebody changed, and bundles of a dishonest pipeline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.verify import Verification, verify_bundle
from privacy.canonical import canonical_json, digest_of
from privacy.errors import UsageError
from privacy.signing import TrustRoot
from tests.worlds.bad_bundles import INSIDERS, LISTS, OUTSIDERS, Insider, Outsider, RevocationCase
from tests.worlds.bad_bundles.lists import revocations
from tests.worlds.release_world import World

ROOT = Path(__file__).resolve().parents[2]
# The verifier: what a stranger has to read beside privacy/.
READ_IN_ONE_SITTING = (
    "bundle",
    "claims",
    "coin_claims",
    "document_claims",
    "evidence",
    "gate_claims",
    "gate_facts",
    "journal_claims",
    "paper_claims",
    "report_claims",
    "second_accountant",
    "verify",
)


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
    return world.another_run().release().path


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


@pytest.mark.parametrize("case", LISTS, ids=[case.name for case in LISTS])
def test_what_a_revocation_list_says_is_obeyed(case: RevocationCase, world: World, good: Path) -> None:
    trust = TrustRoot((*world.trust.people, *case.also))
    result = verify_bundle(good, trust, world.now, case.make(world))
    assert case.code in codes(result), result.failures
    assert result.exit_code == 3


def test_a_list_that_names_others_passes_and_no_list_is_said_to_be_none(world: World, good: Path) -> None:
    listed = revocations(world, revoked=digest_of("another release"))
    rows = {row.claim: row for row in verify_bundle(good, world.trust, world.now, listed).rows}
    assert (rows["not revoked"].outcome, rows["not revoked"].kind) == ("passed", "gate")
    without = {row.claim: row for row in verify_bundle(good, world.trust, world.now).rows}["not revoked"]
    assert (without.outcome, without.kind, without.blocks) == ("not_evaluated", "note", False)
    assert "not checked" in without.evidence


def test_the_command_line_takes_a_list(world: World, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trust, listed = tmp_path / "trust.json", tmp_path / "revocations.dsse.json"
    trust.write_bytes(canonical_json(world.trust.to_json()))
    listed.write_bytes(revocations(world, revoked=world.root))
    asked = ["verify", str(good), "--trust", str(trust), "--revocations"]
    assert main([*asked, str(listed), "--json"]) == 3
    assert "E-REVOKE-003" in capsys.readouterr().out
    assert main([*asked, str(tmp_path / "absent")]) == 2
    assert "E-VERIFY-001" in capsys.readouterr().err


# The ways to cheat that the issue names, and the case here that is it.
NAMED = {
    "self-approval": "self_approval",
    "double vote": "double_vote",
    "expired": "expired_approval",
    "swapped model": "swapped_model_with_new_list",
    "swapped data": "swapped_data",
    "swapped policy": "swapped_policy",
    "swapped report": "swapped_report",
    "swapped trace": "swapped_trace",
    "stripped statement": "stripped_statement",
    "replayed approval": "replayed_approval_alone",
    "edited log": "edited_journal",
    "deleted log": "deleted_journal",
    "truncated log": "truncated_journal",
    "understated steps": "understated_steps",
    "swapped accountant": "swapped_accountant",
    "revoked": "revoked_release",
    "coins drawn late": "coins_drawn_after_training",
    "coins drawn by the pipeline": "coins_drawn_by_the_pipeline",
    "a document missing": "without_harm",
    "card edited": "edited_card",
    "bill of materials edited": "edited_bill_of_materials",
    "spdx edited": "edited_spdx",
    "conditions not met": "condition_not_met",
    "understated epsilon": "understated_epsilon",
    "over the budget": "over_the_budget",
    "a verdict that failed": "failed_verdict",
    "a bound that refutes": "passed_over_a_bound_that_refutes",
    "no witness": "released_without_its_witness",
    "over a reject": "released_over_a_reject",
    "over a referral": "released_over_a_referral",
    "flipped byte": "flipped_byte",
    "a document that contradicts its verdict": "redaction_that_leaked",
    "a requester nobody knows": "requester_nobody_knows",
    "a backdated release": "dated_before_the_training",
    "a page that says otherwise": "page_of_a_kinder_epsilon",
    "coins never revealed": "coins_never_revealed",
    "coins of another training": "coins_of_another_training",
    "a list of another pipeline": "list_by_another_pipeline",
    "a list that never ends": "list_good_for_a_hundred_years",
}


def test_each_way_to_cheat_that_is_named_is_refused_with_a_code_of_its_own() -> None:
    code_of = {case.name: case.code for case in (*OUTSIDERS, *INSIDERS, *LISTS)}
    found = {way: code_of[name] for way, name in NAMED.items()}
    assert len(set(found.values())) == len(found) >= 20, found


def test_every_cheat_has_its_own_name() -> None:
    names = [case.name for case in (*OUTSIDERS, *INSIDERS, *LISTS)]
    assert len(set(names)) == len(names) >= 156


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
    assert done.stdout.splitlines()[1] == str([f"pipeline.{name}" for name in READ_IN_ONE_SITTING])


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
