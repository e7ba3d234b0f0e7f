"""A report of a run whose audit left everything it can leave: made from the release world, with fuller documents put in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.report import report_of
from pipeline.report_facts import Document, Facts
from pipeline.report_page import Report
from privacy.canonical import Json, digest_of
from tests.worlds.release_world import World

ROC: Json = [[0.001, 0.0], [0.01, 0.02], [0.05, 0.07], [0.1, 0.12], [0.5, 0.52], [1.0, 1.0]]
ATTACKS: Json = {
    "membership": {
        "gate_level": 0.999,
        "attacks": [
            {
                "attack": "loss",
                "auc": 0.53,
                "auc_interval": [0.48, 0.58],
                "tpr_at_fpr": [
                    {"fpr": 0.001, "tpr": 0.0, "interval": [0.0, 0.02]},
                    {"fpr": 0.01, "tpr": 0.02, "interval": [0.0, 0.05]},
                ],
                "roc": ROC,
            },
            {"attack": "rmia", "auc": 0.56, "roc": [[0.001, 0.01], [0.01, 0.04], [0.1, 0.2], [1.0, 1.0]]},
        ],
    },
    "exposure": {"planted": {"mean_bits": 2.0}, "control": {"mean_bits": 1.5}, "max_exposure_bits": 10.0},
    "memorisation": {"samples": 64, "flagged_spans": 0},
}
HARM: Json = {
    "groups": {
        "channel": {
            "rows": {"phone": {"units": 40, "accuracy": 0.82}, "网页": {"units": 30, "accuracy": 0.79}, "mail": None},
            "withheld": 1,
            "gap": 0.03,
            "gap_interval": [0.0, 0.1],
            "accuracy": 0.81,
        }
    },
    "swaps": {"texts": 120, "changed_rate": 0.01, "interval": [0.0, 0.05]},
}
SLIP: Json = {
    "level": 0.95,
    "types": {
        "PERSON": {"planted": 20, "missed": 1, "miss_bound": 0.2161},
        "EMAIL_ADDRESS": {"planted": 20, "missed": 0, "miss_bound": 0.1392},
    },
    "all": {"canaries_planted": 40, "canaries_missed": 1, "miss_bound": 0.1134},
}
FULL: dict[str, Json] = {"attacks": ATTACKS, "harm": HARM, "slip_through": SLIP}


def facts_of(world: World, documents: dict[str, Json] | None = None) -> Facts:
    """Loaded from a world that has run, with these documents in place of its own."""
    stages = {name: digest for name, digest in world.digests.to_json().items() if name != "report"}
    facts = Facts.load(world.ctx, stages)
    put = {name: Document(value, digest_of(value)) for name, value in (documents or {}).items()}
    return replace(facts, documents={**facts.documents, **put})


def full_report(folder: Path, **changes: object) -> Report:
    return report_of(facts_of(World(folder, custody="demo", **changes).run(), FULL))  # type: ignore[arg-type]
