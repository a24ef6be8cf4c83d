"""What goes on inside an ELAS model: masks for a picture, per-layer statistics, gradients, saved bytes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.checks import choice, fail, integer
from labkit.device import of_torch
from labkit.elas.ffn import ReLU2MLP, build_mlp
from labkit.elas.layers import GRADIENTS, pad_to_groups
from labkit.elas.model import SIZES, ElasConfig, ElasForCausalLM
from labkit.provenance import provenance
from labkit.traces import MaskTrace
from sparse24 import mask24


def trace_masks(
    model: ElasForCausalLM, text: str, tokenizer, *, max_tokens: int = 64, **meta: object
) -> MaskTrace:
    """Run ``text`` through ``model`` and record every layer's ReLU² activation and its 2:4 mask.

    tokenizer   a ``tokenizers.Tokenizer``; the first ``max_tokens`` tokens of the text are used
    meta        anything to keep with the trace (step, seed, ...)

    The mask recorded is the one ELAS lays over the activation; ``meta["mask_on"]`` tells whether the
    model itself applies it now (not so in the warm-up, nor for a plain ReLU² model).
    ValueError if the text is empty or the model has no ReLU² FFN.
    """
    integer("max_tokens", max_tokens, 1)
    if not isinstance(text, str):
        fail("text", type(text).__name__, "a text")
    if not all(hasattr(tokenizer, name) for name in ("encode", "decode")):
        fail("tokenizer", type(tokenizer).__name__, "a tokenizers.Tokenizer")
    ids = tokenizer.encode(text).ids[:max_tokens]
    if not ids:
        fail("text", text, "a text of at least one token")
    batch = _ids(model, torch.tensor([ids]))
    activations = torch.stack([pad_to_groups(y[0]) for y in relu2_activations(model, batch)])
    return MaskTrace(
        activations.float().cpu().numpy(),
        mask24(activations).cpu().numpy(),
        [tokenizer.decode([i], skip_special_tokens=False) for i in ids],
        {"mask_on": model.activations()[0].sparse, "provenance": provenance(), **meta},
    )


def layer_statistics(model: ElasForCausalLM, tokens: Tensor | np.ndarray) -> dict[str, np.ndarray]:
    """{natural_zeros, crowded_groups, energy_kept: (layers,)} of the ReLU² activations on tokens (B, L).

    natural_zeros   share of activations that ReLU² itself makes zero
    crowded_groups  share of groups of four with more than two non-zeros, where the mask has to drop
    energy_kept     share of the squared norm that the two largest of every four hold
    """
    found: dict[str, list[float]] = {"natural_zeros": [], "crowded_groups": [], "energy_kept": []}
    for y in relu2_activations(model, _ids(model, tokens)):
        groups = pad_to_groups(y).unflatten(-1, (-1, 4))
        energy = groups.double().square()
        kept = energy[mask24(groups)].sum() / energy.sum()
        found["natural_zeros"].append((y == 0).double().mean().item())
        found["crowded_groups"].append(((groups != 0).sum(-1) > 2).double().mean().item())
        found["energy_kept"].append(kept.item())
    return {name: np.array(values) for name, values in found.items()}


def _ids(model: ElasForCausalLM, tokens: Tensor | np.ndarray) -> Tensor:
    """``tokens`` on the model's device. ValueError names the one that is of another kind."""
    if not isinstance(model, ElasForCausalLM):
        fail("model", type(model).__name__, "an ElasForCausalLM")
    if isinstance(tokens, np.ndarray) and tokens.dtype.kind in "iu":
        tokens = torch.from_numpy(tokens.astype(np.int64))
    most = model.config.vocab_size - 1
    whole = (torch.int32, torch.int64)
    known = isinstance(tokens, Tensor) and tokens.dtype in whole and tokens.ndim == 2 and tokens.numel() > 0
    if not isinstance(tokens, Tensor) or not known or tokens.min() < 0 or tokens.max() > most:
        what = getattr(tokens, "shape", type(tokens).__name__)
        fail("tokens", what, f"integers (B, L), token ids between 0 and {most}")
    return tokens.to(model.device)


@torch.no_grad()
def relu2_activations(model: ElasForCausalLM, tokens: Tensor) -> list[Tensor]:
    """relu(up(x))² of every layer before the mask, (B, L, features) each. The mode is restored."""
    mlps = [m for m in model.modules() if isinstance(m, ReLU2MLP)]
    if not mlps:
        fail("model", model.config.ffn, 'a model with ffn="relu2"')
    seen: list[Tensor] = []
    hooks = [
        m.up_proj.register_forward_hook(lambda _m, _x, y: seen.append(y.relu().square())) for m in mlps
    ]
    was_training, were_packed = model.training, [m.packed for m in mlps]
    try:
        for m in mlps:
            m.packed = False  # the fused FFN reads the weights of up_proj without calling it
        model.eval()(input_ids=tokens, use_cache=False)
    finally:
        model.train(was_training)
        for m, hook, packed in zip(mlps, hooks, were_packed, strict=True):
            m.packed = packed
            hook.remove()
    return seen


def gradient_agreement(model: ElasForCausalLM, tokens: Tensor | np.ndarray) -> dict[str, np.ndarray]:
    """Straight-through against exact (masked) gradient of each layer's FFN weights on tokens (B, L).

    {cosine, norm_ratio: (layers,)}; norm_ratio = |straight-through| / |masked|. The mask is on for the
    comparison; the model's switch, gradient choice and ``.grad`` are left as they were.
    """
    tokens = _ids(model, tokens)
    mlps = [m for m in model.modules() if isinstance(m, ReLU2MLP)]
    before = [(a.gradient, {k: v.clone() for k, v in a.state_dict().items()}) for a in model.activations()]
    flat: dict[str, list[Tensor]] = {}
    weights = [list(m.parameters()) for m in mlps]
    try:
        model.set_sparse(True)
        for gradient in GRADIENTS:
            for activation in model.activations():
                activation.gradient = gradient
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            grads = iter(torch.autograd.grad(loss, [w for layer in weights for w in layer]))
            flat[gradient] = [
                torch.cat([next(grads).flatten().double() for _ in layer]) for layer in weights
            ]
    finally:  # also where the memory did not suffice
        for activation, (gradient, state) in zip(model.activations(), before, strict=True):
            activation.gradient = gradient
            activation.load_state_dict(state)
    pairs = list(zip(flat["ste"], flat["masked"], strict=True))
    return {
        "cosine": np.array([torch.cosine_similarity(a, b, 0).item() for a, b in pairs]),
        "norm_ratio": np.array([(a.norm() / b.norm()).item() for a, b in pairs]),
    }


def saved_bytes(module: nn.Module, *inputs: Tensor, call: Callable | None = None) -> int:
    """Bytes that autograd keeps from the forward pass to the backward pass, measured, weights excluded.

    call   what to run on ``inputs`` (default: ``module`` itself); its weights are ``module``'s

    Every storage counts once, whole, however many views of it are saved.
    """
    if not isinstance(module, nn.Module):
        fail("module", type(module).__name__, "a torch module")
    if call is not None and not callable(call):
        fail("call", type(call).__name__, "callable or None")
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = (call or module)(*inputs)
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
    del result  # held until here: a freed storage's address could be given to another
    return sum(size for address, size in storages.items() if address not in weights)


# How one FFN can be run, as ElasConfig options.
FFN_FORMS: dict[str, dict[str, Any]] = {
    "SwiGLU": {"ffn": "swiglu"},
    "ReLU², no mask": {"sparse": False},
    "ELAS, mask only": {},
    "ELAS packed, straight-through": {"gradient": "ste", "packed": True},
    "ELAS packed, masked gradient": {"gradient": "masked", "packed": True},
}


def ffn_saved_bytes(
    size: str = "60m", *, tokens: int = 256, device: str = "cpu", **options: Any
) -> dict[str, float]:
    """Bytes per token that one bfloat16 FFN of a published size keeps for its backward pass, measured.

    options   ElasConfig fields that hold for every form, e.g. intermediate_size=8192 or rank=None;
              a SwiGLU FFN keeps its own published width

    {name of FFN_FORMS: bytes}; the input is counted, weights are not.
    """
    integer("tokens", tokens, 1)
    choice("size", size, tuple(SIZES))
    place, found = of_torch(device), {}
    for name, form in FFN_FORMS.items():
        fields = options | form | {"warmup_steps": 0}
        if form.get("ffn") == "swiglu":
            fields.pop("intermediate_size", None)
        config = ElasConfig.from_name(size, **fields)
        mlp = build_mlp(config).to(place, torch.bfloat16)
        x = torch.randn(1, tokens, config.hidden_size, dtype=torch.bfloat16, device=place)
        x.requires_grad_()
        found[name] = saved_bytes(mlp, x) / tokens
    return found
