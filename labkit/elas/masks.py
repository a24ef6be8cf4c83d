"""The FFN activations of a language model, the 2:4 mask over them, and what the mask costs.

trace_masks  activations and masks of a text, for a picture
mask_cost    the loss with the mask and without
activations  what stands in front of each layer's down projection

For ELAS and for whatever keeps its FFN under one of transformers' common names: what a 2:4 mask would do to
SwiGLU or GELU, which have no zeros of their own.
"""

import re
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from labkit.checks import fail, integer
from labkit.elas.evaluation import evaluating
from labkit.elas.ffn import ReLU2MLP
from labkit.elas.layers import Sparse24ReLU2, pad_to_groups
from labkit.progress import Progress, bar
from labkit.provenance import provenance
from labkit.traces import MaskTrace
from sparse24 import mask24, sparsify

# Llama, Qwen, Mistral, Gemma, SmolLM: down_proj; GPT-2: c_proj; GPT-J: fc_out; NeoX, Falcon: dense_4h_to_h;
# Phi: mlp.fc2; OPT: fc2 of the layer itself.
DOWN = re.compile(r"(^|\.)(mlp\.(down_proj|c_proj|fc_out|dense_4h_to_h|fc2)|layers\.\d+\.fc2)$")


def trace_masks(
    model: PreTrainedModel, text: str, tokenizer, *, max_tokens: int = 64, progress: Progress = False,
    **meta: object,
) -> MaskTrace:  # fmt: skip
    """Run ``text`` through ``model`` and record every FFN's activations and the 2:4 mask over them.

    model       an ElasForCausalLM, or any model of transformers whose FFNs ``DOWN`` finds
    tokenizer   a ``tokenizers.Tokenizer`` or one of transformers; the first ``max_tokens`` tokens are read
    progress    told of each layer
    meta        anything to keep with the trace (step, seed, ...)

    Recorded is the input of the FFN's last matrix, in an ElasForCausalLM before its mask: ReLU², SwiGLU's
    product, GELU. The mask keeps the two largest magnitudes of every four; ``meta["mask_on"]`` tells
    whether the model itself applies it now (not so in the warm-up, nor in any other model).
    ValueError if the text is empty or the model has no such FFN.
    """
    integer("max_tokens", max_tokens, 1)
    if not isinstance(text, str):
        fail("text", type(text).__name__, "a text")
    if not all(hasattr(tokenizer, name) for name in ("encode", "decode")):
        fail("tokenizer", type(tokenizer).__name__, "a tokenizer, of tokenizers or of transformers")
    encoded = tokenizer.encode(text)
    ids = getattr(encoded, "ids", encoded)[:max_tokens]
    if not ids:
        fail("text", text, "a text of at least one token")
    batch = token_ids(model, torch.tensor([ids]))
    found = torch.stack([pad_to_groups(y[0]) for y in activations(model, batch, progress=progress)])
    switches = [m.sparse for m in model.modules() if isinstance(m, Sparse24ReLU2)]
    return MaskTrace(
        found.float().cpu().numpy(),
        mask24(found).cpu().numpy(),
        [tokenizer.decode([i], skip_special_tokens=False) for i in ids],
        {"mask_on": bool(switches) and switches[0], "provenance": provenance(), **meta},
    )


@torch.no_grad()
def mask_cost(model: PreTrainedModel, tokens: Tensor | np.ndarray, *, skip: int = 0) -> dict[str, float]:
    """{nats, nats_masked}: next-token loss on tokens (B, L) without and with a 2:4 mask in every FFN.

    The mask is laid on as the model stands (post hoc), also where the model was not trained with it. In an
    ElasForCausalLM its own switch is used, and left as it was.

    skip   tokens of each row, a prompt for instance, that are read and not judged
    """
    tokens = token_ids(model, tokens)
    labels = tokens.long().clone()
    labels[:, : integer("skip", skip, 0, tokens.shape[1] - 1)] = -100  # transformers' "not judged"
    switches = [m for m in model.modules() if isinstance(m, Sparse24ReLU2)]
    before = [{name: value.clone() for name, value in m.state_dict().items()} for m in switches]
    found = {}
    try:
        for name, on in (("nats", False), ("nats_masked", True)):
            with ExitStack() as stack:
                stack.enter_context(evaluating(model))
                for m in switches:
                    m.set_sparse(on)
                for down in down_projections(model) if on and not switches else ():
                    stack.callback(down.register_forward_pre_hook(_masked_input).remove)
                found[name] = model(input_ids=tokens, labels=labels, use_cache=False).loss.item()
    finally:
        for m, state in zip(switches, before, strict=True):
            m.load_state_dict(state)
    return found


@torch.no_grad()
def activations(model: PreTrainedModel, tokens: Tensor, *, progress: Progress = False) -> list[Tensor]:
    """What each FFN multiplies by its last matrix, (B, L, features), ELAS's before its mask.

    The model's mode is restored.
    """
    relu2 = [m for m in model.modules() if isinstance(m, ReLU2MLP)]
    seen: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        told = stack.enter_context(bar(progress, total=len(relu2 or down_projections(model)), unit="layer"))

        def keep(value: Tensor) -> None:
            seen.append(value.reshape(*tokens.shape, -1))
            told.update()

        for m in relu2:  # the fused FFN reads the weights of up_proj without calling it
            stack.callback(setattr, m, "packed", m.packed)
            m.packed = False
            hook = m.up_proj.register_forward_hook(lambda _m, _x, y: keep(y.relu().square()))
            stack.callback(hook.remove)
        for down in [] if relu2 else down_projections(model):
            stack.callback(down.register_forward_pre_hook(lambda _m, x: keep(x[0])).remove)
        model(input_ids=tokens, use_cache=False)
    return seen


def down_projections(model: nn.Module) -> list[nn.Module]:
    """The last matrix of every layer's FFN; ValueError where ``DOWN`` finds none."""
    found = [module for name, module in model.named_modules() if DOWN.search(name)]
    if not found:
        known = "mlp.down_proj (Llama, Qwen), mlp.c_proj (GPT-2), mlp.fc2, mlp.dense_4h_to_h, ..."
        fail("model", type(model).__name__, f"one whose layers have {known}")
    return found


def token_ids(model: PreTrainedModel, tokens: Tensor | np.ndarray, kind: type = PreTrainedModel) -> Tensor:
    """``tokens`` on the model's device. ValueError names the one that is of another kind."""
    if not isinstance(model, kind):
        words = "a language model of transformers" if kind is PreTrainedModel else f"an {kind.__name__}"
        fail("model", type(model).__name__, words)
    if isinstance(tokens, np.ndarray) and tokens.dtype.kind in "iu":
        tokens = torch.from_numpy(tokens.astype(np.int64))
    most = model.config.get_text_config().vocab_size - 1
    whole = (torch.int32, torch.int64)
    known = isinstance(tokens, Tensor) and tokens.dtype in whole and tokens.ndim == 2 and tokens.numel() > 0
    if not isinstance(tokens, Tensor) or not known or tokens.min() < 0 or tokens.max() > most:
        what = getattr(tokens, "shape", type(tokens).__name__)
        fail("tokens", what, f"integers (B, L), token ids between 0 and {most}")
    return tokens.to(model.device)


def _masked_input(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    x = inputs[0]
    return sparsify(pad_to_groups(x))[..., : x.shape[-1]], *inputs[1:]
