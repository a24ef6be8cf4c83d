"""FGO: fine-grained group policy optimisation (arXiv 2602.10048), GRPO beside it, on TRL.

advantages  fgo_advantages, grpo_advantages: pure functions of (Q, G) tensors
tasks       verbose sums with checks and slips, their tokenizer and scorer
char_model  a tiny Qwen2 over characters and its supervised training
groups      sample groups of responses -> GroupTrace; reweigh them
trainer     FGOConfig, FGOTrainer: TRL's GRPOTrainer with FGO's advantages
live        run GRPO or FGO on the verbose sums -> TrainTrace
"""

from importlib import import_module

from labkit.fgo.advantages import fgo_advantages, fgo_rewards, grpo_advantages

__all__ = ["FGOConfig", "FGOTrainer", "fgo_advantages", "fgo_rewards", "grpo_advantages"]


def __getattr__(name: str):
    # TRL loads slowly and is absent on some machines: only the two names that need it pay for it.
    if name in ("FGOConfig", "FGOTrainer"):
        return getattr(import_module("labkit.fgo.trainer"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
