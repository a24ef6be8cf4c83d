"""One step of every beam in plain torch: the reference of ``beam_kernel``, and the one that records."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labkit.soar.beams import Beams, Windows, fingerprint_codes, select
from labkit.soar.models.diffusion_lm import as_ids
from labkit.soar.prediction import NEVER, UNMEASURED, Prediction
from labkit.soar.recorder import Recorder
from labkit.soar.remasking import RunningConfidence
from labkit.soar.strategies import Rule


class Move:
    """The beams of a batch and how they move. ``keep`` is called where ``compacts`` says so alone."""

    compacts: bool  # a finished prompt costs time, so the caller should drop it
    where: Any  # (A, K, W) int64 the positions they may fill
    active: Any  # (A, K) bool which beams still have masks
    beams: Beams
    rule: Rule
    windows: Windows
    eos_id: int | None  # what a finished text is filled up with

    def __init__(self, beams, rule, windows, ranks, eos_id):
        """ranks: ``windows.ranks`` of the whole sequence; eos_id: None, one id or several."""
        self.beams, self.rule, self.windows, self._ranks = beams, rule, windows, ranks
        self.eos_ids = as_ids(eos_id)
        self.eos_id = self.eos_ids[0] if self.eos_ids else None
        self._codes = fingerprint_codes(ranks.shape[1], ranks.device)

    def put(self, index: Tensor, others: Beams) -> None:
        """Put ``others`` in place of the prompts at ``index``."""
        self.beams.put(index, others)

    def keep(self, index: Tensor) -> None:
        """Drop all prompts but those at ``index``."""
        raise NotImplementedError

    def __call__(
        self,
        rows: Tensor,  # (A * K,) int64: which row below is of this beam; -1: none
        token: Tensor,  # (R, W) int64, or (R, W * branches), see ``Rule``
        confidence: Tensor,  # (R, W) fp32; a beam that is shown NaN proposes nothing
    ) -> None:
        """One step of all beams, given what the model predicts at ``where``."""
        raise NotImplementedError


class TorchMove(Move):
    """``Move`` in torch; a recorder and ``stop`` want a copy on the host every step, else nothing waits."""

    compacts = True

    def __init__(
        self,
        *given: Any,
        recorder: Recorder | None = None,
        stop: Callable[[tuple[int, ...]], bool] | None = None,  # see ``decode``
    ):
        super().__init__(*given)
        self._open, self._recorder, self._stop = self._ranks >= 0, recorder, stop
        self._remasking = None
        if self.rule.strategy == "rcr":
            prompts, length = self._ranks.shape
            self._remasking = RunningConfidence(prompts, length, self._ranks.device)
        self._ends = torch.tensor(self.eos_ids, device=self._ranks.device)

    @property
    def where(self) -> Tensor:
        return self.windows.positions(self.beams)[0]

    @property
    def active(self) -> Tensor:
        return self.beams.active

    def keep(self, index: Tensor) -> None:
        self.beams = self.beams.pick(index)

    def __call__(
        self, rows: Tensor, token: Tensor, confidence: Tensor, measure: Tensor | None = None
    ) -> None:
        beams, rule, windows = self.beams, self.rule, self.windows
        # 1) What the model predicts in the block of each beam; the last row for a beam without one.
        where, masked = windows.positions(beams)
        if rule.branches > 1:
            where, masked = (item.repeat(1, 1, rule.branches) for item in (where, masked))
        confidence = torch.where(masked, confidence[rows].view(where.shape), NEVER)
        confidence = torch.where(confidence.isnan().any(-1, keepdim=True), NEVER, confidence)
        prediction = Prediction(where, token[rows].view(where.shape), confidence)
        if measure is not None:
            prediction.measure = measure[rows].view(where.shape)
        # 2) Candidates, and the best of them.
        offered = rule.offered(prediction)
        progress = windows.progress(beams) if rule.strategy == "prophet" else UNMEASURED
        number = rule.num_transfer_tokens(offered, beams.prompt, windows.sizes(beams), beams.step, progress)
        if self._remasking is None:
            proposal = rule.propose(offered, number)
        else:
            inside = torch.arange(where.shape[-1], device=where.device) < windows.sizes(beams)[..., None]
            given = beams.tokens, beams.prompt, inside, number, windows.mask_id
            proposal = self._remasking.propose(offered, *given)
        self.beams, decision = select(beams, rule, proposal, self._codes)
        # 3) Full beams end, full blocks give way to the next.
        if self.eos_id is not None:
            self._fill_behind_ends(self.eos_id)
        windows.advance(self.beams)
        if self._recorder:
            self._recorder.step(beams, prediction, number, decision)

    def _fill_behind_ends(self, eos_id: int) -> None:
        """Masks behind the end of a text become EOS once nothing before that end is masked."""
        beams, open_ = self.beams, self._open[self.beams.prompt][:, None]
        masked = open_ & (beams.tokens == self.windows.mask_id)
        written = open_ & (masked.cumsum(-1) == 0)  # up to the first mask
        ended = (written & torch.isin(beams.tokens, self._ends)).any(-1)
        if self._stop is not None:
            ended |= self._stopped(self._stop, written)
        behind = masked & ended[..., None]
        beams.tokens = torch.where(behind, eos_id, beams.tokens)
        beams.left = beams.left - behind.sum(-1)

    def _stopped(self, stop: Callable[[tuple[int, ...]], bool], written: Tensor) -> Tensor:
        """Bool (A, K): the beams with masks left whose ``written`` tokens, bool (A, K, L), hold a stop."""
        tokens, chosen, active = (
            item.cpu().numpy() for item in (self.beams.tokens, written, self.beams.active)
        )
        stopped = torch.zeros(active.shape, dtype=torch.bool)
        for prompt, slot in zip(*active.nonzero(), strict=True):
            stopped[prompt, slot] = stop(tuple(tokens[prompt, slot][chosen[prompt, slot]].tolist()))
        return stopped.to(written.device)
