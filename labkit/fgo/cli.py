"""labkit train fgo: fine-tune any causal LM by FGO or GRPO on any data set with checkable answers."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import checks
from labkit.causal_lm import check_steps, checkpoint_to_resume, lora_config, train
from labkit.fgo.policy import load_policy
from labkit.options import help_field, parse_options
from labkit.paths import PACKAGE, runs_dir, write_json
from labkit.provenance import provenance
from labkit.rows import Rows, as_prompts
from labkit.yaml_values import read_yaml

if TYPE_CHECKING:
    from labkit.fgo.config import FGOConfig
    from labkit.fgo.trainer import FGOTrainer

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

    model: str = help_field(
        "a folder, a name on the hub, lab/sums-reasoner, lab/sums-small, lab/smollm2-135m"
    )
    dataset: str = help_field(
        "owner/name on the hub, a .jsonl or .json file (also .gz), .parquet, .csv or a save_to_disk "
        "folder; or lab/verbose-sums, gym/chain_sum, gym/gsm_symbolic"
    )
    dataset_config: str | None = help_field("of a data set on the hub that has several", None)
    dataset_split: str = help_field("of one on the hub or a save_to_disk folder", "train")
    prompt_column: str = help_field("the column with the question", "prompt")
    answer_column: str = help_field("the column with the answer, or a solution that marks it", "answer")
    instruction: str | None = help_field("text behind each question, on a line of its own", None)
    chat: bool = help_field("ask each question as a user's message, by the model's chat template", False)
    eval_dataset: str | None = help_field("as --dataset; for --eval_strategy steps or epoch", None)
    resume: bool = help_field("go on from the newest checkpoint in the output folder", False)
    reward: list[str] | None = help_field(
        "answer, math, gym, sums or module:function of your own, one or several; --correct or "
        "the first says correct (default: what suits the data set)", None
    )  # fmt: skip
    rows: int = help_field("rows of a built-in data set", 2000)
    lora_r: int = help_field("rank of a LoRA adapter; 0: all weights are trained", 0)
    lora_alpha: int | None = help_field("of the adapter (default: 2 * rank)", None)
    lora_target_modules: list[str] | None = help_field(
        "layers with one (default: all linear ones); of ELAS's low-rank layers factors: up_proj.weight_in",
        None,
    )  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Train, save model and trace into the output folder; 0. ValueError or OSError for bad input."""
    from datasets import Dataset

    from labkit.fgo.record import Recorder
    from labkit.fgo.trainer import FGOTrainer

    # 1) everything that was typed is checked before a model is loaded
    arguments, config = _parse(argv)
    output = Path(str(config.output_dir))
    last = checkpoint_to_resume(output, arguments.resume, "--output")
    rows, held_out, rewards = _data(arguments, config)
    # 2) the model
    settings: Any = config.model_init_kwargs or {}  # TRL has read what was typed
    if not isinstance(settings, dict):
        checks.fail("--model_init_kwargs", settings, "a mapping, as JSON")
    model, tokenizer = load_policy(arguments.model, **settings)
    if not config.beta:  # TRL would say of a loaded model that they are ignored; a reference needs them
        config.model_init_kwargs = None
    if not isinstance(rows[0]["prompt"], str) and tokenizer.chat_template is None:
        given = f"{arguments.model}, whose tokenizer has no chat template"
        allowed = "one with a chat template, as the prompts are conversations (or use texts)"
        checks.fail("--model", given, allowed)
    # 3) training
    asked = (arguments.lora_r, arguments.lora_alpha, arguments.lora_target_modules)
    adapter = lora_config(*asked) if arguments.lora_r else None
    trainer = _one_line(lambda: FGOTrainer(
        model=model, reward_funcs=list(rewards.values()), args=config, processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows), eval_dataset=held_out and Dataset.from_list(held_out),
        peft_config=adapter,
    ))  # fmt: skip
    if adapter is not None:  # what load_policy and transformers look for when they read it back
        trainer.model.peft_config["default"].base_model_name_or_path = arguments.model
    trainer.add_callback(Recorder(trainer, output / SAMPLES))
    settings = {"model": arguments.model, "dataset": arguments.dataset, "reward": " ".join(rewards)}
    settings |= {name: getattr(config, name) for name in ("seed", *SETTINGS)}
    train(trainer, last, settings)
    # 4) what is left behind
    trainer.save_model(str(output))
    if trainer.accelerator.is_main_process:
        _save_trace(trainer, output, settings)
    return 0


def _parse(argv: Sequence[str]) -> tuple[Arguments, "FGOConfig"]:
    import torch

    from labkit.fgo.config import FGOConfig

    on_gpu = torch.cuda.is_available()
    defaults = DEFAULTS | {"bf16": on_gpu, "use_cpu": not on_gpu, "output_dir": str(runs_dir() / "fgo")}
    arguments, config = _one_line(
        parse_options, (Arguments, FGOConfig), argv, presets=presets(), defaults=defaults,
        prog="labkit train fgo", description=__doc__,
    )  # fmt: skip
    checks.integer("--lora_r", arguments.lora_r, 0)
    if arguments.lora_alpha is not None:  # by 0 an adapter is multiplied away and never moves
        checks.integer("--lora_alpha", arguments.lora_alpha, 1)
    check_steps(config)
    if arguments.eval_dataset and config.eval_strategy == "no":
        checks.fail("--eval_strategy", "no", "steps or epoch where there is an --eval_dataset")
    return arguments, config


def presets() -> dict[str, dict[str, Any]]:
    """The paper's settings by name, for ``--config``."""
    files = sorted((PACKAGE / "fgo" / "presets").glob("*.yaml"))
    return {path.stem: read_yaml(path, "--config") for path in files}


def _data(arguments: Arguments, config: "FGOConfig") -> tuple[Rows, Rows | None, dict[str, Any]]:
    """(rows to train on, rows held out, {name: reward function})."""
    from labkit.fgo.rewards import find_reward, load_rows

    columns: dict[str, Any] = {"prompt": arguments.prompt_column, "answer": arguments.answer_column,
               "config": arguments.dataset_config, "split": arguments.dataset_split}  # fmt: skip
    asked: dict[str, Any] = {"instruction": arguments.instruction, "chat": arguments.chat}
    try:
        rows, suits = load_rows(arguments.dataset, checks.integer("--rows", arguments.rows, 1), **columns)
        rewards = {name: find_reward(name) for name in arguments.reward or [suits]}
        held_out = load_rows(arguments.eval_dataset, **columns)[0] if arguments.eval_dataset else None
        if "math" in rewards:
            rewards["math"]([], [])  # is its library there?
    except ImportError as error:
        raise ValueError(str(error)) from error
    if "gym" in rewards and "gym_task" not in rows[0]:
        checks.fail("--reward", "gym", "one that the data set has columns for")
    needed = (config.generation_batch_size or 0) // (config.num_generations or 1)  # by all processes
    if len(rows) < needed:
        allowed = f"at least {needed} rows, the questions of one batch (or make the batch smaller)"
        checks.fail("--dataset", f"{arguments.dataset} of {len(rows)}", allowed)
    return as_prompts(rows, **asked), held_out and as_prompts(held_out, **asked), rewards


def _one_line(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``call``'s result; what TRL, transformers or a missing library raise is one line of ValueError."""
    try:
        return call(*args, **kwargs)
    except json.JSONDecodeError as error:  # of TRL's and transformers' options that take a mapping
        checks.fail("an option that takes a mapping", error.doc, f"JSON ({error.msg})")
    except Exception as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def _save_trace(trainer: "FGOTrainer", output: Path, settings: dict) -> None:
    """Write the trace and result.json: the last log's figures."""
    from labkit.fgo.record import read_samples
    from labkit.traces import TrainTrace

    history = trainer.state.log_history
    log = [entry for entry in history if "reward" in entry]
    curves = [entry for entry in history if "reward" in entry or "eval_reward" in entry]
    size = sum(p.numel() for p in trainer.model.parameters())
    meta = provenance(arm=trainer.args.method, parameters=size, **settings)
    trace = TrainTrace.from_log(
        curves, samples=read_samples(output / SAMPLES, trainer.state.global_step), meta=meta
    )
    trace.save(output / TRACE)
    result: dict[str, float] = {"steps": trainer.state.global_step}
    if log:  # logging_steps may be more than were taken
        shown = ("reward", "fgo/accuracy", "completions/mean_length")
        result |= {key: round(log[-1][key], 4) for key in shown}
    write_json(output / "result.json", result)
    print(f"{output / TRACE}: {result}")
    print(f"its curves and completions: labkit show {shlex.quote(str(output / TRACE))}")
