"""Every sentence of the report has a Chinese one, with the same placeholders, and none claims what no tool can know."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest

from pipeline.crosswalk import sources
from pipeline.evidence import _ASKED, REQUIRED_VERDICTS
from pipeline.images import NOT_SEARCHED
from pipeline.report_terms import CHECKS, TERMS, explained
from pipeline.report_words import Words, say
from pipeline.report_zh import CHINESE
from pipeline.safe_harbor import IDENTIFIERS
from pipeline.slip_through import SENTENCE
from privacy.entities import ENTITY_TYPES

PIPELINE = Path(__file__).resolve().parents[2] / "pipeline"
SAME = {"epsilon", "Airflow DAG", "{kind}: {name}", "{decision} by {signer} as {role}"}  # names, the same in both
HAN = re.compile(r"[\u4e00-\u9fff]")


def sentences() -> dict[str, str]:
    """First arguments of `say` in the modules of the report; constants of other modules are passed by name."""
    found = {NOT_SEARCHED: "images.py", SENTENCE: "slip_through.py"}
    for path in [*PIPELINE.glob("report*.py"), *PIPELINE.glob("crosswalk*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    found[str(first.value)] = path.name
                else:
                    assert isinstance(first, ast.Name), f"{path.name}: a sentence that no test can look up"
                    assert first.id in ("NOT_SEARCHED", "SENTENCE"), first.id
    return found


def placeholders(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_every_sentence_has_a_chinese_one_and_none_is_left_over() -> None:
    used = sentences()
    assert len(used) > 200
    assert sorted(text for text in used if text not in CHINESE) == []
    assert sorted(text for text in CHINESE if text not in used) == []


def test_both_languages_have_the_same_placeholders_and_chinese_is_chinese() -> None:
    for english, chinese in CHINESE.items():
        assert placeholders(english) == placeholders(chinese), english
        assert HAN.search(chinese) or english in SAME, english


def test_a_sentence_without_a_translation_is_shown_in_english_and_parts_go_into_both() -> None:
    assert say("no such sentence {x}", x=1) == Words("no such sentence 1", "no such sentence 1")
    assert say("{days} days", days=3) == Words("3 days", "3 天")


def test_every_term_check_and_row_has_both_languages() -> None:
    for english, chinese in ((w.en, w.zh) for w in (*CHECKS.values(), *TERMS.values())):
        assert english
        assert chinese
    for source in sources():
        for row in source.rows:
            assert HAN.search(row.asks.zh), row.article
            assert bool(row.note.en) == bool(row.note.zh), row.article
    for identifier in IDENTIFIERS:
        assert HAN.search(identifier.name.zh)
        assert set(identifier.types) <= ENTITY_TYPES
    assert [i.letter for i in IDENTIFIERS] == list("ABCDEFGHIJKLMNOPQR")


@pytest.mark.parametrize("check", sorted({*REQUIRED_VERDICTS, *_ASKED}))
def test_every_verdict_that_a_release_needs_is_explained(check: str) -> None:
    assert check in CHECKS
    assert HAN.search(explained(check).zh)
