"""A mechanism trace to vary in tests."""

from __future__ import annotations

import dataclasses

from privacy.accounting import MechanismTrace


def trace(**changes: object) -> MechanismTrace:
    base = MechanismTrace(
        mechanism="poisson_subsampled_gaussian",
        privacy_unit="customer",
        neighbouring_relation="add-or-remove-one",
        noise_multiplier=1.1,
        clipping_norm=1.0,
        sampling_probability=0.02,
        expected_batch_size=40,
        population=2000,
        max_records_per_unit=8,
        steps=500,
        steps_in_model=480,
        delta=1e-5,
        epsilon=2.0,
        accountant="rdp",
        ledger_key="chat/run1",
        sampler="poisson",
        noise_source="aes-ctr",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]
