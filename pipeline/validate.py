"""Checks the protected dataset with Great Expectations, and fails when it fails or when nothing was checked.

Guarantee: a passed verdict means that every expectation of the suite was evaluated on at least one value and held; an
expectation that raised, or that saw no value, blocks like one that failed. What is published is a projection of
allow-listed fields (type, column, counts, outcome): no value of the dataset can be in it.
The library's own results, Data Docs and error texts quote offending values (and are therefore never kept).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.read import read_protected
from pipeline.residual import looking_with, quiet_great_expectations, residual_expectation
from pipeline.second_look import SecondLook, second_look
from pipeline.slip_through import share_at_least
from pipeline.stage import StageContext, StageOutput, StageResult, load_manifest, run_stage
from pipeline.treatment import checking_detector
from privacy.canonical import Digest, Json, Scalar, canonical_json
from privacy.errors import GateClosed
from privacy.policy import Policy
from privacy.verdict import Outcome

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.stage import Manifest

# A bound that drops more than this share of the records says that `subject` is not what the policy takes it for
# (one shared account, a constant): training would learn from a sliver of the data. Below it, dropping is only counted.
MAX_SHARE_BEYOND_BOUND = 0.5
_RANK = "privet.record_of_unit"  # a derived column: the position of a record among those of its unit, from 1
_PIXELS = "privet.pixels"  # a derived column: how many pixels the image of a record has
MISSES, SECOND_LOOK = "expect_planted_values_to_be_found", "expect_column_values_to_hold_no_name_that_another_model_sees"
DENIED = "expect_no_value_of_a_sealed_list"
# Where the policy names no bound, what is refused is a detection that is shown (at 95 %) to miss over this share of the planted
# values, and texts in over this share of which the other model is shown to see a name: a wrong language, a rule set to nothing.
# An upper bound as the default would refuse small runs: few planted values can't show a low rate, however good detection is.
BROKEN_DETECTION = 0.25
_COUNTS = ("element_count", "unexpected_count", "missing_count")


@dataclass(frozen=True, slots=True)
class Checked:
    """One expectation's outcome. `column` and `expectation` are names of ours or of the policy; the rest are counts."""

    expectation: str
    column: str | None
    outcome: Outcome
    errored: bool
    counts: Mapping[str, int]

    def to_json(self) -> dict[str, Json]:
        return {
            "expectation": self.expectation,
            "column": self.column,
            "outcome": self.outcome,
            "errored": self.errored,
            "counts": dict(self.counts),
        }


def validate(ctx: StageContext, protect_digest: Digest) -> StageResult:
    """Run the suite over the rows that are still there (erased units are not).

    Output: validation (plain JSON projection). Facts: verdict, expectations, evaluated, failed, records, units,
    records_beyond_bound, residual_pii. Raises GateClosed E-VALIDATE-001 (an expectation does not hold) or E-VALIDATE-002
    (nothing evaluated), after the same projection was stored and journalled as `validation_failed`.
    """
    manifest = load_manifest(ctx.home, protect_digest)
    return run_stage(ctx, "validate", {"protect": protect_digest}, lambda: _validate(ctx, manifest, protect_digest))


def _validate(ctx: StageContext, manifest: Manifest, protect_digest: Digest) -> StageOutput:
    frame = _frame(ctx, manifest)
    ctx.progress("validate", 0, len(frame))
    looked = second_look(frame["text"].tolist() if "text" in frame.columns else [], ctx.policy)
    checked = [*run_suite(frame, ctx.policy), *_beside_the_suite(manifest, looked, ctx.policy)]
    ctx.progress("validate", len(frame), len(frame))
    verdict = judge(checked)
    facts = {**_facts(checked, frame, ctx.policy, verdict), **looked.facts()}
    evidence: dict[str, Json] = {
        "verdict": verdict,
        "dataset": ctx.policy.dataset,
        "protect": protect_digest,
        "policy": ctx.policy_digest,
        "facts": dict(facts),
        "results": [c.to_json() for c in checked],
    }
    ref = ctx.home.store.put_plain(
        canonical_json(evidence), dataset=ctx.policy.dataset, path="validate/validation.json", data_class="validation"
    )
    if verdict != "passed":
        entry: dict[str, Json] = {"run": ctx.run_id, "policy": ctx.policy_digest, "protect": protect_digest}
        ctx.home.journal.append("validation_failed", {**entry, "evidence": ref.digest, "verdict": verdict})
        raise _closed(checked, verdict, ctx.policy)
    return StageOutput({"validation": ref}, facts)


def judge(checked: Sequence[Checked]) -> Outcome:
    """passed: all were evaluated and hold. not_evaluated: none saw a value. failed: anything else."""
    if not any(c.outcome != "not_evaluated" for c in checked if c.counts.get("element_count") is not None):
        return "not_evaluated"
    return "passed" if all(c.outcome == "passed" for c in checked) else "failed"


def build_suite(policy: Policy) -> Any:
    """The suite in code, from the policy's public constants only."""
    gx = quiet_great_expectations()
    gxe: Any = importlib.import_module("great_expectations.expectations")
    wanted, keep = policy.expectations, policy.source.fields.keep
    columns = ["unit", "record_id", "time", "lang", "text", "label", *keep, _RANK]
    texts = ["text"] if policy.source.fields.text else []  # pictures without words have nothing to look at
    residual = residual_expectation()
    clean = 1.0 - wanted.max_residual_pii_rate
    return gx.ExpectationSuite(
        name=policy.name,
        expectations=[
            gxe.ExpectTableColumnsToMatchSet(column_set=[*columns, *_pixels(policy)], exact_match=True),
            gxe.ExpectTableRowCountToBeBetween(min_value=wanted.min_records),
            *(
                gxe.ExpectColumnValuesToNotBeNull(column=name)
                for name in ("unit", "record_id", "label", "text", "lang", *_pixels(policy))
            ),
            gxe.ExpectColumnValuesToBeUnique(column="record_id"),
            gxe.ExpectColumnValuesToMatchRegex(column="unit", regex=r"\Au[a-z2-7]{24}\Z"),
            gxe.ExpectColumnValuesToMatchRegex(column="record_id", regex=r"\Ar[a-z2-7]{24}\Z"),
            gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(wanted.labels)),
            *(gxe.ExpectColumnValuesToMatchRegex(column=n, regex=r"\S", mostly=wanted.text_completeness) for n in texts),
            *(
                gxe.ExpectColumnValuesToBeBetween(column=name, min_value=size, max_value=size)
                for name, size in _pixels(policy).items()
            ),
            gxe.ExpectColumnUniqueValueCountToBeBetween(column="unit", min_value=wanted.min_units),
            gxe.ExpectColumnValuesToBeBetween(
                column=_RANK, min_value=1, max_value=policy.privacy_unit.max_records, mostly=1 - MAX_SHARE_BEYOND_BOUND
            ),
            *(
                residual(column=name, mostly=clean, kept=kept_types(policy), score_threshold=policy.pii.score_threshold)
                for name in (*texts, *keep)
            ),
        ],
    )


def _pixels(policy: Policy) -> dict[str, int]:
    """The derived column of a source with images, and the number of pixels that each must have."""
    size = policy.recipe.image_size
    return {} if policy.source.fields.image is None or size is None else {_PIXELS: size[0] * size[1]}


def kept_types(policy: Policy) -> list[str]:
    """Entity types that the policy leaves in the text on purpose."""
    return sorted(name for name, treatment in policy.pii.entities.items() if treatment == "keep")


def run_suite(frame: pd.DataFrame, policy: Policy) -> list[Checked]:
    """Evaluate the suite in memory; one `Checked` an expectation, in a stable order. Whatever raises is `errored`."""
    gx = quiet_great_expectations()
    suite = build_suite(policy)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("protected")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    # BASIC with no partial list: with the default, offending values would be in the result.
    with looking_with(checking_detector(policy)):
        result = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0})
    found = [_checked(item.to_json_dict()) for item in result.results]
    found += [_missing(e) for e in suite.expectations[len(found) :]]  # fewer results than expectations: something was skipped
    return sorted(found, key=lambda c: (c.expectation, c.column or ""))


def _beside_the_suite(manifest: Manifest, looked: SecondLook, policy: Policy) -> list[Checked]:
    """What the policy asks of detection itself: the bound on what slips through, and the other model's look."""
    found = []
    wanted = policy.expectations
    planted, missed = manifest.facts.get("canaries_planted"), manifest.facts.get("canaries_missed")
    bound = manifest.facts.get("miss_bound")
    outcome: Outcome = "not_evaluated"
    counts: dict[str, int] = {}
    if isinstance(planted, int) and isinstance(missed, int) and isinstance(bound, float | int):
        most = wanted.max_miss_bound
        holds = share_at_least(missed, planted) <= BROKEN_DETECTION if most is None else bound <= most
        outcome = "passed" if holds else "failed"
        counts = {"element_count": planted, "unexpected_count": missed}
    if wanted.max_miss_bound != 1 and (counts or wanted.max_miss_bound is not None):
        found.append(Checked(MISSES, "text", outcome, not counts, counts))
    if policy.pii.deny:
        left, records = manifest.facts.get("denied_left"), manifest.facts.get("records")
        outcome, counts = "not_evaluated", {}
        if isinstance(left, int) and isinstance(records, int):
            outcome, counts = "failed" if left else "passed", {"element_count": records, "unexpected_count": left}
        found.append(Checked(DENIED, "text", outcome, not counts, counts))
    most = wanted.max_second_look_rate
    if policy.pii.second_look == "required" or (looked.texts and most != 1):
        outcome = "not_evaluated"
        if looked.texts:
            shown = share_at_least(looked.flagged, looked.texts)
            holds = shown <= BROKEN_DETECTION if most is None else looked.flagged <= most * looked.texts
            outcome = "passed" if holds else "failed"
        counts = {"element_count": looked.texts, "unexpected_count": looked.flagged}
        found.append(Checked(SECOND_LOOK, "text", outcome, not looked.is_there, counts))
    return found


def _frame(ctx: StageContext, manifest: Manifest) -> pd.DataFrame:
    frame: pd.DataFrame = read_protected(ctx.home, manifest).to_pandas()
    if _RANK not in frame.columns and "unit" in frame.columns:
        frame[_RANK] = frame.groupby("unit").cumcount() + 1
    if "image" in frame.columns:  # the library counts pixels, and never gets the picture
        frame[_PIXELS] = frame.pop("image").map(len, na_action="ignore")
    return frame


def _checked(item: Mapping[str, Any]) -> Checked:
    """The allow-listed projection of one result. Nothing else of it may pass this point."""
    config, result = item.get("expectation_config") or {}, item.get("result") or {}
    counts = {name: result[name] for name in _COUNTS if type(result.get(name)) is int}
    observed = result.get("observed_value")
    if type(observed) is int:
        counts["observed_value"] = observed
    errored = _raised(item.get("exception_info"))
    column = (config.get("kwargs") or {}).get("column")
    return Checked(
        str(config.get("type")),
        column if isinstance(column, str) else None,
        _outcome(item.get("success") is True, errored, counts, bool(result)),
        errored,
        counts,
    )


def _outcome(success: bool, errored: bool, counts: Mapping[str, int], has_result: bool) -> Outcome:
    if errored or not has_result:
        return "not_evaluated"
    elements = counts.get("element_count")
    if elements == 0:
        return "not_evaluated"  # "all of nothing hold" is how an empty table passes
    if success and elements is not None and elements == counts.get("missing_count") and "unexpected_count" in counts:
        return "not_evaluated" if counts["unexpected_count"] == 0 else "failed"
    return "passed" if success else "failed"


def _missing(expectation: Any) -> Checked:
    return Checked(str(expectation.expectation_type), getattr(expectation, "column", None), "not_evaluated", True, {})


def _raised(info: object) -> bool:
    """Great Expectations has two shapes: one record, or one record per metric that failed."""
    if not isinstance(info, Mapping):
        return True
    if "raised_exception" in info:
        return info["raised_exception"] is not False
    return any(_raised(part) for part in info.values())


def _facts(checked: Sequence[Checked], frame: pd.DataFrame, policy: Policy, verdict: Outcome) -> dict[str, Scalar]:
    residual = [c for c in checked if c.expectation.endswith("residual_pii")]
    beyond = int((frame[_RANK] > policy.privacy_unit.max_records).sum()) if _RANK in frame.columns else 0
    return {
        "verdict": verdict,
        "expectations": len(checked),
        "evaluated": sum(c.outcome != "not_evaluated" for c in checked),
        "failed": sum(c.outcome == "failed" for c in checked),
        "records": len(frame),
        "units": int(frame["unit"].nunique()) if "unit" in frame.columns else 0,
        "records_beyond_bound": beyond,
        "residual_pii": sum(c.counts.get("unexpected_count", 0) for c in residual),
    }


def _closed(checked: Sequence[Checked], verdict: Outcome, policy: Policy) -> GateClosed:
    if verdict == "not_evaluated":
        return GateClosed(
            "E-VALIDATE-002",
            "the validation evaluated nothing: no expectation saw a value of the protected dataset",
            "See why the dataset is empty, or why the suite raised, and run again",
        )
    bad = [what_failed(c, policy) for c in checked if c.outcome != "passed"]
    more = f"; and {len(bad) - 4} more" if len(bad) > 4 else ""
    return GateClosed(
        "E-VALIDATE-001",
        f"{len(bad)} of {len(checked)} expectations do not hold: {'; '.join(bad[:4])}{more}",
        "Mend the source, or these keys of the policy, and run again",
    )


def what_failed(checked: Checked, policy: Policy) -> str:
    """The key of the policy that asked for it, and counts: `expectations.min_units: 12 of 100 wanted`. Holds no value."""
    wrong_image = "source.fields.image", "have no image of the declared size"
    key, said = wrong_image if checked.column == _PIXELS else _asked(checked, policy)
    counts = checked.counts
    if checked.outcome == "not_evaluated":
        return f"{key}: {'could not be evaluated' if checked.errored else 'saw no value'}"
    if "observed_value" in counts and said.isdigit():
        return f"{key}: {counts['observed_value']} of {said} wanted"
    if counts.get("element_count"):
        return f"{key}: {counts.get('unexpected_count', 0)} of {counts['element_count']} records {said}"
    return f"{key}: {said}"


def _asked(checked: Checked, policy: Policy) -> tuple[str, str]:
    """Policy key, and what is said beside the counts; for a least number, that number."""
    if beside := _asked_of_detection(checked, policy):
        return beside
    column, wanted = checked.column or "", policy.expectations
    field = {"unit": "subject", "lang": "text"}.get(column, column if column in ("record_id", "text", "label") else "keep")
    match checked.expectation.removeprefix("expect_").removeprefix("column_values_to_"), column:
        case "table_row_count_to_be_between", _:
            return "expectations.min_records", str(wanted.min_records)
        case "column_unique_value_count_to_be_between", _:
            return "expectations.min_units", str(wanted.min_units)
        case "be_in_set", _:
            return "expectations.labels", "have a label outside the declared set"
        case "match_regex", "text":
            return "expectations.text_completeness", f"have an empty text; {wanted.text_completeness} must have one"
        case "be_between", _:
            said = f"lie beyond {policy.privacy_unit.max_records} per unit; at most {MAX_SHARE_BEYOND_BOUND} may"
            return "privacy_unit.max_records", said
        case "hold_no_residual_pii", _:
            rate = wanted.max_residual_pii_rate
            return "expectations.max_residual_pii_rate", f"hold personal data in {column}; at most {rate} may"
        case "not_be_null", _:
            return f"source.fields.{field}", f"have no {column}"
        case "be_unique", _:
            return f"source.fields.{field}", f"share their {column} with another"
        case "match_regex", _:
            return f"source.fields.{field}", f"have a {column} that is no pseudonym of this home"
    return "source.fields", "the columns of the protected dataset are not those that the policy names"


def _asked_of_detection(checked: Checked, policy: Policy) -> tuple[str, str] | None:
    """The same for what is judged beside the suite."""
    wanted = policy.expectations
    match checked.expectation:
        case name if name == MISSES:
            bound = wanted.max_miss_bound
            allowed = (
                f"{BROKEN_DETECTION} may not be shown to be missed" if bound is None else f"the upper bound may be {bound}"
            )
            return "expectations.max_miss_bound", f"slipped through; {allowed}"
        case name if name == DENIED:
            return "pii.deny", "still hold a value of a sealed list"
        case name if name == SECOND_LOOK:
            most = wanted.max_second_look_rate
            said = f"at most {BROKEN_DETECTION if most is None else most} may"
            return "expectations.max_second_look_rate", f"hold a name for another model; {said}"
    return None
