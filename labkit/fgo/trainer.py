"""FGO on TRL: GRPOTrainer with one override that replaces the advantages, and FGOConfig for its settings.

Sampling, rewards, the clipped loss, checkpoints and logging stay TRL's. Besides TRL's metrics it logs,
over all processes and averaged over the logging interval like TRL's:

    fgo/response_entropy   mean over responses of the entropy that FGO reads (nats)
    fgo/accuracy           share of scorable responses that are correct
    fgo/act                accuracy in % per 100 tokens of mean length
    fgo/invalid_groups     groups whose advantages are all below 1e-6: nothing is learned from them
    fgo/constant_groups    groups whose raw rewards are all the same
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import torch
from accelerate.utils import gather
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from labkit import checks
from labkit.fgo.advantages import FLAT, objective_advantages, subgroups
from labkit.fgo.measures import act, response_entropy
from labkit.fgo.objective import Objective, check, setting

SUPPORTED = "trl >= 1.8 (checked with 1.16)"
METHODS = ("fgo", "grpo")
# What this module relies on beyond TRL's public interface; a test pins their signatures too.
PRIVATE_METHODS = (
    "_calculate_rewards",
    "_generate_and_score_completions",
    "_get_per_token_logps_and_entropies",
)
PRIVATE_ATTRIBUTES = ("_logs", "_metrics", "num_generations", "reward_func_names", "reward_weights")
# Inputs that a model with images needs in its forward pass; FGO's extra pass does not hand them on.
PICTURES = ("pixel_values", "image_grid_thw", "image_sizes", "mm_token_type_ids", "tool_mask")


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
        super().__post_init__()

    @property
    def objective(self) -> Objective:
        """The settings of FGO's advantages, under the paper's names."""
        return Objective(**self._settings())

    def _settings(self) -> dict[str, Any]:
        names = (item.name for item in fields(Objective))
        return {name: self.beta_entropy if name == "beta" else getattr(self, name) for name in names}


class FGOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer whose advantages are FGO's.

    A response is correct if one reward function, ``args.correct`` or else the first, gives more than 0: a
    reward for format never makes a wrong answer right. The others, and ``reward_weights``, act on GRPO's
    advantages and the logged reward alone. Unscorable responses (that function returned None) and masked
    truncated ones take no part. ``last_groups`` holds the latest batch of all processes, tensors (Q, G):
    reward (the weighted sum), correct (NaN: unscorable), length, entropy, advantages.

    With ``args.beta`` above 0 a model that was not loaded from anywhere is its own reference, as it is now.

    Args:
        args: GRPOTrainer's positional arguments.
        kwargs: GRPOTrainer's keyword arguments; ``args`` among them is an FGOConfig.

    Raises:
        ValueError: ``args`` is no FGOConfig, or ``args.correct`` names no reward function.
        RuntimeError: this version of TRL lacks what is overridden here.
    """

    args: FGOConfig
    model: PreTrainedModel
    num_generations: int
    _logs: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any):
        missing = [name for name in PRIVATE_METHODS if not hasattr(GRPOTrainer, name)]
        if missing:
            raise _unsupported(missing)
        config = kwargs.get("args", args[2] if len(args) > 2 else None)
        if not isinstance(config, FGOConfig):
            checks.fail("args", type(config).__name__, "an FGOConfig")
        with _reference(kwargs.get("model", args[0] if args else None), config.beta):
            super().__init__(*args, **kwargs)
        if missing := [name for name in PRIVATE_ATTRIBUTES if not hasattr(self, name)]:
            raise _unsupported(missing)
        names = self.reward_func_names
        self._correct_column = names.index(checks.choice("correct", config.correct or names[0], names))
        self.last_groups: dict[str, torch.Tensor] = {}

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._raw_rewards = super()._calculate_rewards(*args, **kwargs)  # (all rows, functions), gathered
        return self._raw_rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if not self.model.training:  # evaluation has no advantages to learn from
            return output
        length, entropy = self._measure(output)
        _same_prompts(inputs, self.num_generations, self.accelerator.device)
        groups = self._judge(length, entropy, output["advantages"])
        self.last_groups = groups
        advantages = groups["advantages"].flatten()
        if self.args.method == "fgo":
            start = self.accelerator.process_index * len(inputs)
            output["advantages"] = advantages[start : start + len(inputs)].to(output["advantages"].dtype)
            # The log holds one generation batch: these rows push out TRL's own, appended just before.
            self._logs["advantages"].extend(advantages.tolist())
        self._report(groups)
        return output

    @torch.no_grad()
    def _measure(self, output: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """(length, entropy) of every response of all processes, by one more forward pass."""
        if found := [name for name in PICTURES if output.get(name) is not None]:
            raise NotImplementedError(f"FGOTrainer reads text responses only; the batch has {found}")
        mask = output["completion_mask"]
        passed = self._get_per_token_logps_and_entropies(
            self.model,
            torch.cat([output["prompt_ids"], output["completion_ids"]], 1),
            torch.cat([output["prompt_mask"], mask], 1),
            output["completion_ids"].shape[1],
            batch_size=self.args.per_device_train_batch_size,
            compute_entropy=True,
        )
        logprob, token_entropy = passed[0], passed[1]
        entropy = response_entropy(logprob.float(), token_entropy.float(), mask)[self.args.entropy]
        return gather(mask.sum(1)), gather(entropy)  # groups may straddle processes

    def _judge(self, length, entropy, own_advantages) -> dict[str, torch.Tensor]:
        """The batch as (Q, G) tensors with the advantages that will be used."""
        shape = (-1, self.num_generations)
        raw = self._raw_rewards
        reward = (raw * self.reward_weights.to(raw.device)).nansum(1)
        reward = reward.masked_fill(raw.isnan().all(1), torch.nan).view(shape)
        judged = raw[:, self._correct_column].view(shape)
        correct = torch.where(judged.isnan(), judged, (judged > 0).to(judged.dtype))
        length, entropy = length.view(shape), entropy.view(shape)
        if self.args.method == "fgo":
            advantages = objective_advantages(self.args.objective, correct, length, entropy)
        else:
            advantages = gather(own_advantages).view(shape)
        return {"reward": reward, "correct": correct, "length": length, "entropy": entropy,
                "advantages": advantages}  # fmt: skip

    def _report(self, groups: dict[str, torch.Tensor]) -> None:
        right, wrong = subgroups(groups["correct"], groups["length"])
        kept, reward = right | wrong, groups["reward"]
        low = torch.where(kept, reward, torch.inf).amin(1)
        high = torch.where(kept, reward, -torch.inf).amax(1)
        accuracy = (right.sum() / kept.sum().clamp(min=1)).item()
        tokens = groups["length"][kept].double().mean().item()  # NaN without any valid response
        values = {
            "response_entropy": groups["entropy"][kept].mean().item(),
            "accuracy": accuracy,
            "act": act(accuracy, tokens),
            "invalid_groups": (groups["advantages"].abs().amax(1) < FLAT).sum().item(),
            "constant_groups": (high - low <= FLAT).sum().item(),  # also true of a group without rows
        }
        self.last_counts = {name: values[name] for name in ("invalid_groups", "constant_groups")}
        for name, value in values.items():
            self._metrics["train"][f"fgo/{name}"].append(value)


@contextmanager
def _reference(model: Any, beta: float) -> Iterator[None]:
    """Let TRL load the reference of a model without a name: it reads the folder that the config names."""
    if not beta or not isinstance(model, PreTrainedModel) or model.config._name_or_path:
        yield
        return
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        model.config._name_or_path = folder
        try:
            yield
        finally:
            model.config._name_or_path = ""


def _same_prompts(inputs: list[dict[str, Any]], size: int, device: torch.device) -> None:
    """RuntimeError unless every run of ``size`` gathered rows asks one question, as the view assumes."""
    keys = gather(torch.tensor([crc32(repr(row["prompt"]).encode()) for row in inputs], device=device))
    keys = keys.view(-1, size)
    if not (keys == keys[:, :1]).all():
        raise RuntimeError(f"the {size} rows of a question must lie together; TRL gave another order")


def _unsupported(missing: list[str]) -> RuntimeError:
    return RuntimeError(f"FGOTrainer supports {SUPPORTED}; trl {version('trl')} lacks {', '.join(missing)}")
