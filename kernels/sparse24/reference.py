"""The truth in plain torch, on any device: what every other backend must reproduce bit for bit.

Selection: of every four neighbours in the last dimension the two of largest magnitude stay. Exactly
two stay, ties keep the lowest index, and NaN (all NaN alike) counts as larger than infinity.
Source: ELAS (arXiv 2605.03667), the activation side of NVIDIA's 2:4 format.
"""

import torch

from sparse24 import layouts
from sparse24.packed import Packed

BITS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
# The bits of infinity, one below those of a NaN: 5, 8, 8 and 11 bits of exponent.
INFINITY = {
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float32: 0x7F80_0000,
    torch.float64: 0x7FF0_0000_0000_0000,
}


def _keys(x: torch.Tensor) -> list[torch.Tensor]:
    """Integers ordered as the magnitudes of ``x``, NaN on top: four tensors (..., K/4)."""
    # The bits of a non-negative float grow with its value, so integers compare without NaN traps.
    keys = x.abs().view(BITS[x.dtype]).clamp_max(INFINITY[x.dtype] + 1)
    return list(keys.unflatten(-1, (-1, 4)).unbind(-1))


def _kept(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Four bool tensors (..., K/4): is neighbour 0, 1, 2, 3 of the group kept?  Exactly two are."""
    k0, k1, k2, k3 = _keys(x)
    # aij: i beats j (the earlier one wins ties), i < j.
    a01, a02, a03, a12, a13, a23 = k0 >= k1, k0 >= k2, k0 >= k3, k1 >= k2, k1 >= k3, k2 >= k3
    # Kept = wins at least two of its three comparisons.
    keep0 = (a01 & a02) | (a01 & a03) | (a02 & a03)
    keep1 = (~a01 & (a12 | a13)) | (a12 & a13)
    keep2 = (~a02 & (~a12 | a23)) | (~a12 & a23)
    keep3 = (~a03 & (~a13 | ~a23)) | (~a13 & ~a23)
    return keep0, keep1, keep2, keep3


def mask(x: torch.Tensor) -> torch.Tensor:
    """bool like ``x``: True where the value is kept."""
    return torch.stack(_kept(x), -1).flatten(-2)


def prune(x: torch.Tensor) -> torch.Tensor:
    """``x`` with the two dropped values of each group set to +0."""
    return torch.where(mask(x), x, 0)


def pack(x: torch.Tensor, square: bool = False, layout: str = "rows") -> tuple[torch.Tensor, torch.Tensor]:
    """(values (..., K/2), metadata (..., ceil(K/8))) of ``x``, or of relu(x)^2 if ``square``.

    With ``square`` the choice is made on relu(x): the same order, without the ties that overflow
    and underflow of the square would make.
    """
    if layout == "cusparselt":
        flat = x.reshape(x.shape[:-1].numel(), x.shape[-1])  # of K = 0 too
        rows, columns = (layouts.padded(size) for size in flat.shape)
        whole = torch.nn.functional.pad(flat, (0, columns - flat.shape[1], 0, rows - flat.shape[0]))
        return layouts.to_cusparselt(*pack(whole, square))
    if square:
        x = x.relu()
    keep0, keep1, keep2, keep3 = _kept(x)
    first = torch.where(keep0, 0, torch.where(keep1, 1, 2))
    second = torch.where(keep3, 3, torch.where(keep2, 2, 1))
    values = x.unflatten(-1, (-1, 4)).gather(-1, torch.stack((first, second), -1)).flatten(-2)
    nibbles = (first | second << 2).to(torch.uint8)
    if nibbles.shape[-1] % 2:
        nibbles = torch.nn.functional.pad(nibbles, (0, 1))
    low, high = nibbles.unflatten(-1, (-1, 2)).unbind(-1)
    return (values.square() if square else values), low | high << 4


def _positions(metadata: torch.Tensor, groups: int) -> torch.Tensor:
    """int64 (..., K/4, 2): where the two values of each group belong."""
    nibbles = torch.stack((metadata & 15, metadata >> 4), -1).flatten(-2)[..., :groups]
    return torch.stack((nibbles & 3, nibbles >> 2), -1).long()


def unpack(
    values: torch.Tensor, metadata: torch.Tensor, shape: torch.Size, layout: str = "rows"
) -> torch.Tensor:
    """The dense tensor of ``shape`` (..., K), zeros where nothing was kept."""
    if layout == "cusparselt":
        values, metadata = layouts.rows_values(values, shape), layouts.rows_metadata(metadata, shape)
    pairs = values.unflatten(-1, (-1, 2))
    dense = pairs.new_zeros(*pairs.shape[:-1], 4)
    return dense.scatter_(-1, _positions(metadata, pairs.shape[-2]), pairs).flatten(-2)


def multiply(packed: Packed, weight: torch.Tensor) -> torch.Tensor:
    """A W^T for packed A (..., K) and W (N, K): unpack, then an ordinary product."""
    return unpack(packed.values, packed.metadata, packed.shape, packed.layout) @ weight.t()


def layout_for(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> str:
    """The layout to pack in: always "rows" here."""
    return "rows"


def relu2_up(z: torch.Tensor, up: torch.Tensor, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(values, metadata) of relu(z up^T)^2; z (T, K), up (F, K)."""
    return pack(z @ up.t(), True, layout)


def masked_grad(
    grad: torch.Tensor,
    metadata: torch.Tensor,
    values: torch.Tensor | None = None,
    layout: str = "rows",
    packed_out: torch.Tensor | None = None,
    in_place: bool = False,
) -> torch.Tensor:
    """``grad`` (..., K) where a value was kept, 0 elsewhere: the exact gradient of pruning.

    With ``values`` (kept values of relu(h)^2) also times d relu(h)^2/dh = 2 relu(h), where
    relu(h) = sqrt(value): the packed form is all it needs.
    ``packed_out``, like ``values`` in layout "cusparselt", also receives the result's kept values;
    ``in_place`` lets a backend overwrite ``grad``.
    """
    if layout == "cusparselt":
        metadata = layouts.rows_metadata(metadata, grad.shape)
        values = values if values is None else layouts.rows_values(values, grad.shape)
    groups = grad.unflatten(-1, (-1, 4))
    where = _positions(metadata, groups.shape[-2])
    kept = groups.gather(-1, where)
    if values is not None:
        wide = torch.promote_types(grad.dtype, torch.float32)  # round once, as the kernels do
        kept = (kept.to(wide) * 2 * values.unflatten(-1, (-1, 2)).to(wide).sqrt()).to(grad.dtype)
    if packed_out is not None:
        pairs = kept.reshape(-1, grad.shape[-1] // 2)
        packed_out[: pairs.shape[0], : pairs.shape[1]] = pairs
    return groups.new_zeros(groups.shape).scatter_(-1, where, kept).flatten(-2)


def ste_grad(grad: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Straight-through gradient of relu(h)^2 + 2:4: 2 relu(h) grad, dropped entries too."""
    wide = torch.promote_types(grad.dtype, torch.float32)
    return (grad.to(wide) * 2 * h.relu().to(wide)).to(grad.dtype)


def ste_backward(
    grad: torch.Tensor, h: torch.Tensor, in_place: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """(``ste_grad``, relu(h)^2 pruned): what a straight-through backward pass multiplies, in one pass.

    in_place   the gradient may overwrite ``grad``
    """
    return ste_grad(grad, h), unpack(*pack(h, True), h.shape)
