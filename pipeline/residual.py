"""The second look: personal data that is still in a de-identified column, as a Great Expectations expectation of ours.

Guarantee: every text of the column is scanned by the pattern recognizers (no model, so it can't be missing); types that
the policy keeps on purpose do not count, nor do surrogates and moved dates of ours; the expectation reports counts only.
Not covered: what no pattern knows (names in free text above all); this is a check of the treatment, not of recall.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from privacy.detect import Detector, build_pattern_detector

if TYPE_CHECKING:
    from types import ModuleType

METRIC = "column_values.without_residual_pii"
EXPECTATION = "expect_column_values_to_hold_no_residual_pii"


def quiet_great_expectations() -> ModuleType:
    """Import Great Expectations with analytics off and its log quiet; both must be said before the first import."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations

    # One of its modules sets a level of its own while it is imported, and would log paths at INFO.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("great_expectations."):
            logging.getLogger(name).setLevel(logging.NOTSET)
    return great_expectations


_own_detector: ContextVar[Detector | None] = ContextVar("detector", default=None)


@contextmanager
def looking_with(detector: Detector) -> Iterator[None]:
    """The expectation uses this detector inside; Great Expectations passes on nothing but plain values."""
    token = _own_detector.set(detector)
    try:
        yield
    finally:
        _own_detector.reset(token)


def without_residual(texts: Iterable[str], kept: Sequence[str], score_threshold: float) -> list[bool]:
    """For each text: whether the pattern recognizers (those of `looking_with`) find nothing in it but types of `kept`."""
    detector = _own_detector.get() or _detector(score_threshold)
    found = detector.analyze_batch(list(texts), "en")  # the language does not matter to patterns
    allowed = frozenset(kept)
    return [all(finding.entity in allowed for finding in findings) for findings in found]


@lru_cache(maxsize=4)
def _detector(score_threshold: float) -> Detector:
    return build_pattern_detector(score_threshold)


@lru_cache(maxsize=1)
def residual_expectation() -> type[Any]:
    """The expectation class; made on first use because its base classes come with the heavy import.

    Parameters: column; mostly (share of texts that must be without a finding); kept; score_threshold.
    """
    quiet_great_expectations()
    engine: Any = importlib.import_module("great_expectations.execution_engine").PandasExecutionEngine
    metrics: Any = importlib.import_module("great_expectations.expectations.metrics")
    base: Any = importlib.import_module("great_expectations.expectations.expectation").ColumnMapExpectation

    class ColumnValuesWithoutResidualPii(metrics.ColumnMapMetricProvider):  # type: ignore[misc]
        condition_metric_name = METRIC
        condition_value_keys = ("kept", "score_threshold")

        @metrics.column_condition_partial(engine=engine)  # type: ignore[untyped-decorator]
        def _pandas(cls: Any, column: Any, kept: Sequence[str], score_threshold: float, **_: object) -> Any:
            import pandas as pd

            return pd.Series(without_residual(column, kept, score_threshold), index=column.index, dtype=bool)

    class ExpectColumnValuesToHoldNoResidualPii(base):  # type: ignore[misc]
        """No pattern recognizer finds personal data in the column."""

        map_metric = METRIC
        success_keys = ("mostly", "kept", "score_threshold")
        library_metadata: ClassVar[dict[str, object]] = {}
        kept: list[str] = []  # noqa: RUF012  (a pydantic field)
        score_threshold: float = 0.0

    return ExpectColumnValuesToHoldNoResidualPii
