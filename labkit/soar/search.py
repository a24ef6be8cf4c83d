"""decode: SOAR and what users compare it with as one search, prompts x beams in one forward."""

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
    token_beam: int = 2,
    threshold: float = 0.9,
    min_parallel: int = 1,
    max_parallel: int = 5,
    min_collapse: int = 1,
    factor: float = 1.0,
    gamma: float = 0.1,
    kl_threshold: float = 0.01,
    kl_history: int = 2,
    gap: float = 7.5,
    score: str = "mean",
    confidence: str = "probability",
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    suppress_eos: str | None = None,
    eos_penalty: float = 0.0,
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
        strategy: "greedy", "parallel", "adaptive", "fast_dllm", "factor", "eb", "klass", "prophet", "rcr",
            "pbs", "order_token" or "soar". ``labkit.soar.strategies`` says what each is and where it
            comes from.
        mask_id: The mask token; None: the model's own ``mask_id``.
        gen_length: Masks appended to each prompt. None or 0 is infill: the masks that the prompts
            contain are filled, wherever they stand.
        block_length: Blocks of so many masks are filled left to right; None: one block. For a model whose
            attention is causal over blocks (``block_causal``: SDAR, Fast-dLLM v2) a divisor of their
            length, None: their length; blocks are counted from the first token of the prompt then, so
            the first one may begin in the prompt and hold fewer masks, and the last one too.
        steps: Forward calls of greedy, parallel and rcr, a multiple of the number of blocks. Each block
            of m masks spends S of them: m // S tokens a step, one more in the first m % S. None: one
            token a step (greedy, rcr), ``max_parallel`` (parallel). The other strategies stop when
            nothing is masked and take no ``steps``.
        beam: Beams kept per prompt (pbs, order_token, soar).
        token_beam: Tokens of a position that are proposed (order_token).
        threshold: Confidence in [0, 1] above which a mask may be filled at once (adaptive, fast_dllm,
            klass, soar).
        min_parallel: Fewest masks above the threshold that accelerate.
        max_parallel: Most tokens in one commit (parallel, adaptive, soar).
        min_collapse: soar: one beam is kept after a step in which some beam accelerated and the best
            candidate has at least so many tokens more than the best beam had (LLaDA's code 1, Dream's 1
            or 2).
        factor: Of Fast-dLLM's factor rule: the bound on (n + 1) (1 - the n-th confidence) (factor).
        gamma: Most nats that what is committed at once may hold beyond its most uncertain token (eb).
        kl_threshold, kl_history: A distribution is stable if the last ``kl_history`` changes of it in this
            block were below ``kl_threshold`` nats, as KL(new || old) (klass).
        gap: Mean difference of the two largest logits that ends a block in the first third of a decode;
            2/3 and 1/3 of it do in the others (prophet).
        score: Rank beams by the "mean" confidence of their committed tokens, or by the "sum".
        confidence: Of a predicted token: its "probability"; the "margin" of the likeliest token over the
            second (Kim et al., arXiv 2502.06768); or the negative "entropy" of the position in nats
            (Dream), which no threshold takes.
        temperature: Of Gumbel noise on the logits before the argmax; the confidence stays the model's.
        top_p, top_k: With ``temperature``: sample among the likeliest tokens that hold ``top_p``, and
            among ``top_k``.
        suppress_eos: Of a model with ``eos_id``: "logits": no end of text is predicted; "confidence": one
            is filled in last (LLaDA's ``logits_eos_inf`` and ``confidence_eos_eot_inf``).
        eos_penalty: Subtracted from the logits of the model's ends of text (Dream-Coder).
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
    size = getattr(model, "block_causal", None)
    if size is not None:
        block_length = size if block_length is None else checks.integer("block_length", block_length, 1)
        if size % block_length:
            allowed = f"a divisor of {size}, the model's block of attention, which is filled block by block"
            checks.fail("block_length", block_length, allowed)
    own_mask_id: Any = getattr(model, "mask_id", None)
    config = DecodeConfig(
        mask_id=own_mask_id if mask_id is None else mask_id, strategy=strategy,
        gen_length=0 if gen_length is None else gen_length, block_length=block_length,
        steps=steps, beam=beam, token_beam=token_beam, threshold=threshold, min_parallel=min_parallel,
        max_parallel=max_parallel, min_collapse=min_collapse, factor=factor, gamma=gamma,
        kl_threshold=kl_threshold, kl_history=kl_history, gap=gap, score=score, confidence=confidence,
        temperature=temperature, top_p=top_p, top_k=top_k, suppress_eos=suppress_eos,
        eos_penalty=eos_penalty, cfg_scale=cfg_scale, seed=seed, eos_early_stop=eos_early_stop,
        batch_size=batch_size, record=record,
    )  # fmt: skip
    layout = lay_out(prompts, config.mask_id, config.gen_length, getattr(model, "vocab_size", None))
    _check_lengths(model, layout.lengths, config.gen_length)
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


def _check_lengths(model: Any, lengths: list[int], gen_length: int) -> None:
    """ValueError unless the prompts, ``gen_length`` masks behind each, are as long as the model takes."""
    limit: Any = getattr(model, "max_length", None)
    fixed = getattr(model, "fixed_length", False)
    how = "exactly" if fixed else "at most"
    for length in (max(lengths), min(lengths)) if limit is not None else ():
        if length > limit or (fixed and length < limit):
            prompt = length - gen_length
            if gen_length and prompt < limit:
                left = f"{how} {limit - prompt}, what max_length={limit} leaves behind a prompt of {prompt}"
                checks.fail("gen_length", gen_length, left)
            checks.fail("prompts", f"{length} positions", f"{how} max_length={limit} long, with gen_length")
