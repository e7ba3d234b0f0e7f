"""`privet search`: tries settings of a policy's recipe, on a public set for nothing or on private data within one budget.

What comes out is settings, never a model: the weights of trials are forgotten with their checkpoints. Whoever wants the
winner's settings puts them into a policy and asks for its own use approval; its training is charged beside the search.
Guarantee: the whole search is reserved, in every scope that its data came from, before its first trial; what was begun
stays charged through any crash; a search that is run again goes on, and is found when it is done. Of a selection the number
of trials, their settings and scores stay sealed and are destroyed; the winner and its noisy score are the mechanism's output.
Assumption: the use approval is of this policy, whose digest covers `search` and so its epsilon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pipeline.search_trials import PrivateTrials, ProxyTrials, SealedSearch
from pipeline.stage import Manifest, StageContext, StageOutput, StageResult, run_stage
from pipeline.training_watch import UnitErased, Watch, journal_end, journal_start
from privacy.canonical import Digest, Json, Scalar, canonical_json, digest_of
from privacy.errors import BudgetExceeded, DataError, GateClosed, PolicyError, UsageError
from privacy.mechanisms import to_json

if TYPE_CHECKING:
    from pipeline.training_budget import SealedCheckpoints
    from privacy.policy import Policy
    from training.search import SearchOutcome, SearchState, Settings
    from training.search_charge import SearchCharge

_WITHHELD = "withheld: the number of trials of a selection, and all of them but the best, are secret"


def search(ctx: StageContext, beside: Path) -> StageResult:
    """Run the policy's search, or go on with it, or find its result. beside: the folder of the policy file.

    Output: search (plain). Raises UsageError E-SEARCH-005 without a search in the policy, GateClosed E-SEARCH-006 (no
    approved dataset) or E-SEARCH-007 (erasure), BudgetExceeded, and what trials raise.
    """
    if ctx.policy.search is None:
        raise UsageError("E-SEARCH-005", "the policy declares no search", "Add a search block; see docs/policy.md")
    return _on_public(ctx, beside) if ctx.policy.search.proxy is not None else _on_private(ctx)


def settings_as_yaml(result: StageResult) -> str:
    """What to put into the policy, under `recipe` and `budget`."""
    import yaml

    recipe = {k: v for k, v in _winner(result.manifest).items() if k != "expected_batch_size"}
    batch = {k: v for k, v in _winner(result.manifest).items() if k == "expected_batch_size"}
    parts = {name: values for name, values in (("recipe", recipe), ("budget", batch)) if values}
    return str(yaml.safe_dump(parts, sort_keys=True))


def _winner(manifest: Manifest) -> dict[str, Scalar]:
    return {name.removeprefix("set."): value for name, value in manifest.facts.items() if name.startswith("set.")}


def _on_public(ctx: StageContext, beside: Path) -> StageResult:
    from pipeline.train import _device, _use_cores
    from pipeline.training_budget import SealedCheckpoints, only_trainer
    from training.public import read_public
    from training.search import SearchLoop

    declared = ctx.policy.search
    assert declared is not None
    assert declared.proxy is not None
    examples = read_public(declared.proxy, beside)
    inputs = {"proxy": examples.digest}
    checkpoints = SealedCheckpoints(ctx.home, ctx.policy.dataset, _key(ctx, inputs))

    def body() -> StageOutput:
        facts: dict[str, Json] = {"run": ctx.run_id, "policy": ctx.policy_digest, "proxy": examples.digest}
        ctx.home.journal.append("search_on_public_set", {**facts, "origin": examples.origin, "epsilon": 0.0})
        _use_cores()
        trials = ProxyTrials(ctx, examples, SealedSearch.open(checkpoints), _device())
        loop = SearchLoop(declared, trials.sealed, trials, _allowed(ctx.policy), fresh=trials.sealed.fresh, watch=_watch(ctx))
        outcome = loop.run()
        proxy: Json = {"digest": examples.digest, "origin": examples.origin, "examples": len(examples.examples)}
        return _output(ctx, outcome, {"proxy": proxy, "epsilon": 0.0, "delta": 0.0, "ledger_key": None}, charge=None)

    with only_trainer(ctx.home, checkpoints.key):
        result = run_stage(ctx, "search", inputs, body)
        checkpoints.clear()
    return result


def _on_private(ctx: StageContext) -> StageResult:
    from pipeline.approve import refuse_rejected
    from pipeline.training_budget import SealedCheckpoints, only_trainer

    if ctx.policy.recipe.mechanism != "dp_sgd":
        raise PolicyError("E-SEARCH-008", "a search over private data needs the mechanism dp_sgd", "Correct recipe.mechanism")
    protect, use = _approved(ctx)
    refuse_rejected(ctx.home, "use", use)
    inputs = {"protect": protect, "use": use}
    checkpoints = SealedCheckpoints(ctx.home, ctx.policy.dataset, _key(ctx, inputs))
    watched: list[Watch] = []
    with only_trainer(ctx.home, checkpoints.key):
        try:
            result = run_stage(ctx, "search", inputs, lambda: _private_body(ctx, inputs, checkpoints, watched))
        except UnitErased:
            _abandon(ctx, checkpoints)
        journal_end(ctx, checkpoints.key, result.digest, watched[0] if watched else None)
        checkpoints.clear()
    return result


def _private_body(
    ctx: StageContext, inputs: Mapping[str, Digest], checkpoints: SealedCheckpoints, watched: list[Watch]
) -> StageOutput:
    from pipeline.train import _device, _use_cores, load_units
    from training.search import SearchLoop
    from training.search_charge import charge_for

    policy, key = ctx.policy, checkpoints.key
    assert policy.search is not None
    _refuse_settled(ctx, checkpoints)
    journal_start(ctx, inputs["protect"], inputs["use"], key)
    data = load_units(ctx, inputs["protect"])
    if not len(data.training) or not len(data.holdout):
        raise DataError("E-SEARCH-004", "there are no units to learn from, or none to score with", "Check audit.holdout_share")
    watched.append(Watch.over(ctx.home, policy.dataset, data.training.units, data.holdout.units))
    charge = charge_for(policy)
    _reserve(ctx, key, charge, inputs["protect"])
    _use_cores()
    selected = charge.mechanism if policy.search.charge == "selection" else None
    if selected is not None:  # also where no trial will run: that there was none would be told by the budget left
        ctx.home.ledger.lease(key, 1)
    trials = PrivateTrials(ctx, inputs["protect"], charge, SealedSearch.open(checkpoints), watched[0], _device(), data)

    def begin(upto: int) -> None:
        watched[0].check()
        if selected is None:
            ctx.home.ledger.lease(key, upto)

    loop = SearchLoop(
        policy.search,
        trials.sealed,
        trials,
        _allowed(policy),
        charge=begin,
        fresh=trials.sealed.fresh,
        watch=_watch(ctx),
        selection=selected,
    )
    outcome = loop.run()
    watched[0].check()
    _settle(ctx, key)
    return _output(ctx, outcome, {"proxy": None, "ledger_key": key}, charge)


def _approved(ctx: StageContext) -> tuple[Digest, Digest]:
    """The newest dataset that was protected under this policy and whose use is approved: (protect, use subject)."""
    from pipeline.train import _require_approval, _use_subjects

    refused = GateClosed(
        "E-SEARCH-006",
        "no dataset was protected and validated under this policy, so there is nothing that a search was approved for",
        "Run the policy up to its use gate (privet run), sign there, and search then",
    )
    for entry in reversed(ctx.home.journal.entries()):
        made = entry.facts.get("manifest")
        if entry.kind != "stage" or entry.facts.get("stage") != "protect" or not isinstance(made, str):
            continue
        if entry.facts.get("policy") != ctx.policy_digest:
            continue
        for subject in reversed(_use_subjects(ctx, made)):
            try:
                _require_approval(ctx, made, subject)
            except GateClosed as error:
                refused = error
            else:
                return made, subject
    raise refused


def _reserve(ctx: StageContext, key: str, charge: SearchCharge, protect: Digest) -> None:
    """The whole search, in every scope or in none. Raises BudgetExceeded E-BUDGET-001; nothing is charged then."""
    from pipeline.cap_book import refuse_unsigned_caps
    from pipeline.training_budget import (
        budget_scopes,
        journal_reservation,
        open_scopes,
        refuse_another_unit,
        refuse_lost_charges,
    )

    refuse_lost_charges(ctx.home)
    refuse_unsigned_caps(ctx.home)
    scopes = budget_scopes(ctx.home, ctx.policy, protect)
    refuse_another_unit(ctx.home.ledger, ctx.policy, scopes)
    open_scopes(ctx.home.ledger, ctx.policy, scopes)
    ctx.home.ledger.reserve_many(key, scopes, charge.mechanism, charge.steps)
    journal_reservation(ctx.home, ctx.run_id, key)


def _settle(ctx: StageContext, key: str) -> None:
    """What was begun stays; a search that stopped early gives the rest back."""
    from pipeline.training_budget import journal_settlement

    spend = ctx.home.ledger.spend(key)
    if spend is not None and spend.settled is None:
        journal_settlement(ctx.home, ctx.run_id, key, spend.leased)
        ctx.home.ledger.settle(key, spend.leased)


def _refuse_settled(ctx: StageContext, checkpoints: SealedCheckpoints) -> None:
    spend = ctx.home.ledger.spend(checkpoints.key)
    if spend is not None and (spend.settled is not None or spend.leased) and checkpoints.load() is None:
        raise BudgetExceeded(
            "E-SEARCH-009",
            "this search was charged, but neither its result nor its state is in the store",
            "Restore objects/ and results/ from a backup, or change the policy and ask for a new use approval",
        )


def _abandon(ctx: StageContext, checkpoints: SealedCheckpoints) -> None:
    checkpoints.clear()  # it knows the erased unit
    _settle(ctx, checkpoints.key)
    ctx.home.journal.append("search_abandoned", {"run": ctx.run_id, "ledger_key": checkpoints.key, "reason": "erased unit"})
    raise GateClosed(
        "E-SEARCH-007",
        "a privacy unit was erased while the search ran; nothing of it is kept, and what was begun stays charged",
        "Change the policy, run ingest again and ask for a new use approval; or tune on a public set",
    ) from None


def _output(ctx: StageContext, outcome: SearchOutcome, facts: Mapping[str, Json], charge: SearchCharge | None) -> StageOutput:
    from training.search import kind_of

    declared, winner = ctx.policy.search, outcome.winner
    assert declared is not None
    kind = kind_of(declared)
    settings = {} if winner is None else dict(winner.settings)
    priced: dict[str, Json] = {}
    if charge is not None:
        priced = {
            "epsilon": charge.epsilon,
            "delta": charge.delta,
            "trial_epsilon": charge.trial_epsilon,
            "score_noise_units": charge.score_noise,
            "mechanism": to_json(charge.mechanism),
        }
    trials: Json = [{"settings": dict(t.settings), "score": round(t.score, 4)} for t in outcome.trials]
    document: dict[str, Json] = {
        "kind": kind,
        "declared": cast("Json", declared.model_dump(mode="json")),
        "winner": None if winner is None else {"settings": cast("Json", settings), "score": round(winner.score, 4)},
        "trials": _WITHHELD if kind == "selection" else trials,
        "weights": "none was kept: a training under these settings asks for its own approval and is charged for itself",
        **facts,
        **priced,
    }
    place = {"dataset": ctx.policy.dataset, "path": "search/search.json", "data_class": "evidence"}
    ref = ctx.home.store.put_plain(canonical_json(document), **place)
    shown: dict[str, Scalar] = {
        "kind": kind,
        "epsilon": cast("float", document["epsilon"]),
        "ledger_key": cast("str", facts["ledger_key"]),
    }
    return StageOutput({"search": ref}, {**shown, **{f"set.{name}": value for name, value in settings.items()}})


def _key(ctx: StageContext, inputs: Mapping[str, Digest]) -> str:
    return "search-" + digest_of({"search": ctx.policy_digest, **inputs}).removeprefix("sha256:")[:32]


def _allowed(policy: Policy) -> Callable[[Settings], int]:
    from training.config import approved_steps

    return lambda settings: approved_steps(policy.tried(settings).recipe.steps)


def _watch(ctx: StageContext) -> Callable[[SearchState], None]:
    """Trials done, where that is no secret."""
    declared = ctx.policy.search
    assert declared is not None
    if declared.charge == "selection":
        return lambda state: None
    return lambda state: ctx.progress("search trials", state.done, state.planned)
