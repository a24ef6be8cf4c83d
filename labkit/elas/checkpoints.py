"""Small trained models: what the lab ships, and what a run saves for transformers to open.

load_checkpoint(name)  (model, tokenizer) of a trained model in labkit/checkpoints
save_model             a folder for AutoModelForCausalLM; save_checkpoint: the same with a card
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.checks import choice
from labkit.paths import CHECKPOINTS
from labkit.traces import TrainTrace

if TYPE_CHECKING:
    from labkit.elas.model import ElasForCausalLM


def load_checkpoint(name: str, *, device: str = "cpu") -> tuple["ElasForCausalLM", object]:
    """(model in float32 and eval mode, ``tokenizers.Tokenizer``) of the lab's own trained models.

    name   "lab/elas-3m"; README.md beside the weights says how it was trained
    """
    known = {f"lab/{path.name}": path for path in CHECKPOINTS.glob("elas*") if path.is_dir()}
    folder = known[choice("name", name, tuple(sorted(known)))]
    import torch
    from tokenizers import Tokenizer

    from labkit.elas.model import ElasForCausalLM

    model = ElasForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    torch.nn.Module.to(model, device)
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def save_model(folder: Path, model: "ElasForCausalLM", tokenizer) -> None:
    """What transformers opens by path: weights, config, generation config and the tokenizer.

    tokenizer   a ``tokenizers.Tokenizer`` of data.py; its END is where generation begins, ends and pads
    """
    from transformers import PreTrainedTokenizerFast

    from labkit.elas.data import END

    end = tokenizer.token_to_id(END)
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = settings.eos_token_id = end
    # not in model.config, where it would keep END's embedding from being trained
    model.generation_config.pad_token_id = end
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, padding_side="left",
        model_max_length=model.config.max_position_embeddings, clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)  # fmt: skip


def save_checkpoint(folder: Path, model: "ElasForCausalLM", trace: TrainTrace, tokenizer) -> None:
    """bfloat16 safetensors, tokenizer and configuration, see ``save_model``, and a card."""
    import torch

    save_model(folder, model.to_dtype(torch.bfloat16), tokenizer)
    (folder / "README.md").write_text(card(folder.name, trace))


def card(name: str, trace: TrainTrace) -> str:
    """What a model is, where its data came from, how it was trained and how good it is: Markdown."""
    meta, origin = trace.meta, trace.meta["provenance"]
    config = meta["config"]
    mask = "with the 2:4 mask" if meta["arm"].startswith("elas") else "without a mask"
    return f"""# {name}

A low-rank ReLU² language model ({meta["parameters"]:,} parameters), trained {mask}. Input and output are
tokens of the byte-level BPE in tokenizer.json.

- Data: {config["source"]} ({meta["text"]}), {meta["steps_done"]} of {config["steps"]} planned steps of
  {config["batch_size"]} x {config["seq_len"]} tokens, seed {config["seed"]}
- Test loss: {meta["test_nats"]:.4f} nats per token, {meta["test_bits_per_byte"]:.4f} bits
  per byte over {meta["test_tokens"]:,} tokens; counting tokens alone gives
  {meta["unigram_bits_per_byte"]:.4f} bits per byte
- Trained with `{origin["command"]}` on {origin["device"]}, {origin["time"]},
  {json.dumps(origin["versions"])}
- Weights: Apache-2.0, like the lab. Text: {config["source"]}, see labkit/elas/sources.py for its licence
"""
