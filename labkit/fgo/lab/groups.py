"""Sample groups of responses from the lab's reasoners and see what FGO and GRPO make of them.

sample_sums    model + questions -> GroupTrace (text, correctness, length, three entropies, advantages)
reweigh        the same groups under other FGO settings
telling_group  which group to look at first
"""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from labkit import checks
from labkit.fgo.advantages import grpo_advantages, objective_advantages
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.sampler import Sampler, decode, encode
from labkit.fgo.objective import Objective
from labkit.fgo.tasks import is_correct
from labkit.provenance import provenance
from labkit.traces import GroupTrace


def sample_sums(
    model: Qwen2ForCausalLM,
    rows: list[dict[str, str]],
    *,
    group: int = 8,
    max_tokens: int = 128,
    seed: int = 0,
) -> GroupTrace:
    """Sample ``group`` responses to each row's ``prompt`` and compare them with its ``answer``.

    model       a character model of the verbose sums; it computes where it is
    rows        dicts with ``prompt`` and ``answer``, as ``verbose_sums`` makes them
    max_tokens  responses stop there; one without the end token counts as it stands (usually wrong)

    Drawn at temperature 1. The trace's advantages are "grpo" and "fgo" with the defaults; ``reweigh``
    changes FGO's. Torch's random state is left as it was.
    """
    if not rows or not all({"prompt", "answer"} <= row.keys() for row in rows):
        checks.fail("rows", f"{len(rows)} rows", "at least one dict, each with prompt and answer")
    checks.integer("group", group, 2)
    ids, length = encode([row["prompt"] for row in rows for _ in range(group)])
    fleet = Fleet(model, 1, model.device)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        sampler = Sampler(fleet, len(ids), ids.shape[1], max_tokens)
        found = sampler(ids[None].to(model.device), length[None].to(model.device), seed=seed)
    (texts,) = decode(found)
    answers = [row["answer"] for row in rows for _ in range(group)]
    shape = len(rows), group
    trace = GroupTrace(
        prompts=[row["prompt"] for row in rows],
        answers=[row["answer"] for row in rows],
        texts=[texts[start : start + group] for start in range(0, len(texts), group)],
        correct=np.array(list(map(is_correct, texts, answers))).reshape(shape),
        length=found.length.view(shape).cpu().numpy(),
        entropy={kind: one.view(shape).double().cpu().numpy() for kind, one in found.entropies.items()},
        meta=provenance(seed=seed, temperature=1.0, max_tokens=max_tokens),
    )
    trace.meta["sampler"] = "float32" if sampler.graphs is None else "CUDA graphs, bfloat16"
    return reweigh(trace)


def reweigh(trace: GroupTrace, *, entropy: str = "sampled_sum", **settings: Any) -> GroupTrace:
    """The same responses with advantages computed anew; a fast, pure function for sliders.

    entropy   which entropy FGO reads: "sampled_sum", "full_sum" or "full_mean"
    settings  alpha, beta, clamp, zero_all_wrong of ``Objective``
    """
    objective = Objective(entropy=checks.choice("entropy", entropy, sorted(trace.entropy)), **settings)
    correct, length = torch.from_numpy(trace.correct), torch.from_numpy(trace.length)
    fgo = objective_advantages(objective, correct, length, torch.from_numpy(trace.entropy[entropy]))
    grpo = grpo_advantages(2.0 * correct - 1.0, valid=length > 0)
    return replace(
        trace,
        advantages={"fgo": fgo.numpy(), "grpo": grpo.numpy()},
        meta={**trace.meta, "settings": asdict(objective)},
    )


def telling_group(trace: GroupTrace) -> int:
    """Index of a group to look at: of the most evenly split, where FGO tells right responses apart most."""
    size = trace.correct.shape[1]
    uneven = np.abs(trace.correct.sum(1) - size / 2)
    right = np.where(trace.correct, trace.advantages["fgo"], np.nan)
    contrast = [np.nanmax(row) - np.nanmin(row) if (~np.isnan(row)).any() else 0.0 for row in right]
    return int(np.lexsort((-np.array(contrast), uneven))[0])
