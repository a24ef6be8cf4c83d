"""A live run of GRPO or FGO on the verbose sums, small enough for one core: TRL in, TrainTrace out."""

import copy
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PrinterCallback

from labkit import checks
from labkit.causal_lm import StepBar
from labkit.fgo.config import METHODS, FGOConfig
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.groups import sample_sums
from labkit.fgo.lab.sampler import Sampler, encode
from labkit.fgo.measures import summarise
from labkit.fgo.record import Recorder, read_samples
from labkit.fgo.tasks import char_tokenizer, sum_reward, verbose_sums
from labkit.fgo.trainer import FGOTrainer
from labkit.progress import Progress
from labkit.provenance import provenance
from labkit.traces import TrainTrace


def reinforce(
    model: PreTrainedModel,
    method: str,
    *,
    steps: int = 12,
    questions: int = 16,
    group: int = 8,
    max_tokens: int = 72,
    progress: Progress = True,
    **settings: Any,
) -> TrainTrace:
    """Train a COPY of a character model by ``method``, "fgo" or "grpo"; the model itself is untouched.

    steps          optimiser steps; each samples ``questions`` x ``group`` responses once and learns once
    max_tokens     longest response; a longer one is cut and counts as wrong
    progress       show a bar, or a function called as progress(steps done, steps); it may raise to stop
    settings       any field of FGOConfig: learning_rate (of AdamW, constant; 5e-4 here), alpha,
                   beta_entropy, entropy, scale, zero_all_wrong, ...; seed (0 here) of the questions and of
                   the sampling: arms of one seed see the same questions

    It computes where the model is. On a GPU the responses come from the lab's sampler (bfloat16, one CUDA
    graph a cache length); on a CPU from transformers' ``generate``. ``meta["sampler"]`` says which.

    The trace's series carry TRL's names plus fgo/*; the values at step s were measured on the responses
    sampled at that step, before its update; the first eight of them are the trace's samples.
    ``meta["before"]`` and ``meta["after"]`` are what ``examine`` finds.
    """
    checks.choice("method", method, METHODS)
    checks.integer("steps", steps, 1)
    checks.integer("questions", questions, 1)
    checks.integer("group", group, 2)
    checks.integer("max_tokens", max_tokens, 1)
    settings = {"learning_rate": 5e-4, "seed": 0} | settings
    checks.number("learning_rate", settings["learning_rate"], 0)
    seed, on_gpu = checks.integer("seed", settings["seed"], 0), model.device.type == "cuda"
    batch = {
        "method": method, "max_steps": steps, "per_device_train_batch_size": questions * group,
        "num_generations": group, "max_completion_length": max_tokens,
    }  # fmt: skip
    rows = verbose_sums(questions * steps, seed=seed + 2000)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        # transformers 5.23 renames the option; the old name is what every supported version knows.
        warnings.filterwarnings("ignore", ".*gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", ".*'rollout_func', which is an experimental", UserWarning)
        trainer = _trainer(copy.deepcopy(model), rows, {"output_dir": folder} | batch | settings)
        before = examine(trainer.model, seed=seed, max_tokens=max_tokens)
        kept = Path(folder, "samples.jsonl")
        for callback in (Recorder(trainer, kept), StepBar(progress, desc=method.upper(), leave=False)):
            trainer.add_callback(callback)
        trainer.train()
        samples = read_samples(kept, steps)
        after = examine(trainer.model, seed=seed, max_tokens=max_tokens)
    log = [entry for entry in trainer.state.log_history if "reward" in entry]
    chosen = {"method": method, "steps": steps, "questions": questions, "group": group, **settings}
    chosen["sampler"] = "CUDA graphs, bfloat16" if on_gpu else "transformers' generate"
    meta = provenance(arm=method, **chosen, before=before, after=after)
    return TrainTrace.from_log(log, samples=samples, meta=meta)


def _trainer(model: PreTrainedModel, rows: list[dict[str, str]], settings: dict[str, Any]) -> FGOTrainer:
    on_gpu = model.device.type == "cuda"
    config = FGOConfig(
        temperature=1.0, lr_scheduler_type="constant", use_cpu=not on_gpu, bf16=False,
        gradient_checkpointing=False, logging_steps=1, save_strategy="no", report_to="none",
        disable_tqdm=True, dataloader_pin_memory=False, **settings,
    )  # fmt: skip
    longest = max(len(row["prompt"]) for row in rows)
    trainer = FGOTrainer(
        model=model, reward_funcs=sum_reward, args=config, processing_class=char_tokenizer(),
        train_dataset=Dataset.from_list([{key: row[key] for key in ("prompt", "answer")} for row in rows]),
        rollout_func=_Rollout(longest, settings["max_completion_length"]) if on_gpu else None,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # it would print every log line
    return trainer


def examine(model: Any, *, max_tokens: int = 72, seed: int = 0) -> dict[str, float]:
    """Means over four responses each to 64 fixed questions; one seed draws the same for any model.

    accuracy in [0, 1], length in tokens, entropy (sampled sum) and entropy_per_token in nats, and act,
    accuracy in % per 100 tokens.
    """
    trace = sample_sums(
        model, verbose_sums(64, seed=seed + 4000), group=4, max_tokens=max_tokens, seed=seed
    )
    return summarise(trace.correct, trace.length, trace.entropy["sampled_sum"], trace.entropy["full_sum"])


class _Rollout:
    """TRL's ``rollout_func``: the responses of a step from the lab's sampler, its buffers and graphs kept.

    prompt, max_tokens   of the longest prompt and the longest response, in tokens
    """

    def __init__(self, prompt: int, max_tokens: int):
        self.prompt, self.max_tokens = prompt, max_tokens
        self.sampler: Sampler | None = None

    def __call__(self, prompts: list[str], trainer: FGOTrainer) -> dict[str, Any]:
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self.sampler is None:
            fleet = Fleet(model, 1, model.device)
            self.sampler = Sampler(fleet, len(prompts), self.prompt, self.max_tokens)
        sampler = self.sampler
        sampler.fleet.read(model)
        ids, length = (part.to(model.device)[None] for part in encode(prompts, self.prompt))
        found = sampler(ids, length)
        written, mask, begins = found.ids[0].cpu(), found.mask[0].cpu(), length[0].tolist()
        return {
            "prompt_ids": [row[:n].tolist() for row, n in zip(written, begins, strict=True)],
            "completion_ids": [row[kept].tolist() for row, kept in zip(written, mask, strict=True)],
            "logprobs": None,  # one update a step: TRL computes them again, in the trainer's precision
        }
