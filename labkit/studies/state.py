"""Where a training stands, as files from which another process goes on exactly.

Resumable   what a training must have: weights, optimisers, how far it is
save_state, load_state
load_weights   those alone, for another training to begin from
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from labkit import checks
from labkit.paths import write_atomic, write_json


class HasWeights(Protocol):
    """A module, or what has its two methods."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, weights: Mapping[str, Any], /) -> Any: ...


class Resumable(Protocol):
    """A training. Its draws come from ``step``, so that no random state has to be kept."""

    step: int
    seconds: float
    log: list[dict[str, Any]]

    @property
    def model(self) -> HasWeights: ...

    @property
    def optimisers(self) -> Sequence[torch.optim.Optimizer]: ...


def save_state(run: Resumable, folder: Path) -> None:
    """All that ``load_state`` needs to go on exactly: weights, the optimisers' moments, step, curves."""
    tensors = {f"model.{name}": value.contiguous() for name, value in run.model.state_dict().items()}
    for number, optimiser in enumerate(run.optimisers):
        for index, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"{number}.{index}.{name}": value for name, value in moments.items()}
    log = [{name: float(value) for name, value in entry.items()} for entry in run.log]
    write_atomic(
        folder / "state.safetensors", lambda part: save_file(tensors, part, {"step": str(run.step)})
    )
    write_json(folder / "state.json", {"step": run.step, "seconds": run.seconds, "log": log}, strict=True)


def load_weights(model: HasWeights, folder: Path) -> None:
    """Set a model's weights to those of a state."""
    with safe_open(folder / "state.safetensors", "pt") as file:
        model.load_state_dict({name: file.get_tensor(f"model.{name}") for name in model.state_dict()})


def load_state(run: Resumable, folder: Path) -> None:
    """Put what ``save_state`` wrote into ``run``, which was made with the same options."""
    about = json.loads((folder / "state.json").read_text())
    with safe_open(folder / "state.safetensors", "pt") as file:
        if file.metadata()["step"] != str(about["step"]):
            checks.fail("--out", str(folder), "a folder whose state.json and state.safetensors agree")
    load_weights(run.model, folder)
    tensors = load_file(folder / "state.safetensors")
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in run.optimisers]
    for key, value in tensors.items():
        number, index, name = key.split(".", 2)
        if number != "model":
            states[int(number)].setdefault(int(index), {})[name] = value
    for optimiser, state in zip(run.optimisers, states, strict=True):
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    run.step, run.seconds, run.log = about["step"], about["seconds"], about["log"]
