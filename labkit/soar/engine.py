"""The loop behind ``decode``: score the live rows, move every beam, let finished prompts go."""

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch

from labkit.soar.beams import Beams, Decision, Windows, select
from labkit.soar.prompts import Layout
from labkit.soar.recorder import Recorder
from labkit.soar.scoring import Scorer
from labkit.soar.strategies import NEVER, Rule, View


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
    tokens = layout.tokens.to(device)
    start, sequences = partial(Beams.start, tokens, windows.count, rule.width), tokens.clone()
    scores = torch.zeros(prompts, dtype=torch.float64, device=device)
    calls, rows, born = np.zeros(prompts, int), np.zeros(prompts, int), np.zeros(prompts, int)
    ranks, codes = windows.ranks(length), _codes(length, device)
    fixed = ranks < 0
    waiting = np.flatnonzero(count)
    if len(done := np.flatnonzero(count == 0)):
        recorder.finished(np.zeros(len(done), int), start(torch.from_numpy(done).to(device)))
    size = min(len(waiting), batch_size or len(waiting))
    slots, waiting = waiting[:size], waiting[size:]  # prompt of each slot, -1 when it is empty
    beams = start(torch.from_numpy(slots.copy()).to(device))  # on a CPU they would share ``slots``
    fused = None
    if size and not recorder.keep and (kernel := fused_move(device)) and kernel.suits(beams, rule, windows):
        fused = kernel(beams, rule, windows, ranks, codes, eos_id)
    step = 0
    while len(slots):
        active = (fused or beams).active.cpu().numpy()  # the one host sync of a step
        beams = fused.beams if fused else beams
        leaving = np.flatnonzero((slots >= 0) & ~active.any(1))
        # In the kernel's buffers a finished prompt costs nothing: it may stay until its place is wanted.
        if len(leaving) and (not fused or len(waiting) or not active.any()):
            done = beams.pick(torch.from_numpy(leaving).to(device))
            recorder.finished(step - born[slots[leaving]], done)
            sequences[done.prompt], scores[done.prompt] = done.tokens[:, 0], done.score(rule)[:, 0]
            entering, waiting = waiting[: len(leaving)], waiting[len(leaving) :]
            into, slots[leaving] = leaving[: len(entering)], -1
            if len(entering):
                slots[into], born[entering] = entering, step
                fresh = start(torch.from_numpy(entering).to(device))
                (fused or beams).put(torch.from_numpy(into).to(device), fresh)
                active[into, 0] = True
            if (slots < 0).all():
                break
            if not fused and (slots < 0).any():
                stay = np.flatnonzero(slots >= 0)
                beams = beams.pick(torch.from_numpy(stay).to(device))
                slots, active = slots[stay], active[stay]
        live = np.flatnonzero(active)
        line = np.full(active.size, -1)  # of each beam, its row of the forward
        line[live] = np.arange(len(live))
        line, index = torch.from_numpy(np.concatenate([line, live])).to(device).tensor_split([line.size])
        where = fused.where if fused else windows.positions(beams)[0]
        asked = (item.flatten(0, 1).index_select(0, index) for item in (beams.tokens, where))
        owner = slots[live // rule.width]
        token, confidence = scorer(*asked, fixed, owner)
        rows += np.bincount(owner, minlength=prompts)
        calls[slots[active.any(1)]] += 1
        if fused:
            fused(line, token, confidence)
        else:
            token, confidence = token[line].view(where.shape), confidence[line].view(where.shape)
            moved = move_beams(beams, token, confidence, rule, windows, codes, eos_id, fixed)
            recorder.step(step - born[slots], beams, moved.view, moved.together, moved.decision)
            beams = moved.beams
        step += 1
    if (~fixed & (sequences == windows.mask_id)).any():  # NaN is never the most confident
        raise ValueError("model must give logits without NaN; it left masks that nothing could fill")
    found = {"sequences": sequences, "scores": scores}
    return {n: t.cpu().numpy() for n, t in found.items()} | {"calls": calls, "rows": rows}


def fused_move(device: torch.device) -> type | None:
    """``beam_kernel.FusedMove`` where Triton can run it."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):  # as for the lab's other kernels
        return None
    from labkit.soar.beam_kernel import FusedMove

    return FusedMove


def move_beams(
    beams: Beams,
    token: torch.Tensor,
    confidence: torch.Tensor,
    rule: Rule,
    windows: Windows,
    codes: torch.Tensor,
    eos_id: int | None,
    fixed: torch.Tensor,
) -> Moved:
    """What the model said (token, confidence: (A, K, W)) to the next beams; tensors only, no sync.

    Rows that were not asked may hold anything. A beam that is shown NaN proposes nothing.
    """
    where, masked = windows.positions(beams)
    sure = torch.where(masked, confidence, NEVER)
    sure = torch.where(sure.isnan().any(-1, keepdim=True), NEVER, sure)
    view = View(where, token, sure)
    together = rule.together(view.confidence, beams.prompt, windows.sizes(beams), beams.step)
    after, decision = select(beams, rule, rule.propose(view, together), codes)
    if eos_id is not None:
        _fill_behind_eos(after, windows, eos_id, ~fixed[after.prompt][:, None])
    windows.advance(after)
    return Moved(after, view, together, decision)


def _fill_behind_eos(beams: Beams, windows: Windows, eos_id: int, open_: torch.Tensor) -> None:
    """Masks behind an EOS become EOS once nothing before the EOS is masked."""
    masked = open_ & (beams.tokens == windows.mask_id)
    stop = open_ & (beams.tokens == eos_id) & (masked.cumsum(-1) == 0)
    behind = masked & stop.any(-1, keepdim=True)
    beams.tokens = torch.where(behind, eos_id, beams.tokens)
    beams.left = beams.left - behind.sum(-1)


def _codes(length: int, device: torch.device) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randint(-(2**63), 2**63 - 1, (length,), generator=source).to(device)
