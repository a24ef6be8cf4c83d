"""labkit train dlm: make a Llama, Qwen2 or Qwen3 causal LM a masked diffusion LM, from prompts and answers.

The output folder gets model/, which labkit.soar.load_model and labkit decode open, the curves
(train_trace.npz), settings.json, result.json, and with --lora_r adapter/. Several GPUs:
torchrun --nproc_per_node N -m labkit train dlm ...
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainingArguments

from labkit.causal_lm import (
    check_steps,
    checkpoint_to_resume,
    import_peft,
    load_causal_lm,
    lora_config,
    train,
)
from labkit.options import help_field, parse_options
from labkit.paths import runs_dir, write_json
from labkit.provenance import provenance
from labkit.rows import FORMATS, read_rows
from labkit.soar.adapt import Adaptation, DiffusionTrainer, Rows, add_mask
from labkit.soar.models.adapted import save_adapted
from labkit.soar.models.loaders import FOLDERS, folder_of
from labkit.traces import TrainTrace

DEFAULTS: dict[str, Any] = {
    "max_steps": 1000, "learning_rate": 1e-4, "per_device_train_batch_size": 16, "logging_steps": 10,
    "save_steps": 200, "save_total_limit": 2, "lr_scheduler_type": "cosine", "warmup_steps": 50,
    "weight_decay": 0.01, "report_to": "none",
}  # fmt: skip
SETTINGS = (
    "max_steps", "learning_rate", "lr_scheduler_type", "per_device_train_batch_size",
    "gradient_accumulation_steps", "weight_decay", "logging_steps",
)  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """What the command is told beside the fields of Adaptation and TrainingArguments."""

    model: str = help_field(f"{', '.join(FOLDERS)}, a folder or a name on the hub: Llama, Qwen2 or Qwen3")
    dataset: str = help_field(f"a {FORMATS}, or owner/name on the hub, with the columns prompt and answer")
    resume: bool = help_field("go on from the newest checkpoint in the output folder", False)


def main(argv: Sequence[str]) -> int:
    """Train, save model and curves into the output folder; 0. ValueError or OSError for bad input."""
    # 1) everything that was typed is checked before a model is loaded
    on_gpu = torch.cuda.is_available()
    defaults = DEFAULTS | {"bf16": on_gpu, "use_cpu": not on_gpu, "output_dir": str(runs_dir() / "dlm")}
    arguments, adaptation, config = parse_options(
        (Arguments, Adaptation, TrainingArguments), argv, defaults=defaults, prog="labkit train dlm",
        description=__doc__,
    )  # fmt: skip
    check_steps(config)
    output = Path(str(config.output_dir))
    last = checkpoint_to_resume(output, arguments.resume, "--output_dir")
    rows = read_rows(arguments.dataset)
    # 2) the model
    shipped = arguments.model.startswith("lab/")
    net, tokenizer = load_causal_lm(
        str(folder_of(arguments.model, "--model")) if shipped else arguments.model
    )
    mask_id = add_mask(net, tokenizer)
    data = Rows(rows, tokenizer, adaptation, net.config.max_position_embeddings)
    model: Any = net
    if adaptation.lora_r:  # of the embedding the mask's row alone is trained
        adapter = lora_config(adaptation.lora_r, trainable_token_indices=[mask_id])
        model = import_peft("--lora_r").get_peft_model(net, adapter)
    # 3) training
    config.remove_unused_columns = False
    trainer = DiffusionTrainer(
        model=model, args=config, rows=data, adaptation=adaptation, mask_id=mask_id,
        processing_class=tokenizer,
    )  # fmt: skip
    if trainer.accelerator.is_main_process and data.left_out:
        print(
            f"{data.left_out} of {len(rows)} rows are too long for --answer_length or the model: left out"
        )
    settings = {"model": arguments.model, "dataset": arguments.dataset, "seed": config.seed}
    settings |= asdict(adaptation) | {name: getattr(config, name) for name in SETTINGS}
    train(trainer, last, settings)
    # 4) what is left behind
    if trainer.accelerator.is_main_process:
        _save(trainer, tokenizer, output, settings)
    return 0


def _save(trainer: DiffusionTrainer, tokenizer: Any, output: Path, settings: dict) -> None:
    about, model = trainer.adaptation, trainer.accelerator.unwrap_model(trainer.model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = sum(p.numel() for p in model.parameters())
    if about.lora_r:
        # The mask's row is in it by itself; without the word, peft would add both whole embeddings.
        model.save_pretrained(output / "adapter", save_embedding_layers=False)
        model = model.merge_and_unload()
    assert isinstance(model, PreTrainedModel)
    save_adapted(
        model, tokenizer, output / "model", mask_id=trainer.mask_id, shift=about.shift,
        block_causal=about.block_causal,
    )  # fmt: skip
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    meta = provenance(arm="dlm", parameters=size, trained_parameters=trained, **settings)
    TrainTrace.from_log(log, meta=meta).save(output / "train_trace.npz")
    result: dict[str, float] = {"steps": trainer.state.global_step, "parameters": size}
    if log:  # logging_steps may be more than were taken
        result["loss"] = round(log[-1]["loss"], 4)
    write_json(output / "result.json", result)
    print(
        f"{trained:,} of {size:,} parameters trained: {json.dumps(result)}\n"
        f"model: {output / 'model'}   (labkit decode --model {shlex.quote(str(output / 'model'))} "
        f"--gen-length {trainer.slots} --block-length {max(trainer.block_lengths)} QUESTION)"
    )
    if log:
        print(f"curves: {output / 'train_trace.npz'}")
