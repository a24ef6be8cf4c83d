"""The checked Triton backend as ``torch.ops.tokenstats.*``: what torch.compile and torch.export see of it.

dispatch.py calls these while a graph is traced. The gradient reads the logits twice, once to have the
forward's sums again: an operator keeps its inputs alone.
"""

import torch
from torch import Tensor
from torch.library import custom_op

from tokenstats import checked, reference


@custom_op("tokenstats::token_stats", mutates_args=())
def token_stats(
    x: Tensor, tokens: Tensor | None, temperature: float, strict: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = checked.token_stats(x, tokens, temperature, strict)
    # The kernels' numbers are parts of one allocation; an operator's outputs may not share memory.
    return found.argmax, found.confidence.clone(), found.logprob.clone(), found.entropy.clone()


@token_stats.register_fake
def _(x, tokens, temperature, strict):
    rows = x.shape[0]
    numbers = (x.new_empty(rows, dtype=torch.float32) for _ in range(3))
    return x.new_empty(rows, dtype=torch.int64), *numbers


@custom_op("tokenstats::token_stats_backward", mutates_args=())
def token_stats_backward(
    x: Tensor, tokens: Tensor | None, temperature: float, strict: bool, grads: list[Tensor]
) -> Tensor:
    return checked.token_stats_backward(x, tokens, temperature, grads, strict)


@token_stats_backward.register_fake
def _(x, tokens, temperature, strict, grads):
    return x.new_empty(x.shape)


def _save(ctx, inputs, output):
    x, tokens, ctx.temperature, ctx.strict = inputs
    ctx.save_for_backward(x, tokens)


def _backward(ctx, _argmax, *grads):
    d = token_stats_backward(*ctx.saved_tensors, ctx.temperature, ctx.strict, list(grads))
    return d, None, None, None


token_stats.register_autograd(_backward, setup_context=_save)


def statistics(x: Tensor, tokens: Tensor | None, temperature: float, strict: bool) -> reference.TokenStats:
    """As ``checked.token_stats``, in a graph."""
    return reference.TokenStats(*token_stats(x, tokens, temperature, strict))
