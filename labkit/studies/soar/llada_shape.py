"""LLaDA-8B's shape with random weights, to measure speed where the weights are not at hand."""

from typing import Any

import torch
from transformers import LlamaForCausalLM

from labkit.soar.models.diffusion_lm import DiffusionLM
from labkit.soar.models.families import llada_config
from labkit.soar.models.rope import rotate_in_fp32

LLADA_8B = {
    "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288,
    "vocab_size": 126464, "max_sequence_length": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "mask_token_id": 126336, "eos_token_id": 126081, "pad_token_id": 126081,
}  # fmt: skip
TINY = LLADA_8B | {
    "d_model": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "mlp_hidden_size": 96, "vocab_size": 500,
    "mask_token_id": 499, "eos_token_id": 498, "pad_token_id": 498,
}  # fmt: skip


@torch.no_grad()
def random_llada(
    device: str | torch.device, *, tiny: bool = False, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> DiffusionLM:
    """LLaDA-8B's classes and shape (16 GB in bf16; ``tiny``: two small layers), weights N(0, 0.02²)."""
    raw: dict[str, Any] = TINY if tiny else LLADA_8B
    settings: Any = llada_config(raw)
    settings.is_causal = False
    with torch.device("meta"):
        net: Any = LlamaForCausalLM(settings)  # transformers wraps .to() so that its type is lost
    net.to(dtype).to_empty(device=device)
    source = torch.Generator(device).manual_seed(seed)
    for value in net.parameters():
        if value.ndim > 1:
            value.normal_(0, 0.02, generator=source)
        else:
            value.fill_(1)
    net.model.rotary_emb = type(net.model.rotary_emb)(settings).to(device)
    rotate_in_fp32(net)
    model = DiffusionLM(net, raw["mask_token_id"], raw["eos_token_id"], raw["max_sequence_length"], False)
    return model.eval().requires_grad_(False)
