"""labkit train fgo: fine-tune any causal LM by FGO or GRPO on any data set with checkable answers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labkit import checks
from labkit.causal_lm import load_causal_lm, newest_checkpoint, step_of
from labkit.options import parse_options
from labkit.paths import runs_dir, write_atomic
from labkit.provenance import provenance

if TYPE_CHECKING:
    from labkit.fgo.trainer import FGOConfig, FGOTrainer

# The paper's learning rate and group; batch and lengths for one GPU or a patient CPU.
DEFAULTS: dict[str, Any] = {
    "max_steps": 200, "learning_rate": 1e-5, "num_generations": 8, "per_device_train_batch_size": 64,
    "max_completion_length": 256, "logging_steps": 1, "save_steps": 50, "save_total_limit": 2,
    "lr_scheduler_type": "constant", "report_to": "none", "gradient_checkpointing": False,
}  # fmt: skip
TRACE, SAMPLES = "train_trace.npz", "samples.jsonl"
# What the trace says of a run beside model, data set and reward.
SETTINGS = (
    "method", "alpha", "beta_entropy", "entropy", "clamp", "scale", "zero_all_wrong", "correct", "beta",
    "loss_type", "learning_rate", "lr_scheduler_type", "num_generations", "max_completion_length",
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_iterations", "temperature",
    "max_steps", "logging_steps",
)  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """What the command is told beside the fields of FGOConfig."""

    model: str = field(
        metadata={
            "help": "a folder, a name on the hub, lab/sums-reasoner, lab/sums-small, lab/smollm2-135m"
        }
    )
    dataset: str = field(
        metadata={
            "help": ".jsonl or .json (also .gz), .parquet, .csv or a save_to_disk folder, with the columns "
            "prompt and answer; or lab/verbose-sums, lab/small-sums, gym/chain_sum, gym/gsm_symbolic"
        }
    )
    resume: bool = field(
        default=False, metadata={"help": "go on from the newest checkpoint in the output folder"}
    )
    reward: Literal["answer", "math", "gym", "sums", "first-line"] | None = field(
        default=None, metadata={"help": "default: what suits the data set"}
    )
    rows: int = field(default=2000, metadata={"help": "rows of a built-in data set"})


def main(argv: Sequence[str]) -> int:
    """Train, save model and trace into the output folder; 0. ValueError or OSError for bad input."""
    # 1) everything that was typed is checked before a model is loaded
    arguments, config = _parse(argv)
    output = Path(str(config.output_dir))
    last = newest_checkpoint(output)
    if arguments.resume and last is None:
        checks.fail("--output", str(output), "a folder with a checkpoint to resume from")
    if not arguments.resume and last is not None:
        checks.fail("--output", str(output), f"new or empty, or come with --resume: it holds {last.name}")
    rows, reward = _rows(arguments)
    needed = (config.generation_batch_size or 0) // (config.num_generations or 1)  # by all processes
    if len(rows) < needed:
        allowed = f"at least {needed} rows, the questions of one batch (or make the batch smaller)"
        checks.fail("--dataset", f"{arguments.dataset} of {len(rows)}", allowed)
    # 2) the model: the finished one where no step is left
    finished = last if last is not None and 0 < config.max_steps <= step_of(last) else None
    settings: Any = config.model_init_kwargs or {}  # a mapping, TRL has read what was typed
    model, tokenizer = load_policy(str(finished or arguments.model), **settings)
    if not isinstance(rows[0]["prompt"], str) and tokenizer.chat_template is None:
        given = f"{arguments.model}, whose tokenizer has no chat template"
        allowed = "one with a chat template, as the prompts are conversations (or use texts)"
        checks.fail("--model", given, allowed)
    # 3) training
    trainer = _trainer(model, tokenizer, rows, reward, config)
    _train(trainer, output, last, finished)
    # 4) what is left behind
    trainer.save_model(str(output))
    if trainer.accelerator.is_main_process:
        _save_trace(trainer, output, model=arguments.model, dataset=arguments.dataset, reward=reward)
    return 0


def _parse(argv: Sequence[str]) -> tuple[Arguments, "FGOConfig"]:
    import torch

    from labkit.fgo.trainer import FGOConfig

    on_gpu = torch.cuda.is_available()
    defaults = DEFAULTS | {"bf16": on_gpu, "use_cpu": not on_gpu, "output_dir": str(runs_dir() / "fgo")}
    arguments, config = parse_options(
        (Arguments, FGOConfig), argv, defaults=defaults, prog="labkit train fgo", description=__doc__
    )
    return arguments, config


def _rows(arguments: Arguments) -> tuple[list[dict[str, Any]], str]:
    """(rows, name of the reward)."""
    from labkit.fgo.rewards import REWARDS, load_rows

    try:
        rows, suits = load_rows(arguments.dataset, checks.integer("--rows", arguments.rows, 1))
        reward = arguments.reward or suits
        if reward == "gym" and "gym_task" not in rows[0]:
            checks.fail("--reward", reward, "one that the data set has columns for")
        if reward == "math":
            REWARDS["math"]([], [])  # is its library there?
    except ImportError as error:
        raise ValueError(str(error)) from error
    return rows, reward


def _trainer(
    model, tokenizer, rows: list[dict[str, Any]], reward: str, config: "FGOConfig"
) -> "FGOTrainer":
    from datasets import Dataset

    from labkit.fgo.rewards import REWARDS
    from labkit.fgo.trainer import FGOTrainer

    try:
        return FGOTrainer(
            model=model, reward_funcs=REWARDS[reward], args=config,
            train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        )  # fmt: skip
    except ImportError as error:  # an option of TRL's that wants another library
        raise ValueError(str(error)) from error


def _train(trainer: "FGOTrainer", output: Path, last: Path | None, finished: Path | None) -> None:
    from transformers import TrainerState

    from labkit.fgo.record import Recorder

    if finished:  # Trainer would take one more step
        print(f"{output}: already finished at step {step_of(finished)}")
        trainer.state = TrainerState.load_from_json(str(finished / "trainer_state.json"))
    else:
        trainer.add_callback(Recorder(trainer, output / SAMPLES))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    if trainer.state.global_step == 0:
        given = {name: getattr(trainer.args, name) for name in ("max_steps", "num_train_epochs")}
        checks.fail("--max_steps", given, "such that a step is taken")


def _save_trace(trainer: "FGOTrainer", output: Path, **sources: str) -> None:
    """Write the trace and result.json: the last log's figures."""
    from labkit.fgo.record import read_samples
    from labkit.traces import TrainTrace

    log = [entry for entry in trainer.state.log_history if "reward" in entry]
    meta = provenance(
        arm=trainer.args.method, seed=trainer.args.seed, **sources,
        parameters=sum(p.numel() for p in trainer.model.parameters()),
        **{name: getattr(trainer.args, name) for name in SETTINGS},
    )  # fmt: skip
    trace = TrainTrace.from_log(
        log, samples=read_samples(output / SAMPLES, trainer.state.global_step), meta=meta
    )
    trace.save(output / TRACE)
    result: dict[str, float] = {"steps": trainer.state.global_step}
    if log:  # logging_steps may be more than were taken
        shown = ("reward", "fgo/accuracy", "completions/mean_length")
        result |= {key: round(log[-1][key], 4) for key in shown}
    write_atomic(output / "result.json", lambda part: part.write_text(json.dumps(result) + "\n"))
    print(f"{output / TRACE}: {result}")


def load_policy(name: str, **settings: Any):
    """(model, tokenizer) of a lab name, a folder or a hub name: safetensors only, no remote code.

    settings  of ``from_pretrained`` (FGOConfig's model_init_kwargs). dtype is float32 by default, as in
              TRL, whatever the file holds: at these learning rates most bfloat16 weights would never move.

    ValueError if it cannot be loaded.
    """
    from labkit.fgo import smollm
    from labkit.fgo.lab import reasoner
    from labkit.fgo.tasks import char_tokenizer

    if name in reasoner.NAMES:
        return reasoner.load_reasoner(name)[0], char_tokenizer()
    if name == smollm.NAME:
        return smollm.load_smollm()
    lab = ", ".join([*reasoner.NAMES, smollm.NAME])
    model, tokenizer = load_causal_lm(name, f" or one of {lab}", **settings)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer
