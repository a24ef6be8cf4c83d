"""The lab's reasoning models, a tiny Qwen2 each, one character per token: ``load_reasoner`` reads them.

lab/sums-reasoner  six million weights, two to four numbers of up to two digits: the study's model
lab/sums-small     a hundred thousand weights, two or three digits: trains live on one CPU core

labkit.studies.fgo.reasoner made them, right now and then, so that reinforcement has errors to work on.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from labkit import checks
from labkit.fgo.tasks import CHARACTERS, END, PAD
from labkit.paths import CHECKPOINTS

NAMES = NAME, SMALL = "lab/sums-reasoner", "lab/sums-small"
LONGEST_PROMPT = len("Q99+99+99+99=")


def build_char_model(*, hidden: int = 64, layers: int = 2, heads: int = 4) -> Qwen2ForCausalLM:
    """A fresh Qwen2 for ``char_tokenizer`` (the default has 108,416 parameters), from torch's seed."""
    checks.integer("layers", layers, 1)
    checks.integer("heads", heads, 1)
    if checks.integer("hidden", hidden, 1) % (2 * heads):  # rotary embeddings need even heads
        checks.fail("hidden", hidden, f"a multiple of 2 * heads = {2 * heads}")
    config = Qwen2Config(
        vocab_size=len(CHARACTERS), hidden_size=hidden, intermediate_size=3 * hidden,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.08,
        pad_token_id=CHARACTERS.index(PAD), eos_token_id=CHARACTERS.index(END), bos_token_id=None,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def file_of(name: str) -> Path:
    """Where the weights of one of ``NAMES`` lie."""
    return CHECKPOINTS / f"fgo_{checks.choice('name', name, NAMES)[4:].replace('-', '_')}.safetensors"


def load_reasoner(
    name: str | Path = NAME, *, device: str | torch.device = "cpu"
) -> tuple[Qwen2ForCausalLM, dict[str, Any]]:
    """(model in eval mode, float32; what its header says: shape, task, max_tokens, provenance).

    name  a name of ``NAMES``, or a file that labkit.studies.fgo.reasoner wrote

    ValueError if it is neither, or if a weight is missing, unexpected or of another shape.
    """
    path = file_of(str(name)) if str(name) in NAMES else Path(name)
    allowed = f"{NAME!r}, {SMALL!r} or a safetensors file written by labkit.studies.fgo.reasoner"
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["labkit"])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if not all(value.is_floating_point() for value in weights.values()):
            raise TypeError
        weights = {key: value.float() for key, value in weights.items()}
        about["task"]["operands"] = tuple(about["task"]["operands"])
        layers = len({key.split(".")[2] for key in weights if key.startswith("model.layers.")})
        if about["shape"]["layers"] != layers:  # a header may ask for any number
            raise ValueError
        with torch.device("meta"):  # a shape that the weights do not have takes no memory
            wanted = {key: v.shape for key, v in build_char_model(**about["shape"]).named_parameters()}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"name must be {allowed}; got {str(name)!r} ({type(error).__name__})") from error
    found = {key: value.shape for key, value in weights.items()}
    if wanted != found:
        wrong = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        raise ValueError(f"name must hold the weights of its shape; {path.name} differs in {wrong[:3]}")
    model = build_char_model(**about["shape"])
    model.load_state_dict(weights, strict=False)  # the head is the embedding
    nn.Module.to(model, device)
    return model.eval(), about
