"""Collects what a search saw and decided, and hands it over as one BeamTrace."""

import numpy as np
import torch

from labkit.soar.beams import Beams, Decision
from labkit.soar.strategies import NEVER, Rule, View
from labkit.traces import ACCELERATE, FINISHED, SEARCH, BeamTrace

BEAM = {
    "prompt": int, "step": int, "slot": int, "parent": int, "score": float, "committed": int,
    "mode": int, "tokens": int, "prediction": int, "confidence": float,
}  # fmt: skip
CANDIDATE = {
    "prompt": int, "step": int, "parent": int, "positions": int, "tokens": int,
    "confidence": float, "score": float, "fate": int, "child": int,
}  # fmt: skip
PER_POSITION = {"tokens", "prediction", "confidence"}
PER_COMMIT = {"positions", "tokens", "confidence"}


class Recorder:
    """Two growing tables on the host. Copies every step off the device: ``record=False`` is faster."""

    def __init__(self, rule: Rule, length: int, lengths: list[int], keep: bool):
        self.rule, self.length, self.keep = rule, length, keep
        self.padding = np.arange(length) >= np.array(lengths)[:, None]  # (P, L)
        self._steps = np.zeros(len(lengths), int)  # (P,) forward calls a prompt has had
        self.beams: list[dict[str, np.ndarray]] = []
        self.candidates: list[dict[str, np.ndarray]] = []

    def step(self, beams: Beams, view: View, together: torch.Tensor, decision: Decision) -> None:
        """Beams before their prompts' next forward call, and the candidates from them."""
        if not self.keep:
            return
        mode = torch.where(together > 0, ACCELERATE, SEARCH)
        prediction = torch.full_like(beams.tokens, -1)
        confidence = torch.full(beams.tokens.shape, float("nan"), device=beams.tokens.device)
        real = view.confidence > NEVER
        # An extra column takes the entries that are no candidates.
        where = torch.where(real, view.positions, self.length)
        pad = torch.nn.functional.pad
        prediction = pad(prediction, (0, 1)).scatter(2, where, view.tokens)[..., :-1]
        confidence = pad(confidence, (0, 1)).scatter(2, where, view.confidence)[..., :-1]
        self._beams(beams, torch.where(beams.left > 0, mode, FINISHED), prediction, confidence)
        row = decision.score > NEVER
        row = row.cpu().numpy()
        index = np.nonzero(row)[0]
        prompt = beams.prompt.cpu().numpy()[index]
        columns = {name: getattr(decision, name).cpu().numpy()[row] for name in (
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
        self, beams: Beams, mode: torch.Tensor, prediction: torch.Tensor, confidence: torch.Tensor
    ) -> None:
        row = beams.exists.cpu().numpy()
        index, slot = np.nonzero(row)
        prompt = beams.prompt.cpu().numpy()[index]
        device = {
            "parent": beams.parent, "score": beams.score(self.rule), "committed": beams.committed,
            "mode": mode, "tokens": beams.tokens, "prediction": prediction, "confidence": confidence,
        }  # fmt: skip
        columns = {name: item.cpu().numpy()[row] for name, item in device.items()}
        columns["tokens"] = np.where(self.padding[prompt], -1, columns["tokens"])
        self.beams.append({"prompt": prompt, "step": self._steps[prompt], "slot": slot, **columns})

    def trace(self, **rest: object) -> BeamTrace:
        """The whole decode: rows ordered by prompt, step, then rank. ``rest``: the other fields."""
        tables = {}
        for prefix, spec, parts, wide, width in (
            ("beam", BEAM, self.beams, PER_POSITION, self.length),
            ("cand", CANDIDATE, self.candidates, PER_COMMIT, self.rule.reach),
        ):
            empty = {n: np.empty((0, width) if n in wide else 0, kind) for n, kind in spec.items()}
            table = {n: np.concatenate([empty[n], *(p[n] for p in parts)]) for n in spec}
            order = np.lexsort((table["step"], table["prompt"]))  # stable: the rank order stays
            tables |= {f"{prefix}_{n}": table[n][order] for n in spec}
        return BeamTrace(**tables, **rest)
