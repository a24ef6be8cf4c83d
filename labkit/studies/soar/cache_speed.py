"""Seconds of cached decoding at LLaDA-8B's shape: a stage of ``caches``."""

import statistics
from functools import partial
from typing import Any

import torch

from labkit.soar.models.block_cache import BlockCached
from labkit.soar.models.caches import Cached
from labkit.soar.models.diffusion_lm import DiffusionLM
from labkit.soar.search import decode
from labkit.studies.soar.llada_shape import random_llada
from labkit.studies.timing import seconds, take_turns


def llada(device: str, rounds: int, shape: str, deadline: float) -> dict:
    """Seconds of greedy decoding at LLaDA-8B's shape, for 1 prompt and for 8; what the caches hold."""
    tiny = shape == "tiny"
    free = random_llada(device, tiny=tiny, dtype=torch.bfloat16)
    length, gen, block = (24, 8, 4) if tiny else (768, 64, 32)
    about = free.mask_id, free.eos_id, free.max_length, free.shift
    causal = DiffusionLM(free.net, *about, block_causal=block)
    models: dict[tuple[bool, str | None], torch.nn.Module] = {(False, None): free, (True, None): causal}
    models |= {(False, cache): Cached(free, cache) for cache in ("approximate-prefix", "approximate-dual")}
    models[True, "exact-block"] = BlockCached(causal)
    source = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, free.mask_id - 1, (8, length), generator=source)
    given: dict[str, Any] = {
        "gen_length": gen,
        "block_length": block,
        "eos_early_stop": False,
        "record": False,
    }
    found = []
    for count in (1, 8):
        calls = {
            key: partial(decode, model, prompts[:count], "greedy", **given) for key, model in models.items()
        }
        for call in calls.values():
            call(steps=4)  # two steps a block: compiles what there is to compile
        spent = seconds(take_turns(calls, rounds, deadline))
        for (by_block, cache), own in spent.items():
            base = statistics.median(spent[by_block, None])
            found.append({
                "prompts": count, "block_causal": by_block, "cache": cache, "seconds": own,
                "faster": base / statistics.median(own),
                "kept_bytes": models[by_block, cache].kept_bytes if cache else 0,
            })  # fmt: skip
    off = _rounding(models, prompts[:2].to(device), gen, block)
    return {"shape": shape, "length": length, "generated": gen,
            "block_length": block, "dtype": "bfloat16", "arms": found, "exact-block": off}  # fmt: skip


def _rounding(models: dict, prompts: torch.Tensor, gen: int, block: int) -> dict:
    """How far the exact cache's logits are from the uncached ones, half-way through the last block."""
    plain, cached = models[True, None], models[True, "exact-block"]
    tokens = torch.cat([prompts, prompts[:, :gen]], 1)
    end = tokens.shape[1]
    tokens[:, end - block // 2 :] = plain.mask_id
    where = torch.arange(end - block, end, device=tokens.device).expand(len(tokens), -1)
    with torch.no_grad():
        want, got = (m.logits_at(tokens, where).float() for m in (plain, cached))
    return {"largest difference": float((want - got).abs().max()), "deviation": float(want.std())}
