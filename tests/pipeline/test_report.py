"""The report and the model card: what they say, what they never say, and that nothing of the policy becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from pipeline.report_html import page
from pipeline.report_page import BASES, Figure, Report, Section
from pipeline.report_words import LANGUAGES, datum
from privacy.verdict import Outcome, Verdict
from tests.worlds.release_world import World
from tests.worlds.report_world import facts_of, full_report

HOSTILE = '<script>alert(1)</script> & "quotes" | `code` [link](https://evil.example)\n---\nepsilon: 0.0'
CLAIMED = re.compile(
    r"\b(?:complian(?:t|ce)|complies|anonymous|anonymi[sz]ed|safe|safely|guaranteed|certified)\b"
    r"|合规|匿名|(?:是|很|完全|绝对|足够)安全|安全(?:的|可靠|无虞)",  # 安全 alone is also security, the subject of standards
    re.IGNORECASE,
)
NAMES_OF_LAWS = re.compile(r"HIPAA Safe Harbor|SAFE_HARBOR|hipaa-safe-harbor")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), custody="demo").run().sign_quorum()


@pytest.fixture(scope="module")
def bundle(world: World) -> Path:
    return world.release().path


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return full_report(tmp_path_factory.mktemp("full"))


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
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.text).split())


def named(value: object, section: str, key: str) -> dict[str, str]:
    sections = {s["key"]: s for s in value["sections"]}  # type: ignore[index]
    return next(f for f in sections[section]["figures"] if f["key"] == key)


@pytest.mark.parametrize("name", ["report.html", "report.zh.html"])
def test_the_page_is_whole_and_loads_nothing(bundle: Path, name: str) -> None:
    text = (bundle / name).read_text()
    shown = Page(text)
    assert shown.open == []
    names = {tag for tag, _ in shown.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "base", "img", "image", "use", "foreignobject"}
    for _, attributes in shown.tags:
        assert not any(word.startswith("on") or word in ("src", "xlink:href") for word in attributes)
        assert str(attributes.get("href", "#")).startswith("#")
        assert "url(" not in str(attributes.get("style", ""))
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text
    assert sum(tag == "svg" for tag, _ in shown.tags) >= 4


def test_the_report_has_eight_sections_in_order_and_crosswalks_behind_them(bundle: Path) -> None:
    value = json.loads((bundle / "report.json").read_bytes())
    wanted = ["identity", "claim", "audit", "personal-data", "utility", "lifecycle", "decisions", "verify"]
    assert [s["key"] for s in value["sections"]] == wanted
    for name in ("report.html", "report.zh.html"):
        shown = [str(a.get("id")) for tag, a in Page((bundle / name).read_text()).tags if tag == "section"]
        assert shown == [*wanted, "crosswalks"]
    assert value["claim"]["steps"] == 20


# What a report has to hold, section by section; a figure of that name has to be there, measured or with a reason.
FIELDS = {
    "identity": "model_digest dataset_digest policy_digest code_digest lockfile run dag tools holder_ada time_source "
    "requested_by",
    "claim": "privacy_unit max_records_per_unit neighbouring_relation epsilon delta delta_population curve mechanism "
    "clipping_norm noise_multiplier sampling_probability steps sampler divisor accountant second_accountant amplification "
    "released search pretrained outside_mechanism randomness spent cap trust_model side_channels collection noise_source "
    "exact_outputs runs",
    "audit": "lower_bound_gaussian_traced_0.999 probe_noise_scale canaries coins coins_entry coins_drawn_by "
    "membership.attacks.loss.auc exposure memorisation gate_level report_level shadows",
    "personal-data": "recall precision miss_bound steward_review treatment validate_residual_pii entities redaction.leaks",
    "utility": "holdout_accuracy majority_accuracy non_private_accuracy groups swaps.changed_rate limits min_group",
    "lifecycle": "source lawful_basis raw vault deletion_proof key_epochs key_rotations access_log erased_records",
    "decisions": "gate_use gate_release approval_1 rejections break_glass open_risks reapproval",
    "verify": "checkpoint_size checkpoint_root pipeline_key",
}


def test_every_field_of_the_checklist_is_there_and_none_is_blank(bundle: Path) -> None:
    value = json.loads((bundle / "report.json").read_bytes())
    for section in value["sections"]:
        keys = [f["key"] for f in section["figures"]]
        assert len(keys) == len(set(keys))
        assert [key for key in FIELDS[section["key"]].split() if key not in keys] == []
        for figure in section["figures"]:
            assert figure["basis"] in BASES
            assert figure["label"].strip()
            assert figure["label_zh"].strip()
            assert figure["value"].strip()
            assert figure["value_zh"].strip()


def test_evidence_that_is_not_there_is_called_missing_and_says_why(bundle: Path) -> None:
    value = json.loads((bundle / "report.json").read_bytes())
    for section, key in (("personal-data", "recall"), ("personal-data", "miss_bound"), ("lifecycle", "lawful_basis")):
        figure = named(value, section, key)
        assert figure["basis"] == "missing"
        assert len(figure["value"]) > 20
        assert figure["source"] is None
    assert named(value, "audit", "exposure")["basis"] == "not applicable"  # a model that writes no texts


def test_page_and_json_hold_the_same_figures_in_both_languages(full: Report) -> None:
    value = json.loads(full.json_bytes())
    for language, suffix in (("en", ""), ("zh", "_zh")):
        text = Page(page(full, language).decode()).said
        for section in value["sections"]:
            for figure in section["figures"]:
                assert " ".join(figure["label" + suffix].split()) in text
                assert " ".join(figure["value" + suffix].split()) in text
            for verdict in section["verdicts"]:
                assert verdict["check"] in text
                assert verdict["explained"][language] in text
            for plot in section["plots"]:
                assert plot["caption"][language] in text
        for crosswalk in value["crosswalks"]:
            for row in crosswalk["rows"]:
                assert " ".join(row["asks"][language].split()) in text


def test_figures_do_not_differ_between_the_languages(full: Report) -> None:
    numbers = re.compile(r"\d[\d,.]*\d|\d")
    for section in full.sections:
        for figure in section.figures:
            assert sorted(numbers.findall(figure.value.en)) == sorted(numbers.findall(figure.value.zh)), figure.key


def test_numbers_of_the_audits_documents_are_all_shown(full: Report) -> None:
    text = Page(page(full, "en").decode()).said
    said = {f.key: f.value.en for s in full.sections for f in s.figures}
    assert said["membership.attacks.loss.auc"] == "0.53"
    assert said["membership.attacks.loss.auc_interval"] == "0.48 – 0.58"
    assert said["membership.attacks.loss.tpr_at_fpr.fpr=0.01.tpr"] == "0.02"
    assert "membership inference · attacks · loss · members found · at 0.1 % false alarms" in text
    assert said["exposure.control.mean_bits"] == "1.5"
    assert said["groups.channel.gap_interval"] == "0 – 0.1"
    assert said["swaps.changed_rate"] == "0.01"
    assert said["miss_bound_PERSON"].startswith("1 of 20")
    assert not any(key.startswith("membership") and "roc" in key for key in said)  # points of a curve are drawn, not listed


def test_a_measured_figure_of_a_document_names_the_digest_it_came_from(bundle: Path) -> None:
    value = json.loads((bundle / "report.json").read_bytes())
    files = {f["path"]: f["sha256"] for f in json.loads((bundle / "evidence.json").read_bytes())["files"]}
    assert named(value, "claim", "noise_multiplier")["source"] == files["trace.json"]
    assert named(value, "audit", "lower_bound_gaussian_traced_0.999")["source"] == files["audit/bounds.json"]
    assert named(value, "personal-data", "redaction.leaks")["source"] == files["audit/redaction.json"]
    assert named(value, "identity", "model_digest")["value"] == files["model.safetensors"]
    assert files["report.zh.html"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_never_claims_what_no_tool_can_know(full: Report, bundle: Path, language: str) -> None:
    text = Page(page(full, language).decode()).said + (bundle / "CARD.md").read_text()  # type: ignore[arg-type]
    assert CLAIMED.findall(NAMES_OF_LAWS.sub("", text)) == []
    assert CLAIMED.search("this model is compliant and safe")
    assert len(CLAIMED.findall("该模型合规、匿名，是安全的")) == 3


def test_it_says_where_keys_lie_and_how_long_data_stays(bundle: Path) -> None:
    sections = {s["key"]: s for s in json.loads((bundle / "report.json").read_bytes())["sections"]}
    held = [f["value"] for f in sections["identity"]["figures"] if f["label"].startswith("key holder ")]
    assert any(value.endswith("key held by the pipeline, in its home") for value in held)
    kept = [f["value"] for f in sections["lifecycle"]["figures"] if "days" in f["value"]]
    assert kept == ["90 days", "365 days", "30 days", "at most 30 days"]


def test_every_epsilon_is_shown_rounded_up_and_every_bound_down(bundle: Path) -> None:
    value = json.loads((bundle / "report.json").read_bytes())
    sections = {s["key"]: s for s in value["sections"]}
    epsilon = json.loads((bundle / "trace.json").read_bytes())["epsilon"]
    assert epsilon <= float(named(value, "claim", "epsilon")["value"]) <= epsilon + 1e-4
    said = [*sections["claim"]["text"], *sections["claim"]["text_zh"]]
    claims = re.findall(r"(?:at epsilon |：epsilon )([0-9.]+[0-9])", " ".join(said))
    claims += re.findall(r"at epsilon ([0-9.]+[0-9])", (bundle / "CARD.md").read_text())
    assert len(claims) == 3
    assert all(float(claim) >= epsilon for claim in claims)
    listed = json.loads((bundle / "audit" / "bounds.json").read_bytes())["bounds"]
    bounds = [f["value"] for f in sections["audit"]["figures"] if f["label"].startswith("epsilon lower bound")]
    assert len(bounds) == len(listed)
    for value, bound in zip(bounds, listed, strict=True):
        assert float(value.split(" ")[0]) <= bound["epsilon_lower_bound"]


def test_the_plain_words_state_unit_relation_assumptions_and_what_is_not_covered(bundle: Path) -> None:
    value = json.loads((bundle / "report.json").read_bytes())
    claim = next(s for s in value["sections"] if s["key"] == "claim")
    table = " ".join(cell["en"] for row in claim["tables"][0]["rows"] for cell in row)
    for part in ("customer", "add-or-remove-one", "sampled independently", "Other uses of the same data", "2,977.9 times"):
        assert part in table
    card = (bundle / "CARD.md").read_text()
    assert "What is not covered?" in card
    assert "保护谁？" in card


def test_demo_signatures_are_called_what_they_are(bundle: Path) -> None:
    text = Page((bundle / "report.html").read_text()).said
    assert "grace signed as a demo identity" in text
    assert "no person decided anything" in text
    assert "没有任何人作出决定" in Page((bundle / "report.zh.html").read_text()).said


def test_text_of_a_policy_never_becomes_markup(tmp_path: Path) -> None:
    world = World(tmp_path, **{"purpose": HOSTILE, "controller": HOSTILE[:190]}).run().sign_quorum()  # type: ignore[arg-type]
    bundle = world.release().path
    for name in ("report.html", "report.zh.html"):
        assert "script" not in {tag for tag, _ in Page((bundle / name).read_text()).tags}
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
    section = Section("a", datum("A"), verdicts=tuple(Verdict(o, o, "seen") for o in outcomes))
    figure = Figure("f", datum("<b>"), datum("<i>"), "measured")
    text = page(Report(datum("t"), "now", None, (figure,), (section,)), "en").decode()
    for outcome in outcomes:
        assert f'class="verdict {outcome}"' in text
    assert "<b>" not in text


def test_a_model_that_is_not_private_gets_a_report_without_a_claim(tmp_path: Path) -> None:
    world = World(tmp_path, **{"recipe.mechanism": "non_private"}).run()  # type: ignore[arg-type]
    store = world.home.store
    value = json.loads(store.read_plain(world.assembled.manifest.outputs["report.json"]))
    assert value["claim"] is None
    assert named(value, "claim", "trust_model")["basis"] == "configured"
    card = store.read_plain(world.assembled.manifest.outputs["CARD.md"]).decode()
    assert "may not be released" in card


def test_a_broken_gate_is_loud_in_every_later_report(tmp_path: Path) -> None:
    world = World(tmp_path).run()
    told = {"run": "run-0", "evidence_root": "sha256:" + "0" * 64, "policy_name": "test_chat", "people": ["ada", "grace"]}
    world.home.journal.append("break_glass", told)
    from pipeline.report import report_of

    figures = {f.key: f for s in report_of(facts_of(world)).sections for f in s.figures}
    assert "1 entries" in figures["break_glass"].value.en


def test_a_document_of_another_form_stops_nothing(tmp_path: Path) -> None:
    from pipeline.report import report_of

    world = World(tmp_path).run()
    odd = {
        "attacks": ["x", None, {"membership": 3}],
        "harm": {"groups": [1, 2], "swaps": "off"},
        "bounds": 7,
        "slip_through": [],
    }
    made = report_of(facts_of(world, odd))  # type: ignore[arg-type]
    figures = {f.key: f for s in made.sections for f in s.figures}
    assert figures["lower_bound"].basis == "missing"
    assert figures["miss_bound"].basis == "missing"
    assert Page(page(made, "en").decode()).open == []
