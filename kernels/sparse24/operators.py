"""The checked Triton backend as ``torch.ops.sparse24.*``: what torch.compile and torch.export see of it.

Each operator runs ``checked.Checked`` on real tensors and says of fake ones only what shape comes out.
``Operators`` is a Backend of them: dispatch.py uses it while a graph is traced, so that autograd.py and
ffn.py are traced as they stand and keep the same tensors for the backward pass. Called eagerly the
backend itself is used: an operator costs some ten microseconds of host time.

Outputs may not share memory, so the layout of the tensor cores travels as the one buffer of
``layouts.buffer`` and is taken apart in the graph.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import custom_op

from sparse24 import cusparselt, layouts
from sparse24.checked import Checked
from sparse24.packed import Packed


@custom_op("sparse24::mask", mutates_args=())
def mask(x: Tensor, strict: bool) -> Tensor:
    return Checked(strict).mask(x)


@mask.register_fake
def _(x, strict):
    return x.new_empty(x.shape, dtype=torch.bool)


@custom_op("sparse24::prune", mutates_args=())
def prune(x: Tensor, strict: bool) -> Tensor:
    return Checked(strict).prune(x)


@prune.register_fake
def _(x, strict):
    return x.new_empty(x.shape)


@custom_op("sparse24::pack_rows", mutates_args=())
def pack_rows(x: Tensor, square: bool, strict: bool) -> tuple[Tensor, Tensor]:
    return Checked(strict).pack(x, square)


@pack_rows.register_fake
def _(x, square, strict):
    values, metadata = layouts.shapes(x.shape, "rows")
    return x.new_empty(values), x.new_empty(metadata, dtype=torch.uint8)


@custom_op("sparse24::pack_cusparselt", mutates_args=())
def pack_cusparselt(x: Tensor, square: bool, strict: bool) -> Tensor:
    return layouts.whole(Checked(strict).pack(x, square, "cusparselt")[0])


@pack_cusparselt.register_fake
def _(x, square, strict):
    return _buffer(x, x.shape[:-1].numel(), x.shape[-1])


@custom_op("sparse24::relu2_up", mutates_args=())
def relu2_up(z: Tensor, up: Tensor, strict: bool) -> Tensor:
    return layouts.whole(Checked(strict).relu2_up(z, up, "cusparselt")[0])


@relu2_up.register_fake
def _(z, up, strict):
    return _buffer(z, z.shape[0], up.shape[0])


@custom_op("sparse24::unpack", mutates_args=())
def unpack(values: Tensor, metadata: Tensor, shape: Sequence[int], layout: str, strict: bool) -> Tensor:
    return Checked(strict).unpack(values, metadata, torch.Size(shape), layout)


@unpack.register_fake
def _(values, metadata, shape, layout, strict):
    return values.new_empty(shape)


@custom_op("sparse24::matmul", mutates_args=())
def matmul(values: Tensor, metadata: Tensor, shape: Sequence[int], weight: Tensor, strict: bool) -> Tensor:
    packed = Packed(values, metadata, torch.Size(shape), "cusparselt")
    return Checked(strict).multiply(packed, weight).contiguous()


@matmul.register_fake
def _(values, metadata, shape, weight, strict):
    return values.new_empty(*shape[:-1], weight.shape[0])


@custom_op("sparse24::masked_grad", mutates_args=())
def masked_grad(grad: Tensor, metadata: Tensor, values: Tensor | None, layout: str, strict: bool) -> Tensor:
    return Checked(strict).masked_grad(grad, metadata, values, layout).contiguous()


@masked_grad.register_fake
def _(grad, metadata, values, layout, strict):
    return grad.new_empty(grad.shape)


@custom_op("sparse24::masked_grad_packed", mutates_args=())
def masked_grad_packed(
    grad: Tensor, metadata: Tensor, values: Tensor | None, like: Tensor, strict: bool
) -> tuple[Tensor, Tensor]:
    kept = torch.zeros_like(like)
    return Checked(strict).masked_grad(grad, metadata, values, "cusparselt", kept).contiguous(), kept


@masked_grad_packed.register_fake
def _(grad, metadata, values, like, strict):
    return grad.new_empty(grad.shape), torch.empty_like(like)


@custom_op("sparse24::ste_grad", mutates_args=())
def ste_grad(grad: Tensor, h: Tensor, strict: bool) -> Tensor:
    return Checked(strict).ste_grad(grad, h).contiguous()


@ste_grad.register_fake
def _(grad, h, strict):
    return grad.new_empty(grad.shape)


@custom_op("sparse24::ste_backward", mutates_args=())
def ste_backward(grad: Tensor, h: Tensor, strict: bool) -> tuple[Tensor, Tensor]:
    dense, pruned = Checked(strict).ste_backward(grad, h)
    return dense.contiguous(), pruned.contiguous()


@ste_backward.register_fake
def _(grad, h, strict):
    return grad.new_empty(grad.shape), h.new_empty(h.shape)


def _buffer(like: Tensor, rows: int, columns: int) -> Tensor:
    return like.new_empty(layouts.padded(rows) * layouts.padded(columns) * 9 // 16)


class Operators:
    """reference.py's functions as operators. ``strict``: a wrong kernel is a RuntimeError when it runs."""

    def __init__(self, strict: bool):
        self.strict = strict

    def mask(self, x: Tensor) -> Tensor:
        return mask(x, self.strict)

    def prune(self, x: Tensor) -> Tensor:
        return prune(x, self.strict)

    def pack(self, x: Tensor, square: bool = False, layout: str = "rows") -> tuple[Tensor, Tensor]:
        if layout == "rows":
            return pack_rows(x, square, self.strict)
        blob = pack_cusparselt(x, square, self.strict)
        return layouts.parts(blob, x.shape[:-1].numel(), x.shape[-1])

    def relu2_up(self, z: Tensor, up: Tensor, layout: str) -> tuple[Tensor, Tensor]:
        if layout == "rows":
            return self.pack(z @ up.t(), True)
        return layouts.parts(relu2_up(z, up, self.strict), z.shape[0], up.shape[0])

    def unpack(self, values: Tensor, metadata: Tensor, shape: torch.Size, layout: str = "rows") -> Tensor:
        return unpack(values, metadata, shape, layout, self.strict)

    def multiply(self, packed: Packed, weight: Tensor) -> Tensor:
        parts = packed.values, packed.metadata, packed.shape
        if packed.layout == "rows":  # the product is for the compiler to place
            return self.unpack(*parts) @ weight.t()
        return matmul(*parts, weight, self.strict)

    def masked_grad(
        self,
        grad: Tensor,
        metadata: Tensor,
        values: Tensor | None = None,
        layout: str = "rows",
        packed_out: Tensor | None = None,
        in_place: bool = False,
    ) -> Tensor:
        if packed_out is None:
            return masked_grad(grad, metadata, values, layout, self.strict)
        # An operator that writes to an argument which may be None breaks Inductor (torch 2.11).
        dense, kept = masked_grad_packed(grad, metadata, values, packed_out, self.strict)
        packed_out.copy_(kept)
        return dense

    def ste_grad(self, grad: Tensor, h: Tensor) -> Tensor:
        return ste_grad(grad, h, self.strict)

    def ste_backward(self, grad: Tensor, h: Tensor, in_place: bool = False) -> tuple[Tensor, Tensor]:
        return ste_backward(grad, h, self.strict)

    def layout_for(self, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> str:
        return cusparselt.layout_for(shape, device, dtype) if device.type == "cuda" else "rows"
