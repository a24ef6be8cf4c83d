"""decode: greedy, parallel, adaptive, PBS and SOAR as one search, prompts x beams in one forward."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import checks
from labkit.provenance import provenance
from labkit.soar.config import DecodeConfig
from labkit.soar.engine import Search
from labkit.soar.prompts import lay_out
from labkit.traces import BeamTrace


@torch.no_grad()
def decode(
    model: Callable[[Tensor], Tensor],
    prompts: Tensor | Sequence[Sequence[int]],
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
    stop: Callable[[tuple[int, ...]], bool] | None = None,
    watch: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> BeamTrace:
    """Fill masks with a masked diffusion language model (SOAR, arXiv 2602.10953).

    A beam whose model is confident (``min_parallel`` masks above ``threshold``) commits up to
    ``max_parallel`` tokens at once (accelerate); any other tries its ``beam`` most confident
    positions one by one (search). Diversity is over positions: only the top token is proposed.

    Args:
        model: tokens (B, L) int64 -> logits (B, L, V), or what ``load_model`` returns.
        prompts: int64 (P, L), or P token lists of any lengths.
        strategy: "greedy", "parallel", "adaptive", "pbs" or "soar".
        mask_id: The mask token; None: the model's own ``mask_id``.
        gen_length: Masks appended to each prompt. None or 0 is infill: the masks that the prompts
            contain are filled, wherever they stand.
        block_length: Blocks of so many masks are filled left to right; None: one block.
        steps: Forward calls of greedy and parallel, a multiple of the number of blocks. Each block
            of m masks spends S of them: m // S tokens a step, one more in the first m % S. None: one
            token a step (greedy), ``max_parallel`` (parallel). The other strategies stop when
            nothing is masked and take no ``steps``.
        beam: Beams kept per prompt (pbs, soar).
        threshold: Confidence in [0, 1] above which a mask may be filled at once (adaptive, soar).
        min_parallel: Fewest masks above the threshold that accelerate.
        max_parallel: Most tokens in one commit.
        min_collapse: soar: one beam is kept after a step in which some beam accelerated and the best
            candidate has at least so many tokens more than the best beam had (LLaDA's code 1, Dream's 1
            or 2).
        score: Rank beams by the "mean" confidence of their committed tokens, or by the "sum".
        temperature: Of Gumbel noise on the logits before the argmax; the confidence stays the model's.
        cfg_scale: Classifier-free guidance, the prompt hidden in the second half; doubles the rows.
        seed: For ``temperature`` > 0; samples depend on seed and prompt, not on the batch. A GPU's
            logarithms may round otherwise than a CPU's, which can decide between two tokens.
        eos_early_stop: With ``gen_length`` and a model that has ``eos_id`` or several ``eos_ids``:
            once everything before one of them is filled, the masks behind it become the first of
            them without another forward.
        batch_size: Prompts decoded at a time; a finished one makes room for the next. None: all.
        record: Keep every beam and candidate; False leaves the trace's two tables empty.
        stop: Given what stands between a prompt and the first mask behind it: does the text end in
            there? Then masks behind it are filled as by ``eos_early_stop``. Ignored if that is off or
            the model has no ``eos_id``.
        watch: Called after each forward with the prompts that are being decoded, int64 (A,), and the
            best beam of each, int64 (A, L). Costs a copy to the host.

    Returns:
        A BeamTrace. ``sequences`` hold prompt + generated tokens and never a mask; shorter rows end
        in -1. Confidence is fp32, ties go to the lower position, results do not depend on the batch
        as long as the model's logits do not. Finished prompts and beams cost no forward.

    Raises:
        ValueError: names the argument that is wrong and what is allowed.
    """
    if not callable(model):
        checks.fail("model", type(model).__name__, "callable: tokens (B, L) -> logits (B, L, V)")
    for name, call in (("stop", stop), ("watch", watch)):
        if call is not None and not callable(call):
            checks.fail(name, type(call).__name__, "callable or None")
    own_mask_id: Any = getattr(model, "mask_id", None)
    config = DecodeConfig(
        mask_id=own_mask_id if mask_id is None else mask_id, strategy=strategy,
        gen_length=0 if gen_length is None else gen_length, block_length=block_length,
        steps=steps, beam=beam, threshold=threshold, min_parallel=min_parallel,
        max_parallel=max_parallel, min_collapse=min_collapse, score=score, temperature=temperature,
        cfg_scale=cfg_scale, seed=seed, eos_early_stop=eos_early_stop, batch_size=batch_size, record=record,
    )  # fmt: skip
    layout = lay_out(prompts, config.mask_id, config.gen_length, getattr(model, "vocab_size", None))
    limit, longest = getattr(model, "max_length", None), max(layout.lengths)
    if limit is not None and longest > limit:
        checks.fail("prompts", f"{longest} positions", f"with gen_length at most max_length={limit} long")
    weight = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    given = prompts.device if isinstance(prompts, Tensor) else torch.device("cpu")
    device = given if weight is None else weight.device
    search = Search(model, layout, config, device, stop=stop, watch=watch)
    with torch.cuda.device_of(search.tokens):  # Triton launches on the current device
        search.run()
    return search.trace(
        {
            "strategy": strategy,
            "parameters": config.parameters,
            "mask_id": config.mask_id,
            "dtype": "" if weight is None else str(weight.dtype).removeprefix("torch."),
            "provenance": provenance(),
        }
    )
