"""The tape for a plain Opacus program: a grad-sample module, an optimizer, and `make_private` in place of PrivacyEngine's.

Guarantee: as `training.tape`; every backward pass between two steps counts (Opacus' ghost mode drops all but the last). The
accountant is Opacus' own (PRV) and is told of each step through its hook; sampling is Poisson, or it is refused.
Assumption: the first tensor that goes into the model has one row for each unit. Not covered: the noise is Opacus' generator,
and the divisor follows the size of the data set, as ever in Opacus; `training.engine` has neither weakness.

    module, optimizer, loader = make_private(PrivacyEngine(), module=net, optimizer=sgd, data_loader=loader,
                                             noise_multiplier=1.0, max_grad_norm=1.0)
"""

from __future__ import annotations

from typing import Any

import torch
from opacus import PrivacyEngine
from opacus.data_loader import DPDataLoader
from opacus.grad_sample.gsm_base import AbstractGradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from privacy.errors import UsageError
from training.tape import Session, TapeHooks, total_of


class TapeModule(TapeHooks, AbstractGradSampleModule):  # type: ignore[misc]
    """Wraps a model; each forward pass in training opens a session, which `TapeOptimizer` finishes."""

    def __init__(self, m: nn.Module, *, batch_first: bool = True, loss_reduction: str = "mean") -> None:
        nn.Module.__init__(self)
        super().__init__(m, batch_first=batch_first, loss_reduction=loss_reduction)
        self.open: list[Session] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Outside training, or without gradients, the model as it is."""
        first = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        self.session = None  # an empty batch leaves nothing behind
        if first is not None and len(first) and self.training and torch.is_grad_enabled():
            scale = float(len(first)) if self.loss_reduction == "mean" else 1.0
            self.session = Session(self, len(first), scale=scale)
            self.open.append(self.session)
        found = self._module(*args, **kwargs)
        if self.session is not None:
            self.session.running = False
        return found


class TapeOptimizer(DPOptimizer):  # type: ignore[misc]
    """DPOptimizer whose clipped sums come from the tape."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, module: TapeModule, **settings: Any) -> None:
        super().__init__(optimizer, **settings)
        if set(self.params) != set(module.trainable):
            raise UsageError(
                "E-TRAIN-041",
                "the optimizer's parameters are not those that train in the model",
                "Make the optimizer of all trainable parameters, after layers were frozen and unfrozen",
            )
        self.module = module
        self.dropped_units = 0  # not finite; secret
        self._batches = 1

    @property
    def grad_samples(self) -> list[Tensor]:
        """What Opacus asks for to see whether there is anything to train."""
        return self.params  # type: ignore[no-any-return]

    @property
    def accumulated_iterations(self) -> int:
        return self._batches

    def clip_and_accumulate(self) -> None:
        for parameter in self.params:
            total_of(parameter)
        self._batches = max(1, len(self.module.open))
        for session in self.module.open:
            self.dropped_units += session.finish(self.max_grad_norm)
        self.module.open.clear()
        self.module.session = None


def make_private(
    engine: PrivacyEngine,
    *,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    data_loader: DataLoader[Any],
    noise_multiplier: float,
    max_grad_norm: float,
    loss_reduction: str = "mean",
    noise_generator: torch.Generator | None = None,
) -> tuple[TapeModule, TapeOptimizer, DataLoader[Any]]:
    """As PrivacyEngine.make_private with flat clipping; `engine.get_epsilon` answers as usual.

    Raises opacus' UnsupportedModuleError for a model that its validator refuses, PolicyError E-TRAIN-032 or 033 for one that
    the tape can't clip.
    """
    engine.validate(module=module, optimizer=optimizer, data_loader=data_loader)
    loader = DPDataLoader.from_data_loader(data_loader, generator=noise_generator)
    taped = TapeModule(module, loss_reduction=loss_reduction)
    expected = len(data_loader.dataset) * loader.sample_rate  # type: ignore[arg-type]
    private = TapeOptimizer(
        optimizer,
        module=taped,
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
        expected_batch_size=expected,
        loss_reduction=loss_reduction,
        generator=noise_generator,
    )
    private.attach_step_hook(engine.accountant.get_optimizer_hook_fn(sample_rate=loader.sample_rate))
    return taped, private, loader
