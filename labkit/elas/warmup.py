"""The dense warm-up of a whole model: it counts optimiser steps by itself, whoever trains."""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from labkit.elas.layers import Sparse24ReLU2


@dataclass
class _Steps:
    """What is known of a model's optimiser steps, beside the counter in its buffers."""

    moved: set[int] = field(default_factory=set)  # ids of the parameters that the present step has moved
    counted: bool = False  # a step has counted itself since ``advance`` was called


class DenseWarmUp(nn.Module):
    """A model whose Sparse24ReLU2 layers leave their dense warm-up after so many optimiser steps.

    A step is counted when a torch optimiser has moved this model's parameters: under pretrain,
    transformers' Trainer, TRL, accelerate, DDP, FSDP2 or a loop of one's own. Accumulated batches and
    steps that a gradient scaler skips are none; optimisers with disjoint parameters make one together.
    Where an optimiser holds other tensors than the model's own (DeepSpeed), call ``advance``.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _STEPS[self] = _Steps()

    def __setstate__(self, state):  # of a copy
        super().__setstate__(state)
        _STEPS[self] = _Steps()

    def activations(self) -> list[Sparse24ReLU2]:
        """The FFN activations, first layer first; empty for SwiGLU."""
        return [m for m in self.modules() if isinstance(m, Sparse24ReLU2)]

    def advance(self) -> None:
        """Count one optimiser step of the warm-up by hand, unless that step has counted itself."""
        steps = _STEPS[self]
        if not steps.counted:
            _advance(self)
        steps.counted = False

    def set_sparse(self, sparse: bool) -> None:
        """Turn the 2:4 mask of every layer on or off, whatever is left of the warm-up."""
        for activation in self.activations():
            activation.set_sparse(sparse)


_STEPS: "WeakKeyDictionary[DenseWarmUp, _Steps]" = WeakKeyDictionary()


def _advance(model: DenseWarmUp) -> None:
    for activation in model.activations():
        activation.advance()


class _Counter:
    """Counts the optimiser steps of every live model in its dense warm-up.

    Steps nest (``super().step()``, an optimiser inside another): the innermost that moves a model counts.
    """

    begun = False  # a step has begun that has counted for no model yet

    @torch.compiler.disable
    def before(self, optimizer: Optimizer, args, kwargs) -> None:
        self.begun = True

    @torch.compiler.disable
    def after(self, optimizer: Optimizer, args, kwargs) -> None:
        if not self.begun:
            return
        held = {id(p) for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        for model, steps in list(_STEPS.items()):
            mine = {id(p) for p in model.parameters()} & held
            # In this order: another model's switches may lie on the meta device and cannot be read.
            if not mine or not any(a.in_warmup for a in model.activations()):
                continue
            self.begun = False
            if steps.moved and not mine & steps.moved:  # the rest of the step before
                steps.moved |= mine
                continue
            steps.moved, steps.counted = mine, True
            _advance(model)


_counter = _Counter()
register_optimizer_step_pre_hook(_counter.before)
register_optimizer_step_post_hook(_counter.after)
