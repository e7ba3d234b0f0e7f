"""Answers an access request: where one person's data is, what it was used for, and how long it stays.

Guarantee: the same look as an erasure takes, so nothing is found by one and missed by the other; the request is journalled
by case and salted commitment before the answer is given; originals leave the vault only into a new folder of the caller's.
Not covered: the landing folder, releases that left, logs of other systems; and free text of other people that mentions
the person. The answer holds personal data as soon as it is put next to the person's name: treat it so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.erase import check_request
from pipeline.holdings import Found, Look
from pipeline.lineage import Lineage, journal_time
from pipeline.retain import pending_epochs
from pipeline.training_watch import unfinished
from privacy.canonical import Digest, Json, digest_bytes, parse_json
from privacy.errors import PrivetError, UsageError
from privacy.rounding import shown_up

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.vault import Holding

_DAYS = {"protected": "protected_days", "raw": "raw_days", "quarantine": "quarantine_days"}
OUTSIDE = (
    "Not looked into: the landing folder and other sources, bundles and exports that left, and what others wrote about the"
    " person under their own identifier."
)


@dataclass(frozen=True, slots=True)
class Copy:
    """One sealed object with records of the person; `records` None where it could not be looked into."""

    kind: str
    dataset: str
    manifest: Digest
    records: int | None
    kept_until: str | None

    def to_json(self) -> dict[str, Json]:
        return {
            "kind": self.kind,
            "dataset": self.dataset,
            "manifest": self.manifest,
            "records": self.records,
            "kept_until": self.kept_until,
        }


@dataclass(frozen=True, slots=True)
class Use:
    """One model trained on data that held, or may have held, the person. Epsilon None: nothing bounds what it learnt."""

    manifest: Digest
    policy: str
    purpose: str
    mechanism: str
    epsilon: float | None
    delta: float | None
    releases: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "manifest": self.manifest,
            "policy": self.policy,
            "purpose": self.purpose,
            "mechanism": self.mechanism,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "releases": list(self.releases),
        }


@dataclass(frozen=True, slots=True)
class Dataset:
    """What one dataset's vault holds, why it is processed, and what was erased."""

    name: str
    originals: int
    originals_until: str | None
    erased_at: str | None
    erased_by_case: str | None
    old_copies_gone_by: str | None
    purposes: tuple[tuple[str, str, str], ...]  # policy, purpose, controller

    def to_json(self) -> dict[str, Json]:
        purposes: list[Json] = [{"policy": p, "purpose": why, "controller": who} for p, why, who in self.purposes]
        return {
            "dataset": self.name,
            "originals": self.originals,
            "originals_until": self.originals_until,
            "erased_at": self.erased_at,
            "erased_by_case": self.erased_by_case,
            "old_copies_gone_by": self.old_copies_gone_by,
            "purposes": purposes,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole answer; holds no identifier and no token."""

    case_id: str
    at: str
    datasets: tuple[Dataset, ...]
    copies: tuple[Copy, ...]
    uses: tuple[Use, ...]
    trainings: tuple[str, ...]
    exports: tuple[str, ...]  # when such a dataset was exported
    unreadable: tuple[Digest, ...]
    revealed: int | None = None

    @property
    def is_known(self) -> bool:
        return bool(self.datasets) or any(c.records for c in self.copies)

    def to_json(self) -> dict[str, Json]:
        return {
            "case": self.case_id,
            "at": self.at,
            "is_known": self.is_known,
            "datasets": [d.to_json() for d in self.datasets],
            "copies": [c.to_json() for c in self.copies],
            "uses": [u.to_json() for u in self.uses],
            "trainings": list(self.trainings),
            "exports": list(self.exports),
            "unreadable": list(self.unreadable),
            "revealed": self.revealed,
            "outside": OUTSIDE,
        }

    def lines(self) -> list[str]:
        lines = [f"access request {self.case_id} at {self.at}"]
        if not self.is_known:
            lines.append("  this home holds nothing under that identifier")
        for d in self.datasets:
            lines.append(
                f"  {d.name}: {d.originals} sealed originals" + (f", until {d.originals_until}" if d.originals else "")
            )
            if d.erased_at:
                by = f" by {d.old_copies_gone_by}" if d.old_copies_gone_by else ""
                lines.append(f"    erased at {d.erased_at} under case {d.erased_by_case}; old copies open no more{by}")
            lines += [f"    processed for: {why} ({policy}; {who})" for policy, why, who in d.purposes]
        for c in self.copies:
            count = "an unknown number of" if c.records is None else c.records
            until = f", until {c.kept_until}" if c.kept_until else ", destroyed"
            lines.append(f"  {c.kind} {c.dataset} {c.manifest.removeprefix('sha256:')[:12]}: {count} records{until}")
        for u in self.uses:
            bound = "without a bound" if u.epsilon is None else f"at epsilon {shown_up(u.epsilon)}, delta {u.delta}"
            left = f"; released {', '.join(u.releases)}" if u.releases else "; not released"
            lines.append(f"  model {u.manifest.removeprefix('sha256:')[:12]} of {u.policy}, trained {bound}{left}")
        lines += [f"  training {key} has started on such data and has no result" for key in self.trainings]
        lines += [f"  a dataset with such records was exported at {at}; that copy is in other hands" for at in self.exports]
        lines += [f"  {digest}: this result can't be read, so nobody knows what it holds" for digest in self.unreadable]
        if self.revealed is not None:
            lines.append(f"  {self.revealed} originals were written to the folder that was named")
        return [*lines, f"  {OUTSIDE}"]


def answer(home: Home, subject: str, case_id: str, by: str, reveal: Path | None = None) -> Answer:
    """Where the subject's data is and was used. reveal: a folder that does not exist yet, for the originals.

    Raises UsageError E-ERASE-001, 002 (subject, case or name unusable), E-SUBJECT-001 (the folder is there already).
    """
    check_request(subject, {"case": case_id, "name of who asks": by})
    lineage = Lineage.read(home)
    names = sorted(lineage.datasets() | set(home.vault.datasets()))
    spelled = {name: lineage.spelled(name, subject) for name in names}
    held = {name: h for name in names if (h := home.vault.holding(name, spelled[name])) is not None}
    tokens = {name: home.vault.token(name, spelled[name]) for name in names}
    look = Look(home, lineage, subject, tokens)
    found = [f for f in look.everywhere() if f.records is not None or f.manifest.dataset in held]
    touched = {f.digest for f in found if f.kind == "protected"}
    concerned = sorted({*held, *(f.manifest.dataset for f in found if f.records)})
    _journal(home, {name: tokens[name] for name in concerned}, case_id, by, reveal is not None)
    derived = [d for d in lineage.descendants(touched) if lineage.manifests[d].stage == "train"]
    return Answer(
        case_id,
        journal_time(home, datetime.now(UTC)).isoformat(timespec="seconds"),
        tuple(_dataset(home, lineage, name, held.get(name)) for name in concerned),
        tuple(_copy(lineage, f) for f in found),
        tuple(_use(home, lineage, d) for d in dict.fromkeys([*derived, *look.earlier_models()])),
        tuple(t.ledger_key for t in unfinished(lineage.entries) if t.protect in touched),
        tuple(entry.at for entry in lineage.exports(touched)),
        lineage.unreadable,
        None if reveal is None else _reveal(home, {n: tokens[n] for n in held}, reveal),
    )


def _dataset(home: Home, lineage: Lineage, name: str, held: Holding | None) -> Dataset:
    purposes = tuple((p.name, p.purpose, p.controller) for p in lineage.policies_of(name))
    until = None if held is None or held.last_expiry is None else held.last_expiry.date().isoformat()
    erased = (None, None) if held is None else (held.erased_at, held.erased_by_case)
    waiting = [p for p in pending_epochs(home.journal.entries()) if p.dataset == name and erased[1] in p.cases]
    due = waiting[0].by.isoformat() if waiting else None
    return Dataset(name, 0 if held is None else held.records, until, *erased, due, purposes)


def _copy(lineage: Lineage, found: Found) -> Copy:
    days = getattr(lineage.retention_of(found.manifest), _DAYS[found.kind])
    until = (lineage.made_at[found.digest] + timedelta(days=days)).date().isoformat()
    return Copy(found.kind, found.manifest.dataset, found.digest, found.records, None if found.place is None else until)


def _use(home: Home, lineage: Lineage, digest: Digest) -> Use:
    manifest = lineage.manifests[digest]
    policy = lineage.policies.get(manifest.policy_digest)
    mechanism, epsilon, delta = str(manifest.facts.get("mechanism", "unknown")), None, None
    try:
        trace = parse_json(home.store.read_plain(manifest.outputs["trace"]))
        match trace:
            case {"mechanism": str(mechanism), "epsilon": int() | float() as e, "delta": int() | float() as d}:
                epsilon, delta = (None, None) if mechanism == "none" else (float(e), float(d))
    except (PrivetError, KeyError):
        pass
    releases = tuple(e.at for e in lineage.releases({digest}, lineage.descendants({digest})))
    named = ("", "") if policy is None else (policy.name, policy.purpose)
    return Use(digest, *named, mechanism, epsilon, delta, releases)


def _journal(home: Home, tokens: dict[str, str], case_id: str, by: str, reveals: bool) -> None:
    """Before anything is shown. The salts of these commitments go with the subject, when the subject is erased."""
    commitments: dict[str, Json] = {
        name: home.vault.commitment(name, token, case_id, "access") for name, token in tokens.items()
    }
    facts: dict[str, Json] = {"case": case_id, "by": by, "subject": commitments, "originals_revealed": reveals}
    home.journal.append("subject_access", facts)


def _reveal(home: Home, tokens: dict[str, str], folder: Path) -> int:
    """One 0600 file a dataset in a new 0700 folder: JSON lines of record id and original."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise UsageError(
            "E-SUBJECT-001", "there is a folder or file with that name already", "Name a new folder; nothing is overwritten"
        ) from None
    written = 0
    for dataset, token in tokens.items():
        rows = home.vault.reveal(dataset, token)
        if rows:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(folder / f"{dataset}.jsonl", flags, 0o600), "w", encoding="utf-8") as file:
                file.writelines(_lines(rows))
            written += len(rows)
    return written


def _lines(rows: list[tuple[str, bytes]]) -> Iterator[str]:
    for record_id, payload in rows:
        text = payload.decode("utf-8", "backslashreplace")
        yield json.dumps({"record": record_id, "digest": digest_bytes(payload), "original": text}, ensure_ascii=False) + "\n"
