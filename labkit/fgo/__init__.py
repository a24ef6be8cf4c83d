"""FGO: fine-grained group policy optimisation (arXiv 2602.10048), GRPO beside it, on TRL.

advantages  fgo_advantages, grpo_advantages: pure functions of (Q, G) tensors
objective   Objective: alpha, beta, clamp, scale, entropy; measures: entropies of a response, ACT, intervals
trainer     FGOTrainer: TRL's GRPOTrainer with FGO's advantages; config: FGOConfig; watch: its warnings
cli         labkit train fgo: any causal LM, any data set with checkable answers; presets: the paper's
policy      loading what is trained
datasets    (labkit.rows) from the hub, .jsonl, .parquet, .csv, save_to_disk folders; how they are asked
record      sampled completions and counts of a run
rewards     those answers: files, LaTeX (math_judge), reasoning-gym; smollm: a public model to train
answers     where a text states its answer; values: whether two are equal
tasks       verbose sums with checks and slips, their tokenizer and scorer
lab         the fast loop: reasoner (the lab's models), sampler, fleet; groups (sampled responses ->
            GroupTrace), live (a run of GRPO or FGO -> TrainTrace)
"""

from importlib import import_module

from labkit.fgo.advantages import fgo_advantages, grpo_advantages
from labkit.fgo.objective import Objective

__all__ = ["FGOConfig", "FGOTrainer", "Objective", "fgo_advantages", "grpo_advantages"]


def __getattr__(name: str):
    # TRL loads slowly and is absent on some machines: only the two names that need it pay for it.
    if name in ("FGOConfig", "FGOTrainer"):
        return getattr(import_module(f"labkit.fgo.{name.removeprefix('FGO').lower()}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
