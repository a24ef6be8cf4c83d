"""Sample groups of responses from a causal LM and see what FGO and GRPO make of them.

sample_groups      model + questions -> GroupTrace (text, correctness, length, three entropies, advantages)
sample_sums        the same for a character model of the lab's sums, by the fast sampler
reweigh            the same groups under other FGO settings
telling_group      which group to look at first
"""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2ForCausalLM

from labkit import checks
from labkit.fgo.advantages import grpo_advantages, objective_advantages
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.sampler import Sampler, decode, encode
from labkit.fgo.measures import response_entropy
from labkit.fgo.objective import ENTROPY_KINDS, Objective
from labkit.fgo.policy import end_tokens
from labkit.fgo.tasks import is_correct
from labkit.progress import bar
from labkit.provenance import provenance
from labkit.traces import GroupTrace

ROWS_AT_ONCE = 256  # responses that ``sample_groups`` generates together


@torch.no_grad()
def sample_groups(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, str]],
    *,
    group: int = 8,
    temperature: float = 1.0,
    max_tokens: int = 72,
    seed: int = 0,
    progress: bool = True,
) -> GroupTrace:
    """Sample ``group`` responses to each row's ``prompt`` and compare them with its ``answer``.

    rows         dicts with ``prompt`` and ``answer``, as ``verbose_sums`` makes them
    temperature  of sampling, in (0, 10]; log-probabilities and entropies are of that distribution
    max_tokens   responses stop there; one without the end token counts as it stands (usually wrong)

    The trace's advantages are "grpo" and "fgo" with the defaults; ``reweigh`` changes FGO's. Torch's
    random state is left as it was.
    """
    if not rows or not all({"prompt", "answer"} <= row.keys() for row in rows):
        checks.fail("rows", f"{len(rows)} rows", "at least one dict, each with prompt and answer")
    checks.integer("group", group, 1)
    checks.number("temperature", temperature, 1e-3, 10)
    checks.integer("max_tokens", max_tokens, 1)
    at_once = max(1, ROWS_AT_ONCE // group)
    texts, correct, length = list[str](), list[bool](), list[int]()
    entropies: dict[str, list[float]] = {kind: [] for kind in ENTROPY_KINDS}
    with torch.random.fork_rng(), bar(progress, total=len(rows), desc="sampling") as told:
        torch.manual_seed(seed)
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            ids, mask, entropy = _respond(model, tokenizer, part, group, temperature, max_tokens)
            kept = [line[m].tolist() for line, m in zip(ids, mask, strict=True)]
            plain = tokenizer.batch_decode(kept, skip_special_tokens=True)
            answers = [row["answer"] for row in part for _ in range(group)]
            correct += [is_correct(text, answer) for text, answer in zip(plain, answers, strict=True)]
            texts += tokenizer.batch_decode(kept)
            length += [len(line) for line in kept]
            for kind, values in entropy.items():
                entropies[kind] += values.tolist()
            told.update(len(part))
    found = {"correct": np.array(correct), "length": np.array(length)}
    found |= {kind: np.array(values) for kind, values in entropies.items()}
    return _trace(rows, texts, found, seed=seed, temperature=temperature, max_tokens=max_tokens)


def sample_sums(
    model: Qwen2ForCausalLM,
    rows: list[dict[str, str]],
    *,
    group: int = 8,
    max_tokens: int = 128,
    seed: int = 0,
) -> GroupTrace:
    """``sample_groups`` for a character model of the verbose sums, by the fast sampler.

    The draws differ from ``sample_groups``'s; their distribution is the same, at temperature 1.
    """
    checks.integer("group", group, 2)
    ids, length = encode([row["prompt"] for row in rows for _ in range(group)])
    fleet = Fleet(model, 1, model.device)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        sampler = Sampler(fleet, len(ids), ids.shape[1], max_tokens)
        found = sampler(ids[None].to(model.device), length[None].to(model.device), seed=seed)
    (texts,) = decode(found)
    answers = [row["answer"] for row in rows for _ in range(group)]
    correct = [is_correct(text, answer) for text, answer in zip(texts, answers, strict=True)]
    measured = {"correct": np.array(correct), "length": found.length[0].cpu().numpy()}
    measured |= {kind: values[0].double().cpu().numpy() for kind, values in found.entropies.items()}
    trace = _trace(rows, texts, measured, seed=seed, temperature=1.0, max_tokens=max_tokens)
    trace.meta["sampler"] = "CUDA graphs, bfloat16" if sampler.graphs is not None else "float32"
    return trace


def _trace(
    rows: list[dict[str, str]], texts: list[str], measured: dict[str, np.ndarray], **about: float
) -> GroupTrace:
    """The trace of Q questions from their Q * G texts; measured: correct, length, entropies, (Q * G,)."""
    group = len(texts) // len(rows)
    table = {name: values.reshape(len(rows), group) for name, values in measured.items()}
    trace = GroupTrace(
        prompts=[row["prompt"] for row in rows],
        answers=[row["answer"] for row in rows],
        texts=[texts[start : start + group] for start in range(0, len(texts), group)],
        correct=table["correct"],
        length=table["length"],
        entropy={kind: table[kind] for kind in ENTROPY_KINDS},
        meta=provenance(**about),
    )
    return reweigh(trace)


def _respond(model, tokenizer, rows, group, temperature, max_tokens):
    """(ids, mask, entropies) of len(rows) * group responses; the mask covers the end token."""
    prompts = tokenizer(
        [row["prompt"] for row in rows], return_tensors="pt", padding=True, padding_side="left"
    ).to(model.device)
    given = {key: prompts[key].repeat_interleave(group, 0) for key in ("input_ids", "attention_mask")}
    whole = model.eval().generate(
        **given, do_sample=True, temperature=temperature, top_k=0, top_p=1.0,
        max_new_tokens=max_tokens, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    width = given["input_ids"].shape[1]
    ids = whole[:, width:]
    ended = torch.isin(ids, torch.tensor(end_tokens(model, tokenizer), device=ids.device)).int()
    mask = ended.cumsum(1) - ended == 0  # the token that ends a response belongs to it
    attention = torch.cat([given["attention_mask"], mask.long()], 1)
    # Left padding shifts nothing: generate() counts positions from the first real token, and so do we.
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    output = model(input_ids=whole, attention_mask=attention, position_ids=positions, use_cache=False)
    logp = (output.logits[:, width - 1 : -1].float() / temperature).log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    chosen = logp.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return ids.cpu(), mask.cpu(), response_entropy(chosen, entropy, mask)


def reweigh(
    trace: GroupTrace, *, entropy: str = "sampled_sum", scale: str = "std", **settings: Any
) -> GroupTrace:
    """The same responses with advantages computed anew; a fast, pure function for sliders.

    entropy   which entropy FGO reads: "sampled_sum", "full_sum" or "full_mean"
    scale     of GRPO's advantages, "std" (TRL's default) or "none"
    settings  alpha, beta, clamp, zero_all_wrong of ``Objective``
    """
    objective = Objective(entropy=checks.choice("entropy", entropy, sorted(trace.entropy)), **settings)
    correct, length = torch.from_numpy(trace.correct), torch.from_numpy(trace.length)
    fgo = objective_advantages(objective, correct, length, torch.from_numpy(trace.entropy[entropy]))
    grpo = grpo_advantages(2.0 * correct - 1.0, scale=scale, valid=length > 0)
    return replace(
        trace,
        advantages={"fgo": fgo.numpy(), "grpo": grpo.numpy()},
        meta={**trace.meta, "settings": {**asdict(objective), "grpo_scale": scale}},
    )


def telling_group(trace: GroupTrace) -> int:
    """Index of a group to look at: of the most evenly split, where FGO tells right responses apart most."""
    size = trace.correct.shape[1]
    uneven = np.abs(trace.correct.sum(1) - size / 2)
    right = np.where(trace.correct, trace.advantages["fgo"], np.nan)
    contrast = [np.nanmax(row) - np.nanmin(row) if (~np.isnan(row)).any() else 0.0 for row in right]
    return int(np.lexsort((-np.array(contrast), uneven))[0])
