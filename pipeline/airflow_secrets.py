"""The secrets backend: tasks get their connections and variables from the Privet home, unsealed at the moment of use.

Guarantee: no connection need lie in Airflow's database, in an environment variable or in a DAG file; what is handed out is
given to Airflow's log masker first; a home that can't be opened, or a secret that is damaged, refuses for good and lets no
weaker source answer in its place. An error has a code, and no value.
Assumption: tasks run as the user who owns the home. Set as `[workers] secrets_backend`: the api-server needs no keyring.
Not covered: a task that prints its password in pieces, and `dag.test()`, where Airflow's masker does not work.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from airflow.sdk.bases.secrets_backend import BaseSecretsBackend
from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

from pipeline.faults import as_privet_error
from pipeline.sealed_secrets import SealedSecrets, secret_name
from privacy.errors import UsageError


class HomeSecrets(BaseSecretsBackend):
    """`home`: path of the Privet home; without it, `$PRIVET_HOME` as for the DAGs."""

    def __init__(self, home: str | None = None) -> None:
        self._home = None if home is None else Path(home)

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        return self._get("connection", conn_id)

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        return self._get("variable", key)

    def get_config(self, key: str) -> str | None:
        return self._get("config", key)

    def _get(self, kind: str, name: str) -> str | None:
        """None for what is not here, so that Airflow goes on; raises AirflowSecretsBackendAccessDenied for any fault."""
        try:
            wanted = secret_name(kind, name)
        except UsageError:  # a name that none of ours can have
            return None
        try:
            value = self._open().get(wanted)
        except Exception as error:
            said = str(as_privet_error(error))
        else:
            _mask(value)
            return value
        # Outside the except block: Airflow logs the whole chain of what is raised here.
        raise AirflowSecretsBackendAccessDenied(said)

    def _open(self) -> SealedSecrets:
        from pipeline.airflow_gate import privet_home
        from pipeline.home import Home

        return SealedSecrets(Home.open(self._home or privet_home()))


def _mask(value: str | None) -> None:
    from airflow.sdk.log import mask_secret

    for part in _secret_parts(value or ""):
        mask_secret(part)


def _secret_parts(value: str) -> Iterator[str]:
    """The whole, and the password of a URI as written and as meant."""
    if value:
        yield value
    try:
        password = urlsplit(value).password if "://" in value else None
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)
