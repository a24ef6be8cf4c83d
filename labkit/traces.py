"""What an algorithm hands to a figure: plain arrays and metadata, saved as one npz without pickle.

MaskTrace   activations before a 2:4 mask and the mask itself
BeamTrace   every state, candidate and decision of a SOAR decode
GroupTrace  groups of sampled responses with length, entropy, correctness and advantages
TrainTrace  a training run: logged curves and sampled completions

Algorithms make traces, figures and widgets read them; this module needs numpy alone.
"""

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Annotated, Any

import numpy as np

from labkit.checks import fail, integer, number
from labkit.trace_file import Trace

SEARCH, ACCELERATE, FINISHED = 0, 1, 2  # BeamTrace.beam_mode
KEPT, MERGED, PRUNED = 0, 1, 2  # BeamTrace.cand_fate


@dataclass
class MaskTrace(Trace):
    """FFN activations of one forward pass and the 2:4 mask that ELAS lays over them (or would).

    activations  float (layers, tokens, features), before the mask
    kept         bool, same shape: True where the mask lets the value through (two of every four)
    tokens       the text of each token
    meta         model, step, seed, provenance
    """

    activations: Annotated[np.ndarray, "float layers tokens features"]
    kept: Annotated[np.ndarray, "bool layers tokens features"]
    tokens: list[str]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.activations.shape
        if shape[-1] % 4 or not self.activations.size:
            allowed = "(layers, tokens, features), none of them 0, with features a multiple of 4"
            fail("activations", shape, allowed)
        if len(self.tokens) != shape[1]:
            fail("tokens", f"{len(self.tokens)} of them", f"one for each of the {shape[1]} in activations")

    @property
    def natural_zeros(self) -> np.ndarray:
        """(layers,) share of activations that are zero before the mask, as ReLU² makes them."""
        return (self.activations == 0).mean((1, 2))

    @property
    def enforced_zeros(self) -> np.ndarray:
        """(layers,) share of activations that were non-zero and that the mask set to zero."""
        return ((self.activations != 0) & ~self.kept).mean((1, 2))

    @property
    def crowded_groups(self) -> np.ndarray:
        """(layers,) share of groups of four with more than two non-zeros, where the mask must drop."""
        layers, tokens, features = self.activations.shape
        groups = self.activations.reshape(layers, tokens, features // 4, 4)
        return ((groups != 0).sum(-1) > 2).mean((1, 2))

    @property
    def energy_kept(self) -> np.ndarray:
        """(layers,) share of the squared norm that survives the mask (1 where all is zero).

        NaN where an activation is NaN or infinite.
        """
        size = np.abs(self.activations).max((1, 2), keepdims=True).astype(np.float64)
        finite = np.isfinite(size)
        # Relative to the largest: the squares of 1e200 and of 1e-200 are no float64.
        scale = np.where(finite & (size > 0), size, 1.0)
        energy = np.square(np.where(finite, self.activations, np.nan) / scale, dtype=np.float64)
        kept, total = (energy * self.kept).sum((1, 2)), energy.sum((1, 2))
        return np.where(total == 0, 1.0, kept / np.where(total == 0, 1.0, total))


@dataclass
class BeamTrace(Trace):
    """A decode of P prompts, L positions each, as two flat tables: beams (rows b) and candidates (c).

    A beam row is a state BEFORE forward call ``step``; its candidates are proposed from that state;
    the survivors are the beam rows of ``step + 1``. The last rows of a prompt have mode FINISHED.

    sequences         int (P, L) the answer: best beam, prompt + generated tokens
    prompt_length     int (P,) positions before the generated part (0 where masks are anywhere)
    scores            float (P,) score of the answer
    calls, rows       int (P,) forward calls a prompt took part in, and beam rows it used in them
    beam_prompt, beam_step, beam_slot   int (b,) which prompt, step, and rank in the beam (0 = best)
    beam_parent       int (b,) slot in step - 1 that this state came from (-1 at the start)
    beam_score        float (b,); beam_committed int (b,): tokens committed so far
    beam_mode         int (b,) SEARCH, ACCELERATE or FINISHED
    beam_tokens       int (b, L); beam_prediction int (b, L): the model's argmax (-1: not scored)
    beam_confidence   float (b, L) softmax probability of that argmax, NaN where not a candidate
    cand_prompt, cand_step, cand_parent int (c,) the state (slot) that proposed this candidate
    cand_positions, cand_tokens         int (c, D) what it commits, -1 padded; where rcr masks a position
                      again, the token is the mask and the confidence that of the token that goes
    cand_confidence   float (c, D), NaN padded
    cand_score        float (c,)
    cand_fate         int (c,) KEPT, MERGED (same sequence as a better one) or PRUNED
    cand_child        int (c,) slot in step + 1 if kept, else -1
    meta              strategy, parameters, mask_id, provenance, total forward calls and rows

    With ``record=False`` both tables are empty; the first five arrays are always filled.
    """

    sequences: Annotated[np.ndarray, "int P L"]
    prompt_length: Annotated[np.ndarray, "int P"]
    scores: Annotated[np.ndarray, "float P"]
    calls: Annotated[np.ndarray, "int P"]
    rows: Annotated[np.ndarray, "int P"]
    beam_prompt: Annotated[np.ndarray, "int b"]
    beam_step: Annotated[np.ndarray, "int b"]
    beam_slot: Annotated[np.ndarray, "int b"]
    beam_parent: Annotated[np.ndarray, "int b"]
    beam_score: Annotated[np.ndarray, "float b"]
    beam_committed: Annotated[np.ndarray, "int b"]
    beam_mode: Annotated[np.ndarray, "int b"]
    beam_tokens: Annotated[np.ndarray, "int b L"]
    beam_prediction: Annotated[np.ndarray, "int b L"]
    beam_confidence: Annotated[np.ndarray, "float b L"]
    cand_prompt: Annotated[np.ndarray, "int c"]
    cand_step: Annotated[np.ndarray, "int c"]
    cand_parent: Annotated[np.ndarray, "int c"]
    cand_positions: Annotated[np.ndarray, "int c D"]
    cand_tokens: Annotated[np.ndarray, "int c D"]
    cand_confidence: Annotated[np.ndarray, "float c D"]
    cand_score: Annotated[np.ndarray, "float c"]
    cand_fate: Annotated[np.ndarray, "int c"]
    cand_child: Annotated[np.ndarray, "int c"]
    meta: dict[str, Any] = field(default_factory=dict)

    def of_prompt(self, prompt: int) -> "BeamTrace":
        """The trace of one prompt alone (renumbered to prompt 0): what a tree is drawn from."""
        integer("prompt", prompt, 0, len(self.sequences) - 1)
        tables = {"beam": self.beam_prompt == prompt, "cand": self.cand_prompt == prompt}
        picked = {
            name: value[tables.get(name.partition("_")[0], slice(prompt, prompt + 1))]
            for name, value in vars(self).items()
            if name != "meta"
        }
        for name in ("beam_prompt", "cand_prompt"):
            picked[name] = np.zeros_like(picked[name])
        return BeamTrace(**picked, meta=self.meta)


@dataclass
class GroupTrace(Trace):
    """Q questions with G sampled responses each, and what each method makes of them (FGO).

    prompts      Q strings; texts: Q lists of G strings; answers: Q strings
    correct      bool (Q, G); length int (Q, G) tokens
    entropy      {kind: float (Q, G)} for sampled_sum, full_sum, full_mean (nats)
    advantages   {method: float (Q, G)}, for instance "fgo" and "grpo"
    """

    prompts: list[str]
    answers: list[str]
    texts: list[list[str]]
    correct: Annotated[np.ndarray, "bool Q G"]
    length: Annotated[np.ndarray, "int Q G"]
    entropy: Annotated[dict[str, np.ndarray], "float Q G"] = field(default_factory=dict)
    advantages: Annotated[dict[str, np.ndarray], "float Q G"] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        questions, responses = self.correct.shape
        for name in ("prompts", "answers", "texts"):
            if (count := len(getattr(self, name))) != questions:
                fail(name, f"{count} of them", f"one for each of the {questions} questions in correct")
        if not all(isinstance(group, list) and len(group) == responses for group in self.texts):
            fail("texts", "others", f"a list of {responses} responses for each question")


@dataclass
class TrainTrace(Trace):
    """One training run: a table of curves against the optimiser step, and sampled completions.

    step      int (n,) optimiser steps, ascending
    series    {name: float (n,) or (n, layers)} NaN where a curve was not logged at that step
    samples   dicts with at least ``step`` and ``text`` (FGO: prompt, correct, length, entropy too)
    meta      arm, config, parameters, seed, provenance, findings: [{step, where, what}]
    """

    step: Annotated[np.ndarray, "int n"]
    series: Annotated[dict[str, np.ndarray], "number n ..."] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (behind := np.flatnonzero(self.step[1:] <= self.step[:-1])).size:
            fail("step", self.step[behind[0] : behind[0] + 2].tolist(), "ascending")
        for name, values in self.series.items():
            if values.ndim > 2:
                fail(f"series[{name!r}]", values.shape, "of shape (n,) or (n, layers)")
        for sample in self.samples:
            if not isinstance(sample, dict) or not {"step", "text"} <= sample.keys():
                fail("samples", sample, "dicts with step and text")
            if number("step of a sample", sample["step"], -math.inf) % 1:
                fail("step of a sample", sample["step"], "a whole number")
            if not isinstance(sample["text"], str):
                fail("text of a sample", sample["text"], "a str")
        for finding in self.meta.get("findings", []):
            if not isinstance(finding, dict) or not {"step", "where", "what"} <= finding.keys():
                fail("meta['findings']", finding, "dicts with step, where and what")

    @property
    def findings(self) -> list[str]:
        """What went wrong in the run, in words."""
        return [f"step {f['step']}, {f['where']}: {f['what']}" for f in self.meta.get("findings", [])]

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of one curve without the NaN gaps. ValueError names the known curves."""
        if name not in self.series:
            raise ValueError(f"name must be one of {sorted(self.series)}; got {name!r}")
        values = self.series[name]
        logged = ~np.isnan(values) if values.ndim == 1 else ~np.isnan(values).all(-1)
        return self.step[logged], values[logged]

    @classmethod
    def from_log(cls, log: list[dict[str, float]], **rest: Any) -> "TrainTrace":
        """Build from a list of dicts that each hold ``step`` (transformers' ``log_history``)."""
        rows: dict[int, dict[str, float]] = {}
        for entry in log:
            row = rows.setdefault(int(entry["step"]), {})
            row |= {k: v for k, v in entry.items() if k != "step" and isinstance(v, Real)}
        steps = sorted(rows)
        names = sorted({name for row in rows.values() for name in row})
        series = {n: np.array([rows[s].get(n, np.nan) for s in steps], float) for n in names}
        return cls(step=np.array(steps, int), series=series, **rest)
