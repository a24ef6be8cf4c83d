"""Causal LMs turned into masked diffusion LMs (``labkit train dlm``): how a folder says what it is.

config.json is transformers' own of Llama, Qwen2 or Qwen3 with ``is_causal: false``, the id of the mask as
``mask_token_id``, and as ``diffusion`` what no configuration of transformers has a name for:

    "diffusion": {"shift": true, "block_causal": null}

shift         whether the logits at i - 1 predict position i
block_causal  null, or the length of the blocks over which attention is causal

Input and output embeddings are stored apart, even where the causal LM shared them.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from labkit import checks
from labkit.paths import write_json
from labkit.soar.models.families import Family

KEY = "diffusion"
CLASSES: dict[str, tuple[type[PretrainedConfig], type[PreTrainedModel]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
SHARD = "15MB"  # files that any host of repositories takes


def is_adapted(raw: dict) -> bool:
    """Whether a config.json is of this layout."""
    return isinstance(raw.get(KEY), dict) and raw.get("model_type") in list(CLASSES)


def adapted(raw: dict) -> Family:
    """How the checkpoint with this config.json is read. ValueError names the key that is wrong."""
    kind, net = CLASSES[raw["model_type"]]
    shift = checks.choice("diffusion.shift in config.json", raw[KEY].get("shift"), (True, False))
    block_causal = raw[KEY].get("block_causal")
    if block_causal is not None:
        checks.integer("diffusion.block_causal in config.json", block_causal, 1)
    return Family(net, partial(_config, kind), shift=shift, block_causal=block_causal)


def _config(kind: type[PretrainedConfig], raw: dict) -> PretrainedConfig:
    try:
        config = kind.from_dict(raw)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"config.json must be one of transformers' {kind.__name__}: {error}") from error
    config.tie_word_embeddings = False
    return config


def save_adapted(
    net: PreTrainedModel,
    tokenizer: Any,
    folder: Path,
    *,
    mask_id: int,
    shift: bool,
    block_causal: int | None,
) -> None:
    """Write weights, config.json and tokenizer of ``net``, so that ``load_model`` opens the folder."""
    state = {name: value.detach().clone().contiguous() for name, value in net.state_dict().items()}
    config = type(net.config).from_dict(net.config.to_dict())
    config.update({
        "tie_word_embeddings": False, "is_causal": False, "mask_token_id": mask_id,
        "eos_token_id": tokenizer.eos_token_id, KEY: {"shift": shift, "block_causal": block_causal},
    })  # fmt: skip
    with torch.device("meta"):
        twin = type(net)(config)
    twin.load_state_dict(state, assign=True)
    twin.save_pretrained(folder, max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)
    write_json(folder / "generation_config.json", {"eos_token_id": tokenizer.eos_token_id})
