"""FAMILIES: the config.json and weight names of diffusion LMs as those of transformers' own classes.

A key that lacks, has no usable value or disagrees with another is a ValueError that names it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.activations import ACT2FN

from labkit import checks

LLADA_TOP = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
LLADA_BLOCK = {  # model.transformer.blocks.N.<left> -> model.layers.N.<right>
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
# What LLaDA's configuration can switch and Llama does not have.
LLADA_FIXED = {
    "block_type": "llama", "activation_type": "silu", "layer_norm_type": "rms", "rope": True,
    "alibi": False, "weight_tying": False, "include_bias": False, "include_qkv_bias": False,
    "attention_layer_norm": False, "input_emb_norm": False, "scale_logits": False,
}  # fmt: skip
# Of a config.json without any: the default of both original configurations and of Llama and Qwen2.
ROPE_THETA = 10000.0
PLAIN = "a {} checkpoint without sliding window or rope scaling"


def llada_config(raw: dict) -> PretrainedConfig:
    """``LlamaConfig`` of LLaDA's config.json."""
    for key, value in LLADA_FIXED.items():
        if raw.get(key, value) != value:
            raise ValueError(f"name must be a LLaDA checkpoint with {key}={value!r}; got {raw[key]!r}")
    width = _whole(raw, "d_model")
    heads = _divides(raw, "n_heads", "d_model", width)
    if raw.get("mlp_hidden_size") is None and raw.get("mlp_ratio") is not None:
        mlp = _whole(raw, "mlp_ratio") * width
    else:
        mlp = _whole(raw, "mlp_hidden_size")
    size = _whole(raw, "vocab_size" if raw.get("embedding_size") is None else "embedding_size")
    if raw.get("vocab_size") is not None and _whole(raw, "vocab_size") > size:
        _fail("embedding_size", size, f"at least vocab_size={raw['vocab_size']}")
    return LlamaConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=_whole(raw, "n_layers"),
        num_attention_heads=heads,
        num_key_value_heads=_llada_kv_heads(raw, heads),
        max_position_embeddings=_whole(raw, "max_sequence_length"),
        rms_norm_eps=_number(raw, "rms_norm_eps"),
        rope_parameters=_rope(raw, "LLaDA"),
        tie_word_embeddings=False,
        attention_bias=False,
        mlp_bias=False,
    )


def qwen2_config(raw: dict, family: str) -> PretrainedConfig:
    """``Qwen2Config`` of the config.json of a ``family`` that follows Qwen2.5: biases at Q, K and V."""
    _divides(raw, "num_attention_heads", "hidden_size", _whole(raw, "hidden_size"))
    return Qwen2Config(**_qwen(raw, family))


def qwen3_config(raw: dict, family: str) -> PretrainedConfig:
    """``Qwen3Config`` of the config.json of a ``family`` that follows Qwen3: Q and K normalised."""
    head = 128 if raw.get("head_dim") is None else _whole(raw, "head_dim")  # Qwen3's and SDAR's default
    if head % 2:
        _fail("head_dim", head, "an even number")
    bias = _flag(raw, "attention_bias")
    return Qwen3Config(**_qwen(raw, family), head_dim=head, attention_bias=bias)


def _qwen(raw: dict, family: str) -> dict[str, Any]:
    """What the configurations of Qwen2 and Qwen3 have in common."""
    if raw.get("use_sliding_window") or set(raw.get("layer_types") or ()) - {"full_attention"}:
        raise ValueError(f"name must be {PLAIN.format(family)}")
    whole = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "max_position_embeddings",
    )  # fmt: skip
    given: dict[str, Any] = {key: _whole(raw, key) for key in whole}
    kv = "num_key_value_heads"
    if kv in raw and raw[kv] is None:  # as many as queries
        raw = raw | {kv: given["num_attention_heads"]}
    activation = raw.get("hidden_act", "silu")
    if not isinstance(activation, str) or activation not in ACT2FN:
        _fail("hidden_act", activation, "an activation that transformers has, 'silu' for instance")
    return given | {
        kv: _divides(raw, kv, "num_attention_heads", given["num_attention_heads"]),
        "rms_norm_eps": _number(raw, "rms_norm_eps"),
        "hidden_act": activation,
        "rope_parameters": _rope(raw, family),
        "tie_word_embeddings": _flag(raw, "tie_word_embeddings"),
    }


def _fail(key: str, value: object, allowed: str) -> NoReturn:
    checks.fail(f"{key} in config.json", value, allowed)


def _whole(raw: dict, key: str) -> int:
    return checks.integer(f"{key} in config.json", raw.get(key), 1)


def _number(raw: dict, key: str) -> float:
    return checks.number(f"{key} in config.json", raw.get(key), 0)


def _flag(raw: dict, key: str) -> bool:
    value = False if raw.get(key) is None else raw[key]
    return checks.choice(f"{key} in config.json", value, (True, False))


def _divides(raw: dict, key: str, other: str, whole: int) -> int:
    """The number of heads at ``key``, which must divide ``whole``."""
    if whole % (heads := _whole(raw, key)):
        _fail(key, heads, f"a divisor of {other}={whole}")
    if other in ("d_model", "hidden_size") and whole // heads % 2:
        _fail(key, heads, f"{other}={whole} divided by an even width of a head")
    return heads


def _llada_kv_heads(raw: dict, heads: int) -> int:
    """LLaDA's ``effective_n_kv_heads``: two keys say it, and must not disagree."""
    single = raw.get("multi_query_attention")
    implied = heads if not single else 1
    if raw.get("n_kv_heads") is None:
        return implied
    kv_heads = _divides(raw, "n_kv_heads", "n_heads", heads)
    if single is not None and kv_heads != implied:
        _fail("n_kv_heads", kv_heads, f"{implied} with multi_query_attention={single!r}")
    return kv_heads


def _rope(raw: dict, family: str) -> dict:
    """Plain rotary embeddings; transformers 5 writes ``rope_parameters`` for the older two keys."""
    found = {"rope_theta": raw.get("rope_theta")}
    for key in ("rope_scaling", "rope_parameters"):
        about = {} if raw.get(key) is None else raw[key]
        if not isinstance(about, dict):
            _fail(key, about, "an object or null")
        about = {name: value for name, value in about.items() if value is not None}
        kinds = about.pop("rope_type", "default"), about.pop("type", "default")
        found[f"{key}.rope_theta"] = about.pop("rope_theta", None)
        if kinds != ("default", "default") or about:
            raise ValueError(f"name must be {PLAIN.format(family)}; got {key}={raw[key]!r}")
    thetas = {key: value for key, value in found.items() if value is not None}
    for key, value in thetas.items():
        checks.number(f"{key} in config.json", value, 1)
    if len(set(thetas.values())) > 1:
        _fail("rope_theta", thetas, "one number wherever it stands")
    theta = next(iter(thetas.values()), ROPE_THETA)
    return {"rope_type": "default", "rope_theta": float(theta)}


def _llada_name(key: str) -> str:
    match = re.fullmatch(r"model\.transformer\.(?:blocks\.(\d+)\.)?(\w+)\.(\w+)", key)
    if match is None:
        return f"no place for {key}"
    block, part, kind = match.groups()
    if block is None:
        return f"{LLADA_TOP.get(part, 'no place for ' + part)}.{kind}"
    return f"model.layers.{block}.{LLADA_BLOCK.get(part, 'no place for ' + part)}.{kind}"


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one ``model_type`` become a model of transformers."""

    net: Any  # its class
    config: Callable[[dict], PretrainedConfig]  # its configuration, of what config.json holds
    rename: Callable[[str], str] = str  # the name of a weight there, of its name in the checkpoint
    shift: bool = False  # the logits at position i - 1 predict position i
    # The key of config.json that holds how many positions a block has, over which attention is causal.
    block_key: str | None = None
    # That number itself, where there is no such key (labkit.soar.models.adapted); None: attention is
    # bidirectional, unless ``load_model`` is told otherwise.
    block_causal: int | None = None
    mask_token: str | None = None  # its name in the vocabulary, where no file of a checkpoint says its id
    fp32_rope: bool = False  # its own code rotates in fp32 whatever the weights are


FAMILIES = {
    "llada": Family(LlamaForCausalLM, llada_config, rename=_llada_name, fp32_rope=True),
    "Dream": Family(Qwen2ForCausalLM, partial(qwen2_config, family="Dream"), shift=True),
    "sdar": Family(
        Qwen3ForCausalLM, partial(qwen3_config, family="SDAR"), block_key="block_size",
        mask_token="<|MASK|>",
    ),
    "Fast_dLLM_Qwen": Family(
        Qwen2ForCausalLM, partial(qwen2_config, family="Fast-dLLM v2"), shift=True, block_key="bd_size",
        mask_token="|<MASK>|",
    ),
    "a2d-qwen3": Family(Qwen3ForCausalLM, partial(qwen3_config, family="A2D"), mask_token="<|mask|>"),
}  # fmt: skip
