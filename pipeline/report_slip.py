"""Rows of the report on what slips through detection: planted, missed and the upper bound, type by type.

Guarantee: counts and bounds of the stored document alone; a document of another form gives a row that says so.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.report_page import Figure
from pipeline.report_words import Words, datum, say
from privacy.canonical import Digest, Json
from privacy.rounding import shown_up


def slip_figures(document: Json, source: Digest | None) -> tuple[Figure, ...]:
    """One row for all types together, then one a type; where nothing was planted, one that says so."""
    rows = _rows(document)
    level = document.get("level") if isinstance(document, Mapping) else None
    found = tuple(figure for name, counts in rows if (figure := _row(name, counts, level, source)) is not None)
    if found:
        return found
    return (
        Figure(
            "miss_bound", say("share that detection misses: upper bound"), say("no value was planted in this run"), "missing"
        ),
    )


def slip_bounds(document: Json) -> list[tuple[Words, float]]:
    """The upper bound of each type, for drawing."""
    found = []
    for name, counts in _rows(document)[1:]:
        bound = counts.get("miss_bound")
        if isinstance(bound, int | float) and not isinstance(bound, bool):
            found.append((datum(name), float(bound)))
    return found


def _rows(document: Json) -> list[tuple[str, Mapping[str, Json]]]:
    match document:
        case {"level": int() | float(), "types": dict(types), "all": dict(whole)}:
            together = {**whole, "planted": whole.get("canaries_planted"), "missed": whole.get("canaries_missed")}
            return [("", together), *((name, c) for name, c in sorted(types.items()) if isinstance(c, Mapping))]
    return []


def _row(name: str, counts: Mapping[str, Json], level: Json, source: Digest | None) -> Figure | None:
    match counts:
        case {"planted": int(planted), "missed": int(missed), "miss_bound": int() | float() as bound}:
            said = say(
                "{missed} of {planted} planted values; at most a share of {bound}, at confidence {level}",
                missed=missed,
                planted=planted,
                bound=shown_up(float(bound)),
                level=level,
            )
            label = say("missed by detection: {name}", name=name or say("all types"))
            return Figure(f"miss_bound_{name}" if name else "miss_bound", label, said, "measured", source)
    return None
