"""decode: greedy, parallel, adaptive, PBS and SOAR as one search, prompts x beams in one forward."""

import secrets
from collections.abc import Callable, Sequence

import numpy as np
import torch

from labkit import checks
from labkit.provenance import provenance
from labkit.soar.beams import Windows
from labkit.soar.engine import search
from labkit.soar.models.diffusion_lm import eos_ids
from labkit.soar.prompts import Layout, lay_out
from labkit.soar.recorder import Recorder
from labkit.soar.scoring import Scorer
from labkit.soar.strategies import STRATEGIES, Rule
from labkit.traces import BeamTrace


@torch.no_grad()
def decode(
    model: Callable[[torch.Tensor], torch.Tensor],
    prompts: torch.Tensor | Sequence[Sequence[int]],
    strategy: str = "soar",
    *,
    mask_id: int | None = None,
    gen_length: int | None = None,
    block_length: int | None = None,
    steps: int | None = None,
    beam: int = 2,
    threshold: float = 0.9,
    min_parallel: int = 1,
    max_parallel: int = 5,
    min_collapse: int = 1,
    score: str = "mean",
    temperature: float = 0.0,
    cfg_scale: float = 0.0,
    seed: int | None = None,
    eos_early_stop: bool = True,
    batch_size: int | None = None,
    record: bool = True,
) -> BeamTrace:
    """Fill masks with a masked diffusion language model (SOAR, arXiv 2602.10953).

    A beam whose model is sure (``min_parallel`` masks above ``threshold``) commits up to
    ``max_parallel`` tokens at once (accelerate); an unsure one tries its ``beam`` most confident
    positions one by one (search). Diversity is over positions: only the top token is proposed.

    model         tokens (B, L) -> logits (B, L, V), or what ``load_model`` returns
    prompts       LongTensor (P, L) or P token lists of any lengths
    strategy      "greedy", "parallel", "adaptive", "pbs" or "soar"
    mask_id       the mask token (default: the model's own ``mask_id``)
    gen_length    masks appended to each prompt; None or 0 is infill: the masks that the prompts
                  contain are filled, wherever they stand
    block_length  blocks are filled left to right, in runs of so many masks; None: one block
    steps         greedy and parallel: forward calls, a multiple of the number of blocks; each block
                  of m masks spends S of them, m // S tokens a step and one more in the first m % S.
                  None: one token a step (greedy), ``max_parallel`` (parallel). The other strategies
                  stop when nothing is masked and take no ``steps``
    beam          beams kept per prompt (pbs, soar)
    threshold     confidence above which a mask is sure (adaptive, soar)
    min_parallel  fewest sure masks that accelerate; max_parallel: most tokens in one commit
    min_collapse  soar: after an accelerate step whose best candidate committed at least so many
                  tokens, one beam is kept (LLaDA's code 1, Dream's code 1 or 2)
    score         rank beams by the "mean" confidence of their committed tokens, or by the "sum"
    temperature   Gumbel noise on the logits before the argmax; the confidence stays the model's
    cfg_scale     classifier-free guidance, prompt hidden in the second half; doubles the rows
    seed          for ``temperature`` > 0; samples depend on seed and prompt, not on the batch. A GPU's
                  logarithms may round otherwise than a CPU's, which can decide between two tokens
    eos_early_stop  with ``gen_length`` and a model that has ``eos_id`` or several ``eos_ids``: once
                  everything before one of them is filled, the masks behind it become the first of
                  them without another forward
    batch_size    prompts decoded at a time; a finished one makes room for the next. None: all at once
    record        keep every beam and candidate; False leaves the trace's two tables empty

    Returns a BeamTrace; ``sequences`` hold prompt + generated tokens and never a mask, and shorter
    rows end in -1. Confidence is fp32, ties go to the lower position, results do not depend on the
    batch as long as the model's logits do not. Finished prompts and beams cost no forward.

    ValueError names the argument that is wrong and what is allowed.
    """
    checks.choice("strategy", strategy, STRATEGIES)
    if not callable(model):
        checks.fail("model", type(model).__name__, "callable: tokens (B, L) -> logits (B, L, V)")
    mask_id = getattr(model, "mask_id", None) if mask_id is None else mask_id
    mask_id = checks.integer("mask_id", mask_id, 0)
    gen_length = 0 if gen_length is None else checks.integer("gen_length", gen_length, 0)
    if block_length is not None:
        block_length = checks.integer("block_length", block_length, 1)
        if gen_length % block_length:
            checks.fail("gen_length", gen_length, f"a multiple of block_length={block_length}")
    temperature = checks.number("temperature", temperature, 0)
    cfg_scale = checks.number("cfg_scale", cfg_scale, 0)
    seed = secrets.randbits(31) if seed is None else checks.integer("seed", seed, 0)
    eos_early_stop = bool(checks.choice("eos_early_stop", eos_early_stop, (True, False)))
    checks.choice("record", record, (True, False))
    if batch_size is not None:
        batch_size = checks.integer("batch_size", batch_size, 1)
    layout = lay_out(prompts, mask_id, gen_length, getattr(model, "vocab_size", None))
    limit = getattr(model, "max_length", None)
    if limit is not None and max(layout.lengths) > limit:
        longest = max(layout.lengths)
        checks.fail("prompts", f"{longest} positions", f"with gen_length at most max_length={limit} long")
    device = _device(model, prompts)
    span = block_length or layout.slots.shape[1]
    beam = checks.integer("beam", beam, 1)
    max_parallel = checks.integer("max_parallel", max_parallel, 1)
    min_parallel = checks.integer("min_parallel", min_parallel, 1, max_parallel)
    min_collapse = checks.integer("min_collapse", min_collapse, 1)
    threshold = checks.number("threshold", threshold, 0, 1)
    searching = strategy in ("pbs", "soar")
    reach = {"greedy": 1, "pbs": 1}.get(strategy, min(max_parallel, span))
    per_block = _steps_per_block(steps, strategy, layout, span)
    steps = None if steps is None else int(steps)
    if per_block is not None:
        reach = max(1, -(-min(span, layout.slots.shape[1]) // int(per_block.min())))
    rule = Rule(
        strategy=strategy,
        width=beam if searching else 1,
        reach=reach,
        threshold=threshold,
        min_parallel=min_parallel,
        collapse=min_collapse,
        mean=checks.choice("score", score, ("mean", "sum")) == "mean",
        steps=None if per_block is None else per_block.to(device),
    )
    scorer = Scorer(model, layout, mask_id, temperature=temperature, cfg_scale=cfg_scale, seed=seed)
    windows = Windows(layout.slots.to(device), layout.count.to(device), span, mask_id)
    ends = eos_ids(model) if eos_early_stop and gen_length else ()
    recorder = Recorder(rule, layout.tokens.shape[1], layout.lengths, record)
    with torch.cuda.device_of(windows.slots):  # Triton launches on the current device
        found, path = search(scorer, rule, windows, layout, recorder, eos_ids=ends, batch_size=batch_size)
    parameters = {
        "gen_length": gen_length, "block_length": block_length, "steps": steps, "beam": rule.width,
        "threshold": threshold, "min_parallel": min_parallel, "max_parallel": max_parallel,
        "min_collapse": min_collapse, "score": score, "temperature": temperature,
        "cfg_scale": cfg_scale, "seed": seed if temperature else None, "eos_early_stop": eos_early_stop,
    }  # fmt: skip
    found["sequences"] = np.where(recorder.padding, -1, found["sequences"])
    return recorder.trace(
        **found,
        prompt_length=np.array(layout.prompt_length),
        meta={
            "strategy": strategy,
            "parameters": parameters,
            "mask_id": mask_id,
            "forward_calls": scorer.forward_calls,
            "forward_rows": scorer.forward_rows,
            "beams_moved_by": path,
            "dtype": _dtype(model),
            "provenance": provenance(),
        },
    )


def _steps_per_block(steps: int | None, strategy: str, layout: Layout, span: int) -> torch.Tensor | None:
    if steps is None:
        return None
    if strategy not in ("greedy", "parallel"):
        checks.fail("steps", steps, f"None for strategy {strategy!r}, which stops when nothing is masked")
    checks.integer("steps", steps, 1)
    blocks = (-(-layout.count // span)).clamp(min=1)
    for number in blocks.unique().tolist():
        if steps % number:
            checks.fail("steps", steps, f"a positive multiple of the number of blocks, {number}")
    return steps // blocks


def _dtype(model: Callable) -> str:
    """Of a module's weights, "bfloat16" for instance; empty for a function."""
    first = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    return "" if first is None else str(first.dtype).removeprefix("torch.")


def _device(model: Callable, prompts: torch.Tensor | Sequence) -> torch.device:
    if isinstance(model, torch.nn.Module) and (first := next(model.parameters(), None)) is not None:
        return first.device
    return prompts.device if isinstance(prompts, torch.Tensor) else torch.device("cpu")
