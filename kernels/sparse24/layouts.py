"""The two metadata layouts, and the way between them in plain torch.

rows        byte j of a row holds group 2j (low nibble) and group 2j + 1 (high nibble)
cusparselt  what NVIDIA's sm_90 sparse tensor cores read for 16-bit types: rows and K padded to
            multiples of 64, one buffer with the values row-major first, then K'T'/8 bytes in which the
            nibble of (row, group) is
                byte  (row//64) 8K' + (group//8) 256 + (row%64//16) 64 + (row%8) 8
                      + (group%4) 2 + group%8//4,  low half if row%16 < 8, else high
            (found by experiment; sparse24.cusparselt checks it against the library before using it)
"""

import torch

TILE = 64  # the layout's period in rows and in K


def padded(size: int) -> int:
    """``size`` rounded up to a whole number of tiles."""
    return -(-size // TILE) * TILE


def shapes(shape: torch.Size, layout: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the values and of the metadata that hold a dense tensor of ``shape`` (..., K)."""
    *lead, columns = shape
    if layout == "rows":
        return (*lead, columns // 2), (*lead, -(-columns // 8))
    rows, columns = padded(shape[:-1].numel()), padded(columns)
    return (rows, columns // 2), (rows * columns // 8,)


def buffer(
    rows: int, columns: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Uninitialised (values (T', K'/2), metadata (T'K'/8,)), back to back in one storage."""
    numbers = padded(rows) * padded(columns) * 9 // 16
    return parts(torch.empty(numbers, dtype=dtype, device=device), rows, columns)


def parts(whole: torch.Tensor, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``buffer``'s two views of the flat tensor behind them, of a dense (rows, columns)."""
    rows, columns = padded(rows), padded(columns)
    half = rows * columns // 2
    return whole[:half].view(rows, columns // 2), whole[half:].view(torch.uint8)


def whole(values: torch.Tensor) -> torch.Tensor:
    """The flat buffer that begins with ``values`` and goes on with their metadata."""
    return values.as_strided((values.numel() * 9 // 8,), (1,))


def together(values: torch.Tensor, metadata: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(values, metadata) back to back in one aligned buffer; copied there unless they are already.

    The GEMM is given the values' address alone. Saved-tensor hooks (save_on_cpu, activation offloading),
    clones and plain pickles bring the two back as tensors of their own.
    """
    if torch.compiler.is_compiling():  # addresses are known when the product runs: it asks again
        return values, metadata
    whole = values.untyped_storage().data_ptr() == metadata.untyped_storage().data_ptr()
    behind = metadata.data_ptr() == values.data_ptr() + values.nbytes
    if whole and behind and values.is_contiguous() and values.data_ptr() % 16 == 0:
        return values, metadata
    rows, half = values.shape
    new_values, new_metadata = buffer(rows, 2 * half, values.dtype, values.device)
    new_values.copy_(values)
    new_metadata.copy_(metadata)
    return new_values, new_metadata


def packed_like(
    values: torch.Tensor, metadata: torch.Tensor, shape: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for other kept values at the same positions, for layout "cusparselt".

    The values are uninitialised, but 0 in padding columns; the metadata is a copy, because the GEMM
    finds it behind the values.
    """
    rows, half = values.shape
    new_values, new_metadata = buffer(rows, 2 * half, values.dtype, values.device)
    new_values[:, shape[-1] // 2 :] = 0
    new_metadata.copy_(metadata)
    return new_values, new_metadata


def nibble_index(rows: int, groups: int, device: torch.device) -> torch.Tensor:
    """(T', K'/4): index of each group's nibble in the cusparselt metadata, counted in nibbles."""
    r = torch.arange(rows, device=device)[:, None]
    g = torch.arange(groups, device=device)
    byte = (r // 64) * 32 * groups + (g // 8) * 256 + (r % 64 // 16) * 64 + (r % 8) * 8
    return (byte + (g % 4) * 2 + g % 8 // 4) * 2 + r % 16 // 8


def to_cusparselt(values: torch.Tensor, metadata: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """rows -> cusparselt; values (T', K'/2) and metadata (T', K'/8) of whole tiles."""
    rows, half = values.shape
    new_values, new_metadata = buffer(rows, 2 * half, values.dtype, values.device)
    new_values.copy_(values)
    nibbles = torch.stack((metadata & 15, metadata >> 4), -1).flatten(-2)
    flat = torch.empty_like(nibbles).flatten()
    flat[nibble_index(rows, half // 2, values.device)] = nibbles
    new_metadata.copy_(flat[0::2] | flat[1::2] << 4)
    return new_values, new_metadata


def rows_metadata(metadata: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """cusparselt metadata -> rows metadata (..., ceil(K/8)) of the dense ``shape``."""
    *lead, columns = shape
    rows = torch.Size(lead).numel()
    flat = torch.stack((metadata & 15, metadata >> 4), -1).flatten()
    nibbles = flat[nibble_index(padded(rows), padded(columns) // 4, metadata.device)]
    nibbles = nibbles[:rows, : columns // 4]
    if nibbles.shape[1] % 2:
        nibbles = torch.nn.functional.pad(nibbles, (0, 1))
    return (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).reshape(*lead, -(-columns // 8))


def rows_values(values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """cusparselt values (T', K'/2) -> (..., K/2)."""
    *lead, columns = shape
    return values[: torch.Size(lead).numel(), : columns // 2].reshape(*lead, columns // 2)
