"""The fused beam update against ``moves.TorchMove``: the same beams after a step, the same decodes."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from test_soar_search import MASK, Ending, TinyModel, prompts_for, reference, setting

from labkit.soar import decode, engine
from labkit.soar.beam_check import differences
from labkit.soar.beams import Beams, Windows
from labkit.soar.moves import TorchMove
from labkit.soar.prompts import lay_out
from labkit.soar.strategies import Rule

kernel = pytest.importorskip("labkit.soar.beam_kernel")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"


class OnDevice(torch.nn.Module):
    """A random model, its numbers on DEVICE; logits never depend on the batch."""

    def __init__(self, model):
        super().__init__()
        self.told = torch.nn.Parameter(torch.zeros(1, device=DEVICE))  # decode looks where it lives
        self.model, self.one = model, model.one
        self.mask_id, self.eos_id = MASK, getattr(model, "eos_id", None)
        for name in ("digit", "place", "mix", "out"):
            setattr(model, name, getattr(model, name).to(DEVICE))

    def forward(self, tokens):
        return self.model(tokens)


@pytest.fixture
def fused(monkeypatch):
    """Make decode use the kernel whatever the device, and count its steps."""
    steps = []

    class Counted(kernel.FusedMove):
        def __call__(self, *given):
            steps.append(len(given[0]))
            super().__call__(*given)

    monkeypatch.setattr(engine, "fused_move", lambda device: Counted)
    return steps


@pytest.mark.parametrize("seed", range(48 if GPU else 12))
def test_same_tokens_calls_and_rows_as_reference(seed, fused):
    rng = np.random.default_rng(seed)
    ours, theirs, gen = setting(rng)
    prompts = prompts_for(rng, gen, count=4 if GPU else 2)  # each is a program, which the interpreter walks
    model = OnDevice(TinyModel(seed, sharp=float(rng.choice([1.0, 4.0, 8.0]))))
    trace = decode(model, prompts, record=False, **ours)
    assert fused
    for p, prompt in enumerate(prompts):
        sequence, calls, rows = reference(model, prompt, gen=gen, **theirs)
        assert trace.sequences[p][: len(sequence)].tolist() == sequence
        assert (trace.calls[p], trace.rows[p]) == (calls, rows)


@pytest.mark.parametrize("strategy", ["greedy", "adaptive", "soar"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_prompts_that_wait_for_a_place(strategy, batch_size, fused):
    prompts = prompts_for(np.random.default_rng(6), 0, count=7)
    prompts.insert(2, [1, 2])
    options = {"mask_id": MASK, "threshold": 0.6, "beam": 3}
    plain = decode(OnDevice(TinyModel(5)), prompts, strategy, **options)  # records: the torch path
    assert not fused
    found = decode(
        OnDevice(TinyModel(5)), prompts, strategy, batch_size=batch_size, record=False, **options
    )
    assert fused
    for name in ("sequences", "scores", "calls", "rows"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name), err_msg=name)


def test_nothing_to_fill_needs_no_step(fused):
    trace = decode(OnDevice(TinyModel(5)), [[1, 2], [3]], "soar", mask_id=MASK, record=False)
    assert trace.sequences.tolist() == [[1, 2], [3, -1]]
    assert not trace.calls.any()
    assert not fused


def test_everything_behind_an_eos_is_eos(fused):
    given = {"gen_length": 10, "block_length": 5, "threshold": 0.6}
    plain = decode(OnDevice(Ending(0)), [[1, 2, 3], [2, 2]], "soar", **given)
    found = decode(OnDevice(Ending(0)), [[1, 2, 3], [2, 2]], "soar", record=False, **given)
    assert fused
    for name in ("sequences", "scores", "calls", "rows"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name), err_msg=name)


@pytest.mark.parametrize("strategy", ["greedy", "adaptive", "soar"])
def test_blocks_that_begin_in_the_prompt(strategy, fused):
    model = OnDevice(Ending(0))
    model.block_causal = 4
    prompts = [[1, model.eos_id, 3], [2], [3, 4, 5, 1, 2, model.eos_id, 4]]
    given = {"gen_length": 8, "threshold": 0.6, "beam": 3}
    plain = decode(model, prompts, strategy, **given)
    assert not fused
    found = decode(model, prompts, strategy, record=False, **given)
    assert fused
    for name in ("sequences", "scores", "calls", "rows"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name), err_msg=name)
    if strategy == "greedy":  # steps by schedule count the masks of a block, which the kernel does not
        fused.clear()
        plain, found = (
            decode(model, prompts, steps=4, strategy="greedy", gen_length=8, record=r)
            for r in (True, False)
        )
        assert not fused
        np.testing.assert_array_equal(found.calls, plain.calls)


def state(rng, prompts, rule, span, length=11):
    """Beams in the middle of a search, some missing, some finished, and what a model said of them."""
    rows = rng.integers(1, 6, size=(prompts, length))
    rows[rng.random(rows.shape) < 0.7] = MASK
    layout = lay_out(torch.from_numpy(rows), MASK, 0)
    windows = Windows(layout.slots, layout.count.clamp(min=1), span or layout.slots.shape[1], MASK)
    beams = Beams.start(layout.tokens, layout.count, rule.width, torch.arange(prompts))
    beams.exists = torch.arange(rule.width) < torch.from_numpy(
        rng.integers(1, rule.width + 1, (prompts, 1))
    )
    filled = (beams.tokens == MASK) & torch.from_numpy(rng.random(beams.tokens.shape) < 0.6)
    filled[rng.random(filled.shape[:2]) < 0.2] = True  # finished ones
    beams.tokens = torch.where(filled, torch.from_numpy(rng.integers(1, 6, filled.shape)), beams.tokens)
    beams.left = (beams.tokens == MASK).sum(-1)
    beams.committed = layout.count[:, None] - beams.left
    # Few different values: scores tie, and equal sequences come from several parents.
    beams.total = beams.committed * torch.from_numpy(rng.choice([0.5, 0.75], beams.committed.shape))
    beams.tokens[:, -1] = beams.tokens[:, 0]
    for name in ("left", "committed", "total"):
        getattr(beams, name)[:, -1] = getattr(beams, name)[:, 0]
    for _ in range(length):
        windows.advance(beams)
    shape = windows.positions(beams)[0].shape
    said = torch.from_numpy(rng.integers(1, 6, shape))
    sure = torch.from_numpy(rng.choice([0.25, 0.5, 0.75, 0.875, 1.0], shape).astype(np.float32))
    return layout, windows, beams, said, sure


def agree(rng, strategy, width, reach, span, *, mean=True, collapse=2, nan=False, eos=None, prompts=5):
    steps = None
    if strategy in ("greedy", "parallel"):
        steps = torch.from_numpy(rng.integers(1, 5, prompts)).to(DEVICE)
        reach = 11
    rule = Rule(strategy, width, reach, 0.7, 1, collapse, mean, steps)
    _, windows, beams, said, sure = state(rng, prompts, rule, span)
    beams, windows = moved_to(beams), Windows(*(moved_to(item) for item in vars(windows).values()))
    said, sure = said.to(DEVICE), sure.to(DEVICE)
    if nan:
        sure[torch.from_numpy(rng.random(sure.shape) < 0.1).to(DEVICE)] = float("nan")
    given = beams, rule, windows, windows.ranks(beams.tokens.shape[-1]), eos
    live = beams.active.flatten().nonzero()[:, 0]
    line = torch.full((beams.active.numel(),), -1, device=DEVICE)
    line[live] = torch.arange(len(live), device=DEVICE)
    answers = line, said.flatten(0, 1)[live].contiguous(), sure.flatten(0, 1)[live].contiguous()
    plain, move = TorchMove(*given), kernel.FusedMove(*given)
    assert move.suits(beams, rule, windows)
    move.num_warps = int(rng.choice([1, 2, 4, 8]))
    for spec in fields(Beams):  # what a step does not write must not look right by chance
        if spec.name != "prompt":
            getattr(move._next, spec.name).fill_(77)
    plain(*answers)
    move(*answers)
    assert not differences(plain, move)
    assert not move.active[~plain.beams.exists].any()
    return plain.beams


def moved_to(item):
    if isinstance(item, Beams):
        return Beams(**{spec.name: getattr(item, spec.name).to(DEVICE) for spec in fields(item)})
    return item.to(DEVICE) if isinstance(item, torch.Tensor) else item


@pytest.mark.parametrize("seed", range(24 if GPU else 6))
@pytest.mark.parametrize("strategy", ["greedy", "parallel", "adaptive", "pbs", "soar"])
def test_one_step_is_the_same_to_the_last_bit(strategy, seed):
    rng = np.random.default_rng(seed)
    width = int(rng.choice([1, 2, 3, 5, 8])) if strategy in ("pbs", "soar") else 1
    reach = 1 if strategy == "pbs" else int(rng.integers(1, 6))
    span = [None, 3, 4][seed % 3]
    agree(rng, strategy, width, reach, span, mean=bool(seed % 2), collapse=1 + seed % 4 // 2,
          eos=5 if seed % 3 else None)  # fmt: skip


def test_a_beam_that_is_shown_nan_proposes_nothing():
    for seed in range(4):
        after = agree(np.random.default_rng(seed), "soar", 3, 4, None, nan=True)
        assert after.exists.any()
        assert not after.total.isnan().any()


@pytest.mark.parametrize("mask_id", [0, 3])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_model_that_gives_nan_is_told(mask_id, broken, fused):
    def model(tokens):
        logits = torch.zeros(*tokens.shape, 5, device=DEVICE)
        logits[tokens[:, 1] == 2] = broken
        return logits

    prompts = torch.tensor([[mask_id, 1, mask_id], [mask_id, 2, mask_id]], device=DEVICE)
    with pytest.raises(ValueError, match="finite logits; prompt 1: NaN at 2 of the 2 masks it keeps"):
        decode(model, prompts, "soar", mask_id=mask_id, record=False)
    assert fused


def test_what_is_too_large_for_a_program_goes_through_torch(fused):
    wide = decode(OnDevice(TinyModel(1)), [[1, 0, 0, 0]], "pbs", mask_id=MASK, beam=33, record=False)
    assert not fused
    assert MASK not in wide.sequences
    decode(OnDevice(TinyModel(1)), [[1, 0, 0, 0]], "pbs", mask_id=MASK, beam=16, record=False)
    assert fused


@pytest.mark.parametrize(
    ("capability", "found"), [((7, 5), None), ((8, 0), "FusedMove"), ((9, 0), "FusedMove")]
)
def test_the_kernel_is_for_cuda_of_the_labs_kernels(capability, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert getattr(engine.fused_move(torch.device("cuda")), "__name__", None) == found
    assert engine.fused_move(torch.device("cpu")) is None
