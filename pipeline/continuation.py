"""Whether a committed result of the data stages can be gone on from, now that data is destroyed on purpose.

Guarantee: a batch or dataset that is gone is made anew only for a run that still needs it; once the model is trained
and audited, running again neither takes the source in again nor spends budget again.
"""

from __future__ import annotations

from pipeline.evidence import use_subject
from pipeline.relocate import is_there
from pipeline.stage import StageContext, StageResult, committed, whole
from privacy.canonical import Digest


def batch_leads_on(ctx: StageContext, ingested: StageResult) -> bool:
    """Protect destroys the raw batch; from then on the protected dataset stands for it."""
    raw = ingested.manifest.outputs.get("raw")
    if raw is not None and is_there(ctx.home, raw):
        return True
    protected = committed(ctx, "protect", {"ingest": ingested.digest})
    return protected is not None and dataset_leads_on(ctx, protected)


def dataset_leads_on(ctx: StageContext, protected: StageResult) -> bool:
    """The dataset is there, or nobody will read it again."""
    return all(is_there(ctx.home, ref) for ref in protected.manifest.outputs.values()) or _audited(ctx, protected.digest)


def _audited(ctx: StageContext, protect: Digest) -> bool:
    validated = committed(ctx, "validate", {"protect": protect})
    if validated is None:
        return False
    budget = ctx.policy.budget
    use = use_subject(ctx.policy_digest, protect, validated.digest, budget.epsilon, budget.delta)
    trained = committed(ctx, "train", {"protect": protect, "use": use})
    if trained is None or not whole(ctx, trained):
        return False
    audited = committed(ctx, "audit", {"protect": protect, "train": trained.digest})
    return audited is not None and whole(ctx, audited)
