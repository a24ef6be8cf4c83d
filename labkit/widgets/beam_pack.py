"""What a browser needs of one decode, small enough to send at once: plain numbers and byte strings.

512 calls with 8 beams of 8 candidates are about 0.7 MB: a state is stored as what changed since its
parent, a candidate as ranks in its state's list of most confident fills, and offsets as counts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit import checks
from labkit.figures.tree_layout import finding, linked
from labkit.traces import KEPT, BeamTrace

BUDGET = 40_000  # fills listed over all states, where a state has more masks than that affords
USES_THRESHOLD = ("soar", "adaptive", "fast_dllm")


def pack(
    trace: BeamTrace,
    *,
    given: np.ndarray,
    truth: np.ndarray | None = None,
    offset: int = 0,
    forced: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """One prompt's trace (``BeamTrace.of_prompt``) for beam_tree.js.

    given   bool (L,) positions that the prompt itself held
    truth   int (L,) right answer, or None
    offset  forward calls spent before this trace began; forced: (position, token) it began with

    Byte strings hold little-endian arrays; b states, c candidates:
    counts u2 (steps,) states per step; parent i4, score f4, committed u2, mode u1 (b,);
    changed u2 (b,) entries of delta_position u2, delta_token i4 against the parent;
    fills u2 (b,) entries of fill_position u2, fill_token i4, fill_confidence f4, most confident first;
    candidates u2 (b,); cand_score f4, cand_fate u1, cand_child u2 (65535: none), cand_commits u2 (c,);
    commit_rank u2: which of its state's fills; answer i4 (steps,) the states that lead to the answer.
    """
    first, parent, owner, answer = linked(trace)
    order = np.argsort(owner, kind="stable")  # candidates of a state stay best first
    changed, delta_position, delta_token = _changes(trace, parent)
    fills, fill_position, fill_token, fill_confidence, ranks = _fills(trace, owner[order], order)
    settings = trace.meta["parameters"]
    strategy = trace.meta["strategy"]
    child = np.where(trace.cand_fate == KEPT, trace.cand_child, 65535)[order]
    return {
        "strategy": strategy, "beam": settings["beam"], "score_name": settings["score"],
        "threshold": settings["threshold"] if strategy in USES_THRESHOLD else None,
        "min_parallel": settings["min_parallel"], "max_parallel": settings["max_parallel"],
        "mask_id": trace.meta["mask_id"], "offset": offset, "forced": forced,
        "finding": finding(trace, answer, truth, offset=offset),
        "tokens": trace.beam_tokens[0].astype("<i4").tobytes(), "given": given.astype("u1").tobytes(),
        "truth": None if truth is None else np.asarray(truth).astype("<i4").tobytes(),
        "counts": np.diff(first).astype("<u2").tobytes(), "parent": parent.astype("<i4").tobytes(),
        "score": trace.beam_score.astype("<f4").tobytes(),
        "committed": trace.beam_committed.astype("<u2").tobytes(),
        "mode": trace.beam_mode.astype("u1").tobytes(),
        "changed": changed.astype("<u2").tobytes(),
        "delta_position": delta_position.astype("<u2").tobytes(),
        "delta_token": delta_token.astype("<i4").tobytes(),
        "fills": fills.astype("<u2").tobytes(), "fill_position": fill_position.astype("<u2").tobytes(),
        "fill_token": fill_token.astype("<i4").tobytes(),
        "fill_confidence": fill_confidence.astype("<f4").tobytes(),
        "candidates": np.bincount(owner, minlength=first[-1]).astype("<u2").tobytes(),
        "cand_score": trace.cand_score[order].astype("<f4").tobytes(),
        "cand_fate": trace.cand_fate[order].astype("u1").tobytes(),
        "cand_child": child.astype("<u2").tobytes(),
        "cand_commits": _committed(trace)[order].sum(1).astype("<u2").tobytes(),
        "commit_rank": ranks.astype("<u2").tobytes(), "answer": answer.astype("<i4").tobytes(),
    }  # fmt: skip


def texts(traces: list[BeamTrace], vocabulary: Callable[[int], str] | None) -> dict[str, str]:
    """The text of every token id in the traces; the id itself without a vocabulary."""
    arrays = [
        a
        for t in traces
        for a in (t.beam_tokens[t.beam_step == 0], t.sequences, t.beam_prediction, t.cand_tokens)
    ]
    known = sorted({int(token) for array in arrays for token in np.unique(array) if token >= 0})
    return {str(token): str(token) if vocabulary is None else str(vocabulary(token)) for token in known}


def _changes(trace: BeamTrace, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    before = trace.beam_tokens[np.maximum(parent, 0)]
    differ = (trace.beam_tokens != before) & (parent >= 0)[:, None]
    row, position = np.nonzero(differ)
    return differ.sum(1), position, trace.beam_tokens[row, position]


def _committed(trace: BeamTrace) -> np.ndarray:
    """Bool (c, D): entries of the candidates that fill a mask, and do not bring one back."""
    return (trace.cand_positions >= 0) & (trace.cand_tokens != trace.meta["mask_id"])


def _fills(trace: BeamTrace, owner: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each state's most confident fills, and every candidate's commits as ranks among them.

    ``owner``: the state of each candidate in ``order``. Equal confidences: the lower position first,
    as in the search, so a commit is always among its state's first ``depth`` fills. Commits of another
    token than the position's likeliest follow as fills of their own.
    """
    scored = ~np.isnan(trace.beam_confidence)
    confidence = np.where(scored, trace.beam_confidence, -np.inf)
    ranked = np.argsort(-confidence, axis=1, kind="stable")
    rank_of = np.argsort(ranked, axis=1, kind="stable")
    real = _committed(trace)[order]
    state = np.broadcast_to(owner[:, None], real.shape)[real]
    position, token, chosen = (
        table[order][real] for table in (trace.cand_positions, trace.cand_tokens, trace.cand_confidence)
    )
    ranks = rank_of[state, position]
    other = token != trace.beam_prediction[state, position]
    afford = max(BUDGET // len(confidence), int(ranks[~other].max(initial=0)) + 1)
    fills = np.minimum(scored.sum(1), checks.integer("fills", afford, 1))
    listed = np.arange(confidence.shape[1]) < fills[:, None]
    row, column = np.nonzero(listed)
    where = ranked[row, column]
    extra = state[other]  # ascending, as owner is
    ranks[other] = fills[extra] + np.arange(len(extra)) - np.searchsorted(extra, extra)
    place = np.argsort(np.concatenate([row, extra]), kind="stable")
    return (
        fills + np.bincount(extra, minlength=len(fills)),
        np.concatenate([where, position[other]])[place],
        np.concatenate([trace.beam_prediction[row, where], token[other]])[place],
        np.concatenate([confidence[row, where], chosen[other]])[place],
        ranks,
    )
