"""StewardApproval: an Airflow human-in-the-loop gate whose answer is bound to what the person was shown.

Guarantee: the digest, subject and text shown are frozen with the waiting task; the answer counts only for that digest and
only as a signed statement (`pipeline.gate_answer`); there is no default answer; a reject fails the run for good.
Not covered: Airflow itself. Any user may mark this task successful; `train` and `release` check signatures, not task states.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import ExceptionRetryPolicy, Param, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from pipeline.gate_answer import Answer, AnswerRefused, Seat, check_shown, record_answer
from privacy.canonical import parse_canonical
from privacy.errors import EnvironmentFault, GateClosed, PolicyError
from privacy.gates import Decision
from privacy.signing import TrustRoot

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pipeline.approve import ApprovalRequest
    from privacy.policy_gates import Gate

# Refused answers and Airflow's own race (an answer within seconds of the question, apache/airflow 67287) each cost a try.
GATE_RETRIES = 12
CONDITIONAL = "Approve with conditions"
OPTIONS: Mapping[str, Decision] = {
    "Approve": "approve",
    CONDITIONAL: "approve",
    "Refer": "refer",
    "Reject": "reject",
}
_QUESTION = {"use": "May this dataset be used for training?", "release": "May this model leave?"}


def stage_retries() -> ExceptionRetryPolicy:
    """Faults of the machine and unforeseen ones are tried again; wrong data, closed gates and broken integrity are not."""
    return ExceptionRetryPolicy(
        rules=[
            RetryRule("privacy.errors.EnvironmentFault", RetryAction.RETRY, timedelta(seconds=2), "the machine may recover"),
            RetryRule("pipeline.faults.InternalFault", RetryAction.RETRY, timedelta(seconds=2), "a library may recover"),
            RetryRule("privacy.errors.PrivetError", RetryAction.FAIL, reason="trying again gives the same answer"),
        ]
    )


def _gate_retries() -> ExceptionRetryPolicy:
    refused = RetryRule("pipeline.gate_answer.AnswerRefused", RetryAction.RETRY, timedelta(seconds=1), "asked again")
    return ExceptionRetryPolicy(rules=[refused, *stage_retries().rules])


def privet_home() -> Path:
    """`$PRIVET_HOME`, else `.privet` in the checkout that this file lies in, else `./.privet`.

    The checkout goes first, as services started in different folders would otherwise see different homes.
    """
    if named := os.environ.get("PRIVET_HOME"):
        return Path(named)
    tree = Path(__file__).resolve().parent.parent
    return (tree if (tree / "pyproject.toml").exists() else Path.cwd()) / ".privet"


def people_by_role(home: Path) -> Mapping[str, tuple[str, ...]]:
    """Names by role from the trust root; nobody when there is no home yet.

    Raises EnvironmentFault E-DAG-002 when a trust root is there and can't be read, IntegrityError when it is damaged.
    """
    try:
        trust = TrustRoot.from_json(parse_canonical((home / "trust.json").read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise EnvironmentFault(
            "E-DAG-002",
            f"the trust root of the Privet home can't be read ({error.strerror}), so no gate has people",
            "Let Airflow run as the user who owns the home",
        ) from None
    roles = sorted({role for person in trust.people for role in person.roles})
    return {role: tuple(p.name for p in trust.people if role in p.roles) for role in roles}


def with_delegates(people: Mapping[str, tuple[str, ...]], home: Path, gate: str, policy: str) -> dict[str, tuple[str, ...]]:
    """And those to whom a role was lent for this gate of this policy, and is now. They make no seat that holders don't."""
    from pipeline.approval_book import ApprovalBook

    found = dict(people)
    if not people:
        return found
    trust, now = TrustRoot.from_json(parse_canonical((home / "trust.json").read_bytes())), datetime.now(UTC)
    for lent in ApprovalBook(home / "approvals").delegations(trust):
        if lent.fault(gate, policy, now, trust, now) is None and lent.delegate not in found.get(lent.role, ()):
            found[lent.role] = (*found.get(lent.role, ()), lent.delegate)
    return found


def missing_people(gates: Mapping[str, Gate], people: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """One clause per gate and role whose quorum more people have to sign than there are."""
    return tuple(
        f"the {name} gate needs {seats} of role {role} and the trust root names {len(people.get(role, ()))}"
        for name, gate in gates.items()
        for role, seats in gate.quorum.items()
        if len(people.get(role, ())) < seats
    )


class StewardApproval(ApprovalOperator):
    """Asks one person of one role. `inputs` are manifest digests by stage, templated from XCom.

    `missing` says which people the policy's gates lack. While it says anything this gate asks nobody and fails: Airflow
    lets every user answer a question that is assigned to no one, and budget is not to be spent on what can't be released.
    """

    # Not subject and body: they come from the request, and a policy's text must not be run as a template.
    template_fields: Sequence[str] = ("inputs",)

    def __init__(
        self, *, seat: Seat, policy_path: str, inputs: Mapping[str, Any], missing: Sequence[str] = (), **kwargs: Any
    ) -> None:
        if kwargs.get("defaults") is not None:
            raise PolicyError("E-DAG-004", "a gate may not have a default answer", "Remove defaults")
        kwargs.setdefault("retries", GATE_RETRIES)
        kwargs.setdefault("retry_delay", timedelta(seconds=1))
        kwargs.setdefault("retry_policy", _gate_retries())
        kwargs["params"] = {
            "reason": Param(None, type=["null", "string"], description="Why. No personal data."),
            "envelope": Param(None, type=["null", "string"], description="Output of privet approvals sign, if you hold a key"),
            "conditions": Param(None, type=["null", "string"], description="With conditions, parted by ';': epsilon <= 3"),
            "refer_to": Param(None, type=["null", "string"], description="To refer: the role that is to decide"),
        }
        super().__init__(
            subject=_QUESTION[seat.gate],
            assigned_users=[{"id": name, "name": name} for name in seat.assigned],
            fail_on_reject=True,
            **kwargs,
        )
        self.options = list(OPTIONS)  # the base class knows the first and the last alone
        self.seat = seat
        self.policy_path = policy_path
        self.inputs = inputs
        self.missing = tuple(missing)

    def request(self, context: Context) -> ApprovalRequest:
        """Open the request, or find it again. The inputs name manifests; what is shown is computed from those."""
        from pipeline import tasks

        run = context["dag_run"]
        path, home = Path(self.policy_path), privet_home()
        asks = tasks.enrolled_requester(home, path, run.triggering_user_name)
        opened = tasks.open_use_request if self.seat.gate == "use" else tasks.open_release_request
        return opened(home, path, **self.inputs, run_id=run.run_id, requested_by=asks)

    def refuse_unstaffed(self) -> None:
        """Raises PolicyError E-DAG-003, which is not retried."""
        if self.missing or not self.seat.assigned:
            why = "; ".join(self.missing) or f"the {self.seat.gate} gate has nobody of role {self.seat.role}"
            raise PolicyError(
                "E-DAG-003",
                f"{Path(self.policy_path).name}: {why}",
                "Enrol people (privet identity enrol) or change the quorum, then clear this task",
            )

    def execute(self, context: Context) -> Any:
        self.refuse_unstaffed()
        request = self.request(context)
        self.subject = f"{request.policy_name}: {_QUESTION[self.seat.gate]} ({self.seat.role})"
        self.body = gate_text(request)
        try:
            return super().execute(context)
        except TaskAwaitingInput as park:
            # The task is loaded anew when it resumes; what the person saw must not be.
            park.kwargs = {
                **(park.kwargs or {}),
                "shown": {"digest": request.digest, "subject": self.subject, "body": self.body},
            }
            raise

    def execute_complete(self, context: Context, event: dict[str, Any], shown: dict[str, str]) -> str:  # type: ignore[override]
        """The digest that was approved. Raises AnswerRefused (asked again) or AirflowFailException (rejected)."""
        from pipeline.home import Home
        from pipeline.tasks import value_free

        answer = _answer_of(event)
        request = self.request(context)
        check_shown(request, shown["digest"])
        record = value_free(record_answer)
        record(Home.open(privet_home()), request, self.seat, answer, datetime.now(UTC))
        if answer.decision == "reject":
            raise AirflowFailException(f"E-GATE-012: an approver ({self.seat.role}) rejected exactly this evidence")
        if answer.decision == "refer":
            raise AnswerRefused(
                "E-GATE-044",
                f"this was referred to {answer.refer_to}, who has to decide before anybody can approve",
                f"A person of that role signs: privet approvals sign {request.id}",
            )
        self.log.info("gate %s, seat %s: approved %s", self.seat.gate, self.seat.role, request.digest)
        return request.digest


def gate_text(request: ApprovalRequest) -> str:
    """What is shown to the person, as a Markdown table."""
    rows = [f"| {_cell(label)} | {_cell(value)} |" for label, value in request.shown]
    how = f"Request `{request.id}`, asked by {_cell(request.requested_by)}. You sign exactly `{request.digest}`."
    return "\n".join(["| what | value |", "|---|---|", *rows, "", how])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _answer_of(event: Mapping[str, Any]) -> Answer:
    """Raises GateClosed E-GATE-041 when nobody answered in time, or Airflow handed over something else than an answer."""
    form = event.get("params_input") or {}
    match event.get("chosen_options"), event.get("responded_by_user"):
        case [str(choice)], {"id": str(who)} if "error" not in event and choice in OPTIONS:
            reason, envelope, conditions, refer_to = (
                str(form.get(name) or "") for name in ("reason", "envelope", "conditions", "refer_to")
            )
            if choice == CONDITIONAL and not conditions.strip() and not envelope.strip():
                raise AnswerRefused("E-GATE-051", "the answer gives no condition", "Write at least one, or choose Approve")
            return Answer(who, OPTIONS[choice], reason, envelope, conditions, refer_to.strip())
    raise GateClosed("E-GATE-041", "nobody answered the gate in time", "Start the run again when approvers are at hand")
