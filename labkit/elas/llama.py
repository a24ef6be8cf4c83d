"""From a Llama and back: a trained one cut to low rank, and an ELAS model as dense Llama weights."""

import os
import warnings
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from labkit.checks import choice, fail
from labkit.elas.layers import LowRankLinear


class LlamaWeights(LlamaForCausalLM):
    """What ElasForCausalLM has of both directions."""

    config_class: Any  # ElasConfig

    energy_lost: dict[str, float]  # of a model made by from_llama: projection: share of its squared norm

    @classmethod
    def from_llama(
        cls, name: "str | os.PathLike | LlamaForCausalLM", *, rank: int | None, mlp_rank: int | None = None,
        **loading: Any,
    ) -> Self:  # fmt: skip
        """A trained Llama whose every projection is the best approximation of rank r in squared norm.

        W = U S Vᵀ, cut after r values: B = U √S and A = V √S, balanced as Loro's exact step leaves them.
        Embedding, head, norms and the gate of the FFN are Llama's own (``ffn="swiglu"``, no mask).

        The cut knows no data, and a trained matrix has no low rank: quality falls, mostly far. Train on.
        ``energy_lost`` of the result and one warning say how much of each matrix was dropped.

        name      folder or name on the hub of a model of type "llama", or a LlamaForCausalLM
        rank      r, at most the hidden size; None: dense copies, nothing is lost. A smaller matrix (grouped
                  keys and values) is kept whole
        mlp_rank  r of the FFN where it differs
        loading   of ``from_pretrained``, e.g. dtype

        ValueError names the argument at fault, a model of another type or with biases too.
        """
        llama = name if isinstance(name, LlamaForCausalLM) else _load(name, loading)
        ranks = {"rank": rank, "mlp_rank": mlp_rank, "ffn": "swiglu", "warmup_steps": 0}
        model: Any = cls(cls.config_class(**_fields(llama.config) | ranks))
        nn.Module.to(model.to_dtype(llama.dtype), llama.device)
        model.generation_config, model.energy_lost = llama.generation_config, {}
        weights = llama.state_dict()
        for path, layer in model.named_modules():
            if isinstance(layer, LowRankLinear):
                factors, model.energy_lost[path] = _cut(weights.pop(f"{path}.weight"), layer.rank)
                weights |= {f"{path}.{side}": factor for side, factor in factors.items()}
        model.load_state_dict(weights)
        if lost := sorted(model.energy_lost.values()):
            told = f"{lost[0]:.1%} to {lost[-1]:.1%}, median {lost[len(lost) // 2]:.1%}"
            warnings.warn(
                f"the cut to low rank drops {told} of a projection's squared norm (energy_lost has each): "
                "train the model before you use it",
                stacklevel=2,
            )
        return model

    @torch.no_grad()
    def to_llama(self, *, drop_mask: bool = False) -> LlamaForCausalLM:
        """The same function as a LlamaForCausalLM: dense weights that open wherever a Llama does.

        Low-rank pairs become B Aᵀ. ReLU² becomes Llama's gate with ``hidden_act="relu"`` and the gate's
        matrix equal to ``up``: relu(u) u = relu(u)². (Programs that know SiLU alone refuse it.)

        drop_mask   export without the 2:4 mask where it is on: another function, as a Llama has no mask

        ValueError if the mask is on and is not to be dropped.
        """
        own: Any = self
        relu2 = own.config.ffn == "relu2"
        choice("drop_mask", drop_mask, (True, False))
        if relu2 and not drop_mask and own.activations()[0].sparse:
            fail("drop_mask", drop_mask, "True where the 2:4 mask is on: a Llama has no place for it")
        fields = _fields(self.config) | ({"hidden_act": "relu"} if relu2 else {})
        llama = AutoModelForCausalLM.from_config(LlamaConfig(**fields), dtype=self.dtype).to(self.device)
        weights = {name: value for name, value in self.state_dict().items() if ".act_fn." not in name}
        for path, layer in self.named_modules():
            if isinstance(layer, LowRankLinear):
                b, a = (weights.pop(f"{path}.weight_{side}") for side in ("out", "in"))
                weights[f"{path}.weight"] = (b.float() @ a.float().T).to(b.dtype)
        if relu2:
            ups = [name for name in weights if name.endswith("mlp.up_proj.weight")]
            weights |= {name.replace("up_proj", "gate_proj"): weights[name] for name in ups}
        llama.load_state_dict(weights)
        llama.generation_config = self.generation_config
        return llama.train(self.training)


def _load(name: "str | os.PathLike", loading: dict[str, Any]) -> LlamaForCausalLM:
    kind = AutoConfig.from_pretrained(name).model_type
    if kind != "llama":
        fail("name", str(name), f"a model of type 'llama', not {kind!r}")
    return LlamaForCausalLM.from_pretrained(name, use_safetensors=True, **loading)


def _fields(config: LlamaConfig) -> dict[str, Any]:
    """What a Llama's configuration says, without what others add to it."""
    return {name: getattr(config, name) for name in LlamaConfig.__annotations__}


def _cut(weight: Tensor, rank: int) -> tuple[dict[str, Tensor], float]:
    """({weight_out, weight_in} of the best rank-r approximation, the share of squared norm it lacks)."""
    u, s, vt = torch.linalg.svd(weight.float(), full_matrices=False)
    root, energy = s[:rank].sqrt(), s.double().square()
    factors = {"weight_out": u[:, :rank] * root, "weight_in": vt[:rank].T * root}
    return factors, (energy[rank:].sum() / energy.sum().clamp(min=1e-300)).item()
