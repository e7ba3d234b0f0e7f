"""Section 6 of the report: where the data came from, what was checked, how long it lives, who touched it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.report_facts import Facts, document_figures, fixed, measured, missing, path_words
from pipeline.report_page import Figure, Section
from pipeline.report_words import Words, datum, say
from privacy.errors import PrivetError

_ACCESS = ("key_use", "subject_access", "export", "key_grant", "key_revoke", "secret_set", "secret_removed")
_DELETION = ("retention", "epoch_ended", "erasure", "restored_erasure")


def lifecycle(facts: Facts) -> Section:
    text = (
        say(
            "A data subject's records are erased with privet erase; the receipt names the models that learnt from them. "
            "What is over its days is destroyed by privet retention."
        ),
        say("Expectations on the protected dataset hold counts: no record is shown, and no offending value is stored."),
    )
    figures = (*_sources(facts), *_validation(facts), *_retention(facts), *_deletion(facts), *_keys(facts), *_access(facts))
    return Section("lifecycle", say("Data lifecycle"), text, figures)


def _sources(facts: Facts) -> Iterator[Figure]:
    source = facts.manifests["ingest"].inputs.get("source")
    label = say("digest of the source")
    yield measured("source", label, source, source) if source else missing("source", label, say("the run names no source"))
    yield facts.configured("source_format", say("format of the source"), facts.policy.source.format)
    for name, value in facts.manifests["ingest"].facts.items():
        if value is not None:
            yield measured(f"ingest_{name}", path_words(("ingest", *name.split("."))), value, facts.digests["ingest"], name)
    why = say("Privet records none; the controller keeps it, beside the policy's purpose")
    yield missing("lawful_basis", say("lawful basis, consent and notices"), why)


def _validation(facts: Facts) -> Iterator[Figure]:
    for name, value in facts.manifests["validate"].facts.items():
        if value is not None:
            yield measured(f"validation_{name}", path_words(("validation", name)), value, facts.digests["validate"], name)
    yield from document_figures(facts.documents["validation"].part("results"), "validation_results", most=60)


def _retention(facts: Facts) -> Iterator[Figure]:
    kept = facts.policy.retention
    yield fixed("raw", say("raw batches"), say("destroyed once the protected dataset is committed"))
    days = {
        "vault": (say("sealed originals (vault)"), kept.vault_days),
        "protected": (say("protected dataset"), kept.protected_days),
        "quarantine": (say("quarantine"), kept.quarantine_days),
    }
    for name, (label, count) in days.items():
        yield facts.configured(name, label, say("{days} days", days=count))
    erased = say("at most {days} days", days=kept.erasure_days)
    yield facts.configured("erased_copies", say("erased people, in old copies"), erased)


def _deletion(facts: Facts) -> Iterator[Figure]:
    suppressed = say("records left out because their subject was erased")
    yield facts.counted("protect", "suppressed", suppressed, "erased_records")
    counts = Counter(e.kind for e in facts.entries if e.kind in _DELETION)
    label = say("deletions in the journal")
    last = next((e for e in reversed(facts.entries) if e.kind in _DELETION), None)
    if last is None:
        yield missing("deletion_proof", label, say("the journal holds no deletion yet: nothing was due or asked for"))
    else:
        yield measured("deletion_proof", label, _counted(counts), last.digest)


def _keys(facts: Facts) -> Iterator[Figure]:
    dataset, label = facts.policy.dataset, say("key epochs of the dataset")
    try:
        keyring = facts.ctx.home.keyring
        domains = [d for d in keyring.state.domains if d.split("/")[0] == dataset]
        said = "; ".join(f"{d}: {len(keyring.epochs(d))}" for d in sorted(domains))
        if said:
            yield measured("key_epochs", label, said, keyring.digest)
        else:
            yield missing("key_epochs", label, say("the keyring holds none for this dataset"))
    except PrivetError:
        yield missing("key_epochs", label, say("this role may not look"))
    rotations = [e for e in facts.entries if e.kind.startswith("keys_") or e.kind in ("epoch_begun", "epoch_ended")]
    said_rotations = say("{count} changes of keys in the journal", count=len(rotations))
    newest = rotations[-1].digest if rotations else None
    yield measured("key_rotations", say("key rotations"), said_rotations, newest)


def _access(facts: Facts) -> Iterator[Figure]:
    found = [e for e in facts.entries if e.kind in _ACCESS]
    label = say("access log: entries by kind")
    if found:
        yield measured("access_log", label, _counted(Counter(e.kind for e in found)), found[-1].digest)
    else:
        yield missing("access_log", label, say("the journal holds no such entry yet"))


def _counted(counts: Counter[str]) -> Words:
    return datum("; ".join(f"{kind}: {count:,}" for kind, count in sorted(counts.items())))
