"""Where the DAG file and its policies are: they are configuration beside the code, and no part of the installed package.

Guarantee: a folder that holds no DAG of Privet is an error in plain words, never an Airflow without DAGs.
"""

from __future__ import annotations

import os
from pathlib import Path

from privacy.errors import UsageError

DAG_FILE = "private_training.py"


def dags_folder() -> Path:
    """`$PRIVET_DAGS`, else the `dags/` of this checkout. Raises UsageError E-DAG-007 where that holds no DAG of Privet."""
    given = os.environ.get("PRIVET_DAGS")
    folder = Path(given) if given else Path(__file__).resolve().parent.parent / "dags"
    if not (folder / DAG_FILE).is_file():
        raise UsageError(
            "E-DAG-007",
            f"there is no {DAG_FILE} in the folder {'that PRIVET_DAGS names' if given else 'dags beside the package'}",
            "Set PRIVET_DAGS to the dags folder of a checkout of Privet",
        )
    return folder.resolve()
