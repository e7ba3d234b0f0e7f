"""Bad bundles, one per way to cheat, each named after it, with the exit code and the error code that must answer.

OUTSIDER: somebody without keys changes a good bundle (and may write a new list of files over what they did).
INSIDER: the pipeline or a signer lies; every signature is real, so only recomputing and the gate rules can tell.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pipeline.bundle import approval_path
from pipeline.evidence import PREDICATE_TYPES, EvidenceFile, evidence_document
from privacy.canonical import Digest, canonical_json, digest_bytes, digest_of
from privacy.checkpoint import Checkpoint, TlogProof, sign_checkpoint
from privacy.entries import journal_verifier
from privacy.gates import APPROVAL_TYPE, GateName, approval_predicate
from privacy.signing import SigningKey, make_statement, seal_envelope
from tests.worlds.release_world import Lies, World

STRANGER = SigningKey(b"s" * 32)


@dataclass(frozen=True)
class Outsider:
    """Changes a copy of the good bundle in `folder`. `other`: a good bundle of another run of the same pipeline."""

    name: str
    exit_code: int
    code: str
    cheat: Callable[[Path, World, Path], None]


@dataclass(frozen=True)
class Insider:
    """A dishonest run. `votes` puts envelopes among the files, past the approval book."""

    name: str
    exit_code: int
    code: str
    lies: Lies | None = None
    votes: Callable[[World, dict[str, bytes]], None] | None = None
    changes: tuple[tuple[str, object], ...] = ()
    witness: str = ""

    def build(self, path: Path) -> tuple[World, Path]:
        world = World(path, self.lies, "own", self.witness, **dict(self.changes)).run()
        votes = self.votes or honest_votes
        return world, world.force_bundle(path / "bundle", lambda files: votes(world, files))


def relist(folder: Path) -> None:
    """What anybody can do: list the files anew, so that digests and root fit again."""
    listed = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("evidence.json", "release.dsse.json")]
    inside = [p for p in listed if p.parent.name != "approvals"]
    leaves = [EvidenceFile(p.relative_to(folder).as_posix(), digest_bytes(p.read_bytes()), p.stat().st_size) for p in inside]
    (folder / "evidence.json").write_bytes(canonical_json(evidence_document(leaves)))


def envelope(
    world: World,
    key: SigningKey,
    role: str,
    digest: Digest | None = None,
    decision: str = "approve",
    reason: str = "read it, agreed",
    hours: float = 0.0,
    gate: GateName = "release",
) -> bytes:
    subject = digest or world.root
    predicate = approval_predicate(gate, subject, decision, role, reason, world.now + timedelta(hours=hours))
    return seal_envelope(make_statement({"evidence": subject}, APPROVAL_TYPE, predicate), key)


def put(files: dict[str, bytes], *envelopes: bytes, gate: str = "release") -> None:
    files.update({approval_path(gate, e): e for e in envelopes})


def honest_votes(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "steward"), envelope(world, world.keys["ada"], "privacy_officer"))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _edit(path: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(canonical_json(value))


def swapped_model(folder: Path, world: World, other: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"another model")


def swapped_model_with_new_list(folder: Path, world: World, other: Path) -> None:
    swapped_model(folder, world, other)
    relist(folder)


def swapped_policy(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "policy.json", lambda p: p["budget"].update(epsilon=90.0))
    relist(folder)


def swapped_report(folder: Path, world: World, other: Path) -> None:
    shutil.copy(other / "report.html", folder / "report.html")
    relist(folder)


def swapped_trace(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "trace.json", lambda t: t.update(steps=1, steps_in_model=1, epsilon=0.1))
    relist(folder)


def swapped_verdicts(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "audit/verdicts.json", lambda v: v[0].update(reason="all is well"))
    relist(folder)


def stripped_statement(folder: Path, world: World, other: Path) -> None:
    (folder / "statements/audit.dsse.json").unlink()


def stripped_statement_with_new_list(folder: Path, world: World, other: Path) -> None:
    stripped_statement(folder, world, other)
    relist(folder)


def statement_of_another_run(folder: Path, world: World, other: Path) -> None:
    shutil.copy(other / "statements/audit.dsse.json", folder / "statements/audit.dsse.json")
    relist(folder)


def statement_by_a_stranger(folder: Path, world: World, other: Path) -> None:
    statement = make_statement({"model": digest_of("x")}, PREDICATE_TYPES["audit"], {})
    (folder / "statements/audit.dsse.json").write_bytes(seal_envelope(statement, STRANGER))
    relist(folder)


def statement_by_an_approver(folder: Path, world: World, other: Path) -> None:
    statement = make_statement({"model": digest_of("x")}, PREDICATE_TYPES["audit"], {})
    (folder / "statements/audit.dsse.json").write_bytes(seal_envelope(statement, world.keys["grace"]))
    relist(folder)


def edited_journal(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "journal.json", lambda j: j["entries"][1]["facts"].update(run="another"))
    relist(folder)


def truncated_journal(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "journal.json", lambda j: j.update(entries=j["entries"][:-2]))
    relist(folder)


def journal_with_a_hole(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "journal.json", lambda j: j["entries"].pop(2))
    relist(folder)


def empty_journal(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "journal.json", lambda j: j.update(entries=[]))
    relist(folder)


def backdated_journal(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "journal.json", lambda j: j["entries"][2].update(at="2020-01-01T00:00:00.000+00:00"))
    relist(folder)


def reordered_journal(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "journal.json", lambda j: j["entries"].insert(1, j["entries"].pop(2)))
    relist(folder)


def thinned_and_renumbered_journal(folder: Path, world: World, other: Path) -> None:
    def thin(journal: dict) -> None:  # type: ignore[type-arg]
        journal["entries"].pop(2)
        for seq, entry in enumerate(journal["entries"], journal["frontier"]["size"]):
            entry["seq"] = seq

    _edit(folder / "journal.json", thin)
    relist(folder)


def replaced_frontier(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "journal.json", lambda j: j["frontier"]["nodes"].__setitem__(0, "00" * 32))
    relist(folder)


def frontier_of_nothing(folder: Path, world: World, other: Path) -> None:
    """As if the run had begun the journal."""
    _edit(folder / "journal.json", lambda j: j.update(frontier={"size": 0, "nodes": []}))
    relist(folder)


def stripped_checkpoint(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "journal.json", lambda j: j.update(checkpoint=""))
    relist(folder)


def checkpoint_without_a_signature(folder: Path, world: World, other: Path) -> None:
    _edit(folder / "journal.json", lambda j: j.update(checkpoint=j["checkpoint"].partition("\n\n")[0] + "\n\n"))
    relist(folder)


def checkpoint_of_another_journal(folder: Path, world: World, other: Path) -> None:
    def sign(journal: dict) -> None:  # type: ignore[type-arg]
        own = Checkpoint.parse(journal["checkpoint"])
        elsewhere = journal_verifier(STRANGER.public_hex).name
        journal["checkpoint"] = sign_checkpoint(elsewhere, own.size, own.root, STRANGER).note

    _edit(folder / "journal.json", sign)
    relist(folder)


def checkpoint_signed_by_a_stranger(folder: Path, world: World, other: Path) -> None:
    def sign(journal: dict) -> None:  # type: ignore[type-arg]
        own = Checkpoint.parse(journal["checkpoint"])
        journal["checkpoint"] = sign_checkpoint(own.origin, own.size, own.root, STRANGER).note

    _edit(folder / "journal.json", sign)
    relist(folder)


def checkpoint_of_a_later_state(folder: Path, world: World, other: Path) -> None:
    later = json.loads((other / "journal.json").read_bytes())["checkpoint"]
    _edit(folder / "journal.json", lambda j: j.update(checkpoint=later))
    relist(folder)


def forked_checkpoint_of_the_stolen_key(folder: Path, world: World, other: Path) -> None:
    def fork(journal: dict) -> None:  # type: ignore[type-arg]
        own = Checkpoint.parse(journal["checkpoint"])
        journal["checkpoint"] = sign_checkpoint(own.origin, own.size, b"\0" * 32, world.home.key).note

    _edit(folder / "journal.json", fork)
    relist(folder)


def proof_of_another_entry(folder: Path, world: World, other: Path) -> None:
    shutil.copy(folder / "proofs/audit.tlog-proof", folder / "proofs/train.tlog-proof")
    relist(folder)


def proof_of_another_run(folder: Path, world: World, other: Path) -> None:
    shutil.copy(other / "proofs/train.tlog-proof", folder / "proofs/train.tlog-proof")
    relist(folder)


def proof_that_leads_elsewhere(folder: Path, world: World, other: Path) -> None:
    path = folder / "proofs/train.tlog-proof"
    proof = TlogProof.parse(path.read_text())
    path.write_text(TlogProof(proof.index, (b"\0" * 32, *proof.path[1:]), proof.checkpoint, proof.extra).format())
    relist(folder)


def stripped_proof(folder: Path, world: World, other: Path) -> None:
    (folder / "proofs/train.tlog-proof").unlink()
    relist(folder)


def extra_file(folder: Path, world: World, other: Path) -> None:
    (folder / "README.txt").write_text("trust me")


def extra_file_among_the_audits(folder: Path, world: World, other: Path) -> None:
    (folder / "audit" / "more.json").write_text("{}")


def extra_folder(folder: Path, world: World, other: Path) -> None:
    (folder / "statements" / "audit").mkdir()


def symlink_in_bundle(folder: Path, world: World, other: Path) -> None:
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(other / "report.html")


def symlinked_folder(folder: Path, world: World, other: Path) -> None:
    shutil.rmtree(folder / "statements")
    (folder / "statements").symlink_to(other / "statements")


def missing_model(folder: Path, world: World, other: Path) -> None:
    (folder / "model.safetensors").unlink()


def missing_release_statement(folder: Path, world: World, other: Path) -> None:
    (folder / "release.dsse.json").unlink()


def release_statement_of_another_run(folder: Path, world: World, other: Path) -> None:
    shutil.copy(other / "release.dsse.json", folder / "release.dsse.json")


def json_in_another_spelling(folder: Path, world: World, other: Path) -> None:
    path = folder / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    relist(folder)


def json_with_a_key_twice(folder: Path, world: World, other: Path) -> None:
    path = folder / "model/config.json"
    path.write_bytes(path.read_bytes()[:-1] + b',"model":"other"}')
    relist(folder)


def removed_approval(folder: Path, world: World, other: Path) -> None:
    next(folder.glob("approvals/release-*")).unlink()


def approval_by_an_unknown_signer(folder: Path, world: World, other: Path) -> None:
    data = envelope(world, STRANGER, "steward")
    (folder / approval_path("release", data)).write_bytes(data)


def approval_added_after_the_release(folder: Path, world: World, other: Path) -> None:
    data = envelope(world, world.keys["ada"], "steward")
    (folder / approval_path("release", data)).write_bytes(data)


def approval_under_another_name(folder: Path, world: World, other: Path) -> None:
    path = next(folder.glob("approvals/release-*"))
    path.rename(path.with_name(path.name.replace("release-", "use-")))


def flipped_byte(folder: Path, world: World, other: Path) -> None:
    _flip(folder / "CARD.md")


OUTSIDERS: tuple[Outsider, ...] = tuple(
    Outsider(cheat.__name__, 4, code, cheat)
    for cheat, code in (
        (swapped_model, "E-CLAIM-001"),
        (swapped_model_with_new_list, "E-CLAIM-005"),
        (swapped_policy, "E-CLAIM-005"),
        (swapped_report, "E-CLAIM-006"),
        (swapped_trace, "E-CLAIM-005"),
        (swapped_verdicts, "E-CLAIM-005"),
        (stripped_statement, "E-CLAIM-002"),
        (stripped_statement_with_new_list, "E-CLAIM-002"),
        (statement_of_another_run, "E-CLAIM-005"),
        (statement_by_a_stranger, "E-SIGN-002"),
        (statement_by_an_approver, "E-CLAIM-004"),
        (edited_journal, "E-JOURNAL-002"),
        (truncated_journal, "E-JOURNAL-010"),
        (journal_with_a_hole, "E-JOURNAL-003"),
        (empty_journal, "E-JOURNAL-001"),
        (backdated_journal, "E-JOURNAL-013"),
        (reordered_journal, "E-JOURNAL-003"),
        (thinned_and_renumbered_journal, "E-JOURNAL-010"),
        (replaced_frontier, "E-JOURNAL-002"),
        (frontier_of_nothing, "E-JOURNAL-003"),
        (stripped_checkpoint, "E-NOTE-001"),
        (checkpoint_without_a_signature, "E-NOTE-001"),
        (checkpoint_of_another_journal, "E-NOTE-003"),
        (checkpoint_signed_by_a_stranger, "E-NOTE-003"),
        (checkpoint_of_a_later_state, "E-JOURNAL-010"),
        (forked_checkpoint_of_the_stolen_key, "E-JOURNAL-002"),
        (proof_of_another_entry, "E-CLAIM-020"),
        (proof_of_another_run, "E-CLAIM-020"),
        (proof_that_leads_elsewhere, "E-NOTE-004"),
        (stripped_proof, "E-CLAIM-002"),
        (extra_file, "E-BUNDLE-002"),
        (extra_file_among_the_audits, "E-BUNDLE-002"),
        (extra_folder, "E-BUNDLE-002"),
        (symlink_in_bundle, "E-BUNDLE-004"),
        (symlinked_folder, "E-BUNDLE-004"),
        (missing_model, "E-CLAIM-002"),
        (missing_release_statement, "E-CLAIM-002"),
        (release_statement_of_another_run, "E-CLAIM-011"),
        (json_in_another_spelling, "E-BUNDLE-006"),
        (json_with_a_key_twice, "E-BUNDLE-006"),
        (removed_approval, "E-CLAIM-011"),
        (approval_by_an_unknown_signer, "E-SIGN-002"),
        (approval_added_after_the_release, "E-CLAIM-011"),
        (approval_under_another_name, "E-CLAIM-010"),
        (flipped_byte, "E-CLAIM-001"),
    )
)


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
    Insider("released_over_a_reject", 3, "E-GATE-012", votes=_rejected),
    Insider("pipeline_key_as_approver", 3, "E-GATE-022", votes=_pipeline_votes, changes=PIPELINE_IN_QUORUM),
    Insider("role_not_held", 3, "E-GATE-014", votes=_role_not_held),
    Insider("quorum_one_short", 3, "E-GATE-017", votes=_one_short),
    Insider("approval_without_a_reason", 3, "E-GATE-019", votes=_no_reason),
    Insider("released_without_its_witness", 3, "E-CLAIM-021", witness="witness.example/w1"),
    Insider("use_votes_at_the_release_gate", 3, "E-GATE-010", votes=_use_vote_as_release_vote),
)
