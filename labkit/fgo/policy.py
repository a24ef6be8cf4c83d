"""The model that is trained or examined: loading it, what its tokenizer and layers are like.

load_policy  (model, tokenizer) of a lab name, a folder, an adapter's folder or a hub name
end_tokens   every token that ends a response
drops        whether training mode computes something else than eval mode
reference    lets TRL find the reference of a model in memory
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from labkit import checks
from labkit.causal_lm import import_peft, load_causal_lm

ADAPTER = "adapter_config.json"


def load_policy(name: str, **settings: Any):
    """(model, tokenizer) of a lab name, a folder or a hub name: safetensors only, no remote code.

    settings  of ``from_pretrained`` (FGOConfig's model_init_kwargs); a model of the lab takes none. dtype
              is float32 by default, as in TRL, whatever the file holds: at these learning rates most
              bfloat16 weights would never move.

    A folder with a LoRA adapter gives its base model with the adapter on it, which can be trained on.

    ValueError if it cannot be loaded.
    """
    from labkit.fgo import smollm
    from labkit.fgo.lab import reasoner
    from labkit.fgo.tasks import char_tokenizer

    lab = [*reasoner.NAMES, smollm.NAME]
    if name in lab and settings:
        raise ValueError(f"--model_init_kwargs must be left out for {name}; got {settings!r}")
    if name in reasoner.NAMES:
        return reasoner.load_reasoner(name)[0], char_tokenizer()
    if name == smollm.NAME:
        return smollm.load_smollm()
    if (Path(name) / ADAPTER).is_file():
        return _with_adapter(Path(name), **settings)
    model, tokenizer = load_causal_lm(name, f" or one of {', '.join(lab)}", **settings)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _with_adapter(folder: Path, **settings: Any):
    peft = import_peft(f"--model {folder}")
    base = json.loads((folder / ADAPTER).read_text()).get("base_model_name_or_path")
    if not base or not (folder / "adapter_model.safetensors").is_file():
        told = "an adapter with adapter_model.safetensors and its base_model_name_or_path"
        checks.fail("--model", str(folder), told)
    model, tokenizer = load_policy(base, **settings)
    return peft.PeftModel.from_pretrained(model, folder, is_trainable=True), tokenizer


def end_tokens(model: PreTrainedModel, tokenizer: Any) -> list[int]:
    """Every token that ends a response, the tokenizer's first: generation_config may name several."""
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor holds one
    own, named = tokenizer.eos_token_id, model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    return [end for end in dict.fromkeys((own, *named)) if end is not None]


def drops(model: PreTrainedModel) -> bool:
    """Whether a forward pass in training mode is another than in eval mode: some layer has dropout."""
    layers = any(isinstance(one, nn.Dropout) and one.p > 0 for one in model.modules())
    return layers or getattr(model.config, "attention_dropout", 0.0) > 0


@contextmanager
def reference(model: Any, beta: float) -> Iterator[None]:
    """Let TRL load the reference of a model without a name: it reads the folder that the config names."""
    if not beta or not isinstance(model, PreTrainedModel) or model.config._name_or_path:
        yield
        return
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        model.config._name_or_path = folder
        try:
            yield
        finally:
            model.config._name_or_path = ""
