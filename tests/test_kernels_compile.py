"""Every kernel of sparse24 and tokenstats compiles for an H100, without one: the interpreter accepts what
the compiler refuses."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from sparse24 import gemm, kernels
from tokenstats import kernels as stats

WORD, PAIR = "*i64", "*i32"


def build(kernel, types, constants, **options):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    given = {(names.index(n),): value for n, value in constants.items()}
    compile(ASTSource(kernel, signature, given), target=GPUTarget("cuda", 90, 32), options=options)


tile = dict(BM=8, BG=64)
for dtype in sys.argv[1:]:
    wide, bf16 = dtype == "fp32", dtype == "bf16"
    kind, pair = dict(WIDE=wide, BF16=bf16), WORD if wide else PAIR
    flags = dict(SQUARE=True, ASM=True, **kind, **tile)
    for per in (2, 8):
        stored = "*u8" if per == 2 else PAIR
        build(kernels.pack_rows, dict(x_ptr=WORD, v_ptr=pair, m_ptr=stored), flags | dict(PER=per))
    for layout in (False, True):
        types = dict(v_ptr=pair, m_ptr="*u8", out_ptr=WORD, d_ptr=WORD, dv_ptr=pair)
        build(kernels.unpack, types, dict(WIDE=wide, CUSPARSELT=layout, **tile))
        packs = dict(SQUARE=True, PACK=layout and not wide, CUSPARSELT=layout, **kind, **tile)
        build(kernels.masked_grad, types, packs)
        build(kernels.prune, dict(x_ptr=WORD, out_ptr=PAIR if layout else WORD),
              dict(MASK=layout, ASM=True, **kind, **tile))
    words = dict.fromkeys(["d_ptr", "h_ptr", "out_ptr", "s_ptr"], WORD)
    build(kernels.ste_backward, words, dict(ASM=True, **kind, **tile))
    build(kernels.ste_grad, dict.fromkeys(["d_ptr", "h_ptr", "out_ptr"], "*" + dtype), dict(BLOCK=2048))
    if not wide:
        del flags["WIDE"], flags["BM"]
        build(kernels.pack_cusparselt, dict(x_ptr=WORD, v_ptr=PAIR, m_ptr=PAIR), flags | dict(BH=16))
        sizes = {n: v for n, v in gemm.BLOCKS.items() if n.isupper()}
        options = {n: v for n, v in gemm.BLOCKS.items() if not n.isupper()}
        bm, bn, bk = sizes["BM"], sizes["BN"], sizes["BK"]
        tensors = dict(
            a_desc=f"tensordesc<{dtype}[{bm}, {bk}]>", b_desc=f"tensordesc<{dtype}[{bn}, {bk}]>",
            v_desc=f"tensordesc<i32[{bm}, {bn // 4}]>",
            m_desc=f"tensordesc<i16[{bm // 64}, {bn // 32}, 128]>",
        )
        sizes["PERSIST"] = True
        build(gemm.gemm_pack, tensors, dict(BF16=bf16, ASM=True, **sizes), **options)
    types = {f"{n}_ptr": "*fp32" for n in ("part", "conf", "logp", "ent", "log2z", "gc", "gl", "ge")}
    types |= dict.fromkeys(["x_ptr", "d_ptr"], "*" + dtype) | dict(scale="fp32", inverse="fp32")
    types |= dict(arg_ptr=WORD, tok_ptr=WORD)
    build(stats.short, types, dict(TOKENS=True, ROWS=4, WIDTH=512), num_warps=4)
    build(stats.lanes, types, dict(LANES=256), num_warps=4)
    build(stats.join, types, dict(TOKENS=True, SPLITS=64, SCAN=4096), num_warps=1)
    build(stats.gradient, types, dict(BLOCK=4096), num_warps=8)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_every_kernel_compiles_for_an_h100(dtype):
    environment = {"TRITON_INTERPRET": "0", "PATH": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", COMPILE, dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
