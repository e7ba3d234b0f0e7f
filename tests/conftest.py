"""Keeps the tests' Airflow away from any that the user has: its home must be set before Airflow is first imported."""

from __future__ import annotations

import os
import tempfile

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="privet-test-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

from tests.worlds.postgres import place, postgres_server  # noqa: F401 (fixtures for every test)

# The same examples in every run: what a property test finds by chance at night would fail somebody else's change by day.
# HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
