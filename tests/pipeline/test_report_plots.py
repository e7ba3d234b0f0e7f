"""The drawings: the same bytes for the same numbers, text as text in both languages, nothing read as markup."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from pipeline.report_page import Plot
from pipeline.report_plots import bounds_plot, budget_plot, counts_plot, groups_plot, roc_plot, slip_plot, utility_plot
from pipeline.report_svg import FONTS
from pipeline.report_words import LANGUAGES, Words, datum

T0 = datetime(2026, 11, 1, tzinfo=UTC)
HOSTILE = "$x^2$ & <b> \"'</svg>"
DRAWN: tuple[Callable[[], Plot], ...] = (
    lambda: budget_plot([(T0, 0.0, 8.0), (T0 + timedelta(days=3), 2.5, 8.0), (T0 + timedelta(days=5), 2.5, 12.0)], T0, HOSTILE),
    lambda: budget_plot([(T0, 1.0, 8.0)], T0, "customer"),
    lambda: bounds_plot([(datum(HOSTILE), 1.0), (Words("Gaussian", "高斯"), 9.0)], 3.0),
    lambda: bounds_plot([(datum("none"), 0.0)], 3.0),
    lambda: counts_plot([(datum(f"TYPE_{n}"), float(n)) for n in range(40)]),
    lambda: slip_plot([(datum("PERSON"), 0.2), (datum("EMAIL"), 1.0)]),
    lambda: utility_plot([(datum("accuracy"), 0.8)], False),
    lambda: groups_plot("channel", [(datum("电话" * 40), 0.8), (datum("mail"), 0.0)], 0.81),
    lambda: roc_plot([(datum("loss"), [(0.0, 0.0), (0.01, 0.02), (1.0, 1.0)])]),
)


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize("language", LANGUAGES)
def test_drawings_are_repeatable_whole_and_never_markup(draw: Callable[[], Plot], language: str) -> None:
    svg = draw().draw(language)  # type: ignore[arg-type]
    assert svg == draw().draw(language)  # type: ignore[arg-type]
    root = ElementTree.fromstring(svg)  # well-formed: every label was escaped
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "text", "rect", "line", "path", "polyline"}
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    for element in root.iter():
        assert "nan" not in "".join(element.attrib.values())
        for name, most in (("x", width), ("y", height), ("x1", width), ("y2", height)):
            if name in element.attrib:
                assert 0 <= float(element.attrib[name]) <= most
    assert "Noto Sans CJK SC" in FONTS
    assert root.attrib["font-family"] == FONTS


def test_labels_are_in_the_readers_language_and_numbers_are_not() -> None:
    plot = bounds_plot([(Words("Gaussian", "高斯"), 1.23456)], 3.0)
    assert "Gaussian" in plot.draw("en")
    assert "高斯" in plot.draw("zh")
    assert "声明 3" in plot.draw("zh")
    assert "1.2345<" in plot.draw("en")  # a bound is rounded down
    assert "1.2345" in plot.text.zh


def test_a_bar_past_the_claim_is_red_and_one_below_is_not() -> None:
    assert "#b23b3b" in bounds_plot([(datum("x"), 4.0)], 3.0).draw("en").split("<rect", 1)[1].split("/>")[0]
    assert "#b23b3b" not in bounds_plot([(datum("x"), 2.0)], 3.0).draw("en").split("<rect", 1)[1].split("/>")[0]


def test_many_types_are_summed_up_and_counted() -> None:
    plot = counts_plot([(datum(f"TYPE_{n}"), float(n)) for n in range(40)])
    assert "780 findings in 40 types" in plot.caption.en
    assert "other types" in plot.draw("en")
    assert plot.draw("en").count("<rect") == 17


def test_without_a_model_without_privacy_the_drawing_says_so() -> None:
    assert "No model without differential privacy" in utility_plot([(datum("a"), 0.8)], False).caption.en
    assert "No model" not in utility_plot([(datum("a"), 0.8)], True).caption.en


def test_the_budget_is_drawn_as_steps_under_its_cap() -> None:
    plot = DRAWN[0]()
    assert "epsilon 2.5 of the cap 12" in plot.caption.en
    assert "2026-11-04 00:00: 2.5 / 8" in plot.text.en
    path = plot.draw("en").split('<path d="')[2].split('"')[0]
    assert set("".join(c for c in path if c.isalpha())) == {"M", "H", "V"}
