"""Device functions on one group of four: choose the kept two, take, pack, store.

A group of 16-bit values is one 64-bit word, of 32-bit values two (WIDE); a kept pair is one word of
half that size. All choices are made on integers: the bits of a non-negative float grow with its value.
Rows T and groups per row G are masked, so any size works. ASM uses PTX of sm_80 where it saves
instructions (at 3 TB/s a group may cost about 60); without it everything also runs in the interpreter.
"""

import triton
import triton.language as tl


@triton.jit
def tile(T, G, BM: tl.constexpr, BG: tl.constexpr):
    """Rows, groups, mask and word offsets of this program's BM x BG groups."""
    across = tl.cdiv(G, BG)
    r = tl.program_id(0) // across * BM + tl.arange(0, BM)
    g = tl.program_id(0) % across * BG + tl.arange(0, BG)
    inside = (r[:, None] < T) & (g[None, :] < G)
    return r, g, inside, r[:, None].to(tl.int64) * G + g[None, :]


@triton.jit
def to_float(bits, BF16: tl.constexpr):
    """Low 16 bits of int32 -> float32."""
    if BF16:
        return (bits << 16).to(tl.float32, bitcast=True)
    return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def to_bits(value, BF16: tl.constexpr):
    """float32 -> int32 whose low 16 bits are the rounded value."""
    if BF16:
        return value.to(tl.bfloat16).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    return value.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF


@triton.jit
def rank(bits, INF: tl.constexpr, RELU: tl.constexpr):
    """Magnitude bits of sign-extended float bits, every NaN as INF + 1; negatives as 0 if RELU."""
    MAGNITUDE: tl.constexpr = 0x7FFFFFFF if INF > 0xFFFF else 0x7FFF
    magnitude = bits & MAGNITUDE
    key = tl.minimum(magnitude, INF + 1)
    if RELU:
        key = tl.where((bits < 0) & (magnitude <= INF), 0, key)
    return key


@triton.jit
def top2(k0, k1, k2, k3):
    """The two largest keys, the one of the lower index first. Keys end in the two bits 3 - index."""
    high01, low01 = tl.maximum(k0, k1), tl.minimum(k0, k1)
    high23, low23 = tl.maximum(k2, k3), tl.minimum(k2, k3)
    best = tl.maximum(high01, high23)
    second = tl.maximum(tl.minimum(high01, high23), tl.maximum(low01, low23))
    swap = (best & 3) < (second & 3)
    return tl.where(swap, second, best), tl.where(swap, best, second)


@triton.jit
def nan_max0(pair, BF16: tl.constexpr):
    """max(x, 0) of two 16-bit floats in an int32, NaN kept."""
    code: tl.constexpr = "max.NaN.bf16x2 $0, $1, $2;" if BF16 else "max.NaN.f16x2 $0, $1, $2;"
    zero = tl.zeros_like(pair)
    return tl.inline_asm_elementwise(code, "=r,r,r", [pair, zero], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def square_pair(pair, BF16: tl.constexpr):
    """x * x of two 16-bit floats in an int32, rounded once."""
    code: tl.constexpr = "fma.rn.bf16x2 $0, $1, $1, $2;" if BF16 else "fma.rn.f16x2 $0, $1, $1, $2;"
    # x * x + (-0) rounds like the product, and sm_80 has no bf16x2 multiply.
    zero = tl.full(pair.shape, -2147450880, tl.int32)
    return tl.inline_asm_elementwise(code, "=r,r,r", [pair, zero], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def choose16(word, RELU: tl.constexpr, BF16: tl.constexpr, ASM: tl.constexpr):
    """int64 word of four 16-bit floats -> int32 keys of the kept two: magnitude << 16 | 3 - index."""
    low, high = word.to(tl.int32), (word >> 32).to(tl.int32)
    if ASM:
        if not RELU:
            low, high = low & 0x7FFF7FFF, high & 0x7FFF7FFF
        low, high = nan_max0(low, BF16), nan_max0(high, BF16)
        return top2(low << 16 | 3, low & -65536 | 2, high << 16 | 1, high & -65536)
    INF: tl.constexpr = 0x7F80 if BF16 else 0x7C00
    k0 = rank(low << 16 >> 16, INF, RELU) << 16 | 3
    k1 = rank(low >> 16, INF, RELU) << 16 | 2
    k2 = rank(high << 16 >> 16, INF, RELU) << 16 | 1
    return top2(k0, k1, k2, rank(high >> 16, INF, RELU) << 16)


@triton.jit
def choose32(first, second, RELU: tl.constexpr):
    """Two int64 words of two float32 each -> int64 keys of the kept two: magnitude << 2 | 3 - index."""
    k0 = rank(first.to(tl.int32), 0x7F800000, RELU).to(tl.int64) << 2 | 3
    k1 = rank((first >> 32).to(tl.int32), 0x7F800000, RELU).to(tl.int64) << 2 | 2
    k2 = rank(second.to(tl.int32), 0x7F800000, RELU).to(tl.int64) << 2 | 1
    return top2(k0, k1, k2, rank((second >> 32).to(tl.int32), 0x7F800000, RELU).to(tl.int64) << 2)


@triton.jit
def load_group(ptr, at, inside, WIDE: tl.constexpr):
    """The word(s) of each group; the second is the first again when one word holds all four."""
    if WIDE:
        return tl.load(ptr + 2 * at, inside, 0), tl.load(ptr + 2 * at + 1, inside, 0)
    word = tl.load(ptr + at, inside, 0)
    return word, word


@triton.jit
def take(first, second, index, WIDE: tl.constexpr):
    """Bits of neighbour ``index`` (0..3) of each group, in an int32."""
    if WIDE:
        word = tl.where(index < 2, first, second)
        return (word >> ((index & 1) * 32).to(tl.int64)).to(tl.int32)
    return (first >> (16 * index).to(tl.int64)).to(tl.int32) & 0xFFFF


@triton.jit
def neighbour(first, second, I: tl.constexpr, WIDE: tl.constexpr, BF16: tl.constexpr):
    """Neighbour I (0..3) of each group as float32."""
    if WIDE:
        word = first if I < 2 else second
        return (word >> 32 * (I & 1)).to(tl.int32).to(tl.float32, bitcast=True)
    return to_float((first >> 16 * I).to(tl.int32) & 0xFFFF, BF16)


@triton.jit
def word_of(a, b, WIDE: tl.constexpr, BF16: tl.constexpr):
    """int64 word of two float32; of 16-bit floats its lower half."""
    if WIDE:
        low, high = a.to(tl.int32, bitcast=True), b.to(tl.int32, bitcast=True)
        return (low.to(tl.int64) & 0xFFFFFFFF) | high.to(tl.int64) << 32
    return ((to_bits(a, BF16) & 0xFFFF) | to_bits(b, BF16) << 16).to(tl.int64) & 0xFFFFFFFF


@triton.jit
def store_group(ptr, at, inside, x0, x1, x2, x3, WIDE: tl.constexpr, BF16: tl.constexpr):
    """Write a dense group of four float32."""
    first, second = word_of(x0, x1, WIDE, BF16), word_of(x2, x3, WIDE, BF16)
    if WIDE:
        tl.store(ptr + 2 * at, first, inside)
        tl.store(ptr + 2 * at + 1, second, inside)
    else:
        tl.store(ptr + at, first | second << 32, inside)


@triton.jit
def store_pair(ptr, at, inside, v0, v1, i0, i1, WIDE: tl.constexpr):
    """Write a dense group: v0 at position i0, v1 at i1, zeros elsewhere."""
    if WIDE:
        w0 = (v0.to(tl.int64) & 0xFFFFFFFF) << ((i0 & 1) * 32).to(tl.int64)
        w1 = (v1.to(tl.int64) & 0xFFFFFFFF) << ((i1 & 1) * 32).to(tl.int64)
        zero = tl.zeros_like(w0)
        tl.store(ptr + 2 * at, tl.where(i0 < 2, w0, zero) | tl.where(i1 < 2, w1, zero), inside)
        tl.store(ptr + 2 * at + 1, tl.where(i0 < 2, zero, w0) | tl.where(i1 < 2, zero, w1), inside)
    else:
        w0 = (v0 & 0xFFFF).to(tl.int64) << (16 * i0).to(tl.int64)
        tl.store(ptr + at, w0 | ((v1 & 0xFFFF).to(tl.int64) << (16 * i1).to(tl.int64)), inside)


@triton.jit
def pack_wide(x_ptr, at, inside, SQUARE: tl.constexpr):
    """pack_group for float32."""
    first, second = load_group(x_ptr, at, inside, True)
    p, q = choose32(first, second, SQUARE)
    i0, i1 = 3 - (p & 3).to(tl.int32), 3 - (q & 3).to(tl.int32)
    if SQUARE:
        f = (p >> 2).to(tl.int32).to(tl.float32, bitcast=True)
        g = (q >> 2).to(tl.int32).to(tl.float32, bitcast=True)
        v0, v1 = (f * f).to(tl.int32, bitcast=True), (g * g).to(tl.int32, bitcast=True)
    else:
        v0, v1 = take(first, second, i0, True), take(first, second, i1, True)
    return (v0.to(tl.int64) & 0xFFFFFFFF) | v1.to(tl.int64) << 32, i0 | i1 << 2


@triton.jit
def pack_half(x_ptr, at, inside, SQUARE: tl.constexpr, BF16: tl.constexpr, ASM: tl.constexpr):
    """pack_group for 16-bit floats."""
    word = tl.load(x_ptr + at, inside, 0)
    p, q = choose16(word, SQUARE, BF16, ASM)
    nibble = 15 - (p & 3 | (q & 3) << 2)  # keys end in 3 - index: this is i0 | i1 << 2
    if not SQUARE:
        pair = take(word, word, nibble & 3, False) | take(word, word, nibble >> 2, False) << 16
    elif ASM:
        pair = square_pair((p >> 16 & 0xFFFF) | q & -65536, BF16)
    else:
        f, g = to_float(p >> 16, BF16), to_float(q >> 16, BF16)
        pair = to_bits(f * f, BF16) | to_bits(g * g, BF16) << 16
    return pair, nibble


@triton.jit
def pack_group(
    x_ptr, at, inside, SQUARE: tl.constexpr, WIDE: tl.constexpr, BF16: tl.constexpr, ASM: tl.constexpr
):
    """(kept pair as one word, nibble i0 | i1 << 2) of x, or of relu(x)^2 if SQUARE."""
    if WIDE:
        pair, nibble = pack_wide(x_ptr, at, inside, SQUARE)
    else:
        pair, nibble = pack_half(x_ptr, at, inside, SQUARE, BF16, ASM)
    return pair, nibble
