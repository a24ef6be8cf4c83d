"""DecodeConfig: the options of ``decode``, checked once and handed on as one."""

import math
import secrets
from dataclasses import dataclass, fields
from typing import Any

from labkit import checks

STRATEGIES = (
    "greedy", "parallel", "adaptive", "fast_dllm", "factor", "eb", "klass", "prophet", "rcr", "pbs",
    "order_token", "soar",
)  # fmt: skip
WHOLE = {  # smallest value of each whole number
    "mask_id": 0, "gen_length": 0, "block_length": 1, "steps": 1, "beam": 1, "max_parallel": 1,
    "min_collapse": 1, "seed": 0, "batch_size": 1, "top_k": 1, "kl_history": 1, "token_beam": 1,
}  # fmt: skip
OPTIONAL = ("block_length", "steps", "seed", "batch_size", "top_k")
NUMBERS = {  # largest value of each number, from 0 on
    "threshold": 1, "temperature": math.inf, "cfg_scale": math.inf, "top_p": 1, "eos_penalty": math.inf,
    "factor": math.inf, "gamma": math.inf, "gap": math.inf, "kl_threshold": math.inf,
}  # fmt: skip
SCHEDULED = ("greedy", "parallel", "rcr")  # strategies that spend ``steps``
# Strategies that compare the confidence with a share.
THRESHOLD = ("adaptive", "fast_dllm", "factor", "klass", "soar")


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """The options of one ``decode``, which explains them, under the names of its keywords.

    Once made, numbers are plain Python numbers, ``beam`` is 1 where the strategy keeps one beam, and
    ``seed`` is None where nothing is drawn and a fresh one where none was given.

    Raises:
        ValueError: names the option, what was given and what is allowed.
    """

    mask_id: int
    strategy: str = "soar"
    gen_length: int = 0
    block_length: int | None = None
    steps: int | None = None
    beam: int = 2
    token_beam: int = 2
    threshold: float = 0.9
    min_parallel: int = 1
    max_parallel: int = 5
    min_collapse: int = 1
    factor: float = 1.0
    gamma: float = 0.1
    kl_threshold: float = 0.01
    kl_history: int = 2
    gap: float = 7.5
    score: str = "mean"
    confidence: str = "probability"
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    suppress_eos: str | None = None
    eos_penalty: float = 0.0
    cfg_scale: float = 0.0
    seed: int | None = None
    eos_early_stop: bool = True
    batch_size: int | None = None
    record: bool = True

    def __post_init__(self) -> None:
        # 1) Each option on its own.
        checks.choice("strategy", self.strategy, STRATEGIES)
        if self.steps is not None and self.strategy not in SCHEDULED:
            allowed = f"None for strategy {self.strategy!r}, which stops when nothing is masked"
            checks.fail("steps", self.steps, allowed)
        for name, low in WHOLE.items():
            if name not in OPTIONAL or getattr(self, name) is not None:
                self._set(name, checks.integer(name, getattr(self, name), low))
        for name, high in NUMBERS.items():
            self._set(name, checks.number(name, getattr(self, name), 0, high))
        for name in ("eos_early_stop", "record"):
            self._set(name, bool(checks.choice(name, getattr(self, name), (True, False))))
        checks.choice("score", self.score, ("mean", "sum"))
        checks.choice("confidence", self.confidence, ("probability", "margin", "entropy"))
        checks.choice("suppress_eos", self.suppress_eos, (None, "logits", "confidence"))
        # 2) What one allows another.
        self._set("min_parallel", checks.integer("min_parallel", self.min_parallel, 1, self.max_parallel))
        if self.block_length is not None and self.gen_length % self.block_length:
            checks.fail("gen_length", self.gen_length, f"a multiple of block_length={self.block_length}")
        if self.confidence == "entropy" and self.strategy in THRESHOLD:
            allowed = (
                f"'probability' or 'margin' for strategy {self.strategy!r}, which takes it for a share"
            )
            checks.fail("confidence", self.confidence, allowed)
        if self.confidence != "probability" and self.strategy == "order_token":
            checks.fail("confidence", self.confidence, "'probability' for strategy 'order_token'")
        # 3) What has no effect is the same in every config.
        if self.strategy not in ("pbs", "order_token", "soar"):
            self._set("beam", 1)
        if not self.temperature:
            for name, unused in (("seed", None), ("top_p", 1.0), ("top_k", None)):
                self._set(name, unused)
        elif self.seed is None:
            self._set("seed", secrets.randbits(31))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen for everyone else

    @property
    def parameters(self) -> dict[str, Any]:
        """What an answer may depend on beside strategy and mask: for a trace's metadata."""
        apart = ("strategy", "mask_id", "batch_size", "record")
        return {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name not in apart}
