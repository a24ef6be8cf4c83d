"""FGOConfig: TRL's GRPOConfig plus FGO's settings."""

from dataclasses import dataclass, field, fields
from typing import Any

from trl import GRPOConfig

from labkit import checks
from labkit.fgo.objective import Objective, check, setting

METHODS = ("fgo", "grpo")
# What TRL takes unseen and then trains on nonsense, or blames another option for: whole numbers with their
# smallest value, and numbers that are not negative.
COUNTS = {
    "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "generation_batch_size": 1,
    "steps_per_generation": 1, "num_generations": 2, "num_iterations": 1,
}  # fmt: skip
WEIGHTS = ("beta", "epsilon", "epsilon_high")


@dataclass
class FGOConfig(GRPOConfig):
    """TRL's GRPOConfig plus FGO's settings; for alpha, clamp, scale, entropy, zero_all_wrong see Objective.

    TRL's ``scale_rewards`` says nothing about FGO's advantages, ``scale`` does. With method "grpo" it is
    the other way round, and the defaults of GRPOConfig apply.

    Attributes:
        method: "fgo", or "grpo": TRL's own advantages with the same metrics.
        beta_entropy: the Objective's beta. TRL's ``beta`` is the weight of the KL term (0, the default, is
            also the paper's setting).
        correct: name of the reward function whose positive values say correct; None: the first.

    Raises:
        ValueError: a setting is out of its bounds; the message names it.
    """

    output_dir: str | None = field(
        default=None,
        metadata={"aliases": "--output", "help": "folder for checkpoints, model, samples and trace"},
    )
    method: str = field(
        default="fgo", metadata={"help": "'fgo', or 'grpo': TRL's own advantages with the same metrics"}
    )
    alpha: float = setting("alpha")
    beta_entropy: float = setting("beta")
    entropy: str = setting("entropy")
    clamp: float = setting("clamp")
    scale: str = setting("scale")
    correct: str | None = field(
        default=None,
        metadata={"help": "the reward function whose positive values say correct (default: the first)"},
    )
    zero_all_wrong: bool = setting("zero_all_wrong")

    def __post_init__(self):
        checks.choice("method", self.method, METHODS)
        check(self._settings(), beta="beta_entropy")
        for name, least in COUNTS.items():
            if (value := getattr(self, name)) is not None:
                checks.integer(name, value, least)
        for name in WEIGHTS:
            if (value := getattr(self, name)) is not None:
                checks.number(name, value, 0)
        super().__post_init__()

    @property
    def objective(self) -> Objective:
        """The settings of FGO's advantages, under the paper's names."""
        return Objective(**self._settings())

    def _settings(self) -> dict[str, Any]:
        names = (item.name for item in fields(Objective))
        return {name: self.beta_entropy if name == "beta" else getattr(self, name) for name in names}
