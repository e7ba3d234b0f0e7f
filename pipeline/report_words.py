"""What a report says, in English and Chinese at once: a sentence is written in English, its Chinese stands in a table.

Guarantee: both texts are made from the same parts, so that no figure differs between the languages; a test holds that every
English sentence of the report has a Chinese one with the same placeholders.
Decision: names (checks, types, digests, roles) and what was recorded and signed as a sentence (reasons of verdicts and of
approvals) stay as they were recorded; a check is explained beside it in the reader's language.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from privacy.canonical import Json

Language = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Words:
    """One text of the report in both languages."""

    en: str
    zh: str

    def of(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en

    def to_json(self) -> Json:
        return {"en": self.en, "zh": self.zh}


NOTHING: Final = Words("", "")


def datum(text: object) -> Words:
    """What is the same in every language: a name, a number, a digest, a recorded sentence."""
    return Words(str(text), str(text))


def say(sentence: str, **parts: object) -> Words:
    """A sentence of the table; parts: what goes into its {placeholders}, Words or anything that has a text."""
    from pipeline.report_zh import CHINESE

    chinese = CHINESE.get(sentence, sentence)  # a sentence without one stops no run; the test of the table finds it
    return Words(_filled(sentence, parts, "en"), _filled(chinese, parts, "zh"))


def joined(items: Iterable[Words], en: str = ", ", zh: str = "、") -> Words:
    listed = list(items)
    return Words(en.join(w.en for w in listed), zh.join(w.zh for w in listed))


def _filled(template: str, parts: dict[str, object], language: Language) -> str:
    return (
        template.format(**{k: v.of(language) if isinstance(v, Words) else v for k, v in parts.items()}) if parts else template
    )
