"""The XCom backend: Airflow's metadata database gets references and small scalars, and nothing else.

Guarantee: whatever a task returns, pushes or links to passes `pipeline.references.check_handover` before Airflow sees it,
and so does whatever is read, as anybody with a role in Airflow can write XCom through its REST API. A refused value is in
no table, no rendered field and no message.
Assumption: AIRFLOW__CORE__XCOM_BACKEND names this class in every process that runs tasks.
Not covered: Airflow's other channels (parameters of a run, asset events, task state): no stage of Privet uses those for data.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk.bases.xcom import BaseXCom

from pipeline.references import RETURN_KEY, check_handover
from privacy.errors import IntegrityError, UsageError


class ReferenceXCom(BaseXCom):
    """Set as `[core] xcom_backend`. Raises UsageError E-XCOM-001 and 002, on reading IntegrityError E-XCOM-003."""

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> str:
        check_handover(key, value)
        return BaseXCom.serialize_value(value)

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """The stored JSON itself: Airflow's own deserializer would build whatever class the value names."""
        try:
            check_handover(RETURN_KEY, result.value)
        except UsageError:
            pass
        else:
            return result.value
        raise IntegrityError(
            "E-XCOM-003",
            "Airflow's database holds a value for this task that no task of Privet can have put there",
            "Find out who wrote it (Airflow's audit log), then clear the task that should have",
        )

    @classmethod
    def _set_xcom_in_db(cls, key: str, value: Any, **where: Any) -> None:
        """Airflow's way around the backend, for links of operators."""
        check_handover(key, value)
        super()._set_xcom_in_db(key, value, **where)
