"""The loop behind ``decode``: score the live rows, move every beam, let finished prompts go."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch

from labkit.soar.beams import Beams, Decision, Windows, select
from labkit.soar.prompts import Layout
from labkit.soar.recorder import Recorder
from labkit.soar.scoring import Scorer
from labkit.soar.strategies import NEVER, Rule, View

WORTH_CAPTURING = 32  # prompts at a time from which one CUDA graph per decode pays


@dataclass
class Moved:
    """One step: the beams after it, and what a recorder wants to know of it."""

    beams: Beams
    view: View
    together: torch.Tensor
    decision: Decision


def search(
    scorer: Scorer,
    rule: Rule,
    windows: Windows,
    layout: Layout,
    recorder: Recorder,
    *,
    eos_id: int | None,
    batch_size: int | None,
) -> dict[str, np.ndarray]:
    """Decode all prompts of ``layout``, ``batch_size`` of them at a time.

    Returns ``sequences`` (P, L), ``scores``, ``calls`` and ``rows`` (P,). Finished prompts and beams
    cost no forward: a finished prompt makes room for the next one that waits. One host sync a step.
    """
    device = windows.slots.device
    count, (prompts, length) = layout.count.numpy(), layout.tokens.shape
    sequences = layout.tokens.to(device, copy=True)
    scores = torch.zeros(prompts, dtype=torch.float64, device=device)
    calls, rows, born = np.zeros(prompts, int), np.zeros(prompts, int), np.zeros(prompts, int)
    fixed = _fixed(windows, length)
    waiting = np.flatnonzero(count)
    if len(done := np.flatnonzero(count == 0)):
        recorder.finished(np.zeros(len(done), int), Beams.start(layout, rule.width, device, done))
    size = min(len(waiting), batch_size or len(waiting))
    slots, waiting = waiting[:size], waiting[size:]  # prompt of each slot, -1 when it is empty
    move = partial(
        _move, rule=rule, windows=windows, codes=_codes(length, device), eos_id=eos_id, fixed=fixed
    )
    beams = Beams.start(layout, rule.width, device, slots)
    graph = None
    if device.type == "cuda" and not recorder.keep and size >= WORTH_CAPTURING:
        graph = CapturedMove(move, beams, windows)
        beams = graph.beams
    step = 0
    while len(slots):
        active = beams.active.cpu().numpy()  # the one host sync of a step
        leaving = np.flatnonzero((slots >= 0) & ~active.any(1))
        if len(leaving):
            done = beams.pick(torch.from_numpy(leaving).to(device))
            recorder.finished(step - born[slots[leaving]], done)
            sequences[done.prompt], scores[done.prompt] = done.tokens[:, 0], done.score(rule)[:, 0]
            entering, waiting = waiting[: len(leaving)], waiting[len(leaving) :]
            into, slots[leaving] = leaving[: len(entering)], -1
            if len(entering):
                slots[into], born[entering] = entering, step
                fresh = Beams.start(layout, rule.width, device, entering)
                beams.put(torch.from_numpy(into).to(device), fresh)
                if graph is not None:
                    graph.where.copy_(windows.positions(beams)[0])
                active[into] = False
                active[into, 0] = True
            if (slots < 0).all():
                break
            if graph is None and (slots < 0).any():  # a graph keeps its shape: empty slots idle
                stay = np.flatnonzero(slots >= 0)
                beams, slots, active = (
                    beams.pick(torch.from_numpy(stay).to(device)),
                    slots[stay],
                    active[stay],
                )
        taking = active & (slots >= 0)[:, None]
        owner = np.repeat(slots, rule.width)[taking.ravel()]
        rows += np.bincount(owner, minlength=prompts)
        calls[slots[slots >= 0]] += 1
        live = torch.from_numpy(np.flatnonzero(taking)).to(device)
        where = windows.positions(beams)[0] if graph is None else graph.where
        token, confidence = scorer(
            beams.tokens.flatten(0, 1)[live], where.flatten(0, 1)[live], fixed, owner
        )
        if graph is not None:
            graph(live, token, confidence)
        else:
            token = token.new_zeros(where.shape).flatten(0, 1).index_copy(0, live, token)
            sure = confidence.new_zeros(where.shape).flatten(0, 1).index_copy(0, live, confidence)
            moved = move(beams, token, sure)
            recorder.step(step - born[slots], beams, moved.view, moved.together, moved.decision)
            beams = moved.beams
        step += 1
    if (~fixed & (sequences == windows.mask_id)).any():  # NaN is never the most confident
        raise ValueError("model must give logits without NaN; it left masks that nothing could fill")
    found = {"sequences": sequences, "scores": scores}
    return {n: t.cpu().numpy() for n, t in found.items()} | {"calls": calls, "rows": rows}


def _move(
    beams: Beams,
    token: torch.Tensor,
    confidence: torch.Tensor,
    *,
    rule: Rule,
    windows: Windows,
    codes: torch.Tensor,
    eos_id: int | None,
    fixed: torch.Tensor,
) -> Moved:
    """What the model said (token, confidence: (A * K, W)) to the next beams; tensors only, no sync."""
    where, masked = windows.positions(beams)
    sure = torch.where(masked, confidence.view(where.shape), NEVER)
    view = View(where, token.view(where.shape), sure)
    together = rule.together(view.confidence, beams.prompt, windows.sizes(beams), beams.step)
    after, decision = select(beams, rule, rule.propose(view, together), codes)
    if eos_id is not None:
        _fill_behind_eos(after, windows, eos_id, ~fixed[after.prompt][:, None])
    windows.advance(after)
    return Moved(after, view, together, decision)


class CapturedMove:
    """``_move`` for one batch shape as one CUDA graph: a hundred small kernels, one launch.

    ``beams`` and ``where`` (A, K, W), the positions they may fill, are its static buffers; a call
    updates them in place.
    """

    def __init__(self, move: Callable[..., Moved], beams: Beams, windows: Windows):
        self.beams = Beams(**{spec.name: getattr(beams, spec.name).clone() for spec in fields(beams)})
        self.where = windows.positions(self.beams)[0]
        self._token = torch.zeros_like(self.where).flatten(0, 1)
        self._confidence = self._token.float()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries allocate on first use; a capture must not
            move(self.beams, self._token, self._confidence)
            torch.cuda.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # torch.cuda.graph would empty the allocator's cache first, at every decode.
            self._graph.capture_begin()
            after = move(self.beams, self._token, self._confidence).beams
            for spec in fields(after):
                getattr(self.beams, spec.name).copy_(getattr(after, spec.name))
            self.where.copy_(windows.positions(self.beams)[0])
            self._graph.capture_end()
        torch.cuda.current_stream().wait_stream(side)

    def __call__(self, live: torch.Tensor, token: torch.Tensor, confidence: torch.Tensor) -> None:
        self._token.index_copy_(0, live, token)  # other rows keep old values: nothing is masked there
        self._confidence.index_copy_(0, live, confidence)
        self._graph.replay()


def _fill_behind_eos(beams: Beams, windows: Windows, eos_id: int, open_: torch.Tensor) -> None:
    """Masks behind an EOS become EOS once nothing before the EOS is masked."""
    masked = open_ & (beams.tokens == windows.mask_id)
    stop = open_ & (beams.tokens == eos_id) & (masked.cumsum(-1) == 0)
    behind = masked & stop.any(-1, keepdim=True)
    beams.tokens = torch.where(behind, eos_id, beams.tokens)
    beams.left = beams.left - behind.sum(-1)


def _fixed(windows: Windows, length: int) -> torch.Tensor:
    """Bool (P, L): given by the prompt, or padding."""
    prompts, device = len(windows.slots), windows.slots.device
    fixed = torch.ones(prompts, length + 1, dtype=torch.bool, device=device)
    filled = torch.arange(windows.slots.shape[1], device=device) < windows.count[:, None]
    return fixed.scatter(1, torch.where(filled, windows.slots, length), False)[:, :length]


def _codes(length: int, device: torch.device) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randint(-(2**63), 2**63 - 1, (length,), generator=source).to(device)
