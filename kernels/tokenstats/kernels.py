"""Triton kernels: the four numbers of a row in one read (whole or in parts), and their gradient.

Each thread keeps, for its share of a row, a running maximum m, Z = sum e^t and W = sum t e^t of
t = (x - m) / temperature, and the first chunk that reached m. It meets 8 neighbours at a time: one
rescaling per 8 keeps the exponentials below what the memory delivers. Rows are split so that few
rows still fill the GPU; a second, tiny kernel joins the parts. Short rows go many to a program, whole.
The maximum is taken away before the division everywhere: a logit over a small temperature overflows.
"""

import triton
import triton.language as tl

CHUNK = tl.constexpr(8)  # neighbours a thread takes at once
LOWEST = tl.constexpr(-3.4028234663852886e38)
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def lanes(x_ptr, part_ptr, V, stride, part, scale, LANES: tl.constexpr):
    """Partial (m, Z, W, first chunk with the maximum) of row program_id(0), part program_id(1)."""
    row, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    x_ptr += row.to(tl.int64) * stride
    lane = tl.arange(0, LANES)
    m = tl.full((LANES,), LOWEST, tl.float32)
    z = tl.zeros((LANES,), tl.float32)
    w = tl.zeros((LANES,), tl.float32)
    c = tl.zeros((LANES,), tl.int32)
    end = min((split + 1) * part, V)
    for start in range(split * part, end, LANES * CHUNK):
        at = start + lane[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
        x = tl.load(x_ptr + at, at < end, float("-inf")).to(tl.float32)
        top = tl.maximum(m, tl.max(x, 1))
        c = tl.where(top > m, start // CHUNK + lane, c)
        # -1e4: exp2 of it is exactly 0, and 0 * -1e4 is 0 where 0 * -inf is not.
        shift = tl.maximum((m - top) * scale, -1e4)
        t = (x - top[:, None]) * scale
        e = tl.exp2(t)
        decay = tl.exp2(shift)
        w = (w + z * shift) * decay + tl.sum(e * tl.where(t < -1e4, -1e4, t), 1)
        z = z * decay + tl.sum(e, 1)
        m = top
    best = tl.max(m, 0)
    shift = tl.maximum((m - best) * scale, -1e4)
    decay = tl.exp2(shift)
    c = tl.min(tl.where(m == best, c, 2147483647), 0)
    part_ptr += (row.to(tl.int64) * splits + split) * 4
    tl.store(part_ptr, best)
    tl.store(part_ptr + 1, tl.sum(z * decay, 0))
    tl.store(part_ptr + 2, tl.sum((w + z * shift) * decay, 0))
    tl.store(part_ptr + 3, c.to(tl.float32, bitcast=True))


@triton.jit
def join(
    x_ptr, tok_ptr, part_ptr, arg_ptr, conf_ptr, logp_ptr, ent_ptr, log2z_ptr,
    V, stride, splits, scale, TOKENS: tl.constexpr, SPLITS: tl.constexpr, SCAN: tl.constexpr,
):  # fmt: skip
    """The four numbers of one row from its parts, and log2 Z."""
    row = tl.program_id(0)
    x_ptr += row.to(tl.int64) * stride
    s = tl.arange(0, SPLITS)
    part_ptr += (row.to(tl.int64) * splits + s) * 4
    m = tl.load(part_ptr, s < splits, LOWEST)
    best = tl.max(m, 0)
    shift = tl.maximum((m - best) * scale, -1e4)
    decay = tl.exp2(shift)
    z = tl.load(part_ptr + 1, s < splits, 0.0)
    w = tl.load(part_ptr + 2, s < splits, 0.0)
    w = tl.sum((w + z * shift) * decay, 0)
    z = tl.sum(z * decay, 0)
    c = tl.load(part_ptr + 3, s < splits, 0.0).to(tl.int32, bitcast=True)
    c = tl.min(tl.where(m == best, c, 2147483647), 0)
    at = c * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(x_ptr + at, at < V, float("-inf")).to(tl.float32)
    arg = tl.min(tl.where(x == best, at, 2147483647), 0)
    if z != z:  # NaN or inf somewhere: like torch.argmax, point at the first NaN, else at the first inf
        nan = tl.full((), 2147483647, tl.int32)
        infinite = tl.full((), 2147483647, tl.int32)
        for start in range(0, V, SCAN):
            place = start + tl.arange(0, SCAN)
            value = tl.load(x_ptr + place, place < V, 0.0).to(tl.float32)
            nan = tl.minimum(nan, tl.min(tl.where(value != value, place, 2147483647), 0))
            first = tl.min(tl.where(value == float("inf"), place, 2147483647), 0)
            infinite = tl.minimum(infinite, first)
        arg = tl.where(nan < V, nan, infinite)
    if z == 0:  # every logit is -inf: 0 / 0
        z = z / z
        arg = 0
    log2z = tl.log2(z)
    token = arg.to(tl.int64)
    if TOKENS:
        token = tl.load(tok_ptr + row)
    chosen = tl.load(x_ptr + token, (token >= 0) & (token < V), float("nan")).to(tl.float32)
    tl.store(arg_ptr + row, arg.to(tl.int64))
    tl.store(conf_ptr + row, 1 / z)
    tl.store(logp_ptr + row, ((chosen - best) * scale - log2z) / LOG2E)
    tl.store(ent_ptr + row, (log2z - w / z) / LOG2E)
    tl.store(log2z_ptr + row, log2z)


@triton.jit
def short(
    x_ptr, tok_ptr, arg_ptr, conf_ptr, logp_ptr, ent_ptr, log2z_ptr, N, V, stride, scale,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The four numbers and log2 Z of ROWS rows of at most WIDTH columns."""
    row, at = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    here = row < N
    x_ptr += row.to(tl.int64) * stride
    x = tl.load(x_ptr[:, None] + at[None, :], here[:, None] & (at < V)[None, :], float("-inf"))
    x = x.to(tl.float32)
    best = tl.maximum(tl.max(tl.where(x != x, float("-inf"), x), 1), LOWEST)
    t = (x - best[:, None]) * scale
    e = tl.exp2(t)
    z = tl.sum(e, 1)
    w = tl.sum(e * tl.where(t < -1e4, -1e4, t), 1)
    arg = tl.min(tl.where(x == best[:, None], at[None, :], WIDTH), 1)
    nan = tl.min(tl.where(x != x, at[None, :], WIDTH), 1)
    arg = tl.where(nan < WIDTH, nan, tl.where(z == 0, 0, arg))
    z = tl.where(z == 0, z / z, z)  # every logit is -inf: 0 / 0
    log2z = tl.log2(z)
    token = arg.to(tl.int64)
    if TOKENS:
        token = tl.load(tok_ptr + row, here, 0)
    chosen = tl.load(x_ptr + token, here & (token >= 0) & (token < V), float("nan")).to(tl.float32)
    tl.store(arg_ptr + row, arg.to(tl.int64), here)
    tl.store(conf_ptr + row, 1 / z, here)
    tl.store(logp_ptr + row, ((chosen - best) * scale - log2z) / LOG2E, here)
    tl.store(ent_ptr + row, (log2z - w / z) / LOG2E, here)
    tl.store(log2z_ptr + row, log2z, here)


@triton.jit
def gradient(
    x_ptr, d_ptr, arg_ptr, tok_ptr, conf_ptr, ent_ptr, log2z_ptr, gc_ptr, gl_ptr, ge_ptr, V, stride,
    inverse, BLOCK: tl.constexpr,
):  # fmt: skip
    """d x = (gl (1[token] - p) + gc conf (1[argmax] - p) - ge p (log p + H)) / temperature."""
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < V
    x_ptr += row.to(tl.int64) * stride
    arg = tl.load(arg_ptr + row)
    best = tl.load(x_ptr + arg).to(tl.float32)
    x = tl.load(x_ptr + at, inside, 0.0).to(tl.float32)
    log2p = (x - best) * (inverse * LOG2E) - tl.load(log2z_ptr + row)
    p = tl.exp2(log2p)
    gl, ge = tl.load(gl_ptr + row), tl.load(ge_ptr + row)
    gc = tl.load(gc_ptr + row) * tl.load(conf_ptr + row)
    finite = tl.where(log2p < -1e4, -1e4, log2p) / LOG2E
    d = -p * (gl + gc + ge * (finite + tl.load(ent_ptr + row)))
    d += tl.where(at == tl.load(tok_ptr + row), gl, 0.0) + tl.where(at == arg, gc, 0.0)
    tl.store(d_ptr + row.to(tl.int64) * V + at, (d * inverse).to(d_ptr.dtype.element_ty), inside)
