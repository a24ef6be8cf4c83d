"""Triton kernels, one pass over memory each: pack (both layouts), unpack, prune, gradients.

Arguments shared by all: T rows of G groups of four; GP groups a row in the packed tensors (> G where
padded); x, out, d point to the 64-bit words of dense tensors, v to kept pairs (32-bit words of 16-bit
floats, 64-bit words of float32 = WIDE), m to the metadata. Any T and G: what lies outside is masked.
"""

import triton
import triton.language as tl

from sparse24.groups import (
    choose16,
    choose32,
    load_group,
    neighbour,
    pack_group,
    store_group,
    store_pair,
    take,
    tile,
    to_bits,
    to_float,
)


@triton.jit
def pack_rows(
    x_ptr, v_ptr, m_ptr, T, G,
    SQUARE: tl.constexpr, WIDE: tl.constexpr, BF16: tl.constexpr, ASM: tl.constexpr,
    PER: tl.constexpr, BM: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """Layout "rows". PER nibbles are stored at once: 8 (int32) if G % 8 == 0, else 2 (uint8)."""
    r, _, inside, at = tile(T, G, BM, BG)
    pair, nibble = pack_group(x_ptr, at, inside, SQUARE, WIDE, BF16, ASM)
    tl.store(v_ptr + at, pair, inside)
    nibble = tl.where(inside, nibble, 0)
    shift = (4 * tl.arange(0, PER))[None, None, :]
    words = tl.sum(tl.reshape(nibble, (BM, BG // PER, PER)) << shift, 2)
    per_row = tl.cdiv(G, PER)
    j = tl.program_id(0) % tl.cdiv(G, BG) * (BG // PER) + tl.arange(0, BG // PER)
    where = r[:, None].to(tl.int64) * per_row + j[None, :]
    tl.store(m_ptr + where, words, (r[:, None] < T) & (j[None, :] < per_row))


@triton.jit
def pack_cusparselt(
    x_ptr, v_ptr, m_ptr, T, G, GP,
    SQUARE: tl.constexpr, BF16: tl.constexpr, ASM: tl.constexpr, BH: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """Layout "cusparselt", GP padded groups a row. Rows r and r + 8 share bytes: handle both here."""
    across = tl.cdiv(GP, BG)
    i = tl.program_id(0) // across * BH + tl.arange(0, BH)
    r = i // 8 * 16 + i % 8
    column = tl.program_id(0) % across
    g = column * BG + tl.arange(0, BG)
    at = r[:, None].to(tl.int64) * G + g[None, :]
    real = g[None, :] < G
    pair, low = pack_group(x_ptr, at, real & (r[:, None] < T), SQUARE, False, BF16, ASM)
    pair8, high = pack_group(x_ptr, at + 8 * G, real & (r[:, None] + 8 < T), SQUARE, False, BF16, ASM)
    to = r[:, None].to(tl.int64) * GP + g[None, :]
    room = g[None, :] < GP
    tl.store(v_ptr + to, pair, room)
    tl.store(v_ptr + to + 8 * GP, pair8, room)
    # group = 8 c + 4 h + 2 w + b: byte (2 w + b) * 2 + h of an 8-byte cell, so word w, shift 16 b + 8 h.
    byte = tl.reshape(low | high << 4, (BH, BG // 8, 2, 2, 2))
    shift_h = (8 * tl.arange(0, 2))[None, None, :, None, None]
    byte = byte << (shift_h + (16 * tl.arange(0, 2))[None, None, None, None, :])
    words = tl.sum(tl.sum(byte, 4), 2)  # (BH, BG // 8, w)
    c = column * (BG // 8) + tl.arange(0, BG // 8)
    row_at = (i // 32).to(tl.int64) * (8 * GP) + i % 32 * 2
    to = row_at[:, None, None] + (c * 64)[None, :, None] + tl.arange(0, 2)[None, None, :]
    tl.store(m_ptr + to, words, (c < GP // 8)[None, :, None])


@triton.jit
def load_nibbles(m_ptr, r, g, inside, GP, CUSPARSELT: tl.constexpr):
    """Positions i0, i1 of each group; GP groups a row in the metadata."""
    if CUSPARSELT:
        row = (r // 64).to(tl.int64) * (32 * GP) + r % 64 // 16 * 64 + r % 8 * 8
        column = g // 8 * 256 + g % 4 * 2 + g % 8 // 4
        shift = (r % 16 // 8 * 4)[:, None]
    else:
        row, column = r.to(tl.int64) * tl.cdiv(GP, 2), g // 2
        shift = (g % 2 * 4)[None, :]
    nibble = tl.load(m_ptr + row[:, None] + column[None, :], inside, 0).to(tl.int32) >> shift
    return nibble & 3, nibble >> 2 & 3


@triton.jit
def unpack(
    v_ptr, m_ptr, out_ptr, T, G, GP,
    WIDE: tl.constexpr, CUSPARSELT: tl.constexpr, BM: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    r, g, inside, at = tile(T, G, BM, BG)
    pair = tl.load(v_ptr + r[:, None].to(tl.int64) * GP + g[None, :], inside, 0)
    i0, i1 = load_nibbles(m_ptr, r, g, inside, GP, CUSPARSELT)
    if WIDE:
        store_pair(out_ptr, at, inside, pair.to(tl.int32), (pair >> 32).to(tl.int32), i0, i1, True)
    else:
        store_pair(out_ptr, at, inside, pair, pair >> 16, i0, i1, False)


@triton.jit
def prune(
    x_ptr, out_ptr, T, G, MASK: tl.constexpr, WIDE: tl.constexpr, BF16: tl.constexpr, ASM: tl.constexpr,
    BM: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """Dense with the dropped two zeroed, or four bool bytes a group if MASK."""
    _, _, inside, at = tile(T, G, BM, BG)
    first, second = load_group(x_ptr, at, inside, WIDE)
    if WIDE:
        p, q = choose32(first, second, False)
    else:
        p, q = choose16(first, False, BF16, ASM)
    i0, i1 = 3 - (p & 3).to(tl.int32), 3 - (q & 3).to(tl.int32)
    if MASK:
        one = tl.full(i0.shape, 1, tl.int32)
        tl.store(out_ptr + at, (one << 8 * i0) | (one << 8 * i1), inside)
    else:
        v0, v1 = take(first, second, i0, WIDE), take(first, second, i1, WIDE)
        store_pair(out_ptr, at, inside, v0, v1, i0, i1, WIDE)


@triton.jit
def masked_grad(
    d_ptr, v_ptr, m_ptr, out_ptr, dv_ptr, T, G, GP,
    SQUARE: tl.constexpr, PACK: tl.constexpr, WIDE: tl.constexpr, BF16: tl.constexpr,
    CUSPARSELT: tl.constexpr, BM: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """out = d where kept (times 2 sqrt(v) if SQUARE); also packed into dv if PACK.  out may be d."""
    r, g, inside, at = tile(T, G, BM, BG)
    first, second = load_group(d_ptr, at, inside, WIDE)
    i0, i1 = load_nibbles(m_ptr, r, g, inside, GP, CUSPARSELT)
    d0, d1 = take(first, second, i0, WIDE), take(first, second, i1, WIDE)
    at_pair = r[:, None].to(tl.int64) * GP + g[None, :]
    if SQUARE:
        pair = tl.load(v_ptr + at_pair, inside, 0)
        if WIDE:
            s0 = pair.to(tl.int32).to(tl.float32, bitcast=True)
            s1 = (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)
            d0 = d0.to(tl.float32, bitcast=True) * 2 * tl.sqrt_rn(s0)
            d1 = d1.to(tl.float32, bitcast=True) * 2 * tl.sqrt_rn(s1)
            d0, d1 = d0.to(tl.int32, bitcast=True), d1.to(tl.int32, bitcast=True)
        else:
            s0, s1 = to_float(pair & 0xFFFF, BF16), to_float(pair >> 16 & 0xFFFF, BF16)
            d0 = to_bits(to_float(d0, BF16) * 2 * tl.sqrt(s0), BF16)
            d1 = to_bits(to_float(d1, BF16) * 2 * tl.sqrt(s1), BF16)
    if PACK:
        tl.store(dv_ptr + at_pair, d0 | d1 << 16, inside)
    store_pair(out_ptr, at, inside, d0, d1, i0, i1, WIDE)


@triton.jit
def ste_backward(
    d_ptr, h_ptr, out_ptr, s_ptr, T, G, WIDE: tl.constexpr, BF16: tl.constexpr, ASM: tl.constexpr,
    BM: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """out = 2 relu(h) d, dropped entries too; s = relu(h)^2 with the dropped two zeroed.  out may be d."""
    _, _, inside, at = tile(T, G, BM, BG)
    first, second = load_group(h_ptr, at, inside, WIDE)
    d_first, d_second = load_group(d_ptr, at, inside, WIDE)
    if WIDE:
        p, q = choose32(first, second, True)
    else:
        p, q = choose16(first, True, BF16, ASM)
    i0, i1 = 3 - (p & 3).to(tl.int32), 3 - (q & 3).to(tl.int32)
    h0, s0 = relu_kept(first, second, i0, i1, 0, WIDE, BF16)
    h1, s1 = relu_kept(first, second, i0, i1, 1, WIDE, BF16)
    h2, s2 = relu_kept(first, second, i0, i1, 2, WIDE, BF16)
    h3, s3 = relu_kept(first, second, i0, i1, 3, WIDE, BF16)
    store_group(s_ptr, at, inside, s0, s1, s2, s3, WIDE, BF16)
    d0, d1 = neighbour(d_first, d_second, 0, WIDE, BF16), neighbour(d_first, d_second, 1, WIDE, BF16)
    d2, d3 = neighbour(d_first, d_second, 2, WIDE, BF16), neighbour(d_first, d_second, 3, WIDE, BF16)
    store_group(out_ptr, at, inside, d0 * 2 * h0, d1 * 2 * h1, d2 * 2 * h2, d3 * 2 * h3, WIDE, BF16)


@triton.jit
def relu_kept(first, second, i0, i1, I: tl.constexpr, WIDE: tl.constexpr, BF16: tl.constexpr):
    """(relu(h), relu(h)^2 or 0 if dropped) of neighbour I, NaN kept."""
    h = neighbour(first, second, I, WIDE, BF16)
    h = tl.where(h < 0, 0.0, h)
    return h, tl.where((i0 == I) | (i1 == I), h * h, 0.0)


@triton.jit
def ste_grad(d_ptr, h_ptr, out_ptr, N, BLOCK: tl.constexpr):
    """out = 2 relu(h) d, elementwise, NaN kept."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < N
    h = tl.load(h_ptr + at, inside, 0.0).to(tl.float32)
    d = tl.load(d_ptr + at, inside, 0.0).to(tl.float32)
    h = tl.where(h < 0, 0.0, h)
    tl.store(out_ptr + at, (d * 2 * h).to(out_ptr.dtype.element_ty), inside)
