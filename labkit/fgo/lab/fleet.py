"""Several copies of one small Qwen2 or Llama, run and trained at once: weights stacked on a leading axis.

A study trains many arms and seeds from the same model. One at a time, each would leave a GPU idle; as
R stacked copies every matrix product becomes one batched product, and all arms take their step together.
Rows never mix: copy r sees its own rows, weights, gradients and optimiser state (tested against
transformers' models and against FGOTrainer).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import one_hot, rms_norm, scaled_dot_product_attention, silu
from transformers import LlamaConfig, PreTrainedModel, Qwen2Config

from labkit import checks

Weights = dict[str, Tensor]  # name in the model's named_parameters() -> (R, *shape)
# layer, q (R*B, heads, T, d), k and v (R*B, key heads, T, d) -> like q
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
FEW = 1024  # tokens of a vocabulary that is read by a product


class Fleet:
    """``copies`` copies of ``model``, float32, as stacked leaf tensors in ``weights``.

    ValueError for what the forward pass does not know: other families, sliding windows, untied heads.
    """

    def __init__(self, model: PreTrainedModel, copies: int, device: str | torch.device = "cpu"):
        config: Any = model.config
        if type(config) not in (Qwen2Config, LlamaConfig):
            checks.fail("model", type(model).__name__, "a Qwen2ForCausalLM or LlamaForCausalLM")
        if not config.tie_word_embeddings or getattr(config, "use_sliding_window", False):
            checks.fail("model", "another", "a Qwen2 or Llama with tied embeddings and full attention")
        self.config: Any = config
        self.copies = checks.integer("copies", copies, 1)
        self.device = torch.device(device)
        self.weights: Weights = {
            name: torch.empty((copies, *value.shape), device=self.device, requires_grad=True)
            for name, value in model.named_parameters()
        }
        self.read(model)
        rotary: Any = model.get_submodule("model.rotary_emb")
        self.frequency = rotary.inv_freq.detach().to(self.device, torch.float32)

    @torch.no_grad()
    def read(self, model: PreTrainedModel) -> None:
        """Give every copy the weights of ``model``."""
        self.load_state_dict(dict(model.named_parameters()))

    def state_dict(self) -> Weights:
        """The weights of every copy, as ``load_state_dict`` takes them."""
        return {name: value.detach() for name, value in self.weights.items()}

    @torch.no_grad()
    def load_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Set the weights to those of every copy (R, ...), or of one for all."""
        for name, own in self.weights.items():
            own.copy_(weights[name])

    def logits(self, ids: Tensor) -> Tensor:
        """ids, int (R, B, T), padded on the RIGHT -> logits (R, B, T, V); position 0 is the first token."""
        every = torch.arange(ids.shape[2], device=ids.device)
        return self.run(ids, every, _causal, self.weights)

    def run(self, ids: Tensor, position: Tensor, attend: Attend, weights: Weights) -> Tensor:
        """Logits of ids (R, B, T) that stand at ``position`` (T,), with attention left to ``attend``."""
        copies, rows, width = ids.shape
        heads, own = self.config.num_attention_heads, self.config.num_key_value_heads
        embedding = weights["model.embed_tokens.weight"]
        x = self._embed(ids.flatten(1), embedding)
        x = x.to(embedding.dtype)  # the residual stream stays in the weights' precision under autocast
        angle = position[:, None] * self.frequency
        cos, sin = angle.cos().to(embedding.dtype), angle.sin().to(embedding.dtype)
        for layer in range(self.config.num_hidden_layers):
            part = f"model.layers.{layer}."

            def split(name, x, heads, part=part):
                y = _linear(x, weights, f"{part}self_attn.{name}")
                return y.view(copies * rows, width, heads, -1).transpose(1, 2)

            h = self._norm(x, weights[part + "input_layernorm.weight"])
            q, k, v = split("q_proj", h, heads), split("k_proj", h, own), split("v_proj", h, own)
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

    def _embed(self, ids: Tensor, table: Tensor) -> Tensor:
        """Rows of each copy's table (R, V, D) for ids (R, N); like nn.Embedding's, the padding row gets no
        gradient there."""
        count, pad = table.shape[1], self.config.pad_token_id
        if count > FEW:
            return torch.stack([functional.embedding(*one, pad) for one in zip(ids, table, strict=True)])
        # A product with one-hot rows: gradients of a table of a few characters would collide in scatters.
        if table.requires_grad:
            padding = torch.arange(count, device=table.device) == pad
            table = torch.where(padding[:, None], table.detach(), table)
        return one_hot(ids, count).to(table.dtype) @ table

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
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
