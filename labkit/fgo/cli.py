"""labkit train fgo: fine-tune any causal LM by FGO or GRPO on any data set with checkable answers."""

import argparse
import dataclasses
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from labkit import checks
from labkit.paths import is_json, runs_dir, write_atomic
from labkit.provenance import provenance
from labkit.yaml_values import parse_overrides

# The paper's learning rate and group; batch and lengths for one GPU or a patient CPU.
DEFAULTS: dict[str, Any] = {
    "max_steps": 200, "learning_rate": 1e-5, "num_generations": 8, "per_device_train_batch_size": 64,
    "max_completion_length": 256, "logging_steps": 1, "save_steps": 50, "save_total_limit": 2,
    "lr_scheduler_type": "constant", "report_to": "none", "gradient_checkpointing": False,
}  # fmt: skip
REWARD_NAMES = ("answer", "math", "gym", "sums", "first-line")
TRACE, SAMPLES = "train_trace.npz", "samples.jsonl"
# What the trace says of a run beside model, data set and reward.
SETTINGS = (
    "method", "alpha", "beta_entropy", "entropy", "clamp", "scale", "zero_all_wrong", "correct", "beta",
    "loss_type", "learning_rate", "lr_scheduler_type", "num_generations", "max_completion_length",
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_iterations", "temperature",
    "max_steps", "logging_steps",
)  # fmt: skip
SAFE = {"use_safetensors": True, "trust_remote_code": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``labkit train fgo``; nothing heavy is imported for them."""
    parser.add_argument(
        "--model", required=True,
        help="a folder, a name on the hub, lab/sums-reasoner, lab/sums-small, lab/smollm2-135m",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", required=True,
        help=".jsonl or .json (also .gz), .parquet, .csv or a save_to_disk folder, with the columns prompt "
        "and answer; or lab/verbose-sums, lab/small-sums, gym/chain_sum, gym/gsm_symbolic",
    )  # fmt: skip
    parser.add_argument("--output", help="folder for checkpoints, model and trace (default: runs/fgo)")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint in --output"
    )
    parser.add_argument("--reward", choices=REWARD_NAMES, help="default: what suits the data set")
    parser.add_argument(
        "--rows", type=int, default=2000, help="rows of a built-in data set (default: 2000)"
    )
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="overrides",
        help="a field of FGOConfig (method, alpha, beta_entropy, entropy, and all of TRL's GRPOConfig); "
        "the value is read as YAML",
    )  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Train, save model and trace into the output folder; 0. ValueError or OSError for bad input."""
    import torch

    output = Path(arguments.output) if arguments.output else runs_dir() / "fgo"
    last = newest_checkpoint(output)
    if arguments.resume and last is None:
        checks.fail("--output", str(output), "a folder with a checkpoint to resume from")
    if not arguments.resume and last is not None:
        checks.fail("--output", str(output), f"new or empty, or come with --resume: it holds {last.name}")
    rows, reward = _rows(arguments)
    config = _config(output, parse_overrides(arguments.overrides), torch.cuda.is_available())
    asked = config.generation_batch_size // config.num_generations  # by all processes together
    if len(rows) < asked:
        allowed = f"at least {asked} rows, the questions of one batch (or -p a smaller batch)"
        checks.fail("--dataset", f"{arguments.dataset} of {len(rows)}", allowed)
    finished = last is not None and 0 < config.max_steps <= _step(last)
    model, tokenizer = load_policy(
        str(last) if finished else arguments.model, config.seed, **(config.model_init_kwargs or {})
    )
    if not isinstance(rows[0]["prompt"], str) and tokenizer.chat_template is None:
        told = f"{arguments.model}, whose tokenizer has no chat template"
        checks.fail(
            "--model", told, "one with a chat template, as the prompts are conversations (or use texts)"
        )

    from datasets import Dataset
    from transformers import TrainerState

    from labkit.fgo.record import Recorder
    from labkit.fgo.rewards import REWARDS
    from labkit.fgo.trainer import FGOTrainer

    try:
        trainer = FGOTrainer(
            model=model, reward_funcs=REWARDS[reward], args=config,
            train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        )  # fmt: skip
    except ImportError as error:  # an option of TRL's that wants another library
        raise ValueError(str(error)) from error
    if finished:  # Trainer would take one more step
        print(f"{output}: already finished at step {_step(last)}")
        trainer.state = TrainerState.load_from_json(str(last / "trainer_state.json"))
    else:
        trainer.add_callback(Recorder(trainer, output / SAMPLES))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    if trainer.state.global_step == 0:
        given = {name: getattr(config, name) for name in ("max_steps", "num_train_epochs")}
        checks.fail("-p", given, "settings that let a step be taken")
    trainer.save_model(str(output))
    if trainer.accelerator.is_main_process:
        _save_trace(trainer, output, model=arguments.model, dataset=arguments.dataset, reward=reward)
    return 0


def _rows(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
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


def _save_trace(trainer, output: Path, **asked: str) -> None:
    """Write the trace and result.json: the last log's figures."""
    from labkit.fgo.record import read_samples
    from labkit.traces import TrainTrace

    log = [entry for entry in trainer.state.log_history if "reward" in entry]
    meta = provenance(
        arm=trainer.args.method, seed=trainer.args.seed, **asked,
        parameters=sum(p.numel() for p in trainer.model.parameters()),
        **{name: getattr(trainer.args, name) for name in SETTINGS},
    )  # fmt: skip
    trace = TrainTrace.from_log(
        log, samples=read_samples(output / SAMPLES, trainer.state.global_step), meta=meta
    )
    trace.save(output / TRACE)
    told: dict[str, float] = {"steps": trainer.state.global_step}
    if log:  # logging_steps may be more than were taken
        shown = ("reward", "fgo/accuracy", "completions/mean_length")
        told |= {key: round(log[-1][key], 4) for key in shown}
    write_atomic(output / "result.json", lambda part: part.write_text(json.dumps(told) + "\n"))
    print(f"{output / TRACE}: {told}")


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps that was written whole, or None."""
    states = folder.glob("checkpoint-*/trainer_state.json")  # the file that Trainer writes last
    return max((path.parent for path in states if is_json(path)), key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def load_policy(name: str, seed: int = 0, **settings: Any):
    """(model, tokenizer) of a lab name, a folder or a hub name: safetensors only, no remote code.

    settings  of ``from_pretrained`` (FGOConfig's model_init_kwargs). dtype is float32 by default, as in
              TRL, whatever the file holds: at these learning rates most bfloat16 weights would never move.

    ValueError if it cannot be loaded.
    """
    from labkit.fgo import smollm
    from labkit.fgo.lab import reasoner
    from labkit.fgo.tasks import char_tokenizer

    if name in reasoner.MODELS:
        return reasoner.load_reasoner(name)[0], char_tokenizer()
    if name == smollm.NAME:
        return smollm.load_smollm()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import_module("labkit.elas")  # so that transformers opens the folders it saves
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(name, **{"dtype": "float32"} | settings | SAFE)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        told = str(error).strip().split("\n")[0]
        lab = ", ".join([*reasoner.MODELS, smollm.NAME])
        raise ValueError(
            f"--model must be a causal LM that transformers loads or one of {lab}; {name}: {told}"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _config(output: Path, overrides: dict[str, Any], on_gpu: bool):
    from labkit.fgo.trainer import FGOConfig

    known = {field.name: field.default for field in dataclasses.fields(FGOConfig) if field.init}
    settings = DEFAULTS | {"bf16": on_gpu, "use_cpu": not on_gpu}
    for name, value in overrides.items():
        if name not in known:
            hint = checks.did_you_mean(name, known)
            raise ValueError(f"-p must name a field of FGOConfig; got {name!r}{hint}")
        settings[name] = _read(name, value, known[name])
    try:
        return FGOConfig(output_dir=str(output), **settings)
    except TypeError as error:  # a value of a wrong kind, from deep inside TRL
        raise ValueError(f"-p must give fields of FGOConfig values of their kind; {error}") from error


def _read(name: str, value: Any, default: Any) -> Any:
    """``value`` as its field means it: YAML 1.1 takes 1e-5 for a word and the word no for False."""
    if value is False and name.endswith("_strategy"):
        return "no"
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        try:
            value = float(value) if isinstance(value, str) else value
        except ValueError:
            checks.fail(f"-p {name}", value, "a number")
    return value
