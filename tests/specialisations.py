"""What sparse24, tokenstats and the beam search ship, one small case each, compared with the reference.

    python tests/specialisations.py     the few for compute-sanitizer (`make sanitize-gpu`)

A case is the key of the check at first use: the kernel, device, dtype, shape and flags.
"""

from collections.abc import Iterator
from itertools import product

import torch

import sparse24.checked
import tokenstats.checked
from labkit.soar import beam_check
from labkit.soar.beam_kernel import FusedMove
from labkit.soar.beams import Beams, Windows
from labkit.soar.prompts import lay_out
from labkit.soar.strategies import Rule

SIXTEEN = (torch.float16, torch.bfloat16)
ROWS, GROUPS = (1, 32, 35), (1, 67, 72, 80)  # of each what Triton compiles on its own
WIDTHS = (1, 2, 5, 16, 31, 100, 256, 512, 513, 2048, 32000, 50257, 126464)


def sparse24_cases(dtype: torch.dtype, rows=ROWS, groups=GROUPS) -> Iterator[tuple]:
    """(kernel, device, dtype, shape, *flags) as ``sparse24.checked.compare`` takes them."""
    device = torch.device("cuda", torch.cuda.current_device())
    layouts = ("rows", "cusparselt") if dtype in SIXTEEN else ("rows",)
    for shape in ((r, 4 * g) for r, g in product(rows, groups)):
        for flag in (False, True):
            yield "prune", device, dtype, shape, flag
        for layout, square in product(layouts, (False, True)):
            yield f"pack_{layout}", device, dtype, shape, square
            for packed in (False, True) if layout == "cusparselt" else (False,):
                yield "masked_grad", device, dtype, shape, layout, square, packed
        yield "ste_backward", device, dtype, shape
        for layout in layouts:
            yield "unpack", device, dtype, shape, layout
    for size in (4096, 4100):
        yield "ste_grad", device, dtype, (size,)
    if dtype in SIXTEEN and torch.cuda.get_device_capability() >= (9, 0):
        for k in (136, 144):
            yield "gemm_pack", device, dtype, (130, k)


def tokenstats_cases(
    dtype: torch.dtype, widths=WIDTHS, rows=(1, 16, 257), offsets=(0, 1)
) -> Iterator[tuple]:
    """(kernels, device, dtype, ...) as ``tokenstats.checked.compare`` takes them."""
    for width, many, offset in product(widths, rows, offsets):  # offset 1: off 16 bytes
        x = torch.empty(many * width + 1, dtype=dtype, device="cuda")[offset : offset + many * width]
        for tokens in (None, torch.zeros(many, dtype=torch.int64)):
            yield from tokenstats.checked.cases_of(x.view(many, width), tokens, gradient=True)


def beam_cases() -> Iterator[FusedMove]:
    """Moves of every strategy, from one beam to eight, for ``beam_check``."""
    for turn, strategy in enumerate(("greedy", "adaptive", "pbs", "soar", "soar")):
        width = 1 if turn < 2 else (2, 4, 8)[turn - 2]
        rule = Rule(strategy, width, 1 if strategy == "pbs" else 3, 0.5, 1, 2, turn % 2 == 0)
        layout = lay_out([[1] * 4, [1] * 7], 0, 20)
        windows = Windows(layout.slots.cuda(), layout.count.cuda(), (20, 5)[turn % 2], 0)
        start = Beams.start(layout.tokens.cuda(), windows.count, width, torch.arange(2, device="cuda"))
        yield FusedMove(start, rule, windows, windows.ranks(27), 3 if turn % 3 else None)


def main() -> None:
    done = 0
    for move in beam_cases():
        beam_check.compare(*beam_check.random_case(move))
        done += 1
    for dtype in (*SIXTEEN, torch.float32):
        for case in sparse24_cases(dtype, rows=(35,), groups=(67, 72)):
            sparse24.checked.compare(*case)
            done += 1
        for case in set(tokenstats_cases(dtype, widths=(5, 100, 600, 5000))):
            tokenstats.checked.compare(*case)
            done += 1
    torch.cuda.synchronize()
    print(f"{done} specialisations equal the reference on {torch.cuda.get_device_name()}")


if __name__ == "__main__":
    main()
