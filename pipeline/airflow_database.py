"""Airflow's metadata database: made once per Airflow version, and told of the DAGs when their folder has changed.

Guarantee: a step that failed is not marked as done; what Airflow prints goes to a 0600 log file, not to the caller's output.
Not covered: DAGs that are gone from the folder stay listed until a dag-processor has run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from privacy.errors import EnvironmentFault


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Ours over the caller's, whose own Airflow settings must not leak in."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    tree = str(Path(__file__).resolve().parent.parent)  # works from a checkout and from an installed package
    path = os.pathsep.join([tree, *filter(None, [outer.get("PYTHONPATH")])])
    return {**outer, **environment, "PYTHONPATH": path}


def migrated(root: Path) -> bool:
    """Whether this very version of Airflow has made the database under `root`."""
    return _migration_mark(root).exists()


def migrate(root: Path, environment: Mapping[str, str]) -> None:
    """Make or upgrade the database, once per version. Raises EnvironmentFault E-AIRFLOW-003."""
    if migrated(root):
        return
    log = root / "logs" / "migrate.log"
    if _airflow(("db", "migrate"), environment, log) != 0:
        raise EnvironmentFault("E-AIRFLOW-003", "Airflow's database can't be made", f"Look into {log}")
    _migration_mark(root).touch(mode=0o600)


def listed(root: Path, dags: Path) -> bool:
    """Whether the database knows the DAG folder as it is now."""
    mark = _listing_mark(root)
    return mark.exists() and mark.read_text() == _fingerprint(dags)


def list_dags(root: Path, dags: Path, environment: Mapping[str, str]) -> None:
    """Parse the folder into the database, so that `airflow dags list` works without a dag-processor.

    Policies that can't be used are no failure: Airflow keeps them as import errors. Raises EnvironmentFault E-AIRFLOW-015.
    """
    if listed(root, dags):
        return
    fingerprint = _fingerprint(dags)
    log = root / "logs" / "reserialize.log"
    if _airflow(("dags", "reserialize"), environment, log) != 0:
        raise EnvironmentFault("E-AIRFLOW-015", "Airflow can't read the DAG folder", f"Look into {log}")
    mark = _listing_mark(root)
    mark.touch(mode=0o600)
    mark.write_text(fingerprint)


def _airflow(arguments: tuple[str, ...], environment: Mapping[str, str], log: Path) -> int:
    log.touch(mode=0o600)
    command = [sys.executable, "-m", "airflow", *arguments]
    with log.open("ab") as file:
        return subprocess.run(
            command, env=child_environment(environment), stdin=subprocess.DEVNULL, stdout=file, stderr=file, umask=0o077
        ).returncode


def _migration_mark(root: Path) -> Path:
    from importlib.metadata import version

    return root / f"migrated-{version('apache-airflow-core')}"


def _listing_mark(root: Path) -> Path:
    return root / "dags-listed"


def _fingerprint(dags: Path) -> str:
    """Over place, names and bytes of the DAG files and policies."""
    state = hashlib.sha256(str(dags.resolve()).encode())
    for path in sorted([*dags.rglob("*.py"), *dags.rglob("*.yaml")]):
        state.update(f"\n{path.relative_to(dags)}\n{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return state.hexdigest()
