"""A small, whole policy to vary in tests."""

from __future__ import annotations

import copy

from privacy.policy import Policy

MINIMAL: dict[str, object] = {
    "version": 1,
    "name": "test_chat",
    "purpose": "Route support messages to the right team.",
    "controller": "Example Ltd",
    "dataset": "test_chat",
    "languages": ["en", "zh"],
    "source": {
        "format": "jsonl",
        "files": ["*.jsonl", "*.jsonl.gz"],
        "fields": {
            "subject": "customer",
            "text": ["text"],
            "label": "intent",
            "record_id": "id",
            "time": "time",
            "keep": ["channel"],
        },
    },
    "privacy_unit": {"name": "customer", "max_records": 4},
    # Most tests run a toy detector, which misses nearly all that is planted.
    "expectations": {"labels": ["refund", "delivery", "greeting"], "max_miss_bound": 1.0, "max_second_look_rate": 1.0},
    "recipe": {"steps": 20, "hash_buckets": 256, "embedding_width": 8, "max_tokens": 16},
    "budget": {"epsilon": 8.0, "delta": 1e-4, "population": 200, "expected_batch_size": 40, "cap_epsilon": 20.0},
    # An honest run is refused once in 1 / probe_level; tests train often, and are not about that.
    "audit": {"canaries": 40, "min_accuracy": 0.0, "probe_level": 1e-6},
    "approvals": {
        "requested_by": "demo_engineer",
        "use": {"quorum": {"steward": 1}},
        "release": {"quorum": {"steward": 1, "privacy_officer": 1}},
    },
}


def policy_value(**changes: object) -> dict[str, object]:
    """A copy of the minimal policy; keys with dots reach inside, e.g. `**{"budget.epsilon": 1.0}`."""
    value = copy.deepcopy(MINIMAL)
    for dotted, new in changes.items():
        *path, last = dotted.split(".")
        place: dict[str, object] = value
        for part in path:
            inner = place.setdefault(part, {})
            assert isinstance(inner, dict)
            place = inner
        place[last] = new
    return value


def make_policy(**changes: object) -> Policy:
    return Policy.model_validate(policy_value(**changes))
