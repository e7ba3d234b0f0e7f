"""The pipeline or a signer lies; every signature is real, so only recomputing and the gate rules can tell."""

from __future__ import annotations

from privacy.canonical import digest_of
from tests.worlds.bad_bundles.cases import Insider, envelope, honest_votes, put
from tests.worlds.release_world import Lies, World


def _no_votes(world: World, files: dict[str, bytes]) -> None:
    pass


def _self_approval(world: World, files: dict[str, bytes]) -> None:
    own = envelope(world, world.keys["demo_engineer"], "steward")
    put(files, own, envelope(world, world.keys["ada"], "privacy_officer"))


def _double_vote(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["ada"], "steward"), envelope(world, world.keys["ada"], "privacy_officer"))


def _expired(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "steward", hours=-200))
    put(files, envelope(world, world.keys["ada"], "privacy_officer"))


def _dated_ahead(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "steward", hours=9))
    put(files, envelope(world, world.keys["ada"], "privacy_officer"))


def _other_digest(world: World, files: dict[str, bytes]) -> None:
    other = digest_of("yesterday's model")
    put(files, envelope(world, world.keys["grace"], "steward", other))
    put(files, envelope(world, world.keys["ada"], "privacy_officer", other))


def _yesterdays_votes(world: World, files: dict[str, bytes]) -> None:
    """Of the same people, real, and over the evidence of another run."""
    other = digest_of("the evidence of yesterday's run")
    for name, role in (("grace", "steward"), ("ada", "privacy_officer")):
        put(files, envelope(world, world.keys[name], role, other, hours=-20))


def _rejected(world: World, files: dict[str, bytes]) -> None:
    honest_votes(world, files)
    put(files, envelope(world, world.keys["ada"], "steward", decision="reject"))


def _pipeline_votes(world: World, files: dict[str, bytes]) -> None:
    honest_votes(world, files)
    put(files, envelope(world, world.home.key, "pipeline"))


def _role_not_held(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "privacy_officer"), envelope(world, world.keys["ada"], "steward"))


def _one_short(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "steward"))


def _no_reason(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "steward", reason="  "))
    put(files, envelope(world, world.keys["ada"], "privacy_officer"))


def _use_vote_as_release_vote(world: World, files: dict[str, bytes]) -> None:
    for name, role in (("grace", "steward"), ("ada", "privacy_officer")):
        put(files, envelope(world, world.keys[name], role, gate="use"), gate="use")


def _condition_not_met(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "steward"))
    put(files, envelope(world, world.keys["ada"], "privacy_officer", conditions=("epsilon <= 3",)))


def _condition_on_nothing(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "steward"))
    put(files, envelope(world, world.keys["ada"], "privacy_officer", conditions=("verdict audit.astrology passed",)))


def _condition_run_out(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "steward"))
    put(files, envelope(world, world.keys["ada"], "privacy_officer", conditions=("expires before 2020-01-31",)))


def _referred(world: World, files: dict[str, bytes]) -> None:
    honest_votes(world, files)
    put(files, envelope(world, world.keys["grace"], "steward", decision="refer", refer_to="privacy_officer", hours=0.05))


def _glass_broken_by_two(world: World, files: dict[str, bytes]) -> None:
    put(files, *(envelope(world, world.keys[who], "steward", decision="break_glass") for who in ("grace", "ada")))


def _role_lent_by_nobody(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["ada"], "privacy_officer"))
    put(files, envelope(world, world.keys["alan"], "steward", delegation=digest_of("a delegation that is not there")))


PIPELINE_IN_QUORUM = (("approvals.release.quorum", {"pipeline": 1}),)
INSIDERS: tuple[Insider, ...] = (
    Insider("understated_steps", 4, "E-CLAIM-008", Lies(trace={"steps": 5, "steps_in_model": 5})),
    Insider("understated_charge", 4, "E-ACCOUNT-003", Lies(trace={"steps": 5}, keep_epsilon=True)),
    Insider("understated_epsilon", 4, "E-CLAIM-007", Lies(trace={"epsilon": 1.0})),
    Insider("epsilon_without_its_noise", 4, "E-CLAIM-007", Lies(trace={"noise_multiplier": 0.5}, keep_epsilon=True)),
    Insider("other_sampling_probability", 4, "E-CLAIM-008", Lies(trace={"sampling_probability": 0.1})),
    Insider("other_privacy_unit", 4, "E-CLAIM-008", Lies(trace={"privacy_unit": "message"})),
    Insider("other_clipping_norm", 4, "E-CLAIM-008", Lies(trace={"clipping_norm": 9.0})),
    Insider("inflated_epsilon_in_report", 4, "E-CLAIM-007", Lies(claim_in_report={"epsilon": 9.5})),
    Insider("flattered_epsilon_in_report", 4, "E-CLAIM-007", Lies(claim_in_report={"epsilon": 0.5})),
    Insider("not_private_at_all", 4, "E-CLAIM-016", changes=(("recipe.mechanism", "non_private"),)),
    Insider("over_the_budget", 3, "E-CLAIM-017", Lies(trace={"noise_multiplier": 0.6})),
    Insider("failed_verdict", 3, "E-CLAIM-015", Lies(verdicts={"probe.clipping": "failed"})),
    Insider("verdict_not_evaluated", 3, "E-CLAIM-015", Lies(verdicts={"probe.noise_scale": "not_evaluated"})),
    Insider("verdict_left_out", 3, "E-CLAIM-015", Lies(verdicts={"probe.divisor": "absent"})),
    Insider("passed_over_a_bound_that_refutes", 3, "E-CLAIM-018", Lies(gate_bound=30.0)),
    Insider("bound_not_a_number", 3, "E-CLAIM-018", Lies(gate_bound=True)),
    Insider("coins_drawn_after_training", 3, "E-CLAIM-019", Lies(coins_after_training=True)),
    Insider("coins_drawn_by_the_pipeline", 3, "E-COINS-002", Lies(coins_by="pipeline")),
    Insider("coins_drawn_by_the_requester", 3, "E-COINS-002", Lies(coins_by="demo_engineer")),
    Insider("coins_drawn_by_no_auditor", 3, "E-COINS-002", Lies(coins_by="grace")),
    Insider("coins_of_another_commitment", 3, "E-COINS-003", Lies(coins_signed=digest_of("other coins"))),
    Insider("coins_that_do_not_open_the_commitment", 3, "E-COINS-006", Lies(coins_revealed={"drawn": "a5a5a5a5a5"})),
    Insider("failed_validation", 3, "E-CLAIM-015", Lies(validation="failed")),
    Insider("validation_of_nothing", 3, "E-CLAIM-015", Lies(validation="not_evaluated")),
    Insider("use_never_approved", 3, "E-GATE-010", Lies(without_use_approval=True)),
    Insider("use_approved_after_training", 3, "E-GATE-025", Lies(use_approval_after_training=True)),
    Insider("nobody_approved", 3, "E-GATE-010", votes=_no_votes),
    Insider("self_approval", 3, "E-GATE-015", votes=_self_approval),
    Insider("double_vote", 3, "E-GATE-016", votes=_double_vote),
    Insider("expired_approval", 3, "E-GATE-013", votes=_expired),
    Insider("approval_dated_ahead", 3, "E-GATE-018", votes=_dated_ahead),
    Insider("approval_of_other_digest", 3, "E-GATE-011", votes=_other_digest),
    Insider("replayed_approval_alone", 3, "E-GATE-011", votes=_yesterdays_votes),
    Insider("released_over_a_reject", 3, "E-GATE-012", votes=_rejected),
    Insider("pipeline_key_as_approver", 3, "E-GATE-022", votes=_pipeline_votes, changes=PIPELINE_IN_QUORUM),
    Insider("role_not_held", 3, "E-GATE-014", votes=_role_not_held),
    Insider("quorum_one_short", 3, "E-GATE-017", votes=_one_short),
    Insider("approval_without_a_reason", 3, "E-GATE-019", votes=_no_reason),
    Insider("released_without_its_witness", 3, "E-CLAIM-021", witness="witness.example/w1"),
    Insider("swapped_accountant", 4, "E-CLAIM-022", Lies(trace={"accountant": "opacus-prv"})),
    Insider("swapped_sampler", 4, "E-CLAIM-022", Lies(trace={"sampler": "shuffled epochs"})),
    Insider("swapped_source_of_noise", 4, "E-CLAIM-022", Lies(trace={"noise_source": "torch.manual_seed(0)"})),
    Insider("trained_on_other_data", 4, "E-CLAIM-028", Lies(trained_on=digest_of("data that nobody validated"))),
    Insider("card_of_a_kinder_claim", 4, "E-CLAIM-024", Lies(kinder_paper="model_card")),
    Insider("bill_of_materials_of_a_kinder_claim", 4, "E-CLAIM-025", Lies(kinder_paper="bill_of_materials")),
    Insider("spdx_of_a_kinder_claim", 4, "E-CLAIM-026", Lies(kinder_paper="spdx_document")),
    Insider("no_attacks_were_run", 4, "E-CLAIM-006", Lies(without=("attacks",))),
    Insider("no_harm_was_looked_for", 4, "E-CLAIM-006", Lies(without=("harm",))),
    Insider("failed_expectation_under_a_passed_verdict", 3, "E-CLAIM-015", Lies(expectation="failed")),
    Insider("condition_not_met", 3, "E-GATE-043", votes=_condition_not_met),
    Insider("condition_on_what_nobody_measured", 3, "E-GATE-042", votes=_condition_on_nothing),
    Insider("condition_run_out", 3, "E-GATE-043", votes=_condition_run_out),
    Insider("released_over_a_referral", 3, "E-GATE-044", votes=_referred),
    Insider("role_lent_by_nobody", 3, "E-GATE-046", votes=_role_lent_by_nobody),
    Insider("glass_broken_where_no_policy_allows_it", 3, "E-GATE-017", votes=_glass_broken_by_two),
    Insider("use_votes_at_the_release_gate", 3, "E-GATE-010", votes=_use_vote_as_release_vote),
)
