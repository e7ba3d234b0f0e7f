"""Whoever holds the pipeline's key changes what its stages write: documents beside their verdicts, pages, papers, dates."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

from pipeline import assemble as assembling
from pipeline import report as reporting
from pipeline.report_html import page as page_of
from pipeline.report_page import Report
from privacy.canonical import Json, canonical_json
from tests.worlds.audit_documents import PROBED
from tests.worlds.bad_bundles.cases import Insider, envelope, put
from tests.worlds.release_world import Lies, World

_OPEN = {"audit.harm.groups": ["channel"], "audit.harm.max_gap": 0.1}


def probed(check: str, p_value: float | None) -> list[Json]:
    return [{"check": name, "p_value": p_value if name == check else 0.4} for name in PROBED]


def _bound(name: str, level: float, low: float) -> Json:
    return {"name": name, "level": level, "epsilon_lower_bound": low, "capped": False}


def _attack(low: float, **more: Json) -> dict[str, Json]:
    """The claim and the limits are the world's own: see `tests.worlds.audit_documents`."""
    return {"attack": "loss", "auc": 0.99, "epsilon_lower_bound": low, **more}


def _papers(writer: str, change: Callable[[Any], Any]) -> Callable[[], AbstractContextManager[object]]:
    honest = getattr(assembling, writer)
    return lambda: mock.patch.object(assembling, writer, lambda about: change(honest(about)))


def _bom(change: Callable[[dict[str, Any]], object]) -> Callable[[], AbstractContextManager[object]]:
    def changed(data: bytes) -> bytes:
        value = json.loads(data)
        change(value)
        return canonical_json(value)

    return _papers("bill_of_materials", changed)


def _metrics(bom: dict[str, Any]) -> list[Any]:
    found = bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert isinstance(found, list)
    return found


_KINDER = "0.101"
_METRIC = {"type": "utility: differential privacy: epsilon", "value": _KINDER}
_SECOND = {"type": "machine-learning-model", "name": "chat", "version": "1", "modelCard": {"properties": []}}


def _kinder_page() -> AbstractContextManager[object]:
    honest = page_of

    def page(report: Report, language: Any) -> bytes:
        return honest(report, language).replace(b"7.999", _KINDER.encode())

    return mock.patch.object(reporting, "page", page)


def _page_of_another_report() -> AbstractContextManager[object]:
    honest = page_of

    def page(report: Report, language: Any) -> bytes:
        return honest(replace(report, made_at="2020-01-01T00:00:00+00:00"), language)

    return mock.patch.object(reporting, "page", page)


def _report_json(change: Callable[[bytes], bytes]) -> Callable[[], AbstractContextManager[object]]:
    honest = Report.json_bytes
    return lambda: mock.patch.object(Report, "json_bytes", lambda report: change(honest(report)))


def _failed_shown_as_passed() -> AbstractContextManager[object]:
    return _report_json(lambda data: data.replace(b'"outcome":"failed"', b'"outcome":"passed"'))()


def _old_votes(world: World, files: dict[str, bytes]) -> None:
    put(files, *(envelope(world, world.keys[n], r, hours=-900) for n, r in (("grace", "steward"), ("ada", "privacy_officer"))))


_BACK = -timedelta(hours=899) / timedelta(hours=1)
DOCTORED: tuple[Insider, ...] = (
    Insider("probe_that_found_a_deviation", 3, "E-CLAIM-034", Lies(bounds={"probe": probed("noise_scale", 1e-12)})),
    Insider("probe_that_was_not_made", 3, "E-CLAIM-034", Lies(bounds={"probe": probed("divisor", None)})),
    Insider("probe_at_another_level", 3, "E-CLAIM-034", Lies(bounds={"probe_level": 1e-30})),
    Insider("bound_at_another_level", 3, "E-CLAIM-018", Lies(bounds={"gate_level": 0.5, "bounds": [_bound("x", 0.5, -1.0)]})),
    Insider("bound_of_another_name", 3, "E-CLAIM-018", Lies(bounds={"bounds": [_bound("fdp", 0.999, 0.1)]})),
    Insider("redaction_that_leaked", 3, "E-CLAIM-034", Lies(redaction={"leaks": 7})),
    Insider("streams_that_leaked", 3, "E-CLAIM-034", Lies(redaction={"stream_leaks": 1})),
    Insider("leaks_that_the_document_allows_itself", 3, "E-CLAIM-034", Lies(redaction={"leaks": 7, "leaks_allowed": 9})),
    Insider("redaction_of_nothing", 3, "E-CLAIM-034", Lies(redaction={"planted_values": 0})),
    Insider("attack_that_refutes_the_claim", 3, "E-CLAIM-034", Lies(membership={"attacks": [_attack(40.0)]})),
    Insider("attack_that_was_not_run", 3, "E-CLAIM-034", Lies(membership={"attacks": []})),
    Insider(
        "gap_between_groups", 3, "E-CLAIM-034", Lies(harm={"groups": {"channel": {"gap": 0.9}}}), changes=(*_OPEN.items(),)
    ),
    Insider("harm_with_limits_of_its_own", 3, "E-CLAIM-034", Lies(harm={"limits": {"max_gap": 1.0}})),
    Insider("coins_never_revealed", 3, "E-COINS-007", Lies(without_reveal=True)),
    Insider("coins_of_another_training", 3, "E-COINS-005", Lies(ledger_key_of_coins="train-of-yesterday")),
    Insider("requester_nobody_knows", 3, "E-CLAIM-035", Lies(requested_by="Grace ")),
    Insider("dated_before_the_training", 3, "E-CLAIM-036", Lies(released_hours=_BACK), votes=_old_votes),
    Insider("page_of_a_kinder_epsilon", 4, "E-CLAIM-037", defect=_kinder_page),
    Insider("page_of_another_report", 4, "E-CLAIM-037", defect=_page_of_another_report),
    Insider("report_of_a_kinder_epsilon", 4, "E-CLAIM-037", defect=_report_json(lambda d: d.replace(b"7.999", b"0.101"))),
    Insider(
        "report_of_verdicts_that_passed",
        4,
        "E-CLAIM-037",
        Lies(verdicts={"probe.clipping": "failed"}),
        defect=_failed_shown_as_passed,
    ),
    Insider(
        "card_with_a_field_of_its_own",
        4,
        "E-CLAIM-024",
        defect=_papers("model_card", lambda card: card.replace("---\n", "---\nepsilon: 0.1\n", 1)),
    ),
    Insider(
        "card_that_states_another_loss",
        4,
        "E-CLAIM-024",
        defect=_papers("model_card", lambda card: card.replace("at epsilon 7.999", "at epsilon 0.101")),
    ),
    Insider("epsilon_as_a_metric_of_utility", 4, "E-CLAIM-025", defect=_bom(lambda bom: _metrics(bom).append(_METRIC))),
    Insider("second_model_in_the_bill", 4, "E-CLAIM-025", defect=_bom(lambda bom: bom["components"].append(_SECOND))),
    Insider("other_utility_in_the_bill", 4, "E-CLAIM-025", defect=_bom(lambda bom: _metrics(bom)[-1].update(value="0.99"))),
    Insider(
        "epsilon_as_a_property",
        4,
        "E-CLAIM-025",
        defect=_bom(
            lambda bom: bom["metadata"]["component"]["properties"].append({"name": "dp: epsilon", "value": _KINDER}),
        ),
    ),
    Insider(
        "epsilon_as_utility_in_spdx",
        4,
        "E-CLAIM-026",
        defect=_papers(
            "spdx_document", lambda d: d.replace(b"utility: train.holdout_accuracy", b"utility: differential privacy")
        ),
    ),
)
