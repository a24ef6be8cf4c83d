"""The feed-forward network of one layer: ReLU² under the 2:4 mask, or Llama's SwiGLU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.models.llama.modeling_llama import LlamaMLP

import sparse24
from labkit.elas.layers import LowRankLinear, Sparse24ReLU2, pad_to_groups, replace_linears


class ReLU2MLP(nn.Module):
    """down(S(relu(up(x))²)), (..., hidden) -> (..., hidden): the ELAS FFN, without a gate.

    ``packed`` and ``recompute`` read the projections' weights. Where another module has taken the place of
    one (PEFT, quantised weights, FSDP around the projection itself), it is called instead, without either.

    Args:
        config: an ElasConfig.
    """

    up_proj: Any  # nn.Linear, or LowRankLinear where a rank is set
    down_proj: Any

    def __init__(self, config: Any):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        sparse = bool(config.sparse)
        self.act_fn = Sparse24ReLU2(config.gradient, sparse=sparse, warmup_steps=config.warmup_steps)
        self.packed, self.recompute = config.packed, config.recompute

    def forward(self, x: Tensor) -> Tensor:
        up, down, packed = self.up_proj, self.down_proj, self.packed and self.act_fn.sparse
        own = all(type(layer) in (nn.Linear, LowRankLinear) for layer in (up, down))
        if not (own and (packed or (self.recompute and torch.is_grad_enabled()))):
            return down(self.act_fn(up(x)))
        low_up, low_down = (isinstance(layer, LowRankLinear) for layer in (up, down))

        def wide(x: Tensor) -> Tensor:
            """Between the low-rank factors that lie outside of the wide activation."""
            first = up.weight_out if low_up else up.weight
            last = down.weight_in.T if low_down else down.weight
            if not packed:
                return F.linear(self.act_fn(F.linear(x, first)), last)
            if first.shape[0] % 4 == 0:
                return sparse24.relu2_ffn(x, first, last, gradient=self.act_fn.gradient)
            return sparse24.matmul(self.act_fn.packed(F.linear(x, first)), pad_to_groups(last))

        x = x @ up.weight_in if low_up else x
        x = wide(x) if packed else checkpoint(wide, x, use_reentrant=False, preserve_rng_state=False)
        return F.linear(x, down.weight_out) if low_down else x


def build_mlp(config: Any) -> nn.Module:
    """The FFN of one layer: ReLU2MLP or Llama's SwiGLU, with low-rank projections where a rank is set.

    config   an ElasConfig
    """
    mlp = ReLU2MLP(config) if config.ffn == "relu2" else LlamaMLP(config)
    if config.rank is not None:
        replace_linears(mlp, config.mlp_rank or config.rank)
    return mlp
