"""One step of every beam in plain torch: the reference of ``beam_kernel``, and the one that records."""

import torch

from labkit.soar.beams import Beams, Windows, select
from labkit.soar.recorder import Recorder
from labkit.soar.strategies import NEVER, Rule, View


class TorchMove:
    """The beams of a batch and how they move; ``beam_kernel.FusedMove`` has the same interface.

    ``beams``; ``where`` (A, K, W), the positions they may fill; ``active`` bool (A, K), which rows
    still have masks. ``compacts``: a finished prompt costs time, so the caller should drop it.
    """

    compacts = True

    def __init__(
        self,
        beams: Beams,
        rule: Rule,
        windows: Windows,
        ranks: torch.Tensor,
        codes: torch.Tensor,
        eos_id: int | None,
        recorder: Recorder | None = None,
    ):
        self.beams, self._rule, self._windows, self._codes = beams, rule, windows, codes
        self._open, self._eos, self._recorder = ranks >= 0, eos_id, recorder

    @property
    def where(self) -> torch.Tensor:
        return self._windows.positions(self.beams)[0]

    @property
    def active(self) -> torch.Tensor:
        return self.beams.active

    def put(self, index: torch.Tensor, others: Beams) -> None:
        """Put ``others`` in place of the prompts at ``index``."""
        self.beams.put(index, others)

    def keep(self, index: torch.Tensor) -> None:
        """Drop all prompts but those at ``index``."""
        self.beams = self.beams.pick(index)

    def __call__(self, rows: torch.Tensor, token: torch.Tensor, confidence: torch.Tensor) -> None:
        """rows (A * K,): the line of ``token``, ``confidence`` (R, W) that speaks of a beam, or -1.

        Tensors only, no sync. A beam that is shown NaN proposes nothing.
        """
        beams, rule, windows = self.beams, self._rule, self._windows
        where, masked = windows.positions(beams)
        sure = torch.where(masked, confidence[rows].view(where.shape), NEVER)
        sure = torch.where(sure.isnan().any(-1, keepdim=True), NEVER, sure)
        view = View(where, token[rows].view(where.shape), sure)
        together = rule.together(view.confidence, beams.prompt, windows.sizes(beams), beams.step)
        self.beams, decision = select(beams, rule, rule.propose(view, together), self._codes)
        if self._eos is not None:
            self._fill_behind_eos()
        windows.advance(self.beams)
        if self._recorder:
            self._recorder.step(beams, view, together, decision)

    def _fill_behind_eos(self) -> None:
        """Masks behind an EOS become EOS once nothing before the EOS is masked."""
        beams, open_ = self.beams, self._open[self.beams.prompt][:, None]
        masked = open_ & (beams.tokens == self._windows.mask_id)
        stop = open_ & (beams.tokens == self._eos) & (masked.cumsum(-1) == 0)
        behind = masked & stop.any(-1, keepdim=True)
        beams.tokens = torch.where(behind, self._eos, beams.tokens)
        beams.left = beams.left - behind.sum(-1)
