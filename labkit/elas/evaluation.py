"""Held-out loss, weighted by tokens, in nats and in bits per byte; and the unigram baseline to beat.

The evaluator of the GaLore family starts its batch count at 1, so its mean loss is n/(n+1) of the true
one and its perplexity 1.5 to 2 % too low at their n. Here every predicted token counts once.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from labkit import checks
from labkit.elas.data import Text


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropy per token in nats; the same in bits per byte of text; how many tokens."""

    nats: float
    bits_per_byte: float
    tokens: int

    @classmethod
    def of(cls, total_nats: float, targets: np.ndarray, token_bytes: np.ndarray) -> "Loss":
        """From the summed loss over ``targets`` (token ids)."""
        bits = total_nats / math.log(2)
        return cls(total_nats / targets.size, bits / int(token_bytes[targets].sum()), targets.size)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off inside the block; the mode is restored, after an error too."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, rows: np.ndarray, token_bytes: np.ndarray, batch_size: int = 16
) -> Loss:
    """Loss of a causal language model on ``rows`` (n, length + 1), as ``windows`` cuts them.

    The 2:4 mask is applied as the model's own switch says. Dropout off; the mode is restored.
    """
    if not isinstance(model, torch.nn.Module):
        checks.fail("model", type(model).__name__, "a torch module")
    checks.integer("batch_size", batch_size, 1)
    _check(rows, token_bytes)
    device, total = next(model.parameters()).device, 0.0
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            batch = torch.from_numpy(rows[start : start + batch_size].astype(np.int64)).to(device)
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits.float()
            nats = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
            total += nats.item()
    return Loss.of(total, rows[:, 1:], token_bytes)


def unigram(text: Text, rows: np.ndarray) -> Loss:
    """Loss on ``rows`` of predicting each token by its (add-one smoothed) frequency in training."""
    if not isinstance(text, Text):
        checks.fail("text", type(text).__name__, "what load_text returns")
    _check(rows, text.token_bytes)
    counts = np.bincount(text.train, minlength=text.vocab_size) + 1
    nats = -np.log(counts / counts.sum())
    return Loss.of(float(nats[rows[:, 1:]].sum()), rows[:, 1:], text.token_bytes)


def _check(rows: Any, token_bytes: Any) -> None:
    """ValueError unless these are rows of token ids, and how many bytes each token stands for."""
    if not _integers(token_bytes, 1):
        checks.fail("token_bytes", type(token_bytes).__name__, "an integer array (V,)")
    most = len(token_bytes) - 1
    if not _integers(rows, 2) or rows.shape[1] < 2 or rows.min() < 0 or rows.max() > most:
        allowed = f"an integer array (n, length + 1) of token ids between 0 and {most}"
        checks.fail("rows", getattr(rows, "shape", type(rows).__name__), allowed)


def _integers(array: Any, axes: int) -> bool:
    known = isinstance(array, np.ndarray) and array.dtype.kind in "iu"
    return known and array.ndim == axes and array.size > 0
