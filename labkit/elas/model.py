"""ElasConfig and ElasForCausalLM: transformers' Llama with low-rank projections and the ELAS FFN.

Attention, norms, rotary embedding, loss, generation and the save format are transformers' own; this
module replaces the projections by LowRankLinear and, for ``ffn="relu2"``, the FFN by two matrices
around Sparse24ReLU2. Embedding, head (untied) and norms stay dense.
"""

import dataclasses
from typing import ClassVar, Self

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from labkit.checks import choice, fail, integer, number
from labkit.elas.ffn import build_mlp
from labkit.elas.layers import GRADIENTS, LowRankLinear, Sparse24ReLU2, replace_linears
from labkit.elas.llama import LlamaWeights
from labkit.elas.warmup import DenseWarmUp

# hidden, SwiGLU width i, heads, layers, rank, dense warm-up. 60m to 1b: GaLore's LLaMA family, which
# LORO and ELAS share; the ranks are LORO's. 12m and 3m: the lab's own studies and checkpoints.
SIZES = {
    "60m": (512, 1376, 8, 8, 128, 1000),
    "130m": (768, 2048, 12, 12, 256, 1000),
    "350m": (1024, 2736, 16, 24, 256, 1000),
    "1b": (2048, 5461, 32, 24, 512, 1000),
    "12m": (384, 1024, 6, 8, 96, 100),
    "3m": (256, 640, 4, 6, 64, 100),
    "tiny": (96, 256, 4, 4, 24, 20),
}
COUNTS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings",
)  # fmt: skip
# Names that are no fields but that transformers itself passes when it saves, loads or dispatches.
ACCEPTED = {
    "model_type", "torch_dtype", "name_or_path", "num_labels", "attn_implementation",
    "experts_implementation", "output_attentions", "rope_theta", "rope_scaling", "per_layer_config",
    "transformers_version",
}  # fmt: skip


class ElasConfig(LlamaConfig):
    """A LlamaConfig with the choices of ELAS; the defaults are the paper's 60M model.

    Attributes:
        rank: rank of every projection, None for dense matrices.
        mlp_rank: rank of the FFN's projections where it differs (equal-FLOP baseline).
        ffn: "relu2": two matrices and ReLU²; "swiglu": Llama's three.
        bos_token_id: 0: <|endoftext|> in the lab's vocabularies.
        eos_token_id: likewise.
        sparse: 2:4 mask on the ReLU² activation; None: on for "relu2".
        gradient: "ste" or "masked", see Sparse24ReLU2.
        warmup_steps: dense optimiser steps before the mask.
        packed: run the FFN on the packed activation: 9/16 of its bytes are kept for the backward pass.
        recompute: keep only the input and the low-rank intermediates of the ReLU² FFN and compute the wide
            activation again in the backward pass (exact, with or without the mask).

    Raises:
        ValueError: names the argument at fault, an unknown one too.
        StrictDataclassError: a field of Llama's own has another type; ``from_name`` makes it a ValueError.
    """

    model_type = "elas"
    auto_map: ClassVar[dict[str, str]] = {}  # no remote code; TRL reads it of classes outside transformers

    hidden_size: int = 512
    intermediate_size: int = 2064
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    max_position_embeddings: int = 1024
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 0
    rank: int | None = 128
    mlp_rank: int | None = None
    ffn: str = "relu2"
    sparse: bool | None = None
    gradient: str = "ste"
    warmup_steps: int = 1000
    packed: bool = False
    recompute: bool = False

    def __post_init__(self, **kwargs):
        for option in kwargs:
            if option not in ACCEPTED and not option.startswith("_"):
                choice("option", option, sorted(field.name for field in dataclasses.fields(self)))
        choice("ffn", self.ffn, ("relu2", "swiglu"))
        choice("gradient", self.gradient, GRADIENTS)
        self.warmup_steps = integer("warmup_steps", self.warmup_steps, 0)
        for name in COUNTS:
            integer(name, getattr(self, name), 1)
        choice("sparse", self.sparse, (None, True, False))
        choice("packed", self.packed, (True, False))
        choice("recompute", self.recompute, (True, False))
        if self.hidden_size % self.num_attention_heads:
            fail("num_attention_heads", self.num_attention_heads, f"a divisor of {self.hidden_size}")
        self._check_llamas_own()
        if self.rank is not None:
            self.rank = integer("rank", self.rank, 1, self.hidden_size)
        if self.mlp_rank is not None:
            if self.rank is None:
                fail("mlp_rank", self.mlp_rank, "None where rank is None")
            widest = min(self.hidden_size, self.intermediate_size)
            self.mlp_rank = integer("mlp_rank", self.mlp_rank, 1, widest)
        if self.sparse is None:
            self.sparse = self.ffn == "relu2"
        if self.sparse and self.ffn == "swiglu":
            fail("sparse", True, "False with ffn='swiglu': the 2:4 mask belongs to ReLU²")
        if self.packed and not self.sparse:
            fail("packed", True, "False where sparse is False")
        if self.recompute and (self.packed or self.ffn == "swiglu"):
            fail("recompute", True, "False with packed=True or ffn='swiglu'")
        super().__post_init__(**kwargs)

    def _check_llamas_own(self) -> None:
        """ValueError for what Llama takes as it is and then fails on when it is built or called."""
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if groups is not None and heads % integer("num_key_value_heads", groups, 1):
            fail("num_key_value_heads", groups, f"a divisor of num_attention_heads={heads}")
        if self.head_dim is not None and integer("head_dim", self.head_dim, 2) % 2:
            fail("head_dim", self.head_dim, "even: rotary embeddings turn pairs")
        number("attention_dropout", self.attention_dropout, 0, 1)
        choice("hidden_act", self.hidden_act, tuple(ACT2FN))

    @classmethod
    def from_name(cls, name: str, **options) -> Self:
        """The model of one size, with any field overridden: ``from_name("60m", ffn="swiglu")``.

        A "relu2" FFN is int(1.5 i) wide, so its two matrices weigh what SwiGLU's three do. At "1b" that
        is 8191, as published; its last group of four has three members. For speed pass
        ``intermediate_size=8192`` (kernels want a multiple of 64).
        """
        hidden, width, heads, layers, rank, warmup = SIZES[choice("name", name, tuple(SIZES))]
        for option in options:
            choice("option", option, sorted(field.name for field in dataclasses.fields(cls)))
        relu2 = options.get("ffn", "relu2") == "relu2"
        fields = {
            "hidden_size": hidden,
            "intermediate_size": int(1.5 * width) if relu2 else width,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "rank": rank,
            "warmup_steps": warmup,
        }
        try:
            return cls(**fields | options)
        except StrictDataclassError as error:  # transformers' own type checks
            raise ValueError(" ".join(str(error).split())) from None


class ElasForCausalLM(DenseWarmUp, LlamaWeights):
    """Causal language model of ``config``; called, trained, saved and loaded like transformers' own.

    Its dense warm-up counts optimiser steps by itself, see DenseWarmUp. ``from_llama`` and ``to_llama``
    take a Llama's weights and give them back. PEFT adapts low-rank layers by the names of their factors:
    ``LoraConfig(target_parameters=["q_proj.weight_in", "q_proj.weight_out", ...])``.

    Args:
        config: an ElasConfig.
    """

    config_class = ElasConfig
    config: ElasConfig

    def __init__(self, config: ElasConfig):
        with init.no_init_weights():  # most of what Llama builds is replaced below
            super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = build_mlp(config)
            if config.rank is not None:
                replace_linears(layer.self_attn, config.rank)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # transformers' init functions leave alone what a checkpoint has already filled
        if isinstance(module, LowRankLinear):
            module.reset_parameters(init.normal_)
        elif isinstance(module, Sparse24ReLU2):
            module.reset_switch(init.constant_)
        else:
            super()._init_weights(module)

    def to_dtype(self, dtype: torch.dtype) -> Self:
        """Weights in ``dtype``, in place; rotary frequencies stay float32, as from_pretrained has them."""
        frequencies = self.model.rotary_emb.inv_freq
        nn.Module.to(self, dtype)
        self.model.rotary_emb.inv_freq = frequencies
        return self


AutoConfig.register("elas", ElasConfig, exist_ok=True)  # auto.py has entered the name
AutoModelForCausalLM.register(ElasConfig, ElasForCausalLM, exist_ok=True)
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["elas"] = "ElasForCausalLM"  # lm_eval reads this table
