"""LongRun: one run of the fast loop that can be left at an evaluation and gone on with, bit for bit."""

import gc
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from labkit.checks import fail
from labkit.elas.config import PretrainConfig
from labkit.elas.data import Text
from labkit.elas.model import ElasConfig
from labkit.paths import write_atomic
from labkit.studies.elas.fastloop import FastRun
from labkit.studies.elas.trainstep import TrainStep

SAVE_EVERY = 120.0  # seconds of training between checkpoints


class LongRun(FastRun):
    """A FastRun for large batches and vocabularies, with a checkpoint.

    Its evaluations carry ``train_seconds``: those spent on steps, without compiling and evaluations.

    keep    the checkpoint's file: gone on with if it is there
    chunk   tokens whose logits exist at a time;  other options as FastRun has them
    """

    def __init__(self, config: PretrainConfig, text: Text, device: str, keep: Path, chunk: int, **options):
        self.keep, self.chunk = keep, chunk
        self.trained, self.since, self.saved = 0.0, 0.0, 0.0
        super().__init__(config, text, device, **options)

    def _begin(self, config: PretrainConfig, statistics: bool) -> list[dict[str, float]]:
        if not self.keep.exists():
            return super()._begin(config, statistics)
        self.start(config)
        state: dict[str, Any] = torch.load(self.keep, map_location=self.rows.device, weights_only=True)
        if state["of"] != (mine := self._about()):
            fail("state", str(self.keep), f"a checkpoint of {mine}, not of {state['of']}")
        self.model.load_state_dict(state["model"])
        self.net.load_state_dict(state["model"])  # rounded, as after every step
        self.optimizer.load_state_dict(state["optimizer"])
        self.order, self.generator.bit_generator.state = state["order"].cpu().numpy(), state["generator"]
        self.trained, self.since = state["log"][-1]["train_seconds"], time.perf_counter()
        return state["log"]

    def _about(self) -> str:
        return json.dumps([asdict(self.config), self.text.name])

    def _reached(self, log: list[dict[str, float]], late: bool) -> None:
        if not late and self.trained - self.saved < SAVE_EVERY and log[-1]["step"] < self.config.steps:
            return
        self.saved = self.trained
        state = {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "log": log,
            "of": self._about(), "order": torch.from_numpy(self.order),
            "generator": self.generator.bit_generator.state,
        }  # fmt: skip
        write_atomic(self.keep, lambda path: torch.save(state, path))
        self.since = time.perf_counter()

    def _step(self, on: bool) -> TrainStep:
        """Of the two steps, with and without mask, one is kept: the memory of a graph stays its own."""
        self._switch(on)
        if on not in self.steps:
            began = time.perf_counter()
            self.release()
            rows = self.rows[: self.config.batch_size].long()
            self.steps[on] = TrainStep(self.net, rows, *self.how, chunk=self.chunk)
            self.since += time.perf_counter() - began
        return self.steps[on]

    def release(self) -> None:
        """Give the memory of the compiled steps back; they are made anew when they are needed."""
        for step in self.steps.values():
            step.release()
        self.steps.clear()
        gc.collect()
        if self.rows.is_cuda:
            torch.cuda.empty_cache()

    def _measure(self, step: int, statistics: bool) -> dict[str, float]:
        if self.rows.is_cuda:
            torch.cuda.synchronize()
        self.trained = 0.0 if step == 0 else self.trained + time.perf_counter() - self.since
        row = super()._measure(step, statistics) | {"train_seconds": self.trained}
        self.since = time.perf_counter()
        return row


def flops_per_token(config: ElasConfig, parameters: int, seq_len: int) -> float:
    """Floating-point operations that a training step must do for a token: 6 for each weight it meets.

    Attention is causal: a token meets half of the row, in two products of ``hidden_size``. The embedding
    is looked up. ELAS's masked product counts as the dense one that it runs as.
    """
    met = parameters - config.vocab_size * config.hidden_size
    return 6.0 * (met + config.num_hidden_layers * config.hidden_size * seq_len)
