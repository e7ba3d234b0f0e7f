"""Coordinates: pairs and single ones, by key, by written form, and by precision where nothing else speaks for them.

No coordinate has a checksum: range, precision and key decide. Two small decimals beside each other in a machine's line are
a metric unless a key says otherwise.
"""

from __future__ import annotations

import re

from privacy.recognizers.spec import KEY, SEP, Candidate, Recognizer, compiled

_REASON = "no checksum; range, precision and key decide"
_CUE = compiled(r"(?:lat|lon|lng|gps|geo|coord|location|position|point|ll=|q=|@|map|near)[^\n]{0,24}\Z")
_NUMBER = re.compile(r"-?[0-9]{1,3}\.[0-9]+")


def _pair(found: Candidate) -> float:
    values = [float(v) for v in _NUMBER.findall(found.value)]
    if len(values) != 2 or not (abs(values[0]) <= 180 and abs(values[1]) <= 180 and min(map(abs, values)) <= 90):
        return 0.0
    cue = _CUE.search(found.before(40)) is not None
    fine = all(len(v.split(".")[1]) >= 4 for v in _NUMBER.findall(found.value))
    if cue:
        return 0.85
    return 0.6 if fine and not found.log and max(map(abs, values)) > 1 else 0.0


def _single(found: Candidate) -> float:
    return 0.85 if abs(float(found.value)) <= 180 else 0.0


PLACES: tuple[Recognizer, ...] = (
    Recognizer(
        "gps_pair",
        "GPS_LOCATION",
        compiled(
            r"(?<![0-9A-Za-z.-])-?[0-9]{1,3}\.[0-9]{2,15}°?(?: ?[NS])?(?:\s{0,2}[,;/]\s{0,2}|\s|%2C)-?[0-9]{1,3}\.[0-9]{2,15}"
            r"(?:°? ?[EW](?![A-Za-z]))?(?![0-9]|\.[0-9])"
        ),
        0.85,
        _REASON,
        check=_pair,
        words=(".",),
        digits=4,
    ),
    Recognizer(
        "gps_key",
        "GPS_LOCATION",
        compiled(
            KEY + r"(?:lat(?:itude)?|lng|lon(?:g|gitude)?|纬度|经度)" + SEP + r"(-?[0-9]{1,3}\.[0-9]{2,15})(?![0-9]|\.[0-9])"
        ),
        0.85,
        _REASON,
        group=1,
        check=_single,
        words=("lat", "ln", "lon", "纬度", "经度"),
        digits=3,
    ),
    Recognizer(
        "gps_degrees",
        "GPS_LOCATION",
        compiled(
            r"(?<![0-9.])[0-9]{1,3}°\s?[0-9]{1,2}['′]\s?(?:[0-9]{1,2}(?:\.[0-9]{1,6})?(?:\"|''|′′)\s?)?[NS][ ,]{1,3}"
            r"[0-9]{1,3}°\s?[0-9]{1,2}['′]\s?(?:[0-9]{1,2}(?:\.[0-9]{1,6})?(?:\"|''|′′)\s?)?[EW](?![A-Za-z])"
        ),
        0.9,
        "no checksum; degrees, minutes and a point of the compass",
        words=("°",),
        digits=4,
    ),
)
