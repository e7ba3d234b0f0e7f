"""Which result was made from which, when and under which policy, as the verified journal tells it.

Guarantee: every journalled stage is here or named as unreadable; nothing is taken from a file that the journal does not
name. Times are the journal's or the stage's own, whichever is later, so a clock that was set back makes nothing look old.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipeline.stage import Manifest, load_manifest
from privacy.canonical import Digest, Json, is_digest, parse_json
from privacy.errors import PrivetError
from privacy.policy import Policy, Retention
from privacy.tokens import spelled_subject
from privacy.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.journal import Entry


@dataclass(frozen=True)
class Lineage:
    """`manifests` in journal order; `made_at` by manifest; `unreadable`: journalled, but not in the store or damaged."""

    entries: Sequence[Entry]
    manifests: Mapping[Digest, Manifest]
    made_at: Mapping[Digest, datetime]
    policies: Mapping[Digest, Policy]
    unreadable: tuple[Digest, ...]

    @classmethod
    def read(cls, home: Home) -> Lineage:
        entries = home.journal.entries()
        manifests: dict[Digest, Manifest] = {}
        made_at: dict[Digest, datetime] = {}
        unreadable: dict[Digest, None] = {}
        for entry in entries:
            digest = entry.facts.get("manifest")
            if entry.kind != "stage" or not isinstance(digest, str) or digest in manifests:
                continue
            try:
                manifests[digest] = load_manifest(home, digest)
            except PrivetError:
                unreadable[digest] = None
                continue
            made_at[digest] = max(datetime.fromisoformat(entry.at), datetime.fromisoformat(manifests[digest].created_at))
        wanted = dict.fromkeys(manifest.policy_digest for manifest in manifests.values())
        policies = {digest: policy for digest in wanted if (policy := _policy(home, digest)) is not None}
        return cls(entries, manifests, made_at, policies, tuple(unreadable))

    def datasets(self) -> set[str]:
        return {manifest.dataset for manifest in self.manifests.values()}

    def descendants(self, roots: set[Digest]) -> list[Digest]:
        """Manifests made from `roots`, directly or not. Inputs are journalled before outputs, so one pass is enough."""
        reached = set(roots)
        found = []
        for digest, manifest in self.manifests.items():
            if digest not in reached and reached & set(manifest.inputs.values()):
                reached.add(digest)
                found.append(digest)
        return found

    def releases(self, models: set[Digest], derived: Sequence[Digest]) -> Iterator[Entry]:
        """Release entries that name such a model or what was made from it, or that end a run that trained one."""
        named = {*models, *derived} if models else set()
        runs = {e.facts.get("run") for e in self.entries if e.kind == "stage" and e.facts.get("manifest") in models}
        for entry in self.entries:
            if entry.kind == "release" and (entry.facts.get("run") in runs or named & set(_digests(dict(entry.facts)))):
                yield entry

    def exports(self, protected: set[Digest]) -> Iterator[Entry]:
        """Export entries of such datasets."""
        return (entry for entry in self.entries if entry.kind == "export" and entry.facts.get("manifest") in protected)

    def privacy_audit(self, home: Home, model: Digest) -> Outcome | None:
        """Of the newest audit of that model, utility aside; None when nobody audited it."""
        found: Outcome | None = None
        for manifest in self.manifests.values():
            if manifest.stage == "audit" and model in manifest.inputs.values():
                found = _privacy_outcome(home, manifest)
        return found

    def retention_of(self, manifest: Manifest) -> Retention:
        """What its own policy promised; the defaults where that policy is not in the store."""
        policy = self.policies.get(manifest.policy_digest)
        return policy.retention if policy is not None else Retention()

    def policies_of(self, dataset: str) -> list[Policy]:
        """The newest policy of each name that took data into the dataset."""
        return [policy for policy in self._newest.values() if policy.dataset == dataset]

    def spelled(self, dataset: str, subject: str) -> str:
        """The spelling under which the dataset knows a subject, by the kind that its policies declare (the newest one's)."""
        return spelled_subject(subject, self.subject_kind(dataset))

    def subject_kind(self, dataset: str) -> str:
        """What the subject field of the dataset holds, by the newest of its policies; `plain` where none is known."""
        kinds = [policy.source.fields.subject_kind for policy in self.policies_of(dataset)]
        return kinds[-1] if kinds else "plain"

    def erasure_days(self, dataset: str) -> int:
        """The shortest promise of any policy on the dataset."""
        return min((p.retention.erasure_days for p in self.policies_of(dataset)), default=Retention().erasure_days)

    @cached_property
    def _newest(self) -> Mapping[str, Policy]:
        found: dict[str, Policy] = {}
        for manifest in self.manifests.values():
            policy = self.policies.get(manifest.policy_digest)
            if policy is not None:
                found[policy.name] = policy
        return found


def _privacy_outcome(home: Home, audit: Manifest) -> Outcome:
    try:
        recorded = parse_json(home.store.read_plain(audit.outputs["verdicts"]))
        assert isinstance(recorded, Sequence)
        outcomes = {v.outcome for v in map(Verdict.from_json, recorded) if v.check != "audit.utility"}
    except (PrivetError, KeyError, AssertionError):
        return "not_evaluated"
    return "failed" if "failed" in outcomes else "passed" if outcomes == {"passed"} else "not_evaluated"


def _policy(home: Home, digest: Digest) -> Policy | None:
    try:
        return Policy.model_validate(parse_json(home.store.get_plain(digest)))
    except (PrivetError, ValidationError):
        return None


def _digests(value: Json) -> Iterator[Digest]:
    if isinstance(value, str):
        if is_digest(value):
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _digests(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _digests(part)


def journal_time(home: Home, clock: datetime) -> datetime:
    """The later of the clock and the newest journal entry: a clock that was set back makes nothing older or younger."""
    head = home.journal.head()
    return clock if head is None else max(clock, datetime.fromisoformat(head.at))
