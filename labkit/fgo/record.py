"""What a training run of FGOTrainer leaves beside its curves: sampled completions and whole counts."""

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from labkit.fgo.trainer import FGOTrainer

COUNTS = ("invalid_groups", "constant_groups")


def latest_samples(trainer: FGOTrainer, keep: int) -> list[dict[str, Any]]:
    """The first ``keep`` responses of the latest batch, as ``TrainTrace.samples`` has them."""
    logs = trainer._logs
    flat = {name: values.flatten().tolist() for name, values in trainer.last_groups.items()}
    return [
        {
            "step": trainer.state.global_step, "prompt": _text(logs["prompt"][i]),
            "text": _text(logs["completion"][i]), "correct": flat["correct"][i] > 0,  # NaN is not
            "length": flat["length"][i], "entropy": flat["entropy"][i], "advantage": flat["advantages"][i],
        }
        for i in range(min(keep, len(flat["correct"])))
    ]  # fmt: skip


class Recorder(TrainerCallback):
    """Appends each step's first responses to ``path``, so that a killed run keeps them, and replaces TRL's
    mean of a count over the steps between two logs by their sum.
    """

    def __init__(self, trainer: FGOTrainer, path: Path, keep: int = 8):
        self.trainer, self.path, self.keep = trainer, path, keep
        self.seen: dict[str, Any] | None = None
        self.counts = dict.fromkeys(COUNTS, 0)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:  # a resumed run takes the steps after its checkpoint anew
            kept = read_samples(self.path, state.global_step) if state.global_step else []
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(json.dumps(sample) + "\n" for sample in kept), encoding="utf-8")

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.last_groups is self.seen:  # the same responses as in the step before
            return
        self.seen = self.trainer.last_groups
        for name, number in self.trainer.last_counts.items():
            self.counts[name] += number
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(
                    json.dumps(sample) + "\n" for sample in latest_samples(self.trainer, self.keep)
                )

    def on_log(self, args, state, control, **kwargs):
        entry = state.log_history[-1]
        if f"fgo/{COUNTS[0]}" in entry:
            entry |= {f"fgo/{name}": float(number) for name, number in self.counts.items()}
            self.counts = dict.fromkeys(COUNTS, 0)


def read_samples(path: Path, last_step: int) -> list[dict[str, Any]]:
    """The samples of a run up to ``last_step``; a last line that a kill cut short is left out."""
    samples = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            samples += [json.loads(line)] if line else []
        except json.JSONDecodeError:
            break
    return [sample for sample in samples if sample["step"] <= last_step]


def _text(message: Any) -> str:
    return message if isinstance(message, str) else "\n".join(turn["content"] or "" for turn in message)
