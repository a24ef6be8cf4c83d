"""The loop behind ``decode``: score the active rows, move every beam, let finished prompts go."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.device import LEAST_CAPABILITY
from labkit.soar.beams import Beams, Windows
from labkit.soar.config import DecodeConfig
from labkit.soar.models.diffusion_lm import eos_ids
from labkit.soar.moves import Move, TorchMove
from labkit.soar.prompts import Layout
from labkit.soar.recorder import Recorder
from labkit.soar.scoring import Scorer
from labkit.soar.strategies import Rule
from labkit.traces import BeamTrace


class Search:
    """P prompts, ``batch_size`` of them at a time, K beams each; ``run`` once, then ``trace``.

    Finished prompts and beams cost no forward: a finished prompt makes room for the next longer one that
    waits. One host sync a step.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        layout: Layout,
        config: DecodeConfig,
        device: torch.device,  # where the model wants its tokens
        stop: Callable[[tuple[int, ...]], bool] | None = None,
        watch: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ):
        self.stop, self.watch = stop, watch
        self.layout, self.rule = layout, Rule.of(config, layout.count, device)
        aligned = getattr(model, "block_causal", None) is not None
        self.windows = Windows.of(config, layout, device, aligned)
        self.scorer = Scorer(model, layout, config)
        self.recorder = Recorder(self.rule, layout, config.record)
        self.eos_ids = eos_ids(model) if config.eos_early_stop and config.gen_length else ()
        self.tokens = layout.tokens.to(device)  # (P, L)
        prompts, length = self.tokens.shape
        self.ranks = self.windows.ranks(length).masked_fill(self.tokens != config.mask_id, -1)
        self.fixed = self.ranks < 0  # bool (P, L): given by the prompt, or padding
        self.sequences, self.count = self.tokens.clone(), layout.count.to(device)
        self.scores = torch.zeros(prompts, dtype=torch.float64, device=device)
        self.calls, self.rows = np.zeros((2, prompts), int)
        # By length, so that prompts which share a batch need little padding.
        order = np.argsort(layout.lengths, kind="stable")
        order = order[layout.count.numpy()[order] > 0]
        # ``batch`` (A,): the prompt at each place of the batch, -1 where there is none any more.
        self.batch, self.waiting = np.split(order, [config.batch_size or prompts])

    def run(self) -> None:
        """Decode all prompts."""
        self.move = self._new_move()
        nothing_to_fill = np.flatnonzero(self.layout.count.numpy() == 0)
        if len(nothing_to_fill):
            self.recorder.finished(self._start(nothing_to_fill))
        while (active := self._replace_finished()).any():
            self._step(active)
            if self.watch is not None:
                there = self.batch >= 0
                self.watch(self.batch[there], self.move.beams.tokens[:, 0].cpu().numpy()[there])
        if (unfilled := ~self.fixed & (self.sequences == self.windows.mask_id)).any():
            raise self._error(unfilled)

    def trace(self, meta: dict[str, Any]) -> BeamTrace:
        """What was found and recorded; ``meta`` is extended by what the search did."""
        done = {
            "forward_calls": self.scorer.forward_calls,
            "forward_rows": self.scorer.forward_rows,
            "beams_moved_by": "plain torch" if isinstance(self.move, TorchMove) else "Triton kernel",
        }
        return self.recorder.trace(
            sequences=np.where(self.recorder.padding, -1, self.sequences.cpu().numpy()),
            prompt_length=np.array(self.layout.prompt_length),
            scores=self.scores.cpu().numpy(),
            calls=self.calls,
            rows=self.rows,
            meta=meta | done,
        )

    def _new_move(self) -> Move:
        """The kernel, which knows one end of a text, where it can run and nobody records; else torch."""
        beams, rule, windows = self._start(self.batch), self.rule, self.windows
        given = beams, rule, windows, self.ranks, self.eos_ids
        # A schedule by masks that the kernel does not count.
        scheduled = rule.steps is not None and windows.masks is not None
        plain = not rule.fused or self.recorder.keep or self.stop or len(self.eos_ids) > 1 or scheduled
        kernel = None if plain else fused_move(self.tokens.device)
        if kernel and kernel.suits(beams, rule, windows):
            from labkit.soar.beam_check import trusted  # late: needs Triton

            if trusted(move := kernel(*given)):
                return move
        return TorchMove(*given, recorder=self.recorder, stop=self.stop)

    def _replace_finished(self) -> np.ndarray:
        """Hand over finished prompts, admit waiting ones; bool (A, K): the beams that have masks left."""
        move, batch = self.move, self.batch
        active = move.active.cpu().numpy()  # the one host sync of a step
        finished = np.flatnonzero((batch >= 0) & ~active.any(1))
        # Where a finished prompt costs nothing, it stays until its place is wanted.
        if not len(finished) or not (move.compacts or len(self.waiting) or not active.any()):
            return active
        # 1) The best beam is the answer.
        beams = move.beams.pick(self._on_device(finished))
        self.recorder.finished(beams)
        self.sequences[beams.prompt] = beams.tokens[:, 0]
        self.scores[beams.prompt] = beams.score(self.rule)[:, 0]
        batch[finished] = -1
        # 2) The next prompts take the places.
        admitted, self.waiting = np.split(self.waiting, [len(finished)])
        if len(admitted):
            places = finished[: len(admitted)]
            batch[places] = admitted
            active[places, 0] = True
            move.put(self._on_device(places), self._start(admitted))
        # 3) Places that stay empty are dropped.
        if move.compacts and active.any() and (batch < 0).any():
            kept = np.flatnonzero(batch >= 0)
            move.keep(self._on_device(kept))
            self.batch, active = batch[kept], active[kept]
        return active

    def _step(self, active: np.ndarray) -> None:
        """One forward of the ``active`` beams, bool (A, K), and one move of all."""
        # 1) Which row of the forward a beam has (-1: none), which beam and prompt a row has.
        active_rows = np.flatnonzero(active)
        row_of_beam = np.full(active.size, -1)
        row_of_beam[active_rows] = np.arange(len(active_rows))
        prompt_of_row = self.batch[active_rows // self.rule.width]
        both = self._on_device(np.concatenate([row_of_beam, active_rows]))  # one copy to the device
        rows, index = both.tensor_split([active.size])
        # 2) Tokens (R, L) and the positions (R, W) where each may commit, scored.
        beams, where = self.move.beams.tokens.flatten(0, 1), self.move.where.flatten(0, 1)
        tokens, positions = beams.index_select(0, index), where.index_select(0, index)
        scores = self.scorer(tokens, positions, self.fixed, prompt_of_row)
        self.rows += np.bincount(prompt_of_row, minlength=len(self.rows))
        self.calls[self.batch[active.any(1)]] += 1
        # 3) Propose, rank, merge, keep.
        self.move(rows, *scores)

    def _start(self, prompts: np.ndarray) -> Beams:
        return Beams.start(self.tokens, self.count, self.rule.width, self._on_device(prompts))

    def _on_device(self, index: np.ndarray) -> Tensor:
        return torch.tensor(index, device=self.tokens.device)  # always a copy

    def _error(self, unfilled: Tensor) -> Exception:  # bool (P, L): masks that are left
        """Of a search that ended with masks: what the model says there now tells which."""
        prompt = unfilled.any(1).nonzero()[:1, 0]
        where = self.windows.slots[prompt]
        _, confidence, *_ = self.scorer(self.sequences[prompt], where, self.fixed, prompt.cpu().numpy())
        masked = unfilled[prompt].gather(1, where)
        broken, masks, name = (confidence.isnan() & masked).sum().item(), masked.sum().item(), prompt.item()
        if broken:
            found = f"prompt {name}: NaN at {broken} of the {masks} masks it keeps"
            return ValueError(f"model must give finite logits; {found}")
        return RuntimeError(
            f"the search ran out of beams: prompt {name} keeps {masks} masks, the logits there are finite; "
            "LABKIT_KERNEL=reference decodes without the fused kernel"
        )


def fused_move(device: torch.device) -> Any:
    """``beam_kernel.FusedMove`` where Triton can run it and LABKIT_KERNEL does not say "reference"."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    if os.environ.get("LABKIT_KERNEL") == "reference":
        return None
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return None
    from labkit.soar.beam_kernel import FusedMove

    return FusedMove
