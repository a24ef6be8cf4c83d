"""Checkpoints that the lab ships, each with a card."""

import json
from pathlib import Path

import torch

from labkit.elas.checkpoints import save_model
from labkit.elas.model import ElasForCausalLM
from labkit.traces import TrainTrace


def save_checkpoint(folder: Path, model: ElasForCausalLM, trace: TrainTrace, tokenizer) -> None:
    """bfloat16 safetensors, tokenizer and configuration, see ``save_model``, and a card."""
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
