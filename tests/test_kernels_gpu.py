"""Every compiled kernel that ships equals its reference, whatever num_warps. Skipped without a GPU."""

import pytest
import torch

pytest.importorskip("triton")
from specialisations import SIXTEEN, sparse24_cases, tokenstats_cases

import sparse24.checked
import tokenstats.checked
from sparse24 import gemm, kernels

pytestmark = pytest.mark.gpu
DTYPES = [*SIXTEEN, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_specialisation_of_sparse24(dtype):
    for case in sparse24_cases(dtype):
        sparse24.checked.compare(*case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_specialisation_of_tokenstats(dtype):
    for case in set(tokenstats_cases(dtype)):
        tokenstats.checked.compare(*case)


class WithWarps:
    """A kernel launched with another number of warps."""

    def __init__(self, kernel, num_warps):
        self.kernel, self.num_warps = kernel, num_warps

    def __getitem__(self, grid):
        launch = self.kernel[grid]
        return lambda *args, **given: launch(*args, **given | {"num_warps": self.num_warps})


@pytest.mark.parametrize("num_warps", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_result_depends_on_num_warps(dtype, num_warps, monkeypatch):
    ours = "pack_rows", "pack_cusparselt", "unpack", "prune", "masked_grad", "ste_grad", "ste_backward"
    for name in ours:
        monkeypatch.setattr(kernels, name, WithWarps(getattr(kernels, name), num_warps))
    for name in ("short", "lanes", "join", "gradient"):
        launched = tokenstats.checked.triton
        monkeypatch.setattr(launched, name, WithWarps(getattr(launched, name), num_warps))
    monkeypatch.setitem(gemm.BLOCKS, "num_warps", max(4, num_warps))  # its tile fills four warps' registers
    for case in sparse24_cases(dtype, rows=(35,), groups=(67, 72)):
        sparse24.checked.compare(*case)
    for case in set(tokenstats_cases(dtype, widths=(5, 100, 512, 5000), rows=(16, 257), offsets=(0,))):
        tokenstats.checked.compare(*case)


def test_the_checks_at_first_use_take_their_time_once():
    """Each later use is a look-up: no case is computed again."""
    from sparse24 import selfcheck

    x = torch.randn(64, 128, device="cuda", dtype=torch.bfloat16)
    sparse24.mask24(x)
    known = selfcheck.checked()
    for _ in range(3):
        sparse24.mask24(x)
    assert selfcheck.checked() == known
