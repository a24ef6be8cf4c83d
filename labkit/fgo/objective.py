"""Objective: the settings of FGO's advantages, each spelled, checked and explained in this one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from labkit import checks

ENTROPY_KINDS = ("sampled_sum", "full_sum", "full_mean")  # computed by measures.response_entropy
SCALES = ("none", "std")
BOUNDS: dict[str, tuple[float, float]] = {"alpha": (0, 10), "beta": (0, 10), "clamp": (1, 1000)}
CHOICES: dict[str, tuple[Any, ...]] = {
    "scale": SCALES, "entropy": ENTROPY_KINDS, "zero_all_wrong": (True, False),
}  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """What FGO rewards; the defaults are the paper's (arXiv 2602.10048) and, for entropy, its code's.

    Attributes:
        alpha: exponent of the length ratio, in [0, 10].
        beta: exponent of the entropy ratio, in [0, 10]. FGOConfig calls it ``beta_entropy``: TRL's beta is
            the weight of the KL term.
        clamp: both ratios are held in [1/clamp, clamp], clamp in [1, 1000]; 0/0 counts as 1.
        scale: "none" (the paper), or "std": divide by the group's standard deviation + 1e-4, which is what
            the authors' released recipe does through TRL's default.
        entropy: which entropy of a response is read, see ``measures.response_entropy``.
        zero_all_wrong: learn nothing from groups without a correct response, where beta can reward long
            answers.

    Raises:
        ValueError: a setting is out of its bounds; the message names it.
    """

    alpha: float = field(default=0.01, metadata={"help": "exponent of the length ratio, 0 to 10"})
    beta: float = field(default=1.0, metadata={"help": "exponent of the entropy ratio, 0 to 10"})
    clamp: float = field(default=10.0, metadata={"help": "both ratios stay in [1/clamp, clamp], 1 to 1000"})
    scale: str = field(default="none", metadata={"help": "'none' (the paper) or 'std' (its code)"})
    entropy: str = field(default="sampled_sum", metadata={"help": ", ".join(ENTROPY_KINDS)})
    zero_all_wrong: bool = field(default=False, metadata={"help": "learn nothing from all-wrong groups"})

    def __post_init__(self):
        check(vars(self))


def check(settings: Mapping[str, Any], **renamed: str) -> None:
    """ValueError for the first setting out of its bounds; ``renamed``: what the message calls a setting."""
    for name, (low, high) in BOUNDS.items():
        checks.number(renamed.get(name, name), settings[name], low, high)
    for name, allowed in CHOICES.items():
        checks.choice(renamed.get(name, name), settings[name], allowed)


def setting(name: str) -> Any:
    """A dataclass field with the default and the help of ``Objective``'s field ``name``."""
    (own,) = (item for item in fields(Objective) if item.name == name)
    return field(default=own.default, metadata=own.metadata)
