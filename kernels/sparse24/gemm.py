"""relu(z up^T)^2, pruned to 2:4 and packed, as one kernel: the dense activation never reaches memory.

Plain tensor-core GEMM whose epilogue packs each tile in registers (layout "cusparselt", sm_90). Each
thread of a Hopper matrix instruction holds neighbouring columns in pairs, two of a group of four in
one thread and two in the next. Reordering the rows of ``up`` within each 16 (feature 16 J + 4 t + 2 p + b
to column 16 J + 8 p + 2 t + b) gives every thread whole groups, already in the order of the metadata.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from sparse24 import layouts
from sparse24.groups import square_pair, to_bits, to_float, top2
from sparse24.launch import aligned, on_device_of
from sparse24.selfcheck import capturing

# The fastest on an H100 of the tile sizes tried, with one persistent program a multiprocessor.
BLOCKS = {"BM": 128, "BN": 256, "BK": 64, "GROUP": 8, "PERSIST": 1, "num_warps": 8, "num_stages": 3}
FUSE_UP_TO = 2048  # K above which the matrix product alone hides the packing


@triton.jit
def gemm_pack(
    a_desc, b_desc, v_desc, m_desc, M, N, K,
    BF16: tl.constexpr, ASM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, PERSIST: tl.constexpr,
):  # fmt: skip
    """A (M, K) @ B (N, K)^T -> packed; B's rows reordered.

    Column 16 J + 8 p + 2 t + b holds feature 16 J + 4 t + 2 p + b, see section 3 of README.md.
    """
    down, across = tl.cdiv(M, BM), tl.cdiv(N, BN)
    # PERSIST: one program a multiprocessor, so that a tile's epilogue overlaps the next one's loads.
    for pid in tl.range(tl.program_id(0), down * across, tl.num_programs(0), flatten=PERSIST):
        first = pid // (GROUP * across) * GROUP  # GROUP row blocks share B's tiles in L2
        height = min(down - first, GROUP)
        pm = first + pid % (GROUP * across) % height
        pn = pid % (GROUP * across) // height
        acc = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(0, tl.cdiv(K, BK)):
            acc = tl.dot(a_desc.load([pm * BM, k * BK]), b_desc.load([pn * BN, k * BK]).T, acc)
        acc = tl.maximum(acc, 0.0, propagate_nan=tl.PropagateNan.ALL)
        if BF16:
            bits = acc.to(tl.bfloat16).to(tl.float32).to(tl.int32, bitcast=True)
        else:
            bits = to_bits(acc, False) << 16
        pairs = tl.permute(tl.reshape(bits, (BM, BN // 16, 2, 4, 2)), (0, 1, 3, 2, 4))  # BM, J, t, p, b
        even, odd = tl.split(pairs)
        x0, x2 = tl.split(even)
        x1, x3 = tl.split(odd)
        p, q = top2(x0 | 3, x1 | 2, x2 | 1, x3)  # BM, J, t
        if ASM:
            kept = square_pair((p >> 16 & 0xFFFF) | q & -65536, BF16)
        else:
            f, g = to_float(p >> 16, BF16), to_float(q >> 16, BF16)
            kept = to_bits(f * f, BF16) | to_bits(g * g, BF16) << 16
        v_desc.store([pm * BM, pn * (BN // 4)], tl.reshape(kept, (BM, BN // 4)))
        nibble = 15 - (p & 3 | (q & 3) << 2)
        # row = 64 R + 16 i + 8 s + r, group = 8 c + 4 h + t: int16 word (R, c, i, r, t), bits 8 h + 4 s.
        nibble = tl.reshape(nibble, (BM // 64, 4, 2, 8, BN // 32, 2, 4))
        left, right = tl.split(tl.permute(nibble, (0, 4, 1, 3, 6, 2, 5)))
        upper, lower = tl.split(left | right << 8)
        words = (upper | lower << 4).to(tl.int16)
        m_desc.store([pm * (BM // 64), pn * (BN // 32), 0], tl.reshape(words, (BM // 64, BN // 32, 128)))


@cache
def _order(features: int, device: torch.device) -> torch.Tensor:
    return torch.arange(features, device=device).view(-1, 4, 2, 2).transpose(1, 2).flatten()


def reorder(up: torch.Tensor) -> torch.Tensor:
    """Rows of ``up`` (N, K) as gemm_pack wants them; a contiguous copy."""
    # What a graph capture computes exists only once the graph has run: nothing to keep for later calls.
    order = _order.__wrapped__ if capturing(up.device) else _order
    return up.index_select(0, order(up.shape[0], up.device))


def fits(z: torch.Tensor, up: torch.Tensor) -> bool:
    """Shapes the kernel takes: whole tiles of features, and K in 16-byte rows (for the copy engine)."""
    return up.shape[0] % layouts.TILE == 0 and up.shape[1] % 8 == 0 and z.numel() > 0


def wins(z: torch.Tensor, up: torch.Tensor) -> bool:
    """Whether this kernel beats cuBLAS + pack (measured on an H100, kernels/results)."""
    return fits(z, up) and up.shape[1] <= FUSE_UP_TO


def relu2_pack(z: torch.Tensor, up: torch.Tensor, **blocks: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(values, metadata) of relu(z up^T)^2 in layout "cusparselt"; z (T, K), up (N, K), see ``fits``."""
    rows, k = z.shape
    n = up.shape[0]
    values, metadata = layouts.buffer(rows, n, z.dtype, z.device)
    interpreted = not isinstance(gemm_pack, triton.JITFunction)
    size = BLOCKS | blocks
    z, up = aligned(z), reorder(up)
    height, width = values.shape[0], 2 * values.shape[1]
    cells = metadata.view(torch.int16).view(height // 64, width // 32, 128)
    bm, bn, bk = size["BM"], size["BN"], size["BK"]
    tiles = triton.cdiv(height, bm) * triton.cdiv(width, bn)
    per_sm = size["PERSIST"]
    size["PERSIST"] = per_sm > 0
    if per_sm and not interpreted:
        tiles = min(tiles, per_sm * torch.cuda.get_device_properties(z.device).multi_processor_count)
    with on_device_of(z, up):
        gemm_pack[(tiles,)](
            TensorDescriptor.from_tensor(z, [bm, bk]),
            TensorDescriptor.from_tensor(up, [bn, bk]),
            TensorDescriptor.from_tensor(values.view(torch.int32), [bm, bn // 4]),
            TensorDescriptor.from_tensor(cells, [bm // 64, bn // 32, 128]),
            height, width, k, BF16=z.dtype == torch.bfloat16, ASM=not interpreted, **size,
        )  # fmt: skip
    return values, metadata
