"""Collects what a search saw and decided, and hands it over as one BeamTrace."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.soar.beams import Beams, Decision
from labkit.soar.prediction import NEVER, Prediction, put
from labkit.soar.prompts import Layout
from labkit.soar.strategies import Rule
from labkit.traces import ACCELERATE, FINISHED, SEARCH, BeamTrace

# Ids and positions in 4 bytes, probabilities as they are computed: 12 bytes a position of a state.
ID, SURE = np.int32, np.float32
BEAM = {
    "prompt": int, "step": int, "slot": int, "parent": int, "score": float, "committed": int,
    "mode": int, "tokens": ID, "prediction": ID, "confidence": SURE,
}  # fmt: skip
CANDIDATE = {
    "prompt": int, "step": int, "parent": int, "positions": ID, "tokens": ID,
    "confidence": SURE, "score": float, "fate": int, "child": int,
}  # fmt: skip
PER_POSITION = {"tokens", "prediction", "confidence"}
PER_COMMIT = {"positions", "tokens", "confidence"}


class Recorder:
    """Two growing tables on the host. Copies every step off the device: ``record=False`` is faster."""

    def __init__(self, rule: Rule, layout: Layout, keep: bool):
        self.rule, self.keep = rule, keep
        prompts, self.length = layout.tokens.shape
        self.padding = np.arange(self.length) >= np.array(layout.lengths)[:, None]  # (P, L)
        self._steps = np.zeros(prompts, int)  # (P,) forward calls a prompt has had
        self.beams: list[dict[str, np.ndarray]] = []
        self.candidates: list[dict[str, np.ndarray]] = []

    def step(
        self,
        beams: Beams,
        prediction: Prediction,
        num_transfer_tokens: Tensor,  # (A, K) int64
        decision: Decision,
    ) -> None:
        """Beams before their prompts' next forward call, and the candidates from them."""
        if not self.keep:
            return
        # 1) The beams, with what was predicted where they may commit.
        mode = torch.where(num_transfer_tokens > 0, ACCELERATE, SEARCH)
        mode = torch.where(beams.left > 0, mode, FINISHED)
        window = prediction.positions.shape[-1] // self.rule.branches  # the likeliest tokens
        confidence, where = prediction.confidence[..., :window], prediction.positions[..., :window]
        there, unknown = confidence > NEVER, torch.full_like(beams.tokens, -1)
        tokens = put(unknown, there, where, prediction.tokens[..., :window])
        unsure = torch.full_like(beams.tokens, float("nan"), dtype=confidence.dtype)
        self._beams(beams, mode, tokens, put(unsure, there, where, confidence))
        # 2) The candidates that exist.
        row = (decision.score > NEVER).cpu().numpy()
        prompt = beams.prompt.cpu().numpy()[np.nonzero(row)[0]]
        columns = {name: getattr(decision, name).cpu().numpy()[row].astype(CANDIDATE[name]) for name in (
            "parent", "positions", "tokens", "confidence", "score", "fate", "child")}  # fmt: skip
        self.candidates.append({"prompt": prompt, "step": self._steps[prompt], **columns})
        self._steps[beams.prompt.cpu().numpy()] += 1

    def finished(self, beams: Beams) -> None:
        """The last beams of prompts that have nothing left to fill."""
        if not self.keep:
            return
        unknown = torch.full_like(beams.tokens, -1)
        mode = torch.full_like(beams.left, FINISHED)
        self._beams(beams, mode, unknown, torch.full(unknown.shape, float("nan")))

    def _beams(
        self,
        beams: Beams,
        mode: Tensor,  # (A, K) int64
        prediction: Tensor,  # (A, K, L) int64, -1 where there is none
        confidence: Tensor,  # (A, K, L) fp32, NaN where there is none
    ) -> None:
        row = beams.exists.cpu().numpy()
        index, slot = np.nonzero(row)
        prompt = beams.prompt.cpu().numpy()[index]
        device = {
            "parent": beams.parent, "score": beams.score(self.rule), "committed": beams.committed,
            "mode": mode, "tokens": beams.tokens, "prediction": prediction, "confidence": confidence,
        }  # fmt: skip
        columns = {name: item.cpu().numpy()[row].astype(BEAM[name]) for name, item in device.items()}
        columns["tokens"] = np.where(self.padding[prompt], ID(-1), columns["tokens"])
        self.beams.append({"prompt": prompt, "step": self._steps[prompt], "slot": slot, **columns})

    def trace(self, **rest: Any) -> BeamTrace:
        """The whole decode: rows ordered by prompt, step, then rank. ``rest``: the other fields."""
        tables: dict[str, Any] = {}
        for prefix, spec, parts, wide, width in (
            ("beam", BEAM, self.beams, PER_POSITION, self.length),
            ("cand", CANDIDATE, self.candidates, PER_COMMIT, self.rule.reach),
        ):
            table = {
                name: np.concatenate(
                    [np.empty((0, width) if name in wide else 0, kind), *(part[name] for part in parts)]
                )
                for name, kind in spec.items()
            }
            order = np.lexsort((table["step"], table["prompt"]))  # stable: the rank order stays
            tables |= {f"{prefix}_{name}": column[order] for name, column in table.items()}
        return BeamTrace(**tables, **rest)
