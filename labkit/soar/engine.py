"""The loop behind ``decode``: score the live rows, move every beam, let finished prompts go."""

import os
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch

from labkit.soar.beams import Beams, Windows
from labkit.soar.moves import Move, TorchMove
from labkit.soar.prompts import Layout
from labkit.soar.recorder import Recorder
from labkit.soar.scoring import Scorer
from labkit.soar.strategies import Rule


def search(
    scorer: Scorer,
    rule: Rule,
    windows: Windows,
    layout: Layout,
    recorder: Recorder,
    *,
    eos_ids: tuple[int, ...],
    batch_size: int | None,
) -> tuple[dict[str, np.ndarray], str]:
    """Decode all prompts of ``layout``, ``batch_size`` of them at a time.

    Returns ``sequences`` (P, L), ``scores``, ``calls`` and ``rows`` (P,); and what moved the beams, in
    words. Finished prompts and beams cost no forward: a finished prompt makes room for the next longer one
    that waits. One host sync a step.
    """
    on_device = partial(torch.tensor, device=windows.slots.device)  # always a copy
    tokens = layout.tokens.to(windows.slots.device)
    prompts, length = tokens.shape
    start = partial(Beams.start, tokens, windows.count, rule.width)
    sequences = tokens.clone()
    scores = torch.zeros(prompts, dtype=torch.float64, device=tokens.device)
    calls, rows = np.zeros((2, prompts), int)
    ranks = windows.ranks(length)
    fixed = ranks < 0
    count = layout.count.numpy()
    if not count.all():
        recorder.finished(start(on_device(np.flatnonzero(count == 0))))
    # ``slots``: the prompt of each place in the batch, -1 when it is empty.
    # By length, so that those which share a batch need little padding.
    order = np.argsort(layout.lengths, kind="stable")
    slots, waiting = np.split(order[count[order] > 0], [batch_size or prompts])
    move = _move(start(on_device(slots)), rule, windows, ranks, eos_ids, recorder)
    while (slots >= 0).any():
        active = move.active.cpu().numpy()  # the one host sync of a step
        leaving = np.flatnonzero((slots >= 0) & ~active.any(1))
        if len(leaving) and (move.compacts or len(waiting) or not active.any()):
            done = move.beams.pick(on_device(leaving))
            recorder.finished(done)
            sequences[done.prompt], scores[done.prompt] = done.tokens[:, 0], done.score(rule)[:, 0]
            entering, waiting = np.split(waiting, [len(leaving)])
            slots[leaving] = -1
            into = leaving[: len(entering)]
            if len(entering):
                slots[into] = entering
                active[into, 0] = True
                move.put(on_device(into), start(on_device(entering)))
            if not active.any():
                break
            if move.compacts and (slots < 0).any():
                stay = np.flatnonzero(slots >= 0)
                move.keep(on_device(stay))
                slots, active = slots[stay], active[stay]
        live = np.flatnonzero(active)
        line = np.full(active.size, -1)  # of each beam, its row of the forward
        line[live] = np.arange(len(live))
        line, index = on_device(np.concatenate([line, live])).tensor_split([line.size])
        asked = (item.flatten(0, 1).index_select(0, index) for item in (move.beams.tokens, move.where))
        owner = slots[live // rule.width]
        token, confidence = scorer(*asked, fixed, owner)
        rows += np.bincount(owner, minlength=prompts)
        calls[slots[active.any(1)]] += 1
        move(line, token, confidence)
    if (unfilled := ~fixed & (sequences == windows.mask_id)).any():
        raise _unfilled(scorer, windows, sequences, fixed, unfilled)
    found = {"sequences": sequences, "scores": scores}
    path = "plain torch" if isinstance(move, TorchMove) else "Triton kernel"
    return {n: t.cpu().numpy() for n, t in found.items()} | {"calls": calls, "rows": rows}, path


def _unfilled(
    scorer: Scorer, windows: Windows, sequences: torch.Tensor, fixed: torch.Tensor, unfilled: torch.Tensor
) -> Exception:
    """The error of a search that ended with masks: what the model says there now tells which."""
    prompt = unfilled.any(1).nonzero()[:1, 0]
    where = windows.slots[prompt]
    _, confidence = scorer(sequences[prompt], where, fixed, prompt.cpu().numpy())
    masked = unfilled[prompt].gather(1, where)
    broken, masks, name = (confidence.isnan() & masked).sum().item(), masked.sum().item(), prompt.item()
    if broken:
        return ValueError(
            f"model must give finite logits; prompt {name}: NaN at {broken} of the {masks} masks it keeps"
        )
    return RuntimeError(
        f"the search ran out of beams: prompt {name} keeps {masks} masks, the logits there are finite; "
        "LABKIT_KERNEL=reference decodes without the fused kernel"
    )


def fused_move(device: torch.device) -> type[Move] | None:
    """``beam_kernel.FusedMove`` where Triton can run it and LABKIT_KERNEL does not say "reference"."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    if os.environ.get("LABKIT_KERNEL") == "reference":
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):  # as for the lab's other kernels
        return None
    from labkit.soar.beam_kernel import FusedMove

    return FusedMove


def _move(
    beams: Beams,
    rule: Rule,
    windows: Windows,
    ranks: torch.Tensor,
    eos_ids: tuple[int, ...],
    recorder: Recorder,
) -> Move:
    """The kernel where it can run and nobody wants to see the candidates, else torch."""
    if len(eos_ids) > 1:  # the kernel knows one
        return TorchMove(beams, rule, windows, ranks, eos_ids, recorder=recorder)
    given = beams, rule, windows, ranks, eos_ids[0] if eos_ids else None
    kernel = None if recorder.keep else fused_move(ranks.device)
    if kernel and kernel.suits(beams, rule, windows):
        from labkit.soar.beam_check import trusted  # late: needs Triton

        if trusted(move := kernel(*given)):
            return move
    return TorchMove(*given, recorder=recorder)
