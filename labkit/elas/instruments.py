"""What goes on inside an ELAS model: per-layer statistics, gradients, saved bytes (masks.py: the masks)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from labkit.checks import choice, fail, integer
from labkit.device import of_torch
from labkit.elas.ffn import ReLU2MLP, build_mlp
from labkit.elas.layers import GRADIENTS, pad_to_groups
from labkit.elas.masks import activations, token_ids
from labkit.elas.model import SIZES, ElasConfig, ElasForCausalLM
from sparse24 import mask24


def layer_statistics(model: PreTrainedModel, tokens: Tensor | np.ndarray) -> dict[str, np.ndarray]:
    """{natural_zeros, crowded_groups, energy_kept: (layers,)} of the FFN activations on tokens (B, L).

    model           as for ``trace_masks``
    natural_zeros   share of activations that are zero before the mask
    crowded_groups  share of groups of four with more than two non-zeros, where the mask has to drop
    energy_kept     share of the squared norm that the two largest of every four hold
    """
    found: dict[str, list[float]] = {"natural_zeros": [], "crowded_groups": [], "energy_kept": []}
    for y in activations(model, token_ids(model, tokens)):
        groups = pad_to_groups(y).unflatten(-1, (-1, 4))
        energy = groups.double().square()
        kept = energy[mask24(groups)].sum() / energy.sum()
        found["natural_zeros"].append((y == 0).double().mean().item())
        found["crowded_groups"].append(((groups != 0).sum(-1) > 2).double().mean().item())
        found["energy_kept"].append(kept.item())
    return {name: np.array(values) for name, values in found.items()}


def gradient_agreement(model: ElasForCausalLM, tokens: Tensor | np.ndarray) -> dict[str, np.ndarray]:
    """Straight-through against exact (masked) gradient of each layer's FFN weights on tokens (B, L).

    {cosine, norm_ratio: (layers,)}; norm_ratio = |straight-through| / |masked|. The mask is on for the
    comparison; the model's switch, gradient choice and ``.grad`` are left as they were.
    """
    tokens = token_ids(model, tokens, ElasForCausalLM)
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


def saved_bytes(module: nn.Module, *inputs: Tensor) -> int:
    """Bytes that autograd keeps from the forward pass to the backward pass, measured, weights excluded.

    Every storage counts once, whole, however many views of it are saved.
    """
    if not isinstance(module, nn.Module):
        fail("module", type(module).__name__, "a torch module")
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = module(*inputs)
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
