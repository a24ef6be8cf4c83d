"""What trainers of any causal LM share: loading it, and Trainer's checkpoints."""

from importlib import import_module
from pathlib import Path
from typing import Any

from labkit.paths import is_json


def load_causal_lm(name: str, others: str = "", **settings: Any):
    """(model, tokenizer) of a folder or a name on the hub: safetensors only, no remote code.

    settings  of ``from_pretrained``. dtype is float32 by default, as in TRL, whatever the file holds: at
              small learning rates most bfloat16 weights would never move.
    others    what else --model may be, for the error

    ValueError if it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import_module("labkit.elas")  # so that transformers opens the folders it saves
    safe = {"use_safetensors": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(name, **{"dtype": "float32"} | settings | safe)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"--model must be a causal LM that transformers loads{others}; {name}: {reason}"
        ) from error
    return model, tokenizer


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps that was written whole, or None."""
    states = folder.glob("checkpoint-*/trainer_state.json")  # the file that Trainer writes last
    return max((path.parent for path in states if is_json(path)), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The step at which Trainer wrote a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])
