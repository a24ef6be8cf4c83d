"""lab/gsm, a diffusion LM for word problems: its data on a device, its weights, a step of its training.

Half of the rows are masked uniformly, half as block decoding sees them (labkit.soar.masking). gsm_run has
the command.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from labkit.soar.masking import draw, mask_answers, masked_loss
from labkit.soar.models.diffusion_lm import DiffusionLM
from labkit.soar.tasks.training import BETAS, CLIP, WEIGHT_DECAY
from labkit.studies.soar.gsm_data import ANSWER, PROMPT, SPECIAL

HOLD = 0.6  # share of the steps at the full learning rate
LEAST_RATE = 0.02  # of masks in a row
BLOCKS, BLOCK_SHARE = (8, 16, 32, 64), 0.5
LENGTH = PROMPT + ANSWER
PAD, MASK, EOS = (SPECIAL.index(token) for token in ("<pad>", "<mask>", "<eos>"))


class Problems:
    """The training problems on a device, one after another in one tensor."""

    def __init__(self, file: Path, device: str):
        with np.load(file, allow_pickle=False) as packed:
            tokens, lengths = packed["tokens"], packed["lengths"].astype(np.int64)
        self.tokens = torch.from_numpy(tokens.astype(np.int16)).to(device)  # ids stay below 2^15
        self.lengths = torch.from_numpy(lengths).to(device)  # (N, 2): prompt, solution without <eos>
        self.first = self.lengths.sum(1).cumsum(0) - self.lengths.sum(1)

    def draw(self, count: int, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Long (B, LENGTH) rows, (B,) where their answers begin, (B,) slots these use with their <eos>."""
        pick = torch.randint(len(self.first), (count,), generator=source, device=source.device)
        start, solution = self.lengths[pick].unbind(1)
        place = torch.arange(LENGTH, device=source.device)
        where = (self.first[pick, None] + place).clamp(max=len(self.tokens) - 1)
        rows = torch.where(place < (start + solution)[:, None], self.tokens[where].long(), EOS)
        return torch.where(place < (start + ANSWER)[:, None], rows, PAD), start, solution + 1


@dataclass
class Run:
    """What one process trains with, and how far it is."""

    model: DiffusionLM
    optimisers: list[torch.optim.Optimizer]
    problems: Problems
    batch: int  # rows of this process
    rank: int
    ranks: int
    seed: int
    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


def new_model(width: int, layers: int, vocabulary: int, device: str) -> DiffusionLM:
    """A Llama that sees the whole row, with fresh weights in fp32."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64), max_position_embeddings=512, tie_word_embeddings=False,
        pad_token_id=PAD, bos_token_id=None, eos_token_id=EOS,
    )  # fmt: skip
    return DiffusionLM(LlamaForCausalLM(config), MASK, EOS, 512, False).to(device)


def optimisers(model: DiffusionLM, kind: str, learning_rate: float, fused: bool) -> list:
    """AdamW for all, or for the layers' matrices Muon, whose steps are scaled to the length of AdamW's."""
    named = [(name, p) for name, p in model.named_parameters()]
    matrices = [p for name, p in named if kind == "muon" and ".layers." in name and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    adam = torch.optim.AdamW(
        [p for _, p in named if id(p) not in chosen], lr=learning_rate, betas=BETAS,
        weight_decay=WEIGHT_DECAY, fused=fused or None,
    )  # fmt: skip
    if not matrices:
        return [adam]
    muon = torch.optim.Muon(
        matrices, lr=learning_rate, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
    )
    return [adam, muon]


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """Share of the highest: linear warm-up, constant for HOLD of the steps, linear to 0."""
    return min(1, (step + 1) / warmup, (1 - step / steps) / (1 - HOLD))


def train_step(run: Run, rate: float, peak: float) -> Tensor:
    """One step on this process's rows, gradients averaged over processes; the loss, not waited for."""
    device = run.problems.tokens.device
    # A source per step and process: nothing of it has to be kept to go on exactly.
    source = torch.Generator(device).manual_seed(
        ((run.seed * 1_000_003 + run.step) * 64 + run.rank) % 2**62
    )
    rows, start, used = run.problems.draw(run.batch, source)
    draws = draw(
        run.batch, ANSWER, source, block_lengths=BLOCKS, block_share=BLOCK_SHARE, least_rate=LEAST_RATE
    )
    slots = start[:, None] + torch.arange(ANSWER, device=device)
    answers = rows.gather(1, slots)
    states = mask_answers(answers, used, draws, MASK)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        hidden = run.model.hidden(rows.scatter(1, slots, states.inputs), start + ANSWER)
        logits = run.model.logits_of(torch.take_along_dim(hidden, slots[..., None], 1))
    loss = masked_loss(logits, answers, states.counted)
    loss.backward()
    if run.ranks > 1:
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= run.ranks
        for gradient, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), CLIP)
    for optimiser in run.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = peak * rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    run.step += 1
    return loss.detach()
