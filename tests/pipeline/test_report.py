"""The report and the model card: what they say, what they never say, and that nothing of the policy becomes markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from pipeline.report_page import Figure, Plot, Report, Section
from pipeline.report_plots import bounds_plot, budget_plot, counts_plot, utility_plot
from privacy.verdict import Outcome, Verdict
from tests.worlds.release_world import World

HOSTILE = '<script>alert(1)</script> & "quotes" | `code` [link](https://evil.example)\n---\nepsilon: 0.0'
CLAIMED = re.compile(r"\b(compliant|compliance|anonymous|anonymised|anonymized|safe|safely|guaranteed)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"), custody="demo")
    made.draws = True
    return made.run().sign_quorum()


@pytest.fixture(scope="module")
def bundle(world: World) -> Path:
    return world.release().path


class Page(HTMLParser):
    """Collects tags and attributes, and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_loads_nothing(bundle: Path) -> None:
    text = (bundle / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "base"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert tag == "img"
            assert str(attributes["src"]).startswith("data:image/svg+xml;base64,")
        if "href" in attributes:
            assert str(attributes["href"]).startswith("#")
    assert "default-src 'none'" in text
    assert sum(tag == "img" for tag, _ in page.tags) == 4


def test_every_section_of_the_report_is_there(bundle: Path) -> None:
    value = json.loads((bundle / "report.json").read_bytes())
    keys = [s["key"] for s in value["sections"]]
    assert keys == [
        "identity",
        "claim",
        "audit",
        "personal-data",
        "validation",
        "utility",
        "decisions",
        "lifecycle",
        "verify",
    ]
    assert value["claim"]["steps"] == 20


def test_page_and_json_hold_the_same_figures(bundle: Path) -> None:
    value = json.loads((bundle / "report.json").read_bytes())
    text = " ".join(Page((bundle / "report.html").read_text()).text)
    for section in value["sections"]:
        for figure in section["figures"]:
            assert figure["label"] in text
            assert figure["value"] in text
            assert figure["basis"] in {"measured", "asserted by a person", "configured", "not applicable"}
        for verdict in section["verdicts"]:
            assert verdict["check"] in text


def test_a_measured_figure_of_a_document_names_the_digest_it_came_from(bundle: Path, world: World) -> None:
    value = json.loads((bundle / "report.json").read_bytes())
    claim = next(s for s in value["sections"] if s["key"] == "claim")
    noise = next(f for f in claim["figures"] if f["label"] == "noise multiplier")
    files = {f["path"]: f["sha256"] for f in json.loads((bundle / "evidence.json").read_bytes())["files"]}
    assert noise["source"] == files["trace.json"]


def test_it_never_claims_what_no_tool_can_know(bundle: Path) -> None:
    text = " ".join(Page((bundle / "report.html").read_text()).text) + (bundle / "CARD.md").read_text()
    assert CLAIMED.findall(text) == []


def test_it_says_where_keys_lie_and_how_long_data_stays(bundle: Path) -> None:
    sections = {s["key"]: s for s in json.loads((bundle / "report.json").read_bytes())["sections"]}
    held = [f["value"] for f in sections["identity"]["figures"] if f["label"].startswith("key holder ")]
    assert any(value.endswith("key held by the pipeline, in its home") for value in held)
    kept = [f["value"] for f in sections["lifecycle"]["figures"] if "days" in f["value"]]
    assert kept == ["90 days", "365 days", "30 days", "at most 30 days"]


def test_every_epsilon_is_shown_rounded_up_and_every_bound_down(bundle: Path) -> None:
    sections = {s["key"]: s for s in json.loads((bundle / "report.json").read_bytes())["sections"]}
    epsilon = json.loads((bundle / "trace.json").read_bytes())["epsilon"]
    shown = next(f["value"] for f in sections["claim"]["figures"] if f["label"] == "epsilon")
    assert epsilon <= float(shown) <= epsilon + 1e-4
    claims = re.findall(r"at epsilon ([0-9.]+[0-9])", " ".join(sections["claim"]["text"]))
    claims += re.findall(r"at epsilon ([0-9.]+[0-9])", (bundle / "CARD.md").read_text())
    assert len(claims) == 2
    assert all(float(value) >= epsilon for value in claims)
    listed = json.loads((bundle / "audit" / "bounds.json").read_bytes())["bounds"]
    bounds = [f["value"] for f in sections["audit"]["figures"] if f["label"].startswith("epsilon lower bound")]
    assert len(bounds) == len(listed)
    for value, bound in zip(bounds, listed, strict=True):
        assert float(value.split(" ")[0]) <= bound["epsilon_lower_bound"]


def test_demo_signatures_are_called_what_they_are(bundle: Path) -> None:
    text = " ".join(Page((bundle / "report.html").read_text()).text)
    assert "grace signed as a demo identity" in text
    assert "no person decided anything" in text


def test_text_of_a_policy_never_becomes_markup(tmp_path: Path) -> None:
    world = World(tmp_path, **{"purpose": HOSTILE, "controller": HOSTILE[:190]}).run().sign_quorum()  # type: ignore[arg-type]
    bundle = world.release().path
    page = Page((bundle / "report.html").read_text())
    assert "script" not in {tag for tag, _ in page.tags}
    card = (bundle / "CARD.md").read_text()
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["privacy"]["epsilon"] > 1
    assert "<script>" not in body
    assert "\n---\n" not in body
    assert "\nepsilon: 0.0" not in card


def test_the_card_says_the_claim_of_the_trace(bundle: Path) -> None:
    trace = json.loads((bundle / "trace.json").read_bytes())
    head = yaml.safe_load((bundle / "CARD.md").read_text().split("---\n")[1])
    for name in ("epsilon", "delta", "privacy_unit", "noise_multiplier", "steps"):
        assert head["privacy"][name] == trace[name]
    assert head["language"] == ["en", "zh"]


def test_three_verdicts_look_different() -> None:
    outcomes: tuple[Outcome, ...] = ("passed", "failed", "not_evaluated")
    section = Section("a", "A", verdicts=tuple(Verdict(o, o, "seen") for o in outcomes))
    text = Report("t", "now", None, (Figure("<b>", "<i>", "measured"),), (section,)).html_bytes().decode()
    for outcome in outcomes:
        assert f'class="verdict {outcome}"' in text
    assert "<b>" not in text


def test_a_model_that_is_not_private_gets_a_report_without_a_claim(tmp_path: Path) -> None:
    world = World(tmp_path, **{"recipe.mechanism": "non_private"}).run()  # type: ignore[arg-type]
    store = world.home.store
    value = json.loads(store.read_plain(world.assembled.manifest.outputs["report.json"]))
    assert value["claim"] is None
    card = store.read_plain(world.assembled.manifest.outputs["CARD.md"]).decode()
    assert "may not be released" in card


def test_drawings_are_repeatable_and_labels_are_not_read_as_formulas() -> None:
    draws: tuple[Callable[[], Plot], ...] = (
        lambda: budget_plot(3.0, 2.0, 8.0, "customer"),
        lambda: bounds_plot([("$x^2$ & <b>", 1.0), ("gaussian", 9.0)], 3.0),
        lambda: counts_plot([(f"TYPE_{n}", float(n)) for n in range(40)]),
        lambda: utility_plot([("accuracy", 0.8)]),
    )
    for draw in draws:
        first = draw()
        assert first.svg == draw().svg
        assert b"<script" not in first.svg
    assert b"$x^2$ &amp; &lt;b" in bounds_plot([("$x^2$ & <b>", 1.0)], 3.0).svg
    assert "findings in 40 types" in counts_plot([(f"TYPE_{n}", float(n)) for n in range(40)]).caption
