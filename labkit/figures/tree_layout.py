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


def place_all(trace: BeamTrace) -> Places:
    row = {key: i for i, key in enumerate(zip(trace.beam_step, trace.beam_slot, strict=True))}
    beam = np.column_stack([trace.beam_step, -trace.beam_slot]).astype(float)
    source = np.array([row[key] for key in zip(trace.cand_step, trace.cand_parent, strict=True)], int)
    target = np.array(
        [row.get(key, -1) for key in zip(trace.cand_step + 1, trace.cand_child, strict=True)], int
    )
    stub = np.full((len(source), 2), np.nan)
    for parent in np.unique(source):
        dropped = np.flatnonzero((source == parent) & (trace.cand_fate != KEPT))
        # spread below the parent, clear of the row beneath
        fall = 0.2 + 0.5 * (np.arange(len(dropped)) + 1) / (len(dropped) + 1)
        stub[dropped] = beam[parent] + np.column_stack([np.full(len(dropped), STUB), -fall])
    answer = [row[trace.beam_step.max(), 0]]
    while (step := trace.beam_step[answer[-1]]) > 0:
        answer.append(row[step - 1, trace.beam_parent[answer[-1]]])
    return Places(beam, stub, source, target, np.array(answer[::-1]))


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


def numbers(values: np.ndarray) -> str:
    return ", ".join(f"{value:.4f}" for value in values[~np.isnan(values)]) or "none"
