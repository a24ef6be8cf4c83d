"""Packed: a 2:4 tensor as its kept values and their 2-bit positions."""

from dataclasses import dataclass

import torch

from sparse24 import layouts


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

    def detach(self) -> "Packed":
        """The same storage, cut from autograd."""
        return Packed(self.values, self.metadata, self.shape, self.layout)
