"""Seconds of cached decoding: arms in turn, and at LLaDA-8B's shape (the stages of ``cache_study``)."""

import statistics
import time
from collections.abc import Callable, Hashable
from functools import partial

import torch
from torch import nn

from labkit import checks
from labkit.soar.caches import Cached
from labkit.soar.diffusion_lm import DiffusionLM
from labkit.soar.llada_shape import random_llada
from labkit.soar.replay import Replay
from labkit.soar.search import decode
from labkit.soar.timing import timed

GRAPH = "none, one graph"  # an arm without a cache


def interleaved(
    calls: dict[Hashable, Callable], rounds: int, until: float = float("inf")
) -> dict[Hashable, list[float]]:
    """Wall seconds of every call, all in turn ``rounds`` times; no further one after ``until``.

    until  a ``time.perf_counter()``; the first round is always made
    """
    spent = {key: [] for key in calls}
    for number in range(rounds):
        for key, call in calls.items():
            if number and time.perf_counter() > until:
                return spent
            spent[key].append(timed(call)[1])
    return spent


class Graphed(nn.Module):
    """``model`` whose forwards are replayed, for rows of one length: no cache, but no host to wait for."""

    def __init__(self, model: DiffusionLM):
        super().__init__()
        self.model, self._replay = model, Replay(model.logits_at)
        for name in ("mask_id", "eos_id", "max_length", "vocab_size"):
            setattr(self, name, getattr(model, name))

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, lengths: list[int] | None = None
    ) -> torch.Tensor:
        if lengths is not None:
            checks.fail("lengths", lengths, "None: rows of one length")
        return self._replay(tokens, positions)

    logits_at = forward


def llada(device: str, rounds: int, tiny: bool, until: float) -> dict:
    """Seconds of greedy decoding at LLaDA-8B's shape, for 1 prompt and for 8; what the caches hold.

    ``faster`` is against no cache; for 1 prompt ``than_graph`` is against no cache but one CUDA graph.
    """
    free = random_llada(device, tiny=tiny, dtype=torch.bfloat16)
    length, gen, block = (24, 8, 4) if tiny else (768, 64, 32)
    about = free.mask_id, free.eos_id, free.max_length, free.shift
    causal = DiffusionLM(free.net, *about, block_causal=block)
    plain = {"both": free, "blocks": causal}  # which way attention goes
    models = {(way, None): model for way, model in plain.items()}
    models |= {("both", cache): Cached(free, cache) for cache in ("approximate-prefix", "approximate-dual")}
    models["blocks", "exact-block"] = Cached(causal, "exact-block")
    graphs = {(way, GRAPH): Graphed(model) for way, model in plain.items()}
    source = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, free.mask_id - 1, (8, length), generator=source)
    given = {"gen_length": gen, "block_length": block, "eos_early_stop": False, "record": False}
    found = []
    for count in (1, 8):
        # With 8 prompts a whole forward takes far longer than its launches.
        arms = models | (graphs if count == 1 else {})
        calls = {
            key: partial(decode, model, prompts[:count], "greedy", **given) for key, model in arms.items()
        }
        for call in calls.values():
            call(steps=8)  # four steps a block: compiles and captures what there is
        spent = interleaved(calls, rounds, until)
        middle = {key: statistics.median(own) for key, own in spent.items()}
        for (way, cache), own in spent.items():
            arm = {
                "prompts": count, "attention": way, "cache": cache, "seconds": own,
                "faster": middle[way, None] / middle[way, cache],
                "kept_bytes": getattr(arms[way, cache], "kept_bytes", 0),
            }  # fmt: skip
            if (way, GRAPH) in middle:
                arm["than_graph"] = middle[way, GRAPH] / middle[way, cache]
            found.append(arm)
    off = _rounding(causal, models["blocks", "exact-block"], prompts[:2].to(device), gen, block)
    return {"shape": "tiny" if tiny else "LLaDA-8B", "length": length, "generated": gen,
            "block_length": block, "dtype": "bfloat16", "arms": found, "exact-block": off}  # fmt: skip


@torch.no_grad()
def _rounding(
    plain: DiffusionLM, cached: Cached, prompts: torch.Tensor, gen: int, block: int
) -> dict[str, float]:
    """Half-way through the last block: how far logits move by the exact cache, and by the batch alone."""
    tokens = torch.cat([prompts, prompts[:, :gen]], 1)
    end = tokens.shape[1]
    tokens[:, end - block // 2 :] = plain.mask_id
    where = torch.arange(end - block, end, device=tokens.device).expand(len(tokens), -1)
    want, got = (model.logits_at(tokens, where).float() for model in (plain, cached))
    alone = plain.logits_at(tokens[:1], where[:1]).float()
    return {"largest difference": float((want - got).abs().max()), "deviation": float(want.std()),
            "largest by the batch": float((want[:1] - alone).abs().max())}  # fmt: skip
