"""Where the marks of a beam tree go and what is said of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from labkit.figures import theme
from labkit.traces import ACCELERATE, FINISHED, KEPT, MERGED, PRUNED, SEARCH, BeamTrace

# value: (name, colour, marker)
MODES = {
    SEARCH: ("search: tries positions one by one", theme.BLUE, "o"),
    ACCELERATE: ("accelerate: commits all it is sure of", theme.ORANGE, ">"),
    FINISHED: ("finished", theme.GREEN, "D"),
}
FATES = {
    PRUNED: ("pruned candidate", theme.MUTED, "x"),
    MERGED: ("merged: the same as a better one", theme.PURPLE, "+"),
}
NAMES = {  # of strategies, where they are not their own capitalised
    "soar": "SOAR", "pbs": "PBS", "fast_dllm": "Fast-dLLM", "factor": "Fast-dLLM's factor rule",
    "eb": "EB-Sampler", "klass": "KLASS", "rcr": "RCR", "order_token": "Order-token search",
}  # fmt: skip
STUB = 0.42  # how far along a step a dropped candidate ends


def vocabulary_of(trace: BeamTrace) -> Callable[[int], str] | None:
    """Token id -> text by what ``generate`` noted in the trace; None where it noted nothing."""
    texts = trace.meta.get("token_texts")
    return None if texts is None else lambda token: texts.get(str(token), str(token))


@dataclass
class Places:
    """Where ``place_all`` puts the rows of a trace, and which rows an edge joins."""

    beam: np.ndarray  # (b, 2)
    stub: np.ndarray  # (c, 2), NaN where the candidate was kept
    source: np.ndarray  # (c,) beam row a candidate comes from
    target: np.ndarray  # (c,) beam row it became, -1 if dropped
    answer: np.ndarray  # beam rows from the start to the answer


def linked(trace: BeamTrace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of a one-prompt trace: (steps + 1,) where each step begins, (b,) the parent of each state, -1 at
    the start, (c,) the state of each candidate, and the states from the start to the answer.
    """
    first = np.concatenate([[0], np.cumsum(np.bincount(trace.beam_step))])
    parent = np.where(trace.beam_step > 0, first[trace.beam_step - 1] + trace.beam_parent, -1)
    path = [int(first[-2])]
    while parent[path[-1]] >= 0:
        path.append(int(parent[path[-1]]))
    return first, parent, first[trace.cand_step] + trace.cand_parent, np.array(path[::-1])


def place_all(trace: BeamTrace) -> Places:
    first, _, source, answer = linked(trace)
    beam = np.column_stack([trace.beam_step, -trace.beam_slot]).astype(float)
    target = np.where(trace.cand_fate == KEPT, first[trace.cand_step + 1] + trace.cand_child, -1)
    stub = np.full((len(source), 2), np.nan)
    for parent in np.unique(source):
        dropped = np.flatnonzero((source == parent) & (trace.cand_fate != KEPT))
        # spread below the parent, clear of the row beneath
        fall = 0.2 + 0.5 * (np.arange(len(dropped)) + 1) / (len(dropped) + 1)
        stub[dropped] = beam[parent] + np.column_stack([np.full(len(dropped), STUB), -fall])
    return Places(beam, stub, source, target, answer)


def one_prompt(trace: BeamTrace, prompt: int) -> BeamTrace:
    one = trace.of_prompt(prompt)
    if not len(one.beam_step):
        raise ValueError("trace must be decoded with record=True; this one has no beams to draw")
    return one


def finding(
    one: BeamTrace,
    answer: Sequence[int] | np.ndarray,
    truth: np.ndarray | None,
    *,
    offset: int = 0,
    rival: str = "",
) -> str:
    """The decode in one sentence: right or wrong, calls, accelerate steps, dropped candidates.

    answer  rows of the states that lead to the answer
    offset  forward calls spent before this trace began; rival: what to say of another decode's calls
    """
    sure = int((one.beam_mode[answer] == ACCELERATE).sum())
    name = NAMES.get(one.meta["strategy"], one.meta["strategy"].capitalize())
    verb = "finished"
    if truth is not None:
        verb = "solved it" if (one.sequences[0] == truth).all() else "got it wrong"
    calls, spent = int(one.calls[0]), offset + int(one.calls[0])
    dropped = int((one.cand_fate != KEPT).sum())
    return (
        f"{name} {verb} in {spent} forward call{'' if spent == 1 else 's'}{rival}; "
        f"{sure} of {calls} steps accelerate, {dropped:,} of {len(one.cand_fate):,} candidates dropped"
    )


def commits(
    trace: BeamTrace, candidate: int, side: int | None, vocabulary: Callable[[int], str] | None
) -> list[str]:
    """What a candidate commits, one text per token: r1c2=3 on a board, else 12=3, or 12: a in a text.

    A position that it masks again has no token: r1c2 masked again.
    """
    texts = []
    for position, token in zip(trace.cand_positions[candidate], trace.cand_tokens[candidate], strict=True):
        if position >= 0:
            where = str(position) if side is None else f"r{position // side + 1}c{position % side + 1}"
            if token == trace.meta.get("mask_id"):
                texts.append(f"{where} masked again")
            elif vocabulary is not None and side is None:
                texts.append(f"{where}: {vocabulary(int(token))}")
            else:
                texts.append(f"{where}={token}")
    return texts
