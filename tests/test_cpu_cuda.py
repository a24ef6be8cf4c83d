"""What must not depend on the device: float32 decodes token by token, packed bytes, advantages."""

import numpy as np
import pytest
import torch

import sparse24
from labkit.fgo import fgo_advantages, grpo_advantages
from labkit.soar import decode, load_model
from labkit.soar.tasks import sums
from labkit.soar.tasks.puzzle_sets import load_puzzles

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("record", [True, False], ids=["recorded", "by the kernel"])
@pytest.mark.parametrize("strategy", ["greedy", "adaptive", "fast_dllm", "pbs", "soar"])
def test_decodes_in_float32_are_the_same_tokens(strategy, record):
    boards, _ = load_puzzles("test", 40)
    # All 81: a cap would choose among confidences that are 1 but for the rounding of each device's softmax.
    options = {"record": record, "max_parallel": 81}
    here, there = (
        decode(load_model("lab/sudoku9-early", device=device), boards.tolist(), strategy, **options)
        for device in ("cpu", "cuda")
    )
    assert np.array_equal(here.sequences, there.sequences)
    assert np.array_equal(here.calls, there.calls)
    assert there.meta["beams_moved_by"] == ("plain torch" if record else "Triton kernel")


RIVALS = {  # what the kernel cannot move, and margins, which it can
    "factor": {}, "eb": {}, "klass": {"threshold": 0.8}, "prophet": {}, "rcr": {"steps": 20},
    "order_token": {"beam": 3}, "pbs": {"confidence": "entropy"}, "soar": {"confidence": "margin"},
}  # fmt: skip


@pytest.mark.parametrize("strategy", RIVALS)
def test_rivals_in_float32_give_the_same_tokens(strategy):
    boards, _ = load_puzzles("test", 40)
    options = {"record": False} | RIVALS[strategy]
    here, there = (
        decode(load_model("lab/sudoku9-early", device=device), boards.tolist(), strategy, **options)
        for device in ("cpu", "cuda")
    )
    # Where two numbers are as close as the rounding of two devices, a choice may differ.
    assert (here.sequences == there.sequences).all(1).mean() >= 0.95
    assert there.meta["beams_moved_by"] == ("Triton kernel" if strategy == "soar" else "plain torch")


def test_text_in_float32_is_the_same():
    asked = sums.encode(sums.sums(40, seed=5, test=True))[:, : sums.QUESTION]
    options = {"gen_length": sums.LENGTH - sums.QUESTION, "beam": 3, "record": False}
    here, there = (
        decode(load_model("lab/sums", device=device), asked, "soar", **options)
        for device in ("cpu", "cuda")
    )
    assert np.array_equal(here.sequences, there.sequences)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_packed_bytes_are_the_same(dtype):
    x = torch.randn(63, 264, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[:, ::3] = 0
    here, there = (sparse24.relu2_compress(part, layout="rows") for part in (x, x.cuda()))
    assert torch.equal(here.values, there.values.cpu())
    assert torch.equal(here.metadata, there.metadata.cpu())


@pytest.mark.parametrize("scale", ["none", "std"])
def test_advantages_are_the_same(scale):
    source = torch.Generator().manual_seed(2)
    correct = torch.rand(50, 8, generator=source) < 0.5
    length = torch.randint(1, 200, (50, 8), generator=source)
    entropy = torch.rand(50, 8, generator=source, dtype=torch.float64)
    given = correct, length, entropy
    here = fgo_advantages(*given, scale=scale)
    there = fgo_advantages(*(part.cuda() for part in given), scale=scale)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-6, atol=1e-9)
    rewards = correct.double()
    torch.testing.assert_close(grpo_advantages(rewards.cuda()).cpu(), grpo_advantages(rewards))
