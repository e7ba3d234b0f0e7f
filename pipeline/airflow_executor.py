"""Airflow's LocalExecutor, whose workers keep what a task prints to that task's log.

Guarantee: Airflow's log masker has its say over every line that a task prints. The plain LocalExecutor of Airflow 3.3.2 copies
each line to the scheduler's own output as well, past the masker: a password that shows as *** in the task's log is readable
in the scheduler's log file, or in `docker logs`.
Assumption: workers are forked (Linux). tests/e2e/test_careless_dag.py holds it against the installed Airflow.
"""

from __future__ import annotations

from typing import Any

from airflow.executors import local_executor
from airflow.executors.base_executor import BaseExecutor

from privacy.errors import EnvironmentFault


class _KeptToItsLog(BaseExecutor):
    """Stands in for the one name that a worker of the LocalExecutor calls."""

    @staticmethod
    def run_workload(workload: Any, **options: Any) -> int:
        return BaseExecutor.run_workload(workload, **{**options, "subprocess_logs_to_stdout": False})


class QuietLocalExecutor(local_executor.LocalExecutor):
    """Set as `[core] executor`."""

    def start(self) -> None:
        """Raises EnvironmentFault E-AIRFLOW-016 where workers are not forked, as they would not see the stand-in."""
        if not self.is_mp_using_fork:
            raise EnvironmentFault(
                "E-AIRFLOW-016",
                "Airflow's workers are not forked here, so what tasks print would get past the log masker",
                "Unset AIRFLOW__CORE__MP_START_METHOD, on Linux",
            )
        local_executor.BaseExecutor = _KeptToItsLog  # type: ignore[attr-defined]
        super().start()
