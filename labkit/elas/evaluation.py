"""Held-out loss, weighted by tokens, in nats and in bits per byte; and the unigram baseline to beat.

The evaluator of the GaLore family starts its batch count at 1, so its mean loss is n/(n+1) of the true
one and its perplexity 1.5 to 2 % too low at their n. Here every predicted token counts once.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

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


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, rows: np.ndarray, token_bytes: np.ndarray, batch_size: int = 16
) -> Loss:
    """Loss of a causal language model on ``rows`` (n, length + 1), as ``windows`` cuts them.

    The 2:4 mask is applied as the model's own switch says. Dropout off; the mode is restored.
    """
    was_training = model.training
    model.eval()
    device, total = next(model.parameters()).device, 0.0
    for start in range(0, len(rows), batch_size):
        batch = torch.from_numpy(rows[start : start + batch_size].astype(np.int64)).to(device)
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        total += F.cross_entropy(
            logits.float().flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"
        ).item()
    model.train(was_training)
    return Loss.of(total, rows[:, 1:], token_bytes)


def unigram(text: Text, rows: np.ndarray) -> Loss:
    """Loss on ``rows`` of predicting each token by its (add-one smoothed) frequency in training."""
    counts = np.bincount(text.train, minlength=text.vocab_size) + 1
    nats = -np.log(counts / counts.sum())
    return Loss.of(float(nats[rows[:, 1:]].sum()), rows[:, 1:], text.token_bytes)
