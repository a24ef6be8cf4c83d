"""Memory and speed of the FFN at the paper's 1B shape, and peak memory of a whole 1B training step.

The width i' is 8192, not the published 8191, which no 2:4 kernel takes; SwiGLU's i is 5504 (5461
published), a multiple of 64 too, so that no rival is slowed by its shape.
"""

import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from labkit.elas.instruments import saved_bytes
from labkit.elas.loro import Loro
from labkit.elas.model import ElasConfig, ElasForCausalLM, build_mlp
from labkit.studies.timing import seconds, take_turns

RELU2 = {"intermediate_size": 8192, "warmup_steps": 0}
SWIGLU = {"intermediate_size": 5504, "ffn": "swiglu"}
PLAIN = {"sparse": False}
# What is compared in memory: one low-rank ReLU² FFN, run in these ways.
FORMS: dict[str, dict[str, Any]] = {
    "LORO ReLU²": PLAIN,
    "ELAS, mask only": {"gradient": "ste"},
    "ELAS packed, straight-through": {"gradient": "ste", "packed": True},
    "ELAS packed, masked gradient": {"gradient": "masked", "packed": True},
    "LORO ReLU², recomputed": PLAIN | {"recompute": True},
}
RIVALS: dict[str, dict[str, Any]] = {
    "full-rank SwiGLU": SWIGLU | {"rank": None},
    "full-rank ReLU²": RELU2 | PLAIN | {"rank": None},
    "low-rank SwiGLU": SWIGLU,
    **{name: RELU2 | form for name, form in FORMS.items()},
}
COMPILED = ("full-rank SwiGLU", "full-rank ReLU²", "low-rank SwiGLU", "LORO ReLU²")
SMALL = {"hidden_size": 64, "rank": 16, "num_attention_heads": 4, "num_hidden_layers": 2}
SEQ = 256


def shape(options: dict[str, Any], tiny: bool) -> ElasConfig:
    """The 1B configuration, or one of its form that a CPU runs at once."""
    small = SMALL | {"vocab_size": 512, "intermediate_size": 128} if tiny else {}
    return ElasConfig.from_name("1b", **options | small)


def ffn_memory(batches: list[int], device: str, tiny: bool) -> list[dict]:
    """One FFN, forward and backward in bfloat16 on (batch, 256) tokens, for every form and batch.

    Rows of {form, batch, tokens, saved_bytes (hooks, every storage once), formula_bytes, kept_bytes
    (allocator, CUDA only), peak_bytes (allocator, forward and backward)}. The formula counts the
    input, the low-rank intermediates and the wide tensors, 2 bytes a value, 9/8 where packed.
    """
    rows = []
    for form, options in FORMS.items():
        config = shape(RELU2 | options, tiny)
        mlp = build_mlp(config).to(device, torch.bfloat16)
        assert config.rank is not None  # each form is a low-rank layer
        narrow = config.hidden_size + 2 * config.rank
        wide = config.intermediate_size
        wide_bytes = {"LORO ReLU²": 4.0, "ELAS packed, straight-through": 2.0}.get(form)
        wide_bytes = {"masked": 1.125}.get(config.gradient if config.packed else "", wide_bytes)
        wide_bytes = 0.0 if config.recompute else wide_bytes
        for batch in batches:
            x = torch.randn(batch, SEQ, config.hidden_size, device=device, dtype=torch.bfloat16)
            x.requires_grad_()
            tokens = batch * SEQ
            row = {"form": form, "batch": batch, "tokens": tokens, "saved_bytes": saved_bytes(mlp, x)}
            if wide_bytes is not None:
                row["formula_bytes"] = tokens * (2 * narrow + wide_bytes * wide)
            if device == "cuda":
                row |= _allocated(mlp, x)
            rows.append(row)
    return rows


def _allocated(mlp: nn.Module, x: Tensor) -> dict[str, int]:
    """What the allocator says: kept from forward to backward, and the peak of both, without weights."""
    upstream = torch.randn_like(x)
    for _ in range(2):  # the second time around everything is planned and loaded
        x.grad = None
        mlp.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        y = mlp(x)
        kept = torch.cuda.memory_allocated() - before - y.nbytes
        y.backward(upstream)
        peak = torch.cuda.max_memory_allocated() - before
        del y
    x.grad = None
    mlp.zero_grad(set_to_none=True)
    return {"kept_bytes": kept, "peak_bytes": peak}


def model_memory(batches: list[int], device: str, tiny: bool, deadline: float) -> list[dict]:
    """A training step of the whole 1B model (24 layers, vocabulary 32000), bfloat16 as published.

    Rows of {form, batch, peak_bytes: weights, gradients, Adam states, activations, or None where it
    does not fit; forward_backward_peak_bytes; ms: the second step}. LORO with its states is resident.
    """
    with torch.device(device):
        model = ElasForCausalLM(shape(RELU2 | {"vocab_size": 32000}, tiny)).to_dtype(torch.bfloat16)
    optimizer = Loro.for_model(model, lr=1e-5, exact_every=None)
    rows: list[dict] = []
    for form, options in FORMS.items():
        _set_form(model, options)
        for batch in batches:
            if time.time() > deadline:
                return rows
            try:
                rows.append({"form": form, "batch": batch} | _model_step(model, optimizer, batch))
            except torch.OutOfMemoryError:
                rows.append({"form": form, "batch": batch, "peak_bytes": None})
                break
            finally:
                model.zero_grad(set_to_none=True)
                if device == "cuda":
                    gc.collect()
                    torch.cuda.empty_cache()
    return rows


def _set_form(model: ElasForCausalLM, options: dict[str, Any]) -> None:
    model.set_sparse(options.get("sparse", True))
    for layer in model.model.layers:
        layer.mlp.packed, layer.mlp.recompute = (
            options.get("packed", False),
            options.get("recompute", False),
        )
        layer.mlp.act_fn.gradient = options.get("gradient", "ste")


def _model_step(model: ElasForCausalLM, optimizer: Loro, batch: int) -> dict[str, float]:
    cuda = model.device.type == "cuda"
    tokens = torch.randint(model.config.vocab_size, (batch, SEQ), device=model.device)
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        inner = torch.cuda.max_memory_allocated() if cuda else 0
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        ms = 1000 * (time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    return {"peak_bytes": peak, "forward_backward_peak_bytes": inner, "ms": round(ms, 2)}


def speed(tokens: int, device: str, tiny: bool, rounds: int, compiled: bool) -> list[dict]:
    """The FFN of one layer on ``tokens`` tokens: every rival in turn in each round, medians.

    Rows of {rival, pass: forward | forward + backward, ms: {p20, p50, p80}, tokens}. Rivals of plain
    torch run eagerly and, with ``compiled``, also under torch.compile ("..., compiled").
    """
    hidden = shape({}, tiny).hidden_size
    x = torch.randn(tokens, hidden, device=device, dtype=torch.bfloat16, requires_grad=True)
    upstream = torch.randn(tokens, hidden, device=device, dtype=torch.bfloat16)
    calls: dict[str, Callable] = {}
    for name, options in RIVALS.items():
        calls[name] = build_mlp(shape(options, tiny)).to(device, torch.bfloat16)
        if name in COMPILED and compiled:
            calls[f"{name}, compiled"] = torch.compile(calls[name], dynamic=False)

    def forward(mlp: nn.Module) -> Tensor:
        with torch.no_grad():
            return mlp(x)

    def step(mlp: nn.Module) -> tuple[Tensor, ...]:
        return torch.autograd.grad(mlp(x), [x, *mlp.parameters()], upstream)

    rows = []
    for kind, run in {"forward": forward, "forward + backward": step}.items():
        rivals = {name: (lambda mlp=mlp, run=run: run(mlp)) for name, mlp in calls.items()}
        for name, ms in interleave(rivals, rounds, device).items():
            rows.append({"rival": name, "pass": kind, "ms": ms, "tokens": tokens})
    return rows


def interleave(rivals: dict[str, Callable], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Medians by CUDA events, a spin hiding the host; by the clock on a CPU, for a rehearsal."""
    if device == "cuda":
        from sparse24 import timing

        return timing.interleave(rivals, rounds)
    times = {name: sorted(own) for name, own in seconds(take_turns(rivals, rounds)).items()}
    return {
        n: {"p20": 1000 * t[0], "p50": 1000 * t[len(t) // 2], "p80": 1000 * t[-1]} for n, t in times.items()
    }


def exact_step(device: str, tiny: bool) -> dict[str, float]:
    """Milliseconds of LORO's exact step for one square pair of the 12m model, by device."""
    from labkit.elas.riemannian import riemannian_step

    size, rank = (32, 8) if tiny else (384, 96)
    found = {}
    for where in {"cpu", device}:
        four = [torch.randn(size, rank, device=where) for _ in range(4)]

        def step(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> float:
            return riemannian_step(a, b, c, d, 0.01)[0].sum().item()

        times = seconds(take_turns({where: partial(step, *four)}, 6))[where]
        found[where] = round(1000 * sorted(times[1:])[2], 3)
    return found
