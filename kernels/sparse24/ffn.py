"""The whole ELAS feed-forward y = S24(relu(z up^T)^2) down^T as one autograd function.

Kept for the backward pass, of the feed-forward's width: for the masked gradient the packed activation (9/16
of its dense bytes); for the straight-through one relu's input, from which one pass makes the activation
again and the gradient. For the low-rank form let z be the input times the first up factor and multiply y by
the last down factor: both are ordinary linear layers around this one.
"""

import torch
from torch.autograd import Function

from sparse24 import layouts
from sparse24.autograd import first_order
from sparse24.packed import Packed


class Relu2FFN(Function):
    """z (T, K), up (F, K), down (N, F) -> (T, N).  ``ops`` and ``layout`` as in the dispatch."""

    @staticmethod
    def forward(ctx, z, up, down, gradient, layout, ops):
        shape = torch.Size((z.shape[0], up.shape[0]))
        if gradient == "ste":
            h = z @ up.t()
            values, metadata = ops.pack(h, True, layout)
            ctx.save_for_backward(z, up, down, h)
        else:
            values, metadata = ops.relu2_up(z, up, layout)
            ctx.save_for_backward(z, up, down, values, metadata)
        ctx.gradient, ctx.layout, ctx.ops, ctx.shape = gradient, layout, ops, shape
        return ops.multiply(Packed(values, metadata, shape, layout), down)

    @staticmethod
    @first_order
    def backward(ctx, grad):
        z, up, down, *kept = ctx.saved_tensors
        ops, layout, need = ctx.ops, ctx.layout, ctx.needs_input_grad
        if not torch.compiler.is_compiling():
            ctx.maybe_clear_saved_tensors()  # unless the graph is kept: then `del` below frees
        grad = grad.contiguous()
        d_z = d_up = d_down = None
        if ctx.gradient == "ste":  # dropped entries get gradient too
            d, s = ops.ste_backward(grad @ down, *kept, in_place=True)
            del kept
            d_down = grad.t() @ s if need[2] else None
            del s
            d_z = d @ up if need[0] else None
            d_up = d.t() @ z if need[1] else None
            return d_z, d_up, d_down, None, None, None
        values, metadata = kept
        del kept
        if need[2]:
            # First, and freed at once: s and the gradient of s never exist together.
            s = ops.unpack(values, metadata, ctx.shape, layout)
            d_down = grad.t() @ s
            del s
        if need[0] or need[1]:
            d, packed = _masked(ops, grad @ down, values, metadata, layout, pack=need[0])
            del values, metadata
            if packed is not None:
                d_z = ops.multiply(packed, up.t())
                del packed
            elif need[0]:
                d_z = d @ up
            d_up = d.t() @ z if need[1] else None
        return d_z, d_up, d_down, None, None, None


def _kept_graph() -> bool:
    return getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)()


def _masked(ops, d, values, metadata, layout, pack):
    """(dense masked gradient, the same packed or None).

    It has the activation's support, so with the tensor cores' layout its packed form costs half a
    write and makes d_z a sparse product. The dense form overwrites ``d``, the packed one the kept
    activation unless a second backward pass may come (retain_graph).
    """
    if layout != "cusparselt":
        return ops.masked_grad(d, metadata, values, layout), None
    room, positions = None, metadata
    if pack:
        again = torch.compiler.is_compiling() or _kept_graph()
        place = layouts.packed_like(values, metadata, d.shape) if again else (values, metadata)
        room, positions = layouts.together(*place)
    dense = ops.masked_grad(d, metadata, values, layout, packed_out=room, in_place=True)
    return dense, None if room is None else Packed(room, positions, d.shape, layout)
