"""What a backend must offer: reference.py is one, checked.Checked the other. mypy holds both to this."""

from typing import Protocol

import torch

from sparse24.packed import Packed


class Backend(Protocol):
    """The operations of reference.py, where each is described."""

    def mask(self, x: torch.Tensor) -> torch.Tensor: ...

    def prune(self, x: torch.Tensor) -> torch.Tensor: ...

    def pack(
        self, x: torch.Tensor, square: bool = False, layout: str = "rows"
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def unpack(
        self, values: torch.Tensor, metadata: torch.Tensor, shape: torch.Size, layout: str = "rows"
    ) -> torch.Tensor: ...

    def multiply(self, packed: Packed, weight: torch.Tensor) -> torch.Tensor: ...

    def layout_for(self, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> str: ...

    def relu2_up(
        self, z: torch.Tensor, up: torch.Tensor, layout: str
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def masked_grad(
        self,
        grad: torch.Tensor,
        metadata: torch.Tensor,
        values: torch.Tensor | None = None,
        layout: str = "rows",
        packed_out: torch.Tensor | None = None,
        in_place: bool = False,
    ) -> torch.Tensor: ...

    def ste_grad(self, grad: torch.Tensor, h: torch.Tensor) -> torch.Tensor: ...

    def ste_backward(
        self, grad: torch.Tensor, h: torch.Tensor, in_place: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]: ...
