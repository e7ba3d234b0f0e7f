from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from privacy.entities import ENTITY_TYPES
from privacy.errors import PolicyError
from privacy.policy import Policy
from privacy.policy_file import PolicyFaults, load_policy, policy_digest
from tests.worlds.policies import make_policy, policy_value

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, value: object) -> Path:
    path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    return path


def line_of(path: Path, needle: str) -> int:
    return next(n for n, text in enumerate(path.read_text().splitlines(), 1) if needle in text)


@pytest.mark.parametrize("path", sorted((ROOT / "dags" / "policies").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_policy_loads_and_is_named_after_its_file(path: Path) -> None:
    assert load_policy(path).name == path.stem


@pytest.mark.parametrize(
    ("dotted", "value", "needle", "message"),
    [
        ("budget.epsilonn", 3, "epsilonn", "unknown field"),
        ("colour", "green", "colour", "unknown field"),
        ("budget.epsilon", -1, "epsilon", "greater than 0"),
        ("budget.delta", 0.01, "delta", "below 1 / budget.population"),
        ("budget.expected_batch_size", 500, "expected_batch_size", "larger than budget.population"),
        ("budget.cap_epsilon", 1.0, "cap_epsilon", "could never run"),
        ("budget", 3, "budget", "should hold fields"),
        ("pii.default", "keep", "default", "may not be keep"),
        ("pii.entities", {"PERSON": "encrypt"}, "PERSON", "Input should be"),
        ("expectations.labels", ["a", "a"], "labels", "twice"),
        ("pii.entities", {"PRESON": "keep"}, "PRESON", "did you mean PERSON?"),
        ("pii.entities", {"person": "keep"}, "person", "did you mean PERSON?"),
        ("pii.entities", {"EMAIL": "keep"}, "EMAIL", "did you mean EMAIL_ADDRESS?"),
        ("pii.entities", {"IBAN_CODE": "keep"}, "IBAN_CODE", "did you mean IBAN?"),
        ("pii.entities", {"SHOE_SIZE": "keep"}, "SHOE_SIZE", "known types: ACCOUNT_NUMBER, "),
        ("pii.default", "date_shift", "default", "may not be date_shift"),
        ("pii.entities", {"PASSWORD": "surrogate"}, "entities", "PASSWORD has no surrogate"),
        ("pii.entities", {"PERSON": "date_shift"}, "entities", "date_shift moves dates"),
        ("pii.thresholds", {"PERSON": 2}, "PERSON", "less than or equal to 1"),
        ("pii.thresholds", {"EMAIL": 0.5}, "EMAIL", "did you mean EMAIL_ADDRESS?"),
        ("pii.deny", {"../x": "PERSON"}, "../x", "match pattern"),
        ("pii.date_order", "ymd", "date_order", "Input should be"),
        ("pii.date_shift_days", 4000, "date_shift_days", "less than or equal to 3650"),
        ("pii.presidio_recognizers", ["os.system"], "presidio_recognizers", "none of Presidio's own"),
        ("pii.patterns", {"a1": {"entity": "PERSON", "pattern": "x+", "examples": ["x"]}}, "pattern", "without an upper bound"),
        ("pii.patterns", {"a1": {"entity": "PERSON", "pattern": "(?:x{1,9}){2,9}", "examples": ["x"]}}, "pattern", "variable"),
        ("pii.patterns", {"a1": {"entity": "PERSON", "pattern": "x(", "examples": ["x"]}}, "pattern", "can't be read"),
        ("pii.patterns", {"a1": {"entity": "PERSON", "pattern": "yy", "examples": ["x"]}}, "examples", "misses 1 of its 1"),
        ("pii.patterns", {"a1": {"entity": "PERSON", "pattern": "xx", "examples": []}}, "examples", "at least 1"),
        ("pii.patterns", {"a1": {"entity": "NOBODY", "pattern": "xx", "examples": ["xx"]}}, "entity", "known types"),
        (
            "pii.patterns",
            {"a1": {"entity": "PERSON", "pattern": "xx", "examples": ["xx"], "counterexamples": ["an xx"]}},
            "examples",
            "matches 1",
        ),
        ("source.fields.subject_kind", "passport", "subject_kind", "Input should be"),
        ("expectations.max_miss_bound", 1.5, "max_miss_bound", "less than or equal to 1"),
        ("source.fields.label", "customer", "label", "two roles"),
        ("source.fields.keep", ["text"], "keep", "two roles"),
        ("source.fields.keep", ["unit"], "keep", "column that Privet writes"),
        ("source.format", "lines", "format", "needs source.pattern"),
        ("source.pattern", "x", "pattern", "belongs to format"),
        ("approvals.use.quorum", {}, "quorum", "at least 1"),
        ("approvals.use.quorum", {"steward": 0}, "steward", "at least one signature"),
        ("approvals.use.quorum", {"Steward": 1}, "Steward", "match pattern"),
        ("budget.epsilon", float("inf"), "epsilon", "finite"),
    ],
)
def test_a_fault_names_its_field_and_line(tmp_path: Path, dotted: str, value: object, needle: str, message: str) -> None:
    path = write(tmp_path / "p.yaml", policy_value(**{dotted: value}))
    with pytest.raises(PolicyFaults) as caught:
        load_policy(path)
    (fault,) = caught.value.faults
    assert message in fault.message
    assert fault.field.endswith(needle)
    assert fault.line == line_of(path, f"{needle}:")
    assert caught.value.exit_code == 2
    assert f"line {fault.line}" in str(caught.value)


@pytest.mark.parametrize(
    ("dotted", "value", "fields"),
    [
        ("languages", ["fr"], ["languages.0"]),
        ("languages", ["en", "fr"], ["languages.1"]),
        ("languages", [], ["languages"]),
        ("languages", "en", ["languages"]),
        ("expectations.labels", [1], ["expectations.labels.0"]),
        ("source.fields.text", ["", 3], ["source.fields.text.0", "source.fields.text.1"]),
    ],
)
def test_a_wrong_entry_is_not_also_called_a_short_list(tmp_path: Path, dotted: str, value: object, fields: list[str]) -> None:
    path = write(tmp_path / "p.yaml", policy_value(**{dotted: value}))
    with pytest.raises(PolicyFaults) as caught:
        load_policy(path)
    assert [fault.field for fault in caught.value.faults] == fields


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "- 1\n", "3\n", "version\n"])
def test_a_file_without_fields_is_told_so_in_plain_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(PolicyFaults) as caught:
        load_policy(path)
    assert [(f.field, f.line, f.message) for f in caught.value.faults] == [("policy", 1, "the file holds no mapping of fields")]


def test_every_type_that_a_detector_may_report_can_be_treated() -> None:
    from privacy.recognizers import RECOGNIZERS
    from privacy.recognizers.presidio import _NER_ENTITIES, _OUR_TYPES

    reported = {r.entity for r in RECOGNIZERS} | set(_NER_ENTITIES.values()) | set(_OUR_TYPES.values())
    assert reported <= ENTITY_TYPES
    make_policy(**{"pii.entities": dict.fromkeys(sorted(reported), "keep")})


def test_every_field_has_a_description() -> None:
    """`privet policy schema` is what an editor shows while somebody writes a policy."""
    schema = Policy.model_json_schema()
    parts = {"Policy": schema, **schema["$defs"]}
    bare = [f"{n}.{f}" for n, part in parts.items() for f, about in part["properties"].items() if not about.get("description")]
    assert bare == []


def test_a_missing_subject_is_a_fault_at_its_parent(tmp_path: Path) -> None:
    value = policy_value()
    del value["source"]["fields"]["subject"]  # type: ignore[index]
    path = write(tmp_path / "p.yaml", value)
    with pytest.raises(PolicyFaults) as caught:
        load_policy(path)
    assert caught.value.faults[0].field == "source.fields.subject"
    assert caught.value.faults[0].line == line_of(path, "fields:")


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "p.yaml", policy_value(**{"budget.epsilon": -1, "recipe.steps": 0, "colour": 1}))
    with pytest.raises(PolicyFaults) as caught:
        load_policy(path)
    assert {f.field for f in caught.value.faults} == {"budget.epsilon", "recipe.steps", "colour"}
    assert "2 more" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a: [", "version: 1\nversion: 1\n", "\tx: 1", "!!python/object/apply:os.system ['true']", "? [a]\n: 1\n"]
)
def test_what_is_not_plain_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError):
        load_policy(path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"", b"- 1\n", b"x" * 1_100_000])
def test_files_that_are_no_policy_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(data)
    with pytest.raises(PolicyError):
        load_policy(path)
    with pytest.raises(PolicyError):
        load_policy(tmp_path / "absent.yaml")


def test_the_digest_follows_the_meaning_not_the_spelling(tmp_path: Path) -> None:
    one = write(tmp_path / "a.yaml", policy_value())
    two = tmp_path / "b.yaml"
    two.write_text("# a comment\n" + one.read_text())
    assert policy_digest(load_policy(one)) == policy_digest(load_policy(two))
    assert policy_digest(make_policy()) != policy_digest(make_policy(**{"budget.epsilon": 7.0}))


def test_lines_format_needs_a_group_for_every_field() -> None:
    with pytest.raises(ValueError, match="no group named"):
        make_policy(**{"source.format": "lines", "source.pattern": r"(?P<customer>\w+) (?P<text>.*)"})


def test_every_field_is_documented() -> None:
    """docs/policy.md names every field of the model, so none can be added in silence."""
    text = (ROOT / "docs" / "policy.md").read_text()

    def names(schema: dict[str, object], whole: dict[str, dict[str, object]]) -> set[str]:
        found: set[str] = set()
        for part in [schema, *whole.values()]:
            properties = part.get("properties", {})
            assert isinstance(properties, dict)
            found |= set(properties)
        return found

    schema = Policy.model_json_schema()
    missing = sorted(n for n in names(schema, schema["$defs"]) if f"`{n}`" not in text and f".{n}`" not in text)
    assert missing == []
