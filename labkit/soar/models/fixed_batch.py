"""FixedBatch: a lab model that always runs the same number of rows, so that no answer depends on the batch.

A matrix product picks its algorithm, and with it the order of its sums, by its size. So one row in a
batch of 1 and the same row in a batch of 256 differ in the last bits, and now and then in a token. In
slices of one size, short ones filled up, there is one algorithm. On CUDA the slice is one graph.
"""

from typing import Any

import torch
from torch import nn

from labkit import checks
from labkit.cuda_graph import capture
from labkit.soar.models.transformer import MaskedLM


class FixedBatch(nn.Module):
    """``model`` in slices of exactly ``rows`` rows; for ``decode`` it is that model."""

    def __init__(self, model: MaskedLM, rows: int):
        super().__init__()
        if not isinstance(model, MaskedLM):
            checks.fail("model", type(model).__name__, "one of the lab's own models")
        self.model, self.rows = model.eval(), checks.integer("rows", rows, 1)
        self.mask_id, self.eos_id = model.mask_id, model.eos_id
        self.max_length, self.vocab_size = model.max_length, model.vocab_size
        self.fixed_length = model.fixed_length
        device = next(model.parameters()).device
        self._tokens = torch.zeros(rows, model.max_length, dtype=torch.long, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits = torch.empty(0)  # of the graph
        if device.type == "cuda":
            with torch.no_grad():
                self._graph, self._logits = capture(lambda: self.model(self._tokens))

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    @torch.no_grad()
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (B, L, V) fp32 of tokens (B, L), any B."""
        if tokens.ndim != 2 or tokens.shape[1] != self.max_length:
            checks.fail("tokens", tuple(tokens.shape), f"of shape (B, {self.max_length})")
        parts = []
        for part in tokens.split(self.rows):
            self._tokens[: len(part)] = part  # the rest holds old rows; rows do not see each other
            if self._graph is None:
                parts.append(self.model(self._tokens)[: len(part)])
            else:
                self._graph.replay()
                parts.append(self._logits[: len(part)].clone())
        return torch.cat(parts)

    def logits_at(
        self, tokens: torch.Tensor, positions: torch.Tensor, lengths: list[int] | None = None
    ) -> torch.Tensor:
        """Logits (B, W, V) at ``positions`` (B, W)."""
        return torch.take_along_dim(self(tokens), positions[..., None], 1)
