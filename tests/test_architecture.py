"""Holds the import direction of the house: dags → pipeline → training → privacy, and no circles."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RANK = {"privacy": 0, "training": 1, "pipeline": 2, "dags": 3}
HEAVY = {"torch", "opacus", "presidio_analyzer", "spacy", "great_expectations", "airflow", "matplotlib", "pandas"}
FLAT = {"errors", "canonical", "verdict", "rounding"}
# Composition inside privacy/ that is allowed, each with its reason.
ALLOWED = {
    ("gates", "signing"): "a gate decides about verified signatures",
    ("policy_file", "policy"): "reads the model from a file",
    ("policy", "entities"): "treats only types that exist",
    ("ledger", "accounting"): "admits by the accountant's vectors",
    ("journal", "signing"): "signs its entries",
    ("journal", "database"): "keeps its rows in a database",
    ("ledger", "database"): "keeps its rows in a database",
    ("vault", "database"): "keeps its rows in a database",
    ("database", "sqlite"): "one of its two grounds, opened on demand",
    ("database", "postgres"): "one of its two grounds, opened on demand",
    ("sqlite", "database"): "speaks its protocol",
    ("sqlite", "turn"): "queues its writers",
    ("postgres", "database"): "speaks its protocol",
    ("journal", "sqlite"): "is verified without being written to",
}


def modules(top: str) -> list[Path]:
    return sorted((ROOT / top).rglob("*.py"))


def imported(path: Path, *, only_top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = list(tree.body) if only_top_level else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("top", RANK)
def test_no_module_imports_upwards(top: str) -> None:
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(top)
        for name in imported(path)
        if RANK.get(name.split(".")[0], -1) > RANK[top]
    ]
    assert upward == []


def test_privacy_modules_stand_alone() -> None:
    wrong = []
    for path in modules("privacy"):
        own = ".".join(path.relative_to(ROOT / "privacy").with_suffix("").parts)
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "privacy" or len(parts) < 2 or parts[1] in FLAT:
                continue
            if (own, parts[1]) not in ALLOWED and not own.startswith(("recognizers", "detect", "deidentify", "redact")):
                wrong.append(f"privacy/{own} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("top", ["privacy", "pipeline", "dags"])
def test_heavy_libraries_are_imported_lazily(top: str) -> None:
    allowed_in = {"pipeline/airflow_gate.py", "dags/private_training.py"}
    heavy = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(top)
        if str(path.relative_to(ROOT)) not in allowed_in
        for name in imported(path, only_top_level=True)
        if name.split(".")[0] in HEAVY
    ]
    assert heavy == []


def test_no_circle_between_modules() -> None:
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for top in RANK for p in modules(top)}
    graph = {n: {i for i in imported(p, only_top_level=True) if i in names and i != n} for n, p in names.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path, name])
        if name in done:
            return
        for other in graph[name]:
            visit(other, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_privacy_and_cli_load_without_the_heavy_libraries() -> None:
    listed = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in modules("privacy") if p.stem != "__init__"]
    code = f"import sys\nfor m in {[*listed, 'pipeline.cli']!r}: __import__(m)\nprint(sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_files_stay_readable() -> None:
    long = [f"{p.relative_to(ROOT)}: {n}" for top in RANK for p in modules(top) if (n := len(p.read_text().splitlines())) > 420]
    assert long == []
