"""Crosswalks refer to what exists, follow the evidence, and judge nothing; the registry entry fits the registry's layout."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import main
from pipeline.crosswalk import evaluated, names, source_of, sources
from pipeline.registry import Told, entry
from pipeline.report_page import Report, Section
from pipeline.report_terms import CHECKS
from privacy.errors import IntegrityError, PrivetError, UsageError
from tests.worlds.release_world import World
from tests.worlds.report_world import full_report


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return full_report(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return World(tmp_path_factory.mktemp("world"), custody="demo").run().sign_quorum().release().path


def row(report: Report, name: str, article: str) -> Any:
    crosswalk = next(c for c in report.crosswalks if c.name == name)
    return next(r for r in crosswalk.rows if r.article == article)


def test_all_the_texts_of_the_issue_are_there() -> None:
    assert names() == ("nist-800-226", "hipaa-safe-harbor", "gdpr", "edpb-dpia", "eu-ai-act", "pipl", "gbt-45654", "gbt-45652")
    articles = " ".join(r.article for r in source_of("gdpr").rows)
    assert all(f"Art. {number}" in articles for number in (5, 17, 25, 30, 32, 35))


def test_no_row_refers_to_a_figure_or_verdict_that_does_not_exist(full: Report) -> None:
    assert faults(full.sections, [r.evidence for s in sources() for r in s.rows]) == []
    # the guard itself: names that are none are found
    assert faults(full.sections, [("claim.epsilom", "verdict:probe.noise", "audit.no_*?")]) == [
        "claim.epsilom",
        "verdict:probe.noise",
        "audit.no_*",
    ]


def faults(sections: tuple[Section, ...], rows: list[tuple[str, ...]]) -> list[str]:
    keys = {f"{s.key}.{f.key}" for s in sections for f in s.figures}
    wrong = []
    for reference in (r.rstrip("?") for evidence in rows for r in evidence):
        known = reference.removeprefix("verdict:") in CHECKS if reference.startswith("verdict:") else any(
            fnmatchcase(key, reference) for key in keys
        )  # fmt: skip
        wrong += [] if known else [reference]
    return wrong


def test_the_state_of_a_row_follows_the_evidence(full: Report, tmp_path: Path) -> None:
    assert row(full, "gdpr", "Art. 25(1)").status == "present"
    assert row(full, "gdpr", "Art. 30(1)(e)").status == "not covered"
    lacking = row(full, "gdpr", "Art. 5(1)(a)")
    assert lacking.status == "absent"
    assert "lifecycle.lawful_basis (missing)" in lacking.note.en
    assert "缺少" in lacking.note.zh
    audit = next(s for s in full.sections if s.key == "audit")
    from dataclasses import replace

    failed = tuple(replace(v, outcome="failed") if v.check == "probe.noise_scale" else v for v in audit.verdicts)
    sections = tuple(replace(s, verdicts=failed) if s.key == "audit" else s for s in full.sections)
    again = replace(full, crosswalks=evaluated(sections))
    assert row(again, "gdpr", "Art. 25(1)").status == "absent"
    assert "verdict:probe.noise_scale (failed)" in row(again, "gdpr", "Art. 25(1)").note.en
    without = replace(full, crosswalks=evaluated(tuple(s for s in full.sections if s.key != "audit")))
    assert "no such verdict" in row(without, "gdpr", "Art. 25(1)").note.en


def test_safe_harbor_has_eighteen_rows_and_a_kept_type_is_no_evidence(full: Report, tmp_path: Path) -> None:
    crosswalk = next(c for c in full.crosswalks if c.name == "hipaa-safe-harbor")
    assert len(crosswalk.rows) == 18
    assert [r.status for r in crosswalk.rows].count("not covered") == 2  # biometrics and photographs
    assert crosswalk.rows[0].evidence == ("personal-data.treatment", "personal-data.entities.PERSON")
    kept = evaluated(full.sections, {"PERSON": "keep", "EMAIL_ADDRESS": "redact"})
    rows = next(c for c in kept if c.name == "hipaa-safe-harbor").rows
    assert rows[0].status == "absent"
    assert "Not treated: PERSON" in rows[0].note.en
    assert rows[5].status == "present"


def test_no_row_says_that_anything_is_met(full: Report) -> None:
    for crosswalk in full.crosswalks:
        for found in crosswalk.rows:
            said = f"{found.asks.en} {found.note.en} {found.status}".lower()
            assert "complian" not in said
            assert "fulfil" not in said
            assert found.status in ("present", "absent", "not covered")


def test_commands_print_crosswalks_of_a_bundle_and_alone(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "crosswalk", "list"]) == 0
    assert capsys.readouterr().out.split()[0] == "nist-800-226"
    assert main(["report", "crosswalk", "gdpr", str(bundle), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert {r["status"] for r in value["rows"]} == {"present", "absent", "not covered"}
    assert main(["report", "crosswalk", "pipl", "--language", "zh"]) == 0
    assert "个人信息保护法" in capsys.readouterr().out
    assert main(["report", "crosswalk", "iso", str(bundle)]) == 2
    assert "E-REPORT-003" in capsys.readouterr().err


# Fields of schemas/deployments-schema.yaml in opendp/deployments-registry-data: which it knows, and which it asks for.
KNOWN = {
    "basic": "name data_curators description intended_use data_product_type data_product_region data_product_sector "
    "publication_date",
    "dp_variant": "variant_name data_domain unprotected_quantities",
    "privacy_loss": "privacy_unit privacy_unit_details number_of_privacy_units privacy_parameters privacy_parameters_details",
    "deployment_model": "model_name model_name_details trust_assumptions actors release_type release_type_details "
    "data_source_type data_source_type_details access_type access_type_details",
    "implementation": "preprocessing_and_hyperparameter_tuning mechanisms composition post_processing justification utility "
    "additional_information",
    "administrative": "evidence_sources status registry_authors tier",
}  # fmt: skip
ASKED = "name data_curators description intended_use data_product_type data_product_region publication_date"


def test_the_registry_entry_has_the_registrys_fields_and_the_claim(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "registry", str(bundle), "--region", "Global", "--sector", "Technology", "--author", "Ada"]) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    assert set(made) == {"url_slug", "deployment"}
    assert set(made["deployment"]) == set(KNOWN)
    for part, value in made["deployment"].items():
        assert set(value) <= set(KNOWN[part].split()), part
        assert all(item not in ("", None, []) for item in value.values())
    assert set(ASKED.split()) <= set(made["deployment"]["basic"])
    trace = json.loads((bundle / "trace.json").read_bytes())
    told = made["deployment"]["privacy_loss"]["privacy_parameters"]
    assert trace["epsilon"] <= told["epsilon"] <= trace["epsilon"] + 1e-4
    assert told["delta"] == trace["delta"]
    assert made["deployment"]["basic"]["publication_date"].count("-") == 2
    assert made["deployment"]["administrative"] == {"status": "Draft", "registry_authors": ["Ada"], "tier": 3}
    assert main(["report", "registry", str(bundle), "--json"]) == 0
    assert "Fill in before submitting." in capsys.readouterr().out


def test_a_registry_entry_of_no_claim_or_of_a_broken_file_is_refused(bundle: Path) -> None:
    files = [json.loads((bundle / name).read_bytes()) for name in ("policy.json", "trace.json", "report.json")]
    with pytest.raises(IntegrityError, match="E-REPORT-004"):
        entry({"name": 3}, files[1], files[2], "2026-11-23", Told())
    with pytest.raises(PrivetError, match="E-ACCOUNT-003"):
        entry(files[0], {"mechanism": "none"}, files[2], "2026-11-23", Told())
    with pytest.raises(UsageError, match="E-REPORT-005"):
        entry(files[0], files[1], files[2], "2026-11-23", Told(sector="Magic"))


def test_types_that_a_policy_does_not_look_for_are_no_evidence(tmp_path: Path) -> None:
    made = full_report(tmp_path, **{"pii.detect": ("EMAIL_ADDRESS",)})
    assert row(made, "hipaa-safe-harbor", "164.514(b)(2)(i)(A)").status == "absent"
    assert row(made, "hipaa-safe-harbor", "164.514(b)(2)(i)(F)").status == "present"
