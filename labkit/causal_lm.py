"""What the training commands share: loading a causal LM, Trainer's checkpoints, its bar, peft."""

import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from labkit.checks import fail
from labkit.paths import is_json, write_json
from labkit.progress import Progress, bar, tell_rows
from labkit.reading import read_json

# What Trainer resumes from. Where one of the last three is missing it goes on, from another state.
PARTS = ("*.json", "*.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth")


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
        if name.startswith("lab/") and not Path(name).is_dir():  # the hub is not asked for it
            raise ValueError("the lab has no causal LM of this name")
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
        options = {"dtype": "float32", "output_loading_info": True} | settings | safe
        made: Any = AutoModelForCausalLM.from_pretrained(name, **options)
        model, loaded = made
        if missing := sorted(loaded["missing_keys"]):  # transformers would draw them at random
            raise ValueError(f"{len(missing)} weights are missing: {', '.join(missing[:3])}")
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"--model must be a causal LM that transformers loads{others}; {name}: {reason}"
        ) from error
    return model, tokenizer


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps that was written whole, or None."""
    state = "trainer_state.json"  # the file that Trainer writes last
    return max((path for path in checkpoints(folder) if is_json(path / state)), key=step_of, default=None)


def checkpoints(folder: Path) -> list[Path]:
    """What Trainer has named checkpoint-N in a folder, whole or not; checkpoint-best is none."""
    found = folder.glob("checkpoint-*")
    return [path for path in found if re.fullmatch("checkpoint-[0-9]+", path.name) and path.is_dir()]


def step_of(checkpoint: Path) -> int:
    """The step at which Trainer wrote a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def check_whole(checkpoint: Path, option: str, parts: Sequence[str] = PARTS) -> None:
    """ValueError, in which ``option`` is at fault, if a part of the checkpoint is missing or damaged."""
    for part in parts:
        found = sorted(checkpoint.glob(part))
        damaged = [path.name for path in found if not _is_whole(path)]
        if damaged or not found:
            told = f"{damaged[0]} is damaged" if damaged else f"{part} is missing"
            fail(option, str(checkpoint.parent), f"a folder with a whole {checkpoint.name}: its {told}")


def _is_whole(path: Path) -> bool:
    if path.suffix == ".json":
        return is_json(path)
    if path.suffix != ".safetensors":
        return zipfile.is_zipfile(path)  # what torch.save writes; its directory stands at the end
    try:
        with safe_open(path, "pt"):
            return True
    except SafetensorError:
        return False


def checkpoint_to_resume(folder: Path, resume: bool, option: str) -> Path | None:
    """The newest checkpoint; ValueError, in which ``option`` is at fault, unless it is there as wanted."""
    last = newest_checkpoint(folder)
    if resume and last is None:
        fail(option, str(folder), "a folder with a checkpoint to resume from")
    if not resume and last is not None:
        fail(option, str(folder), f"new or empty, or come with --resume: it holds {last.name}")
    return last


def check_steps(config: TrainingArguments) -> None:
    """ValueError for no step at all, where Trainer would take one."""
    if config.max_steps == 0:
        fail("--max_steps", 0, "above 0, or -1: as many as --num_train_epochs make")


def changed(path: Path, mine: Mapping[str, Any], option: str) -> list[str]:
    """Names in ``mine`` whose values are others in the JSON of the run that is resumed.

    ValueError, in which ``option`` is at fault, if that is no mapping.
    """
    theirs = read_json(path, option)
    if not isinstance(theirs, dict):
        fail(option, str(path.parent), f"a folder whose {path.name} is a mapping")
    return sorted(name for name in mine if mine[name] != theirs.get(name))


def train(trainer: Trainer, last: Path | None, settings: Mapping[str, Any]) -> None:
    """Train from the checkpoint ``last`` on, if there is one, or read the one of a run that is finished.

    ``settings`` are kept in settings.json; those of a resumed run that differ from it are named.

    ValueError if no step was taken, the checkpoint is not whole, or what an option asks for is not
    installed.
    """
    if trainer.accelerator.is_main_process:
        kept = Path(str(trainer.args.output_dir)) / "settings.json"
        if last is None or not kept.exists():
            write_json(kept, settings)
        elif others := changed(kept, settings, "the output folder"):
            print(f"resumed with another {', '.join(others)} than {kept} has")
    finished = last is not None and 0 < trainer.args.max_steps <= step_of(last)
    sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled  # their files have other names
    if last is not None and not (sharded or trainer.args.save_only_model):
        check_whole(last, "the output folder", PARTS[:2] if finished else PARTS)
    if last is not None and finished:  # Trainer would take one more step
        print(f"{last.parent}: already finished at step {step_of(last)}")
        trainer._load_from_checkpoint(str(last))
        trainer.state = TrainerState.load_from_json(str(last / "trainer_state.json"))
    else:
        trainer.add_callback(Rotation())
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        except ImportError as error:  # an optimiser, for instance
            raise ValueError(" ".join(str(error).split())) from error
    if trainer.state.global_step == 0:
        given = {name: getattr(trainer.args, name) for name in ("max_steps", "num_train_epochs")}
        fail("--max_steps", given, "such that a step is taken")


def import_peft(option: str) -> ModuleType:
    """peft; ValueError, which ``option`` needs it, where it is not installed."""
    try:
        return import_module("peft")
    except ImportError as error:
        told = "needs peft, which is not installed: pip install 'labkit[lora]'"
        raise ValueError(f"{option} {told}") from error


def lora_config(
    rank: int, alpha: int | None = None, targets: Sequence[str] | None = None, **settings: Any
) -> Any:
    """A peft ``LoraConfig`` on the layers ``targets``, by default all linear ones; None: alpha = 2 rank.

    Low-rank layers of ELAS are adapted by the names of their factors: ``up_proj.weight_in``.
    """
    factors = [name for name in targets or () if ".weight_" in name]
    layers = [name for name in targets or () if name not in factors]
    return import_peft("--lora_r").LoraConfig(
        r=rank, lora_alpha=2 * rank if alpha is None else alpha, task_type="CAUSAL_LM",
        target_modules=layers or (None if factors else "all-linear"), target_parameters=factors or None,
        **settings,
    )  # fmt: skip


class Rotation(TrainerCallback):
    """Deletes the oldest checkpoints beyond ``save_total_limit``.

    Trainer's own rotation takes every folder checkpoint-* for one of its own: it would delete a
    checkpoint-best that somebody has put aside.
    """

    limit: int | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.limit, args.save_total_limit = args.save_total_limit, None

    def on_save(self, args, state, control, **kwargs):
        if not args.should_save or self.limit is None or self.limit < 1:
            return
        # a later one was cut short before the run was resumed
        found = [one for one in checkpoints(Path(args.output_dir)) if step_of(one) <= state.global_step]
        best = Path(state.best_model_checkpoint or "").name
        *others, _ = sorted(found, key=step_of)
        old = [one for one in others if one.name != best]
        for one in old[: max(0, len(found) - self.limit)]:
            shutil.rmtree(one, ignore_errors=True)

    def on_train_end(self, args, state, control, **kwargs):
        args.save_total_limit = self.limit


class StepBar(TrainerCallback):
    """One bar of optimiser steps, with the last training loss."""

    def __init__(self, progress: Progress, **options: Any):
        self.progress, self.options = progress, options

    def on_train_begin(self, args, state, control, **kwargs):
        total, done = state.max_steps, state.global_step
        self.bar = bar(self.progress, total=total, initial=done, unit="step", **self.options)
        self.bar.update(0)

    def on_step_end(self, args, state, control, **kwargs):
        tell_rows(self.progress, state.log_history)
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}")

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()
