"""Rows of the report on what slips through detection: planted, missed and the upper bound, type by type.

Guarantee: counts and bounds of the stored document alone; a document of another form gives no row.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.report_page import Figure
from privacy.canonical import Digest, Json
from privacy.rounding import shown_up


def slip_figures(document: Json, source: Digest | None) -> tuple[Figure, ...]:
    """One row for all types together, then one a type."""
    match document:
        case {"level": int() | float() as level, "types": dict(types), "all": dict(whole)}:
            rows: list[tuple[str, Mapping[str, Json]]] = [
                ("all types", {**whole, "planted": whole.get("canaries_planted"), "missed": whole.get("canaries_missed")})
            ]
            rows += [(name, counts) for name, counts in sorted(types.items()) if isinstance(counts, Mapping)]
            return tuple(figure for name, counts in rows if (figure := _row(name, counts, float(level), source)) is not None)
    return ()


def _row(name: str, counts: Mapping[str, Json], level: float, source: Digest | None) -> Figure | None:
    match counts:
        case {"planted": int(planted), "missed": int(missed), "miss_bound": int() | float() as bound}:
            said = f"{missed} of {planted} planted values; at most a share of {shown_up(float(bound))}, at confidence {level}"
            return Figure(f"missed by detection: {name}", said, "measured", source)
    return None
