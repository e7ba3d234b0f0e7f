"""Keeps the tests' Airflow away from any that the user has: its home must be set before Airflow is first imported."""

from __future__ import annotations

import os
import tempfile

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="privet-test-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.worlds.postgres import place, postgres_server  # noqa: F401 (fixtures for every test)
