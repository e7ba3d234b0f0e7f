"""Airflow's cluster policy: what holds for every task of every DAG, whoever wrote it.

Guarantee: no task's return value is printed into its log, though its author asked for that or forgot to forbid it.
Assumption: Airflow loads this: from `config/airflow_local_settings.py` in the embedded Airflow's folder, or from the entry
point `airflow.policy` where the package is installed. Loaded twice it does the same thing twice.
Not covered: what a task prints, logs or raises by itself.
"""

from __future__ import annotations

from typing import Any

import pluggy

LOCAL_SETTINGS = "from pipeline.airflow_policy import task_policy\n\n__all__ = ['task_policy']\n"


@pluggy.HookimplMarker("airflow.policy")
def task_policy(task: Any) -> None:
    """Called by Airflow for each task that it parses, in the dag-processor and in the worker."""
    from airflow.providers.standard.operators.python import PythonOperator

    if isinstance(task, PythonOperator):
        task.show_return_value_in_logs = False
    elif issubclass(getattr(task, "operator_class", type(None)), PythonOperator):  # mapped: what each of them is made with
        task.partial_kwargs["show_return_value_in_logs"] = False
