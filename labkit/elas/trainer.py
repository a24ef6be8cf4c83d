"""The loop of pretrain: transformers' Trainer with Loro and the instruments."""

import dataclasses
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerState

from labkit.causal_lm import PARTS, Rotation, StepBar, check_whole, checkpoints, newest_checkpoint, step_of
from labkit.device import is_main_process
from labkit.elas.config import LORO_REVISION, PretrainConfig
from labkit.elas.data import Text, windows
from labkit.elas.evaluation import evaluate, unigram
from labkit.elas.instruments import gradient_agreement, layer_statistics
from labkit.elas.loro import Loro
from labkit.elas.model import ElasForCausalLM
from labkit.elas.schedule import cosine_restart
from labkit.progress import Progress, bar
from labkit.provenance import provenance
from labkit.traces import TrainTrace

# Trainer's own log entries that say nothing about learning (and differ between equal runs).
UNWANTED = {
    "epoch", "total_flos", "train_loss", "train_runtime",
    "train_samples_per_second", "train_steps_per_second",
}  # fmt: skip


class Rows(Dataset):
    """(n, length + 1) token rows as inputs and labels; the model shifts them by one."""

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = torch.from_numpy(self.rows[index].astype(np.int64))
        return {"input_ids": row, "labels": row}


class Instruments(TrainerCallback):
    """Measures at step 0, every n steps and at the end."""

    def __init__(self, config: PretrainConfig, model: ElasForCausalLM, text: Text, held_out: np.ndarray):
        self.config, self.model, self.text, self.held_out = config, model, text, held_out

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            state.log_history.append(self.measure() | {"step": 0})

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        if step % self.config.eval_every == 0 or step == state.max_steps:
            # straight into the history, which checkpoints carry: Trainer.log would cancel the loss row
            state.log_history.append(self.measure() | {"step": step})

    def measure(self) -> dict[str, float]:
        """Held-out loss and, for ReLU², the switch and the per-layer statistics as ``name/layer``."""
        loss = evaluate(self.model, self.held_out, self.text.token_bytes)
        row = {"eval_nats": loss.nats, "eval_bits_per_byte": loss.bits_per_byte}
        if activations := self.model.activations():
            row["mask_on"] = float(activations[0].sparse)
            found = layer_statistics(self.model, self.held_out[:8, :-1])
            agreement = gradient_agreement(self.model, self.held_out[:2, :-1])
            found |= {f"gradient_{name}": layers for name, layers in agreement.items()}
            for name, layers in found.items():
                row |= {f"{name}/{i}": float(value) for i, value in enumerate(layers)}
        return row


def run(
    config: PretrainConfig,
    model: ElasForCausalLM,
    text: Text,
    folder: Path,
    *,
    resume: bool,
    device: str,
    progress: Progress,
) -> TrainTrace:
    """Train ``model`` in place; see ``pretrain``."""
    # 1) where it goes on: a finished run is loaded as it is
    held_out = windows(text.held_out, config.seq_len, max(1, config.eval_tokens // config.seq_len))
    checkpoint = _last_checkpoint(folder, resume)
    before = 0 if checkpoint is None else step_of(checkpoint)
    if checkpoint is not None and before >= config.steps:
        return _finished(config, model, text, held_out, folder, checkpoint, progress)
    if checkpoint is not None:
        check_whole(checkpoint, "output_dir")
    # 2) the loop: Trainer with Loro, its schedule and the instruments
    every = config.exact_every if model.config.rank is not None else None
    optimizer = Loro.for_model(model, lr=config.lr, exact_every=every, weight_decay=config.weight_decay)
    schedule = LambdaLR(
        optimizer,
        lambda step: cosine_restart(step, total=config.steps, warmup=config.lr_warmup, every=every),
    )
    trainer = Trainer(
        model=model,
        args=_arguments(config, folder, device),
        train_dataset=Rows(windows(text.train, config.seq_len)),
        optimizers=(optimizer, schedule),
        callbacks=[
            Rotation(),
            Instruments(config, model, text, held_out),
            StepBar(progress, desc=config.arm),
        ],
    )
    trainer.remove_callback(PrinterCallback)  # the trace holds every row
    # 3) the run
    if on_gpu := trainer.args.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    if trainer.state.global_step < config.steps:
        raise RuntimeError(f"training ended at step {trainer.state.global_step} of {config.steps}")
    # 4) what it says
    log = trainer.state.log_history
    trace = trace_of(config, model, text, held_out, log, seconds, optimizer.findings)
    rows = config.batch_size * config.accumulation * trainer.accelerator.num_processes
    tokens = rows * config.seq_len * (config.steps - before)
    trace.meta["tokens_per_second"] = tokens / seconds  # evaluations included
    if on_gpu:
        trace.meta["peak_bytes"] = torch.cuda.max_memory_allocated()
    return trace


def _arguments(config: PretrainConfig, folder: Path, device: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        max_grad_norm=config.max_grad_norm,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,  # a NaN is a finding, not something to smooth over
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or config.steps,
        save_total_limit=2,
        use_cpu=device == "cpu",
        seed=config.seed,
        data_seed=config.seed,
        ddp_find_unused_parameters=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=device != "cpu" and torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
    )


def _last_checkpoint(folder: Path, resume: bool) -> Path | None:
    """The newest whole checkpoint, those that were cut short cleared away; without ``resume`` all are."""
    found = newest_checkpoint(folder) if resume else None
    if not is_main_process():  # it may have refused this folder: nothing is lost by the others
        return found
    for old in checkpoints(folder):
        if found is None or step_of(old) > step_of(found):
            shutil.rmtree(old, ignore_errors=True)
    if not resume:
        (folder / "trace.npz").unlink(missing_ok=True)
    return found


def _finished(config, model, text, held_out, folder, checkpoint, progress) -> TrainTrace:
    """Load a run that has taken all its steps into ``model``; Trainer would take one more."""
    traced = (folder / "trace.npz").exists()
    check_whole(checkpoint, "output_dir", ["model.safetensors"] if traced else PARTS[1:3])
    load_model(model, str(checkpoint / "model.safetensors"))
    done = config.steps
    bar(progress, total=done, initial=done, desc=f"{config.arm} already finished", unit="step").close()
    if traced:
        return TrainTrace.load(folder / "trace.npz")
    # killed before the trace was written: the checkpoint has all its rows
    log = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).log_history
    saved = torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
    findings = saved["param_groups"][0].get("findings", [])
    return trace_of(config, model, text, held_out, log, 0.0, findings)


def trace_of(config, model, text, held_out, log, seconds: float, findings: list[dict]) -> TrainTrace:
    """The trace of a run from its log (rows of ``step`` and values) and the optimiser's findings."""
    wanted = [{k: v for k, v in row.items() if k not in UNWANTED} for row in log]
    base, final = unigram(text, held_out), [row for row in log if "eval_nats" in row][-1]
    trace = TrainTrace.from_log(
        [row for row in wanted if len(row) > 1],
        meta={
            "arm": config.arm,
            "config": dataclasses.asdict(config),
            "parameters": sum(p.numel() for p in model.parameters()),
            "text": text.name,
            "seed": config.seed,
            "unigram_nats": base.nats,
            "unigram_bits_per_byte": base.bits_per_byte,
            "eval_nats": final["eval_nats"],
            "eval_bits_per_byte": final["eval_bits_per_byte"],
            "eval_tokens": base.tokens,
            "seconds": seconds,
            "findings": [*findings, *_not_finite(log)],
            "loro_revision": LORO_REVISION,
            "provenance": provenance(),
        },
    )
    for name in sorted({key.split("/")[0] for key in trace.series if "/" in key}):
        layers = sum(key.startswith(f"{name}/") for key in trace.series)
        trace.series[name] = np.stack([trace.series.pop(f"{name}/{i}") for i in range(layers)], -1)
    return trace


def _not_finite(log: list[dict]) -> list[dict]:
    for row in log:
        for name in ("loss", "eval_nats"):
            if not math.isfinite(row.get(name, 0.0)):
                return [{"step": row["step"], "where": name, "what": f"is {row[name]}"}]
    return []
