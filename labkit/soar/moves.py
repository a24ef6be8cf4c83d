"""One step of every beam in plain torch: the reference of ``beam_kernel``, and the one that records."""

import torch

from labkit.soar.beams import Beams, Windows, fingerprint_codes, select
from labkit.soar.recorder import Recorder
from labkit.soar.strategies import NEVER, Rule, View


class Move:
    """The beams of a batch and how they move. ``keep`` is there where ``compacts`` says so."""

    compacts: bool  # a finished prompt costs time, so the caller should drop it
    where: torch.Tensor  # (A, K, W) the positions they may fill
    active: torch.Tensor  # bool (A, K) which rows still have masks

    def __init__(self, beams: Beams, rule: Rule, windows: Windows, ranks: torch.Tensor, eos_id: int | None):
        """ranks: ``windows.ranks`` of the whole sequence."""
        self.beams, self.rule, self.windows = beams, rule, windows
        self._ranks, self.eos_id = ranks, eos_id
        self._codes = fingerprint_codes(ranks.shape[1], ranks.device)

    def put(self, index: torch.Tensor, others: Beams) -> None:
        """Put ``others`` in place of the prompts at ``index``."""
        self.beams.put(index, others)

    def __call__(self, rows: torch.Tensor, token: torch.Tensor, confidence: torch.Tensor) -> None:
        """rows (A * K,): the line of ``token``, ``confidence`` (R, W) that speaks of a beam, or -1.

        A beam that is shown NaN proposes nothing.
        """
        raise NotImplementedError


class TorchMove(Move):
    """``Move`` in torch; with a recorder, every step is copied to the host, else nothing waits for it.

    Its ``eos_id`` may be a tuple: any of them ends a text, and the first fills it up.
    """

    compacts = True

    def __init__(self, *given: object, recorder: Recorder | None = None):
        super().__init__(*given)
        self._open, self._recorder = self._ranks >= 0, recorder
        if isinstance(ends := self.eos_id, tuple):
            self.eos_id = ends[0]
        self._ends = torch.tensor(ends, device=self._ranks.device) if self.eos_id is not None else None

    @property
    def where(self) -> torch.Tensor:
        return self.windows.positions(self.beams)[0]

    @property
    def active(self) -> torch.Tensor:
        return self.beams.active

    def keep(self, index: torch.Tensor) -> None:
        """Drop all prompts but those at ``index``."""
        self.beams = self.beams.pick(index)

    def __call__(self, rows: torch.Tensor, token: torch.Tensor, confidence: torch.Tensor) -> None:
        beams, rule, windows = self.beams, self.rule, self.windows
        where, masked = windows.positions(beams)
        sure = torch.where(masked, confidence[rows].view(where.shape), NEVER)
        sure = torch.where(sure.isnan().any(-1, keepdim=True), NEVER, sure)
        view = View(where, token[rows].view(where.shape), sure)
        together = rule.together(view.confidence, beams.prompt, windows.sizes(beams), beams.step)
        self.beams, decision = select(beams, rule, rule.propose(view, together), self._codes)
        if self.eos_id is not None:
            self._fill_behind_eos()
        windows.advance(self.beams)
        if self._recorder:
            self._recorder.step(beams, view, together, decision)

    def _fill_behind_eos(self) -> None:
        """Masks behind an EOS become EOS once nothing before the EOS is masked."""
        beams, open_ = self.beams, self._open[self.beams.prompt][:, None]
        masked = open_ & (beams.tokens == self.windows.mask_id)
        stop = open_ & torch.isin(beams.tokens, self._ends) & (masked.cumsum(-1) == 0)
        behind = masked & stop.any(-1, keepdim=True)
        beams.tokens = torch.where(behind, self.eos_id, beams.tokens)
        beams.left = beams.left - behind.sum(-1)
