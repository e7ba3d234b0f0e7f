"""Phone numbers of few digits, or grouped in any way, in talk: a word of calling before them decides.

Guarantee: never in machine-written lines, where such numbers count things.
Not covered: short numbers without such a word; the forms that need none are `recognizers.phones`.
"""

from __future__ import annotations

from privacy.recognizers.spec import LEFT, RIGHT, Candidate, Recognizer, compiled

_REASON = "no checksum exists; in talk, a word of calling before the digits decides"


def _callable(found: Candidate) -> float:
    """Seven to fifteen digits; without any grouping only after a word that asks for a call."""
    return 0.6 if 7 <= len(found.digits) <= 15 and not found.joined() else 0.0


def _local(found: Candidate) -> float:
    """Not two years, and nothing that a word before it counts."""
    parts = found.value.split("-" if "-" in found.value else " ")
    years = len(parts) == 2 and all(len(part) == 4 and part[:2] in ("19", "20") for part in parts)
    return 0.0 if years or found.counted() or found.joined() else 0.42


CALLS: tuple[Recognizer, ...] = (
    Recognizer(
        "phone_called",
        "PHONE_NUMBER",
        compiled(
            LEFT
            + r"(?:answer(?:ing|ed|s)?|ring(?:ing)?|rang|dial(?:l?ing|l?ed)?|call(?:ing|ed|s)?|phon(?:ing|ed)|reach(?:ed|ing)?"
            r"|reachable|voicemail|text(?:ing|ed)?|messag(?:e|es|ed|ing)|registered)"
            r"(?: (?:me|us|him|her|them|back|up|again|the|my|our|your|his|their|number|line|phone|is|was|to|at|on|via|under"
            r"|from)){0,4}"
            r"[ :]{1,2}([+(]?[0-9]{1,5}[0-9 ().-]{4,20}[0-9])" + RIGHT
        ),
        0.6,
        _REASON,
        group=1,
        check=_callable,
        words=("answer", "ring", "rang", "dial", "call", "phon", "reach", "voicemail", "text", "messag", "registered"),
        digits=7,
        conversation_only=True,
    ),
    Recognizer(
        "phone_few_digits",
        "PHONE_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z.,+/#$€£:-])(?<![0-9] )(?:[0-9]{2,3}[ -][0-9]{3}[ -][0-9]{2,3}"
            r"|[0-9]{2}([ -])[0-9]{2}\1[0-9]{2}\1[0-9]{2}"
            r"|[0-9]{3}[ -][0-9]{2}[ -][0-9]{3}"
            r"|[0-9]{3}[ -][0-9]{4}|[0-9]{4}[ -][0-9]{4}|[0-9]{2} [0-9]{6}|0[ -][0-9]{3}[ -][0-9]{2}[ -][0-9]{2}"
            r"|\([0-9]{2,4}\) ?[0-9]{3}[ -][0-9]{3,4})"
            r"(?![0-9A-Za-z%/]|[.:,-][0-9]| [0-9])"
        ),
        0.42,
        "no checksum exists; seven or eight digits, grouped as local numbers are, in talk only",
        check=_local,
        digits=7,
        conversation_only=True,
    ),
    Recognizer(
        "phone_lettered",
        "PHONE_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z])(?:m|t|p|f|o|ph|tel|desk|office|direct|home|work|landline|switchboard|extension|ext)[.:]{1,2} ?"
            r"([+(]?[0-9][0-9 ().-]{5,20}[0-9])" + RIGHT
        ),
        0.6,
        "no checksum exists; a letter of a signature before the digits decides",
        group=1,
        check=_callable,
        words=(":", "."),
        digits=7,
        conversation_only=True,
    ),
)
