"""Seconds of a call, and of a model's forwards within it."""

import time
from collections.abc import Callable

import torch
from torch import nn


def timed(call: Callable[[], object]) -> tuple[object, float]:
    """(result, wall seconds) of ``call`` with all device work done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


class Timed(nn.Module):
    """``model`` with the seconds of its forwards: by CUDA events on a GPU, by the clock on a CPU."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self._spans = model, []
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
