"""Tokens a second of ``generate``: ELAS against LORO and a full-rank Llama at the paper's shapes.

    python -m labkit.studies elas-generate

Random weights in bfloat16: no time here depends on a value. Every form decodes with transformers' static
cache, for which ``generate`` compiles the forward pass and replays it as a CUDA graph; ELAS also with
the cache that ``generate`` takes by default, eagerly. A form is timed only where each token that it chose
is the likeliest, up to rounding, in one pass over the whole text without a cache. On a CPU: a rehearsal.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CompileConfig

from labkit.elas.model import ElasConfig, ElasForCausalLM
from labkit.provenance import device_name
from labkit.studies.elas import ffn
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.studies.timing import seconds, take_turns

FORMS: dict[str, dict[str, Any]] = {
    "full-rank SwiGLU": {"ffn": "swiglu", "rank": None},
    "LORO": {"ffn": "swiglu"},
    "LORO ReLU²": {"sparse": False},
    "ELAS": {"warmup_steps": 0},
}
BY_DEFAULT = "ELAS, eager"  # as generate decodes where nothing is asked for
PROMPT = 16  # tokens
# Of the logits' standard deviation: rounding, and neighbours that change places under the mask. The
# likeliest of 32,000 drawn from a normal distribution lies four above the mean.
TOLERANCE = 0.5
ROW = {
    "form": str, "batch": int, "ms_per_token": {"p20": float, "p50": float, "p80": float},
    "tokens_per_second": float, "largest_gap": float,
}  # fmt: skip


def generation(size: str, context: Context) -> dict[str, Any]:
    """Rows of ``ROW``: each form at each batch."""
    rows: list[dict[str, Any]] = []
    models = {form: _model(size, options, context) for form, options in FORMS.items()}
    for batch in context.options.batches:
        if context.late:
            break
        torch._dynamo.reset()  # each batch has code of its own, so that none is of a general shape
        rows += _turns(models, batch, context)
    return {
        "device": device_name(),
        "parameters": {form: sum(p.numel() for p in model.parameters()) for form, model in models.items()},
        "rows": rows,
    }


def _model(size: str, options: dict[str, Any], context: Context) -> ElasForCausalLM:
    widths = ffn.SWIGLU if options.get("ffn") == "swiglu" else ffn.RELU2
    wide = {"intermediate_size": widths["intermediate_size"]} if size == "1b" else {}
    small = ffn.SMALL | {"intermediate_size": 128, "vocab_size": 512} if context.tiny else {}
    if options.get("rank", 0) is None:
        small.pop("rank", None)
    torch.manual_seed(0)
    config = ElasConfig.from_name(size, **{"vocab_size": 32000} | wide | small | options)
    with torch.device(context.device):
        model: Any = ElasForCausalLM(config).to_dtype(torch.bfloat16).eval()
    model.generation_config.update(eos_token_id=None, pad_token_id=0, do_sample=False)
    return model


def _turns(models: dict[str, ElasForCausalLM], batch: int, context: Context) -> list[dict[str, Any]]:
    """The rows of one batch: every form in turn in each round."""
    new, device = context.options.tokens, context.device
    vocabulary, source = models["ELAS"].config.vocab_size, torch.Generator().manual_seed(0)
    prompt = torch.randint(vocabulary, (batch, PROMPT), generator=source).to(device)
    static: dict[str, Any] = {"cache_implementation": "static"}
    if device == "cuda":
        static["compile_config"] = CompileConfig(fullgraph=True, dynamic=False, mode="reduce-overhead")
    forms = {form: partial(_decoded, model, prompt, new, **static) for form, model in models.items()}
    forms[BY_DEFAULT] = partial(_decoded, models["ELAS"], prompt, new)
    gaps = {}
    for form, decode in forms.items():
        decode()  # compiles
        gaps[form] = largest_gap(models.get(form, models["ELAS"]), decode())
        if gaps[form] > TOLERANCE:
            raise RuntimeError(f"{form} chose a token {gaps[form]:.2f} standard deviations below the best")
    rows: list[dict[str, Any]] = []
    for form, spent in seconds(take_turns(forms, context.options.rounds)).items():
        p20, p50, p80 = (1000 / new * np.quantile(spent, (0.2, 0.5, 0.8))).tolist()
        ms = {"p20": p20, "p50": p50, "p80": p80}
        row = {"form": form, "batch": batch, "ms_per_token": ms, "tokens_per_second": 1000 * batch / p50}
        rows.append(row | {"largest_gap": gaps[form]})
        print(f"batch {batch}, {form}: {row['tokens_per_second']:,.0f} tokens/s", flush=True)
    return rows


def _decoded(model: ElasForCausalLM, prompt: Tensor, new: int, **how: Any) -> Tensor:
    untyped: Any = model
    return untyped.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, **how)


@torch.no_grad()
def largest_gap(model: ElasForCausalLM, text: Tensor) -> float:
    """How far the logit of a chosen token lies below the best of its place, at the most.

    In standard deviations of that place's logits; text  (B, PROMPT + new), the prompt and what was chosen
    """
    logits = model(text[:, :-1], use_cache=False).logits[:, PROMPT - 1 :].float()
    chosen = logits.gather(-1, text[:, PROMPT:, None])[..., 0]
    return float(((logits.amax(-1) - chosen) / logits.std(-1)).max())


STUDY = Study(
    "elas-generate",
    "Tokens a second of generate: ELAS against LORO and a full-rank Llama.",
    {
        size: Stage(partial(generation, size), f"the {size} shape", "generate.json", key=size,
                    shape={"rows": [ROW]})
        for size in ("60m", "1b")
    },
    {
        "batches": Option((1, 2, 4, 8), "rows decoded at once", tiny=(1, 2)),
        "tokens": Option(128, "new ones of each row", tiny=4),
        "rounds": Option(10, "in which every form takes one turn", tiny=2),
    },
)  # fmt: skip
