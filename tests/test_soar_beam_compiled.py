"""The beam kernel as it is compiled: in lockstep with torch on a GPU, its code read without one."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from itertools import product

import pytest
import torch

from labkit.soar import beam_check, decode, engine
from labkit.soar.moves import Move, TorchMove
from sparse24 import selfcheck

kernel = pytest.importorskip("labkit.soar.beam_kernel")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
TRITON = tuple(map(int, kernel.triton.__version__.split(".")[:2]))
MASK, EOS = 1, 2


class Model(torch.nn.Module):
    """Random logits over 64 tokens, sharp enough that beams accelerate, merge and stop at EOS."""

    mask_id, vocab_size, max_length = MASK, 64, 2048

    def __init__(self, eos: bool):
        super().__init__()
        source = torch.Generator().manual_seed(0)
        shapes = {"token": (64, 32), "place": (2048, 32), "mix": (32, 32), "out": (32, 64)}
        for name, shape in shapes.items():
            setattr(self, name, torch.nn.Parameter(torch.randn(shape, generator=source).to(DEVICE)))
        if eos:
            self.eos_id = EOS

    def forward(self, tokens):
        x = self.token[tokens] + self.place[: tokens.shape[1]]
        return torch.tanh(x @ self.mix / 32**0.5 + x.mean(1, keepdim=True)) @ self.out * (3 / 32**0.5)


class Lockstep(Move):
    """Every step by torch and by the kernel; AssertionError at the first difference."""

    compacts = False
    num_warps = 4
    beams = property(lambda self: self.plain.beams)
    where = property(lambda self: self.plain.where)
    active = property(lambda self: self.plain.active)

    def __init__(self, search):
        beams, rule, windows = search._start(search.batch), search.rule, search.windows
        given = rule, windows, search.ranks, search.eos_ids
        copy = type(beams)(**{f.name: getattr(beams, f.name).clone() for f in fields(beams)})
        self.plain, self.fused = TorchMove(copy, *given), kernel.FusedMove(beams, *given)
        assert self.fused.suits(beams, rule, windows)
        self.fused.num_warps, self.steps = self.num_warps, 0

    def put(self, index, others):
        self.plain.put(index, others)
        self.fused.put(index, others)

    def __call__(self, *answers):
        self.plain(*answers)
        self.fused(*answers)
        self.steps += 1
        assert not (found := beam_check.differences(self.plain, self.fused)), f"step {self.steps}: {found}"


BLOCKS = (None, 8, 16, 32, 64)
LENGTHS = (32, 72, 256, 136, 520, 64, 1024)  # of the whole sequence, the prompt included
SETTINGS = [*product(("soar", "pbs"), range(1, 9), BLOCKS), *product(("greedy", "adaptive"), (1,), BLOCKS)]
SETTINGS += [("parallel", 1, block) for block in BLOCKS]


@pytest.mark.gpu
@pytest.mark.parametrize(("strategy", "beam", "block"), SETTINGS)
def test_lockstep_on_a_gpu(strategy, beam, block, monkeypatch):
    """Lengths, EOS, score, schedule, collapse and warps take turns over the settings; both thresholds."""
    monkeypatch.setattr(engine.Search, "_new_move", lambda search: Lockstep(search))
    turn = SETTINGS.index((strategy, beam, block))
    for nth, threshold in enumerate((0.5, 0.9995)):
        this = turn + nth
        size = block or 1
        gen = max(size, min(64, LENGTHS[this % 7] // 2) // size * size)
        monkeypatch.setattr(Lockstep, "num_warps", (1, 2, 4, 8)[(this + turn // 5) % 4])
        options = {
            "block_length": block,
            "beam": beam,
            "threshold": threshold,
            "min_collapse": 1 + this % 2,
        }
        options["score"] = ("mean", "sum")[(turn // 2) % 2]
        options["max_parallel"] = (5, 2, 81)[turn % 3] if strategy in ("adaptive", "parallel") else 5
        if strategy in ("greedy", "parallel") and nth:
            options["steps"] = gen // (block or gen) * 7
        source = torch.Generator().manual_seed(turn)
        prompts = torch.randint(3, 64, (3, max(8, LENGTHS[this % 7] - gen)), generator=source).to(DEVICE)
        model = Model(eos=this % 2 == 0)
        decode(model, prompts, strategy, gen_length=gen, record=False, batch_size=2, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("beam", [1, 2, 4, 8])
def test_lockstep_with_a_long_window(beam, monkeypatch):
    """All of 1,024 positions are one block."""
    monkeypatch.setattr(engine.Search, "_new_move", lambda search: Lockstep(search))
    prompts = torch.full((2, 1024), MASK)
    prompts[:, 200:] = torch.randint(3, 64, (2, 824), generator=torch.Generator().manual_seed(beam))
    prompts[:, 500:900:10] = MASK
    decode(Model(eos=True), prompts.to(DEVICE), "soar", beam=beam, threshold=0.3, record=False)


READ = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from labkit.soar.beam_kernel import KINDS, _tiles, beam_step as kernel

POINTERS = {"total_ptr": "*fp64", "total_out": "*fp64", "confidence_ptr": "*fp32", "threshold": "fp32"}
POINTERS |= dict.fromkeys(["exists_ptr", "exists_out", "active_out"], "*i1")
ALIGNED = {n for n in kernel.arg_names if n.endswith(("_ptr", "_out"))} | {"M", "W", "block_length"}
for kind, width, reach, warps in (
    ("greedy", 1, 3, 4), ("pbs", 2, 1, 2), ("adaptive", 1, 5, 4), ("soar", 3, 5, 1), ("soar", 8, 5, 4)
):
    beam, depth, window, line = _tiles(width, reach, 64, 72)
    given = dict(KIND=KINDS[kind], STEPS=kind == "greedy", MEAN=kind != "pbs", EOS=kind != "adaptive",
                 K=width, REACH=reach, KP=beam, DP=depth, WP=window, LP=line, mask_id=1)
    usual = {n: "constexpr" if n in given else "*i64" if n.endswith(("_ptr", "_out")) else "i32"
             for n in kernel.arg_names}
    constants = {(kernel.arg_names.index(name),): value for name, value in given.items()}
    aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in ALIGNED}
    source = ASTSource(kernel, usual | POINTERS, constants, aligned)
    print(compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}).asm["ttgir"])
"""


@pytest.mark.slow
def test_compiled_for_an_h100_no_tile_is_reshaped():
    """Without a GPU. Reducing what was reshaped is what Triton 3.6 and 3.7 get wrong (next test)."""
    command, here = [sys.executable, "-c", READ], os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run(command, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("tt.reduce") > 50
    assert not re.findall(r"tt\.reshape|#ttg\.linear", done.stdout)


if not kernel.triton.knobs.runtime.interpret:
    triton, tl = kernel.triton, kernel.tl

    @triton.jit
    def flat_sum(x_ptr, all_ptr, out_ptr, WIDE: tl.constexpr):
        """The smallest kernel that shows it: the layout of ``hit`` comes from the vectorised load of x."""
        rows, columns, w = tl.arange(0, 8), tl.arange(0, 8), tl.arange(0, WIDE)
        best = tl.max(tl.load(x_ptr + rows[:, None] * WIDE + w[None, :]), 1)
        hit = (best[:, None] > columns[None, :]).to(tl.int32)
        flat = tl.reshape(hit, (64,))
        tl.store(all_ptr + tl.arange(0, 64), flat)
        tl.store(out_ptr, tl.sum(flat, 0))


@pytest.mark.gpu
@pytest.mark.xfail(TRITON < (3, 8), reason="Triton 3.6 and 3.7 sum over the wrong lanes", strict=True)
def test_triton_reduces_a_reshaped_tile():
    """Unused lanes lie between the used ones ([4], [0], [0], [0], [8]); they shuffle over lanes 1 and 2."""
    for warps, wide, _ in product((1, 2, 4, 8), (8, 16, 32, 64, 128), range(4)):
        x = torch.randint(0, 9, (8, wide), device=DEVICE).float()
        every, total = (
            torch.empty(64, dtype=torch.int32, device=DEVICE),
            torch.zeros(1, device=DEVICE).int(),
        )
        flat_sum[(1,)](x, every, total, wide, num_warps=warps)
        assert total.item() == every.sum().item(), f"num_warps {warps}, {wide} wide"


def search(beam=3):
    prompts = torch.randint(3, 64, (2, 4), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    options = {"gen_length": 12, "beam": beam, "threshold": 0.5, "record": False}
    return decode(Model(eos=True), prompts, "soar", **options)


@pytest.fixture
def on_any_device(monkeypatch):
    monkeypatch.setattr(engine, "fused_move", lambda device: kernel.FusedMove)
    monkeypatch.setattr(selfcheck, "_verdicts", {})
    monkeypatch.delenv("LABKIT_KERNEL_CHECK", raising=False)


FAULTS = {  # one wrong operator in the source that is compiled: what is ranked, merged, counted, filled
    "ranking": (
        "tl.min(tl.where(confidence == highest[:, None], w[None, :], WP - 1), 1)",
        "tl.max(tl.where(confidence == highest[:, None], w[None, :], 0), 1)",
    ),
    "unmerged": ("| (fingerprint == same)", "& (fingerprint == same)"),
    "left": ("left -= number", "left -= number + 1"),
    "spot": ("l[None, :] == spot[:, None]", "l[None, :] >= spot[:, None]"),
}


def mutant(fault: str, tmp_path):
    """``beam_step`` with one fault, from a file: Triton reads a kernel's source from where it stands."""
    import importlib.util
    from pathlib import Path

    right, wrong = FAULTS[fault]
    text = Path(kernel.__file__).read_text()
    assert text.count(right) == 1
    path = tmp_path / f"beam_{fault}.py"
    path.write_text(text.replace(right, wrong))
    spec = importlib.util.spec_from_file_location(f"beam_{fault}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.beam_step


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_at_first_use_catches_a_wrong_kernel(fault, on_any_device, monkeypatch, tmp_path):
    """On a GPU the fault is compiled. It is said once, and torch decodes instead."""
    right = search()
    assert all(verdict is None for verdict in selfcheck.checked().values())
    selfcheck._verdicts.clear()
    monkeypatch.setattr(kernel, "beam_step", mutant(fault, tmp_path))
    with pytest.warns(RuntimeWarning, match=r"beam_step.*step \d differs in .*TorchMove") as said:
        first, second = search(), search()
    assert len([w for w in said if "beam_step" in str(w.message)]) == 1
    for found in (first, second):
        assert (found.sequences == right.sequences).all()


def test_the_check_can_be_switched_off(on_any_device, monkeypatch):
    monkeypatch.setenv("LABKIT_KERNEL_CHECK", "0")
    monkeypatch.setattr(beam_check, "compare", lambda *case: pytest.fail("compared"))
    search()
    assert not selfcheck.checked()


def test_reference_is_a_wish(monkeypatch):
    monkeypatch.setenv("LABKIT_KERNEL", "reference")
    assert engine.fused_move(torch.device("cuda")) is None


def test_running_out_of_beams_is_not_called_nan(on_any_device, monkeypatch):
    """Finite logits: whatever loses the beams, the error does not blame the model."""

    class Loses(kernel.FusedMove):
        def __call__(self, *answers):
            super().__call__(*answers)
            self.beams.exists.zero_()
            self.active.zero_()

    monkeypatch.setattr(engine, "fused_move", lambda device: Loses)
    with pytest.raises(
        RuntimeError, match="ran out of beams: prompt 0 keeps .* masks, the logits there are"
    ):
        search()
