"""What every launch needs: the tensors' own device as the current one, and memory the hardware can take."""

from contextlib import AbstractContextManager, nullcontext

import torch

_HERE = nullcontext()


def on_device_of(*tensors: torch.Tensor) -> AbstractContextManager:
    """Context in which the device of ``tensors`` is the current one; free where it is already.

    Triton and cuSPARSELt launch on the current device, wherever the tensors lie.
    ValueError if the tensors are on different devices.
    """
    device = tensors[0].device
    for tensor in tensors[1:]:
        if tensor.device != device:
            raise ValueError(
                f"the tensors of one call must be on one device; got {device} and {tensor.device}"
            )
    if device.type != "cuda" or (
        torch.cuda.is_initialized() and torch.cuda.current_device() == device.index
    ):
        return _HERE
    return torch.cuda.device(device)


def aligned(x: torch.Tensor) -> torch.Tensor:
    """``x``, or a copy of it where it is strided or does not begin at a multiple of 16 bytes.

    Vectorised loads, the copy engine's descriptors and cuSPARSELt all want such memory.
    """
    x = x.contiguous()
    return x.clone() if x.data_ptr() % 16 else x
