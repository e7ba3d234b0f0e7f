"""A real home with a protected dataset of synthetic chats, its validation, and people who can approve its use."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.approve import ApprovalRequest, request_use, sign_request
from pipeline.home import Home
from pipeline.stage import StageContext, StageOutput, StageResult, run_stage
from privacy.policy_file import policy_digest
from tests.worlds.policies import make_policy

SETTINGS: dict[str, object] = {
    "recipe": {"steps": 40, "hash_buckets": 128, "embedding_width": 8, "max_tokens": 8, "learning_rate": 0.05},
    "budget": {"epsilon": 8.0, "delta": 1e-4, "population": 200, "expected_batch_size": 40, "cap_epsilon": 9.0},
    "audit": {"canaries": 120, "min_accuracy": 0.6},
}
WORDS = {"refund": "money back please", "delivery": "where is my parcel", "greeting": "hello good morning"}


class TrainingWorld:
    def __init__(self, path: Path, **changes: object) -> None:
        torch.set_num_threads(1)
        self.home = Home.create(path / "home", demo_identities=True)
        policy = make_policy(**{**SETTINGS, **changes})
        self.ctx = StageContext(self.home, policy, policy_digest(policy), "run-1", "demo_engineer")
        self.protect = self._protect(self.ctx)
        self.validate = self._validate(self.ctx)

    def context(self, **changes: object) -> StageContext:
        return replace(self.ctx, **changes)  # type: ignore[arg-type]

    def request(self) -> ApprovalRequest:
        return request_use(self.ctx, self.protect.digest, self.validate.digest)

    def approve(self) -> str:
        """The approved use subject."""
        request = self.request()
        key = self.home.identity("demo_steward")
        sign_request(self.home, request, "demo_steward", "steward", "approve", "fits the purpose", key, self.ctx.clock())
        return request.digest

    def _protect(self, ctx: StageContext) -> StageResult:
        ingest = run_stage(ctx, "ingest", {"source": "sha256:" + "0" * 64}, lambda: StageOutput({}))
        return run_stage(ctx, "protect", {"ingest": ingest.digest}, lambda: StageOutput({"protected": self._rows(ctx)}))

    def _validate(self, ctx: StageContext) -> StageResult:
        facts = {"verdict": "passed", "evaluated": 9}
        return run_stage(ctx, "validate", {"protect": self.protect.digest}, lambda: StageOutput({}, facts))

    def _rows(self, ctx: StageContext) -> object:
        rows = []
        labels = list(WORDS)
        for unit in range(200):
            for number in range(3):
                label = labels[(unit + number) % 3]
                text = f"{WORDS[label]} <PERSON_{unit:06x}>"
                rows.append({"unit": f"u{unit:04d}", "record_id": f"r{unit}-{number}", "text": text, "label": label})
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        return ctx.home.store.put_sealed(
            buffer.getvalue(), dataset=ctx.policy.dataset, path="protected", data_class="protected"
        )
