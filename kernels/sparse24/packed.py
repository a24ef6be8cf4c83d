"""Packed: a 2:4 tensor as its kept values and their 2-bit positions."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree

from sparse24 import layouts
from sparse24.autograd import Move


@dataclass(frozen=True)
class Packed:
    """A dense tensor of ``shape`` (..., K) of which each group of four keeps two values.

    Bytes in 16-bit types: K/2 values of 2 bytes + K/8 bytes of positions = 9/16 of the dense 2K.

    values    (..., K/2), the dtype of the dense tensor: per group the two kept values, by position
    metadata  uint8. Each group is one nibble ``i0 | i1 << 2`` with 0 <= i0 < i1 <= 3, the positions
              of its two values. Layout "rows": (..., ceil(K/8)), byte j of a row holds group 2j in
              its low and group 2j+1 in its high nibble (the last high nibble is 0 if K % 8 = 4)
    shape     shape of the dense tensor
    layout    "rows", or "cusparselt": values (T', K'/2) and the flat metadata lie back to back in
              one buffer, rows and K padded to multiples of 64, as NVIDIA's sparse GEMM reads them
              (sparse24.layouts gives the formula); what lies otherwise is copied into such a buffer
    link      how gradients travel: a tensor of ``shape`` that owns one element and stands for the
              dense tensor in autograd; None without gradients. ``values`` itself is detached

    A pytree of its tensors, and safe for ``torch.load``; copies and files are cut from autograd.
    """

    values: torch.Tensor
    metadata: torch.Tensor
    shape: torch.Size
    layout: str = "rows"
    link: torch.Tensor | None = None

    def __post_init__(self):
        values, metadata = self.values, self.metadata
        if values.device != metadata.device:
            raise ValueError(f"metadata must be on {values.device} like values; got {metadata.device}")
        if self.layout == "cusparselt":
            values, metadata = layouts.together(values, metadata)
            object.__setattr__(self, "values", values)
            object.__setattr__(self, "metadata", metadata)

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def nbytes(self) -> int:
        """Bytes held: values and metadata."""
        return self.values.nbytes + self.metadata.nbytes

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> "Packed":
        """The same on another device or in another floating dtype (None: as it is); gradients flow back.

        ValueError if ``dtype`` is not floating, or not 16 bits wide in layout "cusparselt".
        """
        dtype = self.dtype if dtype is None else dtype
        device = self.device if device is None else torch.device(device)
        sixteen = dtype in (torch.float16, torch.bfloat16)
        if not (sixteen or (self.layout == "rows" and dtype in (torch.float32, torch.float64))):
            wide = " or bfloat16" if self.layout == "cusparselt" else ", bfloat16, float32 or float64"
            raise ValueError(f"dtype must be float16{wide} in layout {self.layout!r}; got {dtype}")
        link = None if self.link is None else Move.apply(self.link, device, dtype)
        values, metadata = self.values.to(device, dtype), self.metadata.to(device)
        return Packed(values, metadata, self.shape, self.layout, link)

    def __getstate__(self) -> dict[str, Any]:
        # A file takes no two tensors of different dtypes in one memory, as the layout of the GEMM has them.
        return self.__dict__ | {"metadata": self.metadata.clone(), "link": None}

    def detach(self) -> "Packed":
        """The same storage, cut from autograd."""
        return Packed(self.values, self.metadata, self.shape, self.layout)


def whole(packed: Packed) -> Packed:
    """``packed``; ValueError if it is none or its parts are not those of its shape, which kernels trust."""
    if not isinstance(packed, Packed):
        raise ValueError(f"packed must be a sparse24.Packed; got {type(packed).__name__}")
    given = packed.values.shape, packed.metadata.shape
    if given != layouts.shapes(packed.shape, packed.layout) or packed.metadata.dtype != torch.uint8:
        values, metadata = map(tuple, given)
        raise ValueError(
            f"packed must hold the values and uint8 metadata of a dense {tuple(packed.shape)} in layout "
            f"{packed.layout!r}; got {values} and {packed.metadata.dtype} {metadata}"
        )
    return packed


def _from_tree(tensors: Any, about: Any) -> Packed:
    values, metadata, link = tensors
    shape, layout = about
    return Packed(values, metadata, shape, layout, link)


torch.serialization.add_safe_globals([Packed])
_pytree.register_pytree_node(
    Packed,
    lambda packed: ([packed.values, packed.metadata, packed.link], (packed.shape, packed.layout)),
    _from_tree,
    serialized_type_name="sparse24.Packed",
)
