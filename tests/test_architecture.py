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
FLAT = {"errors", "canonical", "moments", "verdict", "rounding"}
# Composition inside privacy/ that is allowed, each with its reason.
ALLOWED = {
    ("gates", "signing"): "a gate decides about verified signatures",
    ("gates", "conditions"): "and about the conditions under which they count",
    ("gates", "delegation"): "and about who lent whom a role",
    ("delegation", "signing"): "is signed by the lender",
    ("revocation", "signing"): "is signed by who may take a release back",
    ("policy_file", "policy"): "reads the model from a file",
    ("policy", "entities"): "treats only types that exist",
    ("policy", "policy_base"): "is made of parts",
    ("policy", "policy_recipe"): "has this part",
    ("policy", "policy_training"): "has these parts",
    ("policy", "policy_audit"): "has these parts",
    ("policy", "policy_gates"): "has these parts",
    ("policy_audit", "policy_base"): "are such parts",
    ("policy_gates", "policy_base"): "are such parts",
    ("policy_training", "policy_base"): "are such parts",
    ("policy_recipe", "policy_base"): "is such a part",
    ("policy_recipe", "noise_schedule"): "refuses a schedule that is none",
    ("policy", "policy_rules"): "tries the patterns of a policy that has any",
    ("policy_rules", "detection_rules"): "makes them of a policy",
    ("policy_rules", "policy"): "for the types of its fields",
    ("policy", "recognizers"): "knows which recognizers of Presidio may be named",
    ("generalise", "recognizers"): "reads word lists like they do",
    ("dateshift", "generalise"): "knows the months",
    ("surrogate", "surrogate_kinds"): "draws from reserved ranges",
    ("surrogate", "surrogate_words"): "names people",
    ("surrogate", "recognizers"): "tells given from family names by their lexicon",
    ("surrogate_kinds", "surrogate_words"): "numbers invented names",
    ("seal_probe", "seal"): "looks at the chunks of sealed files, and opens none",
    ("findings", "recognizers"): "merges around placeholders, whose grammar is theirs",
    ("structural", "recognizers"): "runs them",
    ("fitting", "structure"): "finds the end of a string by the same rule",
    ("structural", "findings"): "merges what they found",
    ("unfinished", "recognizers"): "asks their patterns what the end of a text leaves open",
    ("language", "recognizers"): "asks the models and the lexicon among them",
    ("language", "findings"): "says what they heard",
    ("detection_rules", "recognizers"): "makes the policy's patterns into recognizers",
    ("detection_rules", "findings"): "says which of them count",
    ("detection_rules", "entities"): "names only types that exist",
    ("ledger", "accounting"): "admits by the accountant's vectors",
    ("accounting", "renyi"): "composes its moments",
    ("accounting", "noise_schedule"): "composes steps of changing noise",
    ("calibration", "accounting"): "searches the noise that the accountant admits",
    ("calibration", "mechanisms"): "describes what the ledger is asked for",
    ("calibration", "noise_schedule"): "spreads one base over the steps",
    ("mechanisms", "accounting"): "turns descriptions into the accountant's vectors",
    ("pld", "mechanisms"): "accounts for described mechanisms",
    ("pld", "accounting"): "never reports more than the Rényi figure",
    ("ledger", "mechanisms"): "charges described mechanisms",
    ("ledger", "ledger_rows"): "its tables",
    ("ledger", "ledger_audit"): "its self-audit",
    ("ledger", "pld"): "reports the tighter figure, never admits by it",
    ("ledger_rows", "accounting"): "refuses a cap that is none",
    ("ledger_rows", "mechanisms"): "stores their descriptions",
    ("ledger_rows", "database"): "keeps its rows in SQLite or PostgreSQL",
    ("ledger_audit", "ledger_rows"): "reads the rows",
    ("ledger_audit", "accounting"): "recomputes the charges",
    ("ledger_audit", "mechanisms"): "recomputes the charges",
    ("ledger_audit", "database"): "reads the rows",
    ("journal", "signing"): "signs its entries",
    ("journal", "database"): "keeps its rows in a database",
    ("ledger", "database"): "keeps its rows in a database",
    ("vault", "database"): "keeps its rows in a database",
    ("vault", "vault_tables"): "its tables",
    ("vault", "tokens"): "names subjects by token",
    ("vault", "epoch"): "ends its epochs",
    ("vault_tables", "database"): "declares its tables",
    ("epoch", "database"): "rewraps the vault's rows",
    ("database", "sqlite"): "one of its two grounds, opened on demand",
    ("database", "postgres"): "one of its two grounds, opened on demand",
    ("sqlite", "database"): "speaks its protocol",
    ("sqlite", "turn"): "queues its writers",
    ("postgres", "database"): "speaks its protocol",
    ("checkpoint", "merkle"): "a proof leads to a checkpoint's root",
    ("checkpoint", "signing"): "is signed with Ed25519 keys",
    ("entries", "merkle"): "are the leaves of a tree",
    ("entries", "checkpoint"): "stand under one",
    ("entries", "signing"): "the origin of the log carries the key's id",
    ("journal", "entries"): "writes them",
    ("journal", "merkle"): "proves with the tree of its entries",
    ("journal", "checkpoint"): "signs one with every append",
    ("journal", "journal_rows"): "reads only what its rows prove",
    ("journal_rows", "database"): "the rows lie in a database",
    ("journal_rows", "entries"): "the rows are entries",
    ("journal_rows", "checkpoint"): "the rows are checkpoints",
    ("journal_rows", "merkle"): "the frontier is one of them",
    ("journal_audit", "database"): "reads either ground",
    ("journal_audit", "sqlite"): "is verified without being written to",
    ("journal_audit", "entries"): "checks every one",
    ("journal_audit", "checkpoint"): "checks every one",
    ("journal_audit", "journal_rows"): "reads the same rows as the journal",
    ("journal_audit", "merkle"): "builds the tree anew",
    ("keys", "keyring_book"): "the keyring is a book of rows",
    ("keys", "keyring_file"): "hands out its state",
    ("keys", "domain_key"): "and what a row's secret does",
    ("keys", "kms"): "by a key service",
    ("keys", "roles"): "for a role",
    ("keyring_book", "keyring_file"): "keeps this file",
    ("keyring_book", "domain_key"): "makes and opens rows",
    ("keyring_book", "kms"): "wraps them by a key service",
    ("keyring_book", "owner_only"): "owner-only, under a lock",
    ("keyring_book", "roles"): "one KMS key per group of classes",
    ("keyring_file", "kms"): "stores what a key service wrapped",
    ("kms.local", "owner_only"): "keeps its file",
    ("kms.local_secret", "owner_only"): "reads key files",
    ("kms.openbao", "owner_only"): "reads its token",
    ("kms.pkcs11", "owner_only"): "reads its PIN",
    **{
        (f"kms.{name}", "kms"): "a backend of the contract"
        for name in ("local", "local_file", "local_secret", "openbao", "aws", "pkcs11")
    },
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
    # Airflow loads these by name, from its own processes.
    allowed_in |= {f"pipeline/airflow_{part}.py" for part in ("executor", "secrets", "xcom")}
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
