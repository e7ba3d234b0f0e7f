"""Somebody without keys changes a good bundle, and may write a new list of files over what they did."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from pipeline.bundle import approval_path
from pipeline.evidence import PREDICATE_TYPES
from privacy.canonical import canonical_json, digest_of
from privacy.checkpoint import Checkpoint, TlogProof, sign_checkpoint
from privacy.entries import journal_verifier
from privacy.signing import make_statement, seal_envelope
from tests.worlds.bad_bundles.cases import STRANGER, Outsider, edit, envelope, flip, relist
from tests.worlds.release_world import World


def swapped_model(folder: Path, world: World, other: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"another model")


def swapped_model_with_new_list(folder: Path, world: World, other: Path) -> None:
    swapped_model(folder, world, other)
    relist(folder)


def swapped_policy(folder: Path, world: World, other: Path) -> None:
    edit(folder / "policy.json", lambda p: p["budget"].update(epsilon=90.0))
    relist(folder)


def swapped_report(folder: Path, world: World, other: Path) -> None:
    shutil.copy(other / "report.html", folder / "report.html")
    relist(folder)


def swapped_trace(folder: Path, world: World, other: Path) -> None:
    edit(folder / "trace.json", lambda t: t.update(steps=1, steps_in_model=1, epsilon=0.1))
    relist(folder)


def swapped_verdicts(folder: Path, world: World, other: Path) -> None:
    edit(folder / "audit/verdicts.json", lambda v: v[0].update(reason="all is well"))
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
    edit(folder / "journal.json", lambda j: j["entries"][1]["facts"].update(run="another"))
    relist(folder)


def truncated_journal(folder: Path, world: World, other: Path) -> None:
    edit(folder / "journal.json", lambda j: j.update(entries=j["entries"][:-2]))
    relist(folder)


def journal_with_a_hole(folder: Path, world: World, other: Path) -> None:
    edit(folder / "journal.json", lambda j: j["entries"].pop(2))
    relist(folder)


def empty_journal(folder: Path, world: World, other: Path) -> None:
    edit(folder / "journal.json", lambda j: j.update(entries=[]))
    relist(folder)


def backdated_journal(folder: Path, world: World, other: Path) -> None:
    edit(folder / "journal.json", lambda j: j["entries"][2].update(at="2020-01-01T00:00:00.000+00:00"))
    relist(folder)


def reordered_journal(folder: Path, world: World, other: Path) -> None:
    edit(folder / "journal.json", lambda j: j["entries"].insert(1, j["entries"].pop(2)))
    relist(folder)


def thinned_and_renumbered_journal(folder: Path, world: World, other: Path) -> None:
    def thin(journal: dict) -> None:  # type: ignore[type-arg]
        journal["entries"].pop(2)
        for seq, entry in enumerate(journal["entries"], journal["frontier"]["size"]):
            entry["seq"] = seq

    edit(folder / "journal.json", thin)
    relist(folder)


def replaced_frontier(folder: Path, world: World, other: Path) -> None:
    edit(folder / "journal.json", lambda j: j["frontier"]["nodes"].__setitem__(0, "00" * 32))
    relist(folder)


def frontier_of_nothing(folder: Path, world: World, other: Path) -> None:
    """As if the run had begun the journal."""
    edit(folder / "journal.json", lambda j: j.update(frontier={"size": 0, "nodes": []}))
    relist(folder)


def stripped_checkpoint(folder: Path, world: World, other: Path) -> None:
    edit(folder / "journal.json", lambda j: j.update(checkpoint=""))
    relist(folder)


def checkpoint_without_a_signature(folder: Path, world: World, other: Path) -> None:
    edit(folder / "journal.json", lambda j: j.update(checkpoint=j["checkpoint"].partition("\n\n")[0] + "\n\n"))
    relist(folder)


def checkpoint_of_another_journal(folder: Path, world: World, other: Path) -> None:
    def sign(journal: dict) -> None:  # type: ignore[type-arg]
        own = Checkpoint.parse(journal["checkpoint"])
        elsewhere = journal_verifier(STRANGER.public_hex).name
        journal["checkpoint"] = sign_checkpoint(elsewhere, own.size, own.root, STRANGER).note

    edit(folder / "journal.json", sign)
    relist(folder)


def checkpoint_signed_by_a_stranger(folder: Path, world: World, other: Path) -> None:
    def sign(journal: dict) -> None:  # type: ignore[type-arg]
        own = Checkpoint.parse(journal["checkpoint"])
        journal["checkpoint"] = sign_checkpoint(own.origin, own.size, own.root, STRANGER).note

    edit(folder / "journal.json", sign)
    relist(folder)


def checkpoint_of_a_later_state(folder: Path, world: World, other: Path) -> None:
    later = json.loads((other / "journal.json").read_bytes())["checkpoint"]
    edit(folder / "journal.json", lambda j: j.update(checkpoint=later))
    relist(folder)


def forked_checkpoint_of_the_stolen_key(folder: Path, world: World, other: Path) -> None:
    def fork(journal: dict) -> None:  # type: ignore[type-arg]
        own = Checkpoint.parse(journal["checkpoint"])
        journal["checkpoint"] = sign_checkpoint(own.origin, own.size, b"\0" * 32, world.home.key).note

    edit(folder / "journal.json", fork)
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
    flip(folder / "CARD.md")


def swapped_data(folder: Path, world: World, other: Path) -> None:
    theirs = json.loads((other / "manifests.json").read_bytes())["protect"]
    edit(folder / "manifests.json", lambda m: m.update(protect=theirs))
    relist(folder)


def deleted_journal(folder: Path, world: World, other: Path) -> None:
    (folder / "journal.json").unlink()
    relist(folder)


def without_attacks(folder: Path, world: World, other: Path) -> None:
    (folder / "audit/attacks.json").unlink()
    relist(folder)


def without_harm(folder: Path, world: World, other: Path) -> None:
    (folder / "audit/harm.json").unlink()
    relist(folder)


def without_bill_of_materials(folder: Path, world: World, other: Path) -> None:
    (folder / "bom.cdx.json").unlink()
    relist(folder)


def edited_attacks(folder: Path, world: World, other: Path) -> None:
    (folder / "audit/attacks.json").write_bytes(canonical_json({"membership": "none found"}))
    relist(folder)


def edited_card(folder: Path, world: World, other: Path) -> None:
    path = folder / "CARD.md"
    path.write_text(path.read_text().replace("\n  epsilon: 7.", "\n  epsilon: 0.", 1))
    relist(folder)


def card_with_a_second_epsilon(folder: Path, world: World, other: Path) -> None:
    """Of a key that stands twice most readers of YAML take the last one."""
    path = folder / "CARD.md"
    path.write_text(path.read_text().replace("\n  verify:", "\n  epsilon: 0.1\n  verify:", 1))
    relist(folder)


def card_of_another_model(folder: Path, world: World, other: Path) -> None:
    path = folder / "CARD.md"
    path.write_text(re.sub(r'(model_sha256: "sha256:)[0-9a-f]{8}', r"\g<1>00000000", path.read_text()))
    relist(folder)


def _metrics(bom: dict) -> list:  # type: ignore[type-arg]
    return bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]  # type: ignore[no-any-return]


def edited_bill_of_materials(folder: Path, world: World, other: Path) -> None:
    edit(folder / "bom.cdx.json", lambda b: _metrics(b)[3].update(value="0.1"))
    relist(folder)


def bill_of_materials_with_a_metric_more(folder: Path, world: World, other: Path) -> None:
    edit(folder / "bom.cdx.json", lambda b: _metrics(b).append({"type": "differential privacy: epsilon", "value": "0.1"}))
    relist(folder)


def bill_of_materials_of_another_file(folder: Path, world: World, other: Path) -> None:
    zeros = [{"alg": "SHA-256", "content": "0" * 64}]
    edit(folder / "bom.cdx.json", lambda b: b["metadata"]["component"]["externalReferences"][3].update(hashes=zeros))
    relist(folder)


def edited_spdx(folder: Path, world: World, other: Path) -> None:
    def kinder(document: dict) -> None:  # type: ignore[type-arg]
        (model,) = [e for e in document["@graph"] if e["type"] == "ai_AIPackage"]
        (epsilon,) = [m for m in model["ai_metric"] if m["key"] == "differential privacy: epsilon"]
        epsilon["value"] = "0.1"

    edit(folder / "spdx.json", kinder)
    relist(folder)


def replayed_approval(folder: Path, world: World, other: Path) -> None:
    """Another run was approved; its signatures are real."""
    for path in other.glob("approvals/release-*"):
        shutil.copy(path, folder / "approvals" / path.name)


OUTSIDERS: tuple[Outsider, ...] = tuple(
    Outsider(cheat.__name__, 4, code, cheat)
    for cheat, code in (
        (swapped_model, "E-CLAIM-001"),
        (swapped_model_with_new_list, "E-CLAIM-029"),
        (swapped_policy, "E-CLAIM-027"),
        (swapped_report, "E-CLAIM-031"),
        (swapped_trace, "E-CLAIM-030"),
        (swapped_verdicts, "E-CLAIM-005"),
        (stripped_statement, "E-CLAIM-032"),
        (stripped_statement_with_new_list, "E-CLAIM-032"),
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
        (stripped_proof, "E-CLAIM-033"),
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
        (swapped_data, "E-CLAIM-028"),
        (deleted_journal, "E-CLAIM-033"),
        (without_attacks, "E-CLAIM-002"),
        (without_harm, "E-CLAIM-002"),
        (without_bill_of_materials, "E-CLAIM-002"),
        (edited_attacks, "E-CLAIM-005"),
        (edited_card, "E-CLAIM-024"),
        (card_with_a_second_epsilon, "E-CLAIM-024"),
        (card_of_another_model, "E-CLAIM-024"),
        (edited_bill_of_materials, "E-CLAIM-025"),
        (bill_of_materials_with_a_metric_more, "E-CLAIM-025"),
        (bill_of_materials_of_another_file, "E-CLAIM-025"),
        (edited_spdx, "E-CLAIM-026"),
        (replayed_approval, "E-CLAIM-011"),
    )
)
