"""What the study runs: the settings of its arms, and the jobs of each training stage.

plan(stage, base, seeds, chosen)   the stage's jobs that can be named now
LEARNING_RATES, TUNE_SEED          tried for every arm with one seed that no arm is judged by
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from labkit.checks import choice
from labkit.elas.config import ARMS, PretrainConfig
from labkit.studies.elas.fastloop import built_for

TEXT = "gcide+sotu"  # both pinned by checksum: the same text on every machine
# As many values for every arm. Low-rank arms train with Loro, whose paper uses 0.01; dense ones with AdamW.
LEARNING_RATES = {"dense": (0.0003, 0.001, 0.003, 0.01), "low-rank": (0.0025, 0.005, 0.01, 0.02)}
TUNE_SEED = 1000
RULES: dict[str, dict[str, Any]] = {  # of ELAS's mask, and its dense warm-up
    "elas_soft": {"rule": "soft"},
    "elas_soft_scaled": {"rule": "soft scaled"},
    "elas_no_warmup": {"dense_steps": 0},
}
RECORDED = ("times", "tune", "arms", "rules")  # stages that fill study.json
TRACED = ("warmup", "checkpoints")  # stages that leave one TrainTrace a run
SHAPE = {"num_hidden_layers": 1, "hidden_size": 48, "num_attention_heads": 2, "intermediate_size": 96}


@dataclass(frozen=True)
class Job:
    """One run, or the timing of an arm's step.

    shown     the arm or the rule, as figures name it;  options   of FastRun: rule, half
    keep      name of the checkpoint that the model becomes
    """

    stage: str
    shown: str
    config: PretrainConfig
    options: Mapping[str, Any] = field(default_factory=dict)
    keep: str | None = None

    @property
    def name(self) -> str:
        """Unique in the study: "arms-elas_ste-lr0.01-seed3"."""
        if self.keep:
            return self.keep
        extra = f"-dense{self.config.dense_steps}" * (self.stage == "warmup")
        extra += "-float16" * bool(self.options.get("half"))
        return f"{self.stage}-{self.shown}{extra}-lr{self.config.lr:g}-seed{self.config.seed}"

    @property
    def built(self) -> str:
        """What two jobs share that can use one FastRun, and so what was compiled for it."""
        return json.dumps([built_for(self.config), dict(self.options)], sort_keys=True)


def settings(steps: int, tiny: bool) -> PretrainConfig:
    """What all arms share."""
    if tiny:
        return PretrainConfig(
            vocab_size=300, max_bytes=100_000, seq_len=64, batch_size=2, steps=steps, lr_warmup=2,
            dense_steps=2, exact_every=2, log_every=1, eval_every=2, eval_tokens=128, model=SHAPE,
        )  # fmt: skip
    return PretrainConfig(
        size="12m", source=TEXT, vocab_size=8192, max_bytes=None, seq_len=512, batch_size=32, steps=steps,
        lr_warmup=100, dense_steps=100, exact_every=100, log_every=10, eval_every=100, eval_tokens=65536,
    )  # fmt: skip


def rates(arm: str) -> tuple[float, ...]:
    """The learning rates tried for an arm."""
    return LEARNING_RATES["dense" if ARMS[arm].get("rank", 0) is None else "low-rank"]


def plan(stage: str, base: PretrainConfig, seeds: int, chosen: Mapping[str, float | None]) -> list[Job]:
    """Jobs of a stage; those that need an arm's learning rate only where it stands in ``chosen``."""

    def runs(shown: str, arm: str, **changed) -> list[Job]:
        options = {"rule": changed.pop("rule")} if "rule" in changed else {}
        if (lr := chosen.get(arm)) is None:
            return []
        config = replace(base, arm=arm, lr=lr, **changed)
        return [Job(stage, shown, replace(config, seed=seed), options) for seed in range(seeds)]

    arms = sorted(ARMS, key=lambda arm: arm != "elas_ste")  # its rate comes first: the rules wait for it
    if stage == "times":
        return [Job(stage, arm, replace(base, arm=arm, lr=rates(arm)[2])) for arm in arms]
    if stage == "tune":
        tried = [(arm, lr) for arm in arms for lr in rates(arm)]
        return [Job(stage, arm, replace(base, arm=arm, lr=lr, seed=TUNE_SEED)) for arm, lr in tried]
    if stage == "arms":
        return [job for arm in arms for job in runs(arm, arm)]
    if stage == "rules":
        return [job for rule, changed in RULES.items() for job in runs(rule, "elas_ste", **changed)]
    return _traced(choice("stage", stage, TRACED), base)


def _traced(stage: str, base: PretrainConfig) -> list[Job]:
    tiny = base.size == "tiny"
    if stage == "checkpoints":
        small: dict[str, Any] = (
            {} if tiny else {"size": "3m", "source": "sympy", "vocab_size": 2048, "steps": 1500}
        )
        named = {"lowrank_relu2": "elas-relu2-3m", "elas_ste": "elas-3m"}
        return [Job(stage, arm, replace(base, arm=arm, **small), keep=name) for arm, name in named.items()]
    half: dict[str, Any] = {"rule": "magnitude", "half": True}
    few = replace(base, arm="elas_ste", steps=min(400, base.steps))
    return [
        Job(stage, "elas_ste", replace(few, lr=lr, dense_steps=dense), half | {"half": as_half})
        for as_half in (False, True)
        for lr in (0.01, 0.03)
        for dense in (0, base.dense_steps)
    ]
