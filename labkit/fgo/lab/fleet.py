"""Several copies of one small Qwen2, run and trained at once: weights stacked on a leading axis.

A study trains many arms and seeds from the same model. One at a time, each would leave a GPU idle; as
R stacked copies every matrix product becomes one batched product, and all arms take their step together.
Rows never mix: copy r sees its own rows, weights, gradients and optimiser state (tested against
transformers' Qwen2 and against FGOTrainer).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot, rms_norm, scaled_dot_product_attention, silu
from transformers import Qwen2Config, Qwen2ForCausalLM

from labkit import checks

Weights = dict[str, Tensor]  # name in Qwen2ForCausalLM.named_parameters() -> (R, *shape)
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # layer, q, k, v (R*B, heads, T, d) -> like q


class Fleet:
    """``copies`` copies of ``model``, float32, as stacked leaf tensors in ``weights``.

    ValueError for what the forward pass does not know: grouped keys, sliding windows, untied heads.
    """

    def __init__(self, model: Qwen2ForCausalLM, copies: int, device: str | torch.device = "cpu"):
        config = model.config
        if not isinstance(config, Qwen2Config):
            checks.fail("model", type(model).__name__, "a Qwen2ForCausalLM")
        plain = (
            config.num_key_value_heads == config.num_attention_heads
            and config.tie_word_embeddings
            and not config.use_sliding_window
        )
        if not plain:
            checks.fail("model", "another Qwen2", "a Qwen2 with tied embeddings, full attention, own keys")
        self.config: Any = config
        self.copies = checks.integer("copies", copies, 1)
        self.device = torch.device(device)
        self.weights: Weights = {
            name: torch.empty((copies, *value.shape), device=self.device, requires_grad=True)
            for name, value in model.named_parameters()
        }
        self.read(model)
        self.frequency = model.model.rotary_emb.inv_freq.detach().to(self.device, torch.float32)

    @torch.no_grad()
    def read(self, model: Qwen2ForCausalLM) -> None:
        """Give every copy the weights of ``model``."""
        for name, value in model.named_parameters():
            self.weights[name].copy_(value)

    def logits(self, ids: Tensor) -> Tensor:
        """ids, int (R, B, T), padded on the RIGHT -> logits (R, B, T, V); position 0 is the first token."""
        every = torch.arange(ids.shape[2], device=ids.device)
        return self.run(ids, every, _causal, self.weights)

    def run(self, ids: Tensor, position: Tensor, attend: Attend, weights: Weights) -> Tensor:
        """Logits of ids (R, B, T) that stand at ``position`` (T,), with attention left to ``attend``."""
        copies, rows, width = ids.shape
        heads = self.config.num_attention_heads
        embedding = weights["model.embed_tokens.weight"]
        # A product with one-hot rows: gradients of a table of a few characters would collide in scatters.
        x = one_hot(ids.flatten(1), embedding.shape[1]).to(embedding.dtype) @ self._inputs(embedding)
        x = x.to(embedding.dtype)  # the residual stream stays in the weights' precision under autocast
        angle = position[:, None] * self.frequency
        cos, sin = angle.cos().to(embedding.dtype), angle.sin().to(embedding.dtype)
        for layer in range(self.config.num_hidden_layers):
            part = f"model.layers.{layer}."

            def split(name, x, part=part):
                y = _linear(x, weights, f"{part}self_attn.{name}")
                return y.view(copies * rows, width, heads, -1).transpose(1, 2)

            h = self._norm(x, weights[part + "input_layernorm.weight"])
            q, k, v = split("q_proj", h), split("k_proj", h), split("v_proj", h)
            mixed = attend(layer, _turn(q, cos, sin), _turn(k, cos, sin), v)
            mixed = mixed.transpose(1, 2).reshape(copies, rows * width, -1)
            x = x + _linear(mixed, weights, part + "self_attn.o_proj")
            h = self._norm(x, weights[part + "post_attention_layernorm.weight"])
            gate = silu(_linear(h, weights, part + "mlp.gate_proj"))
            x = x + _linear(
                gate * _linear(h, weights, part + "mlp.up_proj"), weights, part + "mlp.down_proj"
            )
        x = self._norm(x, weights["model.norm.weight"])
        return (x @ embedding.transpose(1, 2)).view(copies, rows, width, -1)

    def _inputs(self, embedding: Tensor) -> Tensor:
        """The table as inputs see it: like nn.Embedding's, its padding row gets no gradient there."""
        if not embedding.requires_grad:
            return embedding
        padding = torch.arange(embedding.shape[1], device=embedding.device) == self.config.pad_token_id
        return torch.where(padding[:, None], embedding.detach(), embedding)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, x.shape[-1:], eps=self.config.rms_norm_eps) * weight[:, None]


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    y = x @ weights[name + ".weight"].transpose(1, 2)
    bias = weights.get(name + ".bias")
    return y if bias is None else y + bias[:, None]


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in Qwen2's layout: the two halves of a head form the pairs."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def _causal(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True)
