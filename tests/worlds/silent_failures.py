"""The seven ways in which Opacus 1.6 loses the guarantee without a word, each tried on Privet; True: not silently here.

Each function does what a user of Opacus would have done, or shows that there is no way to do it. They are the tests of
tests/training/test_silent_failures.py and one row of benchmarks/training_mechanism.py.
"""

from __future__ import annotations

import numpy as np
import torch

from privacy.accounting import epsilon_of_charge
from privacy.errors import PrivetError
from privacy.mechanisms import PoissonSampledGaussian, charge_of
from tests.training.worlds import FixedSize, PrivateDivisor, ReplayedNoise, Shuffled, run, small_config, units
from training.engine import Memory, PrivateEngine, make_carrier
from training.preflight import brute_force_sum
from training.probe import probe

COINS = np.array([True, False, True])
_LEVEL = 1e-3


def _engine(method: str, at_once: int = 256) -> PrivateEngine:
    torch.set_num_threads(1)
    config = small_config(canaries=3)
    return PrivateEngine(make_carrier(config), config, units(config, 24), COINS, memory=Memory(method, at_once))


def _refused(work: object) -> bool:
    try:
        work()  # type: ignore[operator]
    except PrivetError:
        return True
    return False


def _seen(kind: type[PrivateEngine], check: str) -> bool:
    """The conformance probe fails this engine at its level, in the check that is about it."""
    found = {result.check: result.p_value for result in probe(run(kind), _LEVEL)}
    p_value = found[check]
    return p_value is not None and p_value < _LEVEL / len(found)


def a_layer_unfrozen_after_the_start() -> bool:
    """Ghost clipping never measures it: one record moved the sum by 4,865 times its bound."""
    refused = []
    for method in ("tape", "two_pass", "hooks", "ghost"):
        torch.set_num_threads(1)
        config = small_config(canaries=3)
        carrier = make_carrier(config)
        carrier.model.hidden.weight.requires_grad_(False)  # type: ignore[union-attr]
        made = PrivateEngine(carrier, config, units(config, 24), COINS, memory=Memory(method))
        carrier.model.hidden.weight.requires_grad_(True)  # type: ignore[union-attr]
        refused.append(_refused(lambda made=made: made.step(0)))
    return all(refused)


def b_virtual_batches_that_are_dropped() -> bool:
    """Ghost clipping keeps the last of several physical batches only."""
    right = []
    for method in ("tape", "two_pass", "hooks"):
        made = _engine(method, at_once=2)
        rows = np.arange(9)
        expected = brute_force_sum(make_carrier(made.config), made.batch(rows), made.config.clipping_norm)
        made.clear()
        made.accumulate(rows)
        pairs = zip((p.summed_grad for p in made.method.parameters), expected, strict=True)
        right.append(len(made.parts(rows)) > 3 and all(torch.allclose(f, w, rtol=1e-3, atol=1e-6) for f, w in pairs))
    return all(right)


def c_ranks_that_sample_by_themselves() -> bool:
    """Each rank drew its own batch, skipped empty ones, and shared a seed; here one leader draws, and a fixed cut is seen."""
    return _seen(FixedSize, "batch_size_law")


def d_noise_replayed_after_a_restart() -> bool:
    """The same seed gives the same noise, and the difference of two checkpoints none."""
    first, second = _engine("tape"), _engine("tape")
    torch.manual_seed(1)
    one = first.step(0).gradient
    torch.manual_seed(1)
    again = second.step(0).gradient
    return not np.array_equal(one, again) and _seen(ReplayedNoise, "noise_independence")


def e_shuffling_accounted_as_poisson() -> bool:
    """An epsilon of 4.77 was printed for a run that has 17.86. Here nobody can switch the sampler, and another one is seen."""
    return _seen(Shuffled, "participation_law")


def f_a_divisor_that_is_secret() -> bool:
    """The count of a batch, or its noisy count over it, tells who took part."""
    return _seen(PrivateDivisor, "divisor")


def g_an_accountant_below_the_truth() -> bool:
    """Opacus' gdp accountant says less than the tight figure of its own prv accountant; our claim never does."""
    from opacus.accountants import GaussianAccountant, PRVAccountant

    delta, q, steps = 1e-5, 0.102, 300
    right = []
    for noise in (1.2, 2.0):
        loose, tight = GaussianAccountant(), PRVAccountant()
        loose.history = tight.history = [(noise, q, steps)]
        bound = tight.get_epsilon(delta, eps_error=0.001)
        claim = epsilon_of_charge(charge_of(PoissonSampledGaussian(q, noise), steps), delta)
        right.append(loose.get_epsilon(delta) < bound - 0.01 and claim >= bound - 0.001)
    return all(right)


FAILURES = (
    a_layer_unfrozen_after_the_start,
    b_virtual_batches_that_are_dropped,
    c_ranks_that_sample_by_themselves,
    d_noise_replayed_after_a_restart,
    e_shuffling_accounted_as_poisson,
    f_a_divisor_that_is_secret,
    g_an_accountant_below_the_truth,
)
