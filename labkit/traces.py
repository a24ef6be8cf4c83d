"""What an algorithm hands to a figure: plain arrays and metadata, saved as one npz without pickle.

MaskTrace   activations before a 2:4 mask and the mask itself
BeamTrace   every state, candidate and decision of a SOAR decode
GroupTrace  groups of sampled responses with length, entropy, correctness and advantages
TrainTrace  a training run: logged curves and sampled completions

Algorithms make traces, figures and widgets read them; this module needs numpy alone.
"""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from labkit.checks import fail, integer
from labkit.paths import write_atomic

FORMAT = 1
SEARCH, ACCELERATE, FINISHED = 0, 1, 2  # BeamTrace.beam_mode
KEPT, MERGED, PRUNED = 0, 1, 2  # BeamTrace.cand_fate


@dataclass
class Trace:
    """Save and load for the dataclasses below: arrays go into the npz, all else into its JSON entry."""

    def save(self, path: str | Path) -> Path:
        """Write one ``.npz`` (compressed, no pickle); the file appears whole or not at all."""
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"path must end in .npz; got {str(path)!r}")
        arrays: dict[str, Any] = {}
        plain = {"kind": type(self).__name__, "format": FORMAT}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, np.ndarray):
                arrays[spec.name] = value
            elif spec.metadata.get("arrays"):
                arrays |= {f"{spec.name}/{key}": np.asarray(item) for key, item in value.items()}
            else:
                plain[spec.name] = value
        arrays["json"] = np.array(json.dumps(plain))
        return write_atomic(path, lambda temporary: np.savez_compressed(temporary, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote (``Trace.load``: any kind). ValueError if the file is no such trace."""
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            plain = json.loads(str(arrays.pop("json")))
            kind, number = plain.pop("kind", None), plain.pop("format", None)
            known = {one.__name__: one for one in (cls, *cls.__subclasses__())}
            if number == FORMAT and (made := known.get(kind)):
                for spec in fields(made):
                    if spec.metadata.get("arrays"):
                        keys = [key for key in arrays if key.startswith(spec.name + "/")]
                        plain[spec.name] = {key.partition("/")[2]: arrays.pop(key) for key in keys}
                return made(**arrays, **plain)
        except OSError:
            raise
        except Exception as error:  # a damaged file makes zip, numpy and JSON stumble in many ways
            raise ValueError(f"path must be a {cls.__name__} npz; {path} is not ({error})") from None
        raise ValueError(
            f"path must hold a {cls.__name__} of format {FORMAT}; {path} holds {kind} {number}"
        )


@dataclass
class MaskTrace(Trace):
    """ReLU² activations of one forward pass and the 2:4 mask that ELAS lays over them.

    activations  float (layers, tokens, features), before the mask
    kept         bool, same shape: True where the mask lets the value through (two of every four)
    tokens       the text of each token
    meta         model, step, seed, provenance
    """

    activations: np.ndarray
    kept: np.ndarray
    tokens: list[str]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        shape = self.activations.shape
        if len(shape) != 3 or shape[-1] % 4:
            fail("activations", shape, "(layers, tokens, features) with features a multiple of 4")
        if self.kept.shape != shape or self.kept.dtype != bool:
            raise ValueError(f"kept must be bool {shape}; got {self.kept.dtype} {self.kept.shape}")

    @property
    def natural_zeros(self) -> np.ndarray:
        """(layers,) share of activations that ReLU² itself made zero."""
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
        """(layers,) share of the squared norm that survives the mask (1 where all is zero)."""
        energy = np.square(self.activations, dtype=np.float64)
        total = energy.sum((1, 2))
        return np.where(total > 0, (energy * self.kept).sum((1, 2)) / np.maximum(total, 1e-300), 1.0)


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
    cand_positions, cand_tokens         int (c, D) what it commits, -1 padded
    cand_confidence   float (c, D), NaN padded
    cand_score        float (c,)
    cand_fate         int (c,) KEPT, MERGED (same sequence as a better one) or PRUNED
    cand_child        int (c,) slot in step + 1 if kept, else -1
    meta              strategy, parameters, mask_id, provenance, total forward calls and rows

    With ``record=False`` both tables are empty; the first five arrays are always filled.
    """

    sequences: np.ndarray
    prompt_length: np.ndarray
    scores: np.ndarray
    calls: np.ndarray
    rows: np.ndarray
    beam_prompt: np.ndarray
    beam_step: np.ndarray
    beam_slot: np.ndarray
    beam_parent: np.ndarray
    beam_score: np.ndarray
    beam_committed: np.ndarray
    beam_mode: np.ndarray
    beam_tokens: np.ndarray
    beam_prediction: np.ndarray
    beam_confidence: np.ndarray
    cand_prompt: np.ndarray
    cand_step: np.ndarray
    cand_parent: np.ndarray
    cand_positions: np.ndarray
    cand_tokens: np.ndarray
    cand_confidence: np.ndarray
    cand_score: np.ndarray
    cand_fate: np.ndarray
    cand_child: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)

    def of_prompt(self, prompt: int) -> "BeamTrace":
        """The trace of one prompt alone (renumbered to prompt 0): what a tree is drawn from."""
        integer("prompt", prompt, 0, len(self.sequences) - 1)
        picked = {}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if spec.name == "meta":
                picked["meta"] = value
            elif spec.name.startswith("beam_"):
                picked[spec.name] = value[self.beam_prompt == prompt]
            elif spec.name.startswith("cand_"):
                picked[spec.name] = value[self.cand_prompt == prompt]
            else:
                picked[spec.name] = value[prompt : prompt + 1]
        picked["beam_prompt"] = np.zeros_like(picked["beam_prompt"])
        picked["cand_prompt"] = np.zeros_like(picked["cand_prompt"])
        return BeamTrace(**picked)


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
    correct: np.ndarray
    length: np.ndarray
    entropy: dict[str, np.ndarray] = field(default_factory=dict, metadata={"arrays": True})
    advantages: dict[str, np.ndarray] = field(default_factory=dict, metadata={"arrays": True})
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainTrace(Trace):
    """One training run: a table of curves against the optimiser step, and sampled completions.

    step      int (n,) optimiser steps, ascending
    series    {name: float (n,) or (n, layers)} NaN where a curve was not logged at that step
    samples   dicts with at least ``step`` and ``text`` (FGO: prompt, correct, length, entropy too)
    meta      arm, config, parameters, seed, provenance, findings: [{step, where, what}]
    """

    step: np.ndarray
    series: dict[str, np.ndarray] = field(default_factory=dict, metadata={"arrays": True})
    samples: list[dict[str, Any]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

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
            row |= {k: v for k, v in entry.items() if k != "step" and isinstance(v, (int, float))}
        steps = sorted(rows)
        names = sorted({name for row in rows.values() for name in row})
        series = {n: np.array([rows[s].get(n, np.nan) for s in steps], float) for n in names}
        return cls(step=np.array(steps, int), series=series, **rest)
