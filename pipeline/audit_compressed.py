"""Audits each file of a compressed model by itself, on its own bytes: it is a new model, and no audit of its parent covers it.

Guarantee: a file is loaded back from the bytes that would leave and goes through every audit that looks at a model; it leaves
only if each of its verdicts passed and none that its policy needs is missing. What can't be loaded or looked at is "not
evaluated", which holds back that file and no other. Files are handed out by a decision made anew from the stored evidence.
Assumption: the audits of the run itself (probe, bounds, ledger, coins) are about the parent's training, and its release needed
them; compression adds no step to it. Not covered: holdout figures here are exact and outside the privacy claim, and so is a
choice that somebody makes by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.audit import OF_THE_MODEL
from pipeline.audit_case import AuditCase, Opened, Part
from pipeline.evidence import required_verdicts
from privacy.canonical import Digest, Json, canonical_json, digest_bytes, parse_canonical
from privacy.errors import EnvironmentFault, IntegrityError
from privacy.verdict import Verdict, blocking

if TYPE_CHECKING:
    from privacy.policy import Policy
    from training.config import TrainingConfig
    from training.models.base import UnitModel

RELOAD = "compress.reload"
# About the parent's data and training; all others are about a model.
OF_THE_RUN = ("validation", "audit.epsilon_lower_bound", "audit.ledger_match", "audit.canary_reveal")
PROTECTION = "exact figures of holdout units, rounded, outside the privacy claim"
_FAULTS = (EnvironmentFault, IntegrityError, OSError, MemoryError)  # of this machine or home, and no finding about a file


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a file's tensors fit into: the untrained model, and the configuration that a consumer rebuilds it with."""

    config: TrainingConfig
    build: Callable[[], UnitModel]


@dataclass(frozen=True, slots=True)
class FileAudit:
    """Of one file. `evidence`: the canonical document that the verdicts are read back from."""

    name: str
    sha256: Digest
    verdicts: tuple[Verdict, ...]
    evidence: bytes

    @property
    def may_leave(self) -> bool:
        return bool(self.verdicts) and not blocking(self.verdicts)

    def in_table(self) -> dict[str, Json]:
        """What approvers see and sign."""
        return {
            "audit": digest_bytes(self.evidence),
            "verdicts": {verdict.check: verdict.outcome for verdict in self.verdicts},
            "held_back_by": [f"{v.check} ({v.outcome.replace('_', ' ')}): {v.reason}" for v in blocking(self.verdicts)],
            "may_leave": self.may_leave,
        }


def needed_of_a_file(policy: Policy) -> tuple[str, ...]:
    """Verdicts that each file has to pass by itself: those of a release that are about the model."""
    names = required_verdicts(policy.canonical())  # type: ignore[arg-type]
    return tuple(name for name in names if name not in OF_THE_RUN and not name.startswith("probe."))


def audit_files(
    case: AuditCase, files: Mapping[str, bytes], of: Callable[[str], Architecture], each: Callable[[str], None]
) -> list[FileAudit]:
    """case: of the parent. of: the architecture of a file, by its name. each: called before a file is looked at."""
    found = []
    for name, data in files.items():
        each(name)
        found.append(_audited(case, name, data, of(name)))
    return found


def read_audit(name: str, sha256: Digest, evidence: bytes, policy: Policy) -> FileAudit:
    """The verdicts as they were stored. Raises IntegrityError E-COMPRESS-015 when they are not of this file."""
    value = parse_canonical(evidence)
    match value:
        case {"file": str(file), "sha256": str(digest), "verdicts": list(verdicts)} if (file, digest) == (name, sha256):
            read = tuple(Verdict.from_json(verdict) for verdict in verdicts)
            return FileAudit(name, sha256, _whole(read, policy), evidence)
    raise IntegrityError("E-COMPRESS-015", "the audit of a compressed file is of another file", "Compress again")


def _audited(case: AuditCase, name: str, data: bytes, architecture: Architecture) -> FileAudit:
    reloaded, opened = _reloaded(case, name, data, architecture)
    parts = list(_parts(replace(case, opened=opened)))
    verdicts = _whole((reloaded, *(verdict for part in parts for verdict in part.verdicts)), case.ctx.policy)
    sha256 = digest_bytes(data)
    document: dict[str, Json] = {
        "file": name,
        "sha256": sha256,
        "bytes": len(data),
        "parent": case.train_digest,
        "verdicts": [verdict.to_json() for verdict in verdicts],
        "documents": {key: value for part in parts for key, value in part.documents.items()},
        "protection": PROTECTION,
    }
    return FileAudit(name, sha256, verdicts, canonical_json(document))


def _reloaded(case: AuditCase, name: str, data: bytes, architecture: Architecture) -> tuple[Verdict, Opened | None]:
    from training.reload import reloaded

    if case.opened is None:
        return Verdict(RELOAD, "not_evaluated", "the parent could not be loaded, so there is nothing to audit with"), None
    inputs = tuple(case.opened.holdout.inputs)
    try:
        model = reloaded(name, data, architecture.build, architecture.config, inputs)
    except _FAULTS:
        raise
    except Exception as error:  # whatever a reader of tensors or graphs trips over
        return Verdict(RELOAD, "not_evaluated", f"the file could not be loaded back ({type(error).__name__})"), None
    said = "the audits looked at the model that these bytes hold"
    return Verdict(RELOAD, "passed", said), replace(case.opened, model=model, config=architecture.config)


def _parts(case: AuditCase) -> Iterator[Part]:
    """A part that can't look at a file of this kind gives no verdict, and the verdict that is missing blocks."""
    for look in OF_THE_MODEL:
        try:
            yield look(case)
        except _FAULTS:
            raise
        except Exception as error:
            said = f"the audit can't look at a file of this kind ({type(error).__name__})"
            yield Part((Verdict(f"compress.{look.__name__}", "not_evaluated", said),))


def _whole(verdicts: Sequence[Verdict], policy: Policy) -> tuple[Verdict, ...]:
    """With a verdict for each that is needed; one check is never answered twice."""
    there = {verdict.check for verdict in verdicts}
    said = "no audit of this file gave this verdict"
    missing = [Verdict(name, "not_evaluated", said) for name in (RELOAD, *needed_of_a_file(policy)) if name not in there]
    if len(there) != len(verdicts):
        raise IntegrityError("E-COMPRESS-016", "an audit of a compressed file answers one check twice", "Report this")
    return (*verdicts, *missing)
