"""LLaDA's rotary embedding in transformers' Llama: angles and rotation in fp32, whatever the weights are.

The stock class rounds cos and sin to the dtype of the weights. In bf16 that moved one argmax in twenty.
"""

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

NAME = "labkit_fp32_rope"


class Fp32Rotary(nn.Module):
    """cos and sin (B, L, head) of ``rotary`` in fp32; Llama multiplies, so query and key follow."""

    def __init__(self, rotary: nn.Module):
        super().__init__()
        self.rotary = rotary

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.rotary(x.float(), position_ids)


def _attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest, **given
) -> tuple[torch.Tensor, None]:
    return sdpa_attention_forward(module, query.to(value.dtype), key.to(value.dtype), value, *rest, **given)


def rotate_in_fp32(net: PreTrainedModel) -> None:
    """Make ``net`` (LlamaForCausalLM) rotate queries and keys in fp32 and round them once, afterwards."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    net.model.rotary_emb = Fp32Rotary(net.model.rotary_emb)
    net.set_attn_implementation(NAME)
