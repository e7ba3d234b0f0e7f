"""What is new since the people of a gate last approved something under this policy name, in plain lines.

Guarantee: compared are the facts that were put to the signers then (their request is journalled by digest) and now; a policy's
change is told field by field. Each of these changes the digest that is signed, so the old approval does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pipeline.standing import asked_about
from privacy.canonical import Digest, Json, is_digest, parse_json
from privacy.conditions import Value
from privacy.errors import PrivetError
from privacy.gates import GateName

if TYPE_CHECKING:
    from pipeline.approval_book import ApprovalRequest
    from pipeline.home import Home

_COMPARED: Final = (
    ("changed: data", "data", "another protected dataset"),
    ("changed: recognizers", "recognizers", "other recognizers or models search for personal data"),
    ("changed: model", "model", "another model"),
)
_BUDGET: Final = ("epsilon", "delta", "cap_epsilon")
_MAX_FIELDS: Final = 30
SINCE: Final = "since the last approval"


def what_changed(
    home: Home, gate: GateName, policy_name: str, digest: Digest, facts: Mapping[str, Value]
) -> tuple[tuple[str, str], ...]:
    """Label and value, for the request. facts: those of the request that is about to be asked."""
    last = _last_approved(home, gate, policy_name, digest)
    if last is None:
        return ((SINCE, "nothing was approved at this gate under this policy name before"),)
    before = last.facts
    lines = [(label, f"{said} ({_short(before.get(name))} → {_short(facts.get(name))})") for label, name, said in _COMPARED
             if before.get(name) != facts.get(name)]  # fmt: skip
    terms = [(name, _asked(home, before, name), _asked(home, facts, name)) for name in _BUDGET]
    budget = [f"{name} {old} → {new}" for name, old, new in terms if old != new]
    if budget:
        lines.append(("changed: budget", "; ".join(budget)))
    if before.get("policy") != facts.get("policy"):
        lines.append(("changed: policy", "; ".join(_policy_fields(home, before.get("policy"), facts.get("policy")))))
    return tuple(lines) or ((SINCE, f"nothing that the evidence tells apart from that of run {last.run_id}"),)


def _last_approved(home: Home, gate: GateName, policy_name: str, digest: Digest) -> ApprovalRequest | None:
    for entry in reversed(home.journal.entries()):
        told = entry.facts
        about = told.get("digest")
        if entry.kind != "approval" or (told.get("gate"), told.get("decision")) != (gate, "approve") or about == digest:
            continue
        request = asked_about(home, gate, str(about))
        if request is not None and request.policy_name == policy_name:
            return request
    return None


def _asked(home: Home, facts: Mapping[str, Value], name: str) -> Json:
    """The budget as the policy has it: at the release, the epsilon among the facts is the one that was reached."""
    budget = _policy(home, facts.get("policy")).get("budget")
    return budget.get(name) if isinstance(budget, Mapping) else facts.get(name)


def _policy_fields(home: Home, before: Value | None, after: Value | None) -> list[str]:
    old, new = dict(_leaves("", _policy(home, before))), dict(_leaves("", _policy(home, after)))
    if not old or not new:
        return ["another version, and the older one is not in the store"]
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    told = [f"{name}: {_shown(old.get(name))} → {_shown(new.get(name))}" for name in names[:_MAX_FIELDS]]
    return told + ([f"and {len(names) - _MAX_FIELDS} more fields"] if len(names) > _MAX_FIELDS else [])


def _policy(home: Home, digest: Value | None) -> Mapping[str, Json]:
    if not isinstance(digest, str) or not is_digest(digest):
        return {}
    try:
        found = parse_json(home.store.get_plain(digest))
    except PrivetError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _leaves(path: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _leaves(f"{path}.{name}" if path else name, part)
    else:
        yield path, value


def _shown(value: Json) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _short(value: Value | None) -> str:
    text = "unknown" if value is None else str(value)
    return text[:19] + "…" if len(text) > 24 else text
