"""Seconds of a call and of a model's forwards within it; the stages of a study, run one by one."""

import time
import traceback
from collections.abc import Callable, Sequence

import torch
from torch import nn

from labkit.soar.models.diffusion_lm import eos_ids


def timed(call: Callable[[], object]) -> tuple[object, float]:
    """(result, wall seconds) of ``call`` with all device work done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def run_stages(
    stages: dict[str, Callable[[], dict]],
    names: Sequence[str],
    record: Callable[[str, dict, float], None],
    until: float = float("inf"),
) -> int:
    """Run the stages of ``names`` in that order; how many failed: each is told and the others still run.

    record  is given a stage's name, what it returned and its wall seconds as soon as it is done
    until   a ``time.perf_counter()`` after which no further one is started
    """
    failed = 0
    for name in names:
        if time.perf_counter() > until:
            print(f"{name}: no time left", flush=True)
            continue
        try:
            found, spent = timed(stages[name])
        except (ValueError, RuntimeError):
            traceback.print_exc()
            failed += 1
            continue
        record(name, found, spent)
    return failed


class Timed(nn.Module):
    """``model`` with the seconds of its forwards: by CUDA events on a GPU, by the clock on a CPU."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self._spans = model, []
        self.eos_ids = eos_ids(model)
        for name in ("mask_id", "eos_id", "max_length", "vocab_size"):
            setattr(self, name, getattr(model, name))

    def logits_at(self, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        if not tokens.is_cuda:
            began = time.perf_counter()
            logits = self.model.logits_at(tokens, *rest)
            self._spans.append(time.perf_counter() - began)
            return logits
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        logits = self.model.logits_at(tokens, *rest)
        end.record()
        self._spans.append((start, end))
        return logits

    forward = logits_at

    def seconds(self) -> float:
        """Since the last call."""
        spans, self._spans = self._spans, []
        if spans and isinstance(spans[0], tuple):
            torch.cuda.synchronize()
            return sum(start.elapsed_time(end) for start, end in spans) / 1000
        return sum(spans)
