"""The bundle and its verifier: seconds of a cold process, changed bytes that are noticed, bad bundles that are refused.

The bundle has a model of the demo's size and a report with its drawings. Changes are made over the files in memory, at places
spread over every file; the bad bundles are those of tests/worlds/bad_bundles, each of which must be refused with its own code.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from benchmarks.rows import Row
from pipeline.bundle import BundleView, view_of
from pipeline.verify import verify_bundle, verify_view
from privacy.canonical import canonical_json
from privacy.signing import TrustRoot
from tests.worlds import release_world
from tests.worlds.bad_bundles import INSIDERS, LISTS, OUTSIDERS
from tests.worlds.release_world import World

ROOT = Path(__file__).resolve().parent.parent
MODEL_BYTES = 4 * 1_048_576
VERIFY_GOAL = 2.0
BAD_GOAL = 20.0
PLACES = 40  # changed in each file
RUNS = 5


def rows(quick: bool = False) -> list[Row]:
    """About two minutes, most of them for the bad bundles; quick: a quarter of these."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with mock.patch.object(release_world, "MODEL", release_world.MODEL + bytes(MODEL_BYTES)):
            world = World(folder / "world").run().sign_quorum()
            bundle = world.release().path
            refused, cases = _bad(world, bundle, folder, quick)
        trust = folder / "trust.json"
        trust.write_bytes(canonical_json(world.trust.to_json()))
        cold = _cold(bundle, trust)
        changed, noticed = _changes(world, bundle)
    return [
        Row("bundle: verify offline, a cold process", "s", cold, None, VERIFY_GOAL, cold <= VERIFY_GOAL),
        Row(
            "bundle: single-byte changes noticed, every file", "of " + str(changed), noticed, None, changed, noticed == changed
        ),
        Row(
            "bundle: bad bundles refused, each with its own code",
            f"of {cases}",
            refused,
            None,
            BAD_GOAL,
            refused == cases >= BAD_GOAL,
        ),
    ]


def _cold(bundle: Path, trust: Path) -> float:
    """Wall seconds from starting Python to the conclusion, the best of a few: others use this machine, too."""
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.verify", str(bundle), "--trust", str(trust)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(time.perf_counter() - began)
        if not done.stdout.rstrip().endswith("verified (exit 0)"):
            raise RuntimeError("the honest bundle does not verify")
    return min(found)


def _changes(world: World, bundle: Path) -> tuple[int, int]:
    files = {p.relative_to(bundle).as_posix(): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    whole = view_of(files)
    made = noticed = 0
    for name, data in files.items():
        for position in range(0, len(data), max(1, len(data) // PLACES)):
            changed = view_of({name: data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]})
            view = BundleView({**whole.files, **changed.files}, {**whole.texts, **changed.texts})
            made += 1
            noticed += verify_view(view, world.trust, world.now).exit_code == 4
    return made, noticed


def _bad(world: World, bundle: Path, folder: Path, quick: bool) -> tuple[int, int]:
    """Those that were refused with the exit code and the error code that the case names, and how many there are."""
    step = 4 if quick else 1
    other = world.another_run().release().path
    refused = 0
    outsiders, insiders, lists = OUTSIDERS[::step], INSIDERS[::step], LISTS[::step]
    for outsider in outsiders:
        copy = Path(shutil.copytree(bundle, folder / outsider.name))
        outsider.cheat(copy, world, other)
        result = verify_bundle(copy, world.trust)
        refused += _told(result.exit_code, {row.code for row in result.failures}, outsider.exit_code, outsider.code)
        shutil.rmtree(copy)
    for insider in insiders:
        lying, made = insider.build(folder / insider.name)
        result = verify_bundle(made, lying.trust)
        refused += _told(result.exit_code, {row.code for row in result.failures}, insider.exit_code, insider.code)
    for case in lists:
        trust = TrustRoot((*world.trust.people, *case.also))
        result = verify_bundle(bundle, trust, world.now, case.make(world))
        refused += _told(result.exit_code, {row.code for row in result.failures}, 3, case.code)
    return refused, len(outsiders) + len(insiders) + len(lists)


def _told(exit_code: int, codes: set[str], wanted_exit: int, wanted: str) -> bool:
    return exit_code == wanted_exit and wanted in codes
