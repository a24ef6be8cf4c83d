"""FGO on TRL: GRPOTrainer with one override that replaces the advantages.

Sampling, rewards, the clipped loss, checkpoints and logging stay TRL's. Besides TRL's metrics it logs,
over all processes and averaged over the logging interval like TRL's:

    fgo/response_entropy   mean over responses of the entropy that FGO reads (nats)
    fgo/accuracy           share of scorable responses that are correct
    fgo/act                accuracy in % per 100 tokens of mean length
    fgo/invalid_groups     groups whose advantages are all below 1e-6: nothing is learned from them
    fgo/constant_groups    groups whose raw rewards are all the same

An evaluation logs accuracy, length, act and response_entropy, each with the ends of its 95 % interval over
questions: eval_fgo/accuracy, eval_fgo/accuracy_low, eval_fgo/accuracy_high, ...
"""

from importlib.metadata import version
from typing import Any
from zlib import crc32

import numpy as np
import torch
from accelerate.utils import gather
from transformers import PreTrainedModel
from transformers.trainer_utils import has_length
from trl import GRPOTrainer

from labkit import checks
from labkit.fgo.advantages import FLAT, objective_advantages, subgroups
from labkit.fgo.answers import text_of
from labkit.fgo.config import FGOConfig
from labkit.fgo.measures import act, response_entropy, with_intervals
from labkit.fgo.policy import drops, end_tokens, reference
from labkit.fgo.watch import Watch, warn

SUPPORTED = "trl >= 1.8 (checked with 1.16)"
# What this module relies on beyond TRL's public interface; a test pins their signatures too.
PRIVATE_METHODS = (
    "_calculate_rewards",
    "_generate_and_score_completions",
    "_get_per_token_logps_and_entropies",
)
PRIVATE_ATTRIBUTES = (
    "_logs", "_metrics", "mask_truncated_completions", "num_generations", "num_generations_eval",
    "reward_func_names", "reward_weights",
)  # fmt: skip
# Inputs that a model with images needs in its forward pass; FGO's extra pass does not hand them on.
PICTURES = ("pixel_values", "image_grid_thw", "image_sizes", "mm_token_type_ids", "tool_mask")


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
    num_generations_eval: int
    _logs: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any):
        missing = [name for name in PRIVATE_METHODS if not hasattr(GRPOTrainer, name)]
        if missing:
            raise _unsupported(missing)
        config = kwargs.get("args", args[2] if len(args) > 2 else None)
        if not isinstance(config, FGOConfig):
            checks.fail("args", type(config).__name__, "an FGOConfig")
        model = kwargs.get("model", args[0] if args else None)
        with reference(model, 0.0 if kwargs.get("peft_config") else config.beta):
            super().__init__(*args, **kwargs)
        if missing := [name for name in PRIVATE_ATTRIBUTES if not hasattr(self, name)]:
            raise _unsupported(missing)
        ends = end_tokens(self.model, self.processing_class)
        if len(ends) > 1 and not hasattr(self, "eos_token_ids"):
            warn(f"trl {version('trl')} ends responses at token {ends[0]} alone, not at {ends[1:]}")
        names = self.reward_func_names
        self._correct_column = names.index(checks.choice("correct", config.correct or names[0], names))
        self.last_groups: dict[str, torch.Tensor] = {}
        self._watch = Watch(names[self._correct_column])
        self._passes: list[tuple[torch.Tensor, torch.Tensor]] = []  # (log-probs, entropies) of this batch
        self._examined: list[torch.Tensor] = []  # of this evaluation, see ``_examine``

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._raw_rewards = super()._calculate_rewards(*args, **kwargs)  # (all rows, functions), gathered
        return self._raw_rewards

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any):
        """TRL's; without gradients the policy's entropies come too and are kept: no pass is made twice."""
        if torch.is_grad_enabled() or model is self.ref_model:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        asked = kwargs | {"compute_entropy": True}
        passed = super()._get_per_token_logps_and_entropies(model, *args, **asked)
        self._passes.append(passed[:2])
        return passed

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any):
        self._examined, asked = [], dataloader.dataset
        found = super().evaluation_loop(dataloader, *args, **kwargs)
        # What is beyond pads the last batch of several processes.
        rows = len(asked) * self.num_generations_eval if has_length(asked) else None
        self._examined = [torch.cat(self._examined)[:rows]]
        return found

    def prediction_step(self, *args: Any, **kwargs: Any):
        result = super().prediction_step(*args, **kwargs)
        self._examined.append(self._examine())
        self._passes = []
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._examined and not self.model.training:
            rows = torch.cat(self._examined).view(-1, self.num_generations_eval, 3).double().cpu().numpy()
            for name, interval in with_intervals(*np.moveaxis(rows, 2, 0)).items():
                for ending, value in zip(("", "_low", "_high"), interval, strict=True):
                    self._metrics["eval"][f"fgo/{name}{ending}"] = [value]
            self._examined = []
        super().log(logs, start_time)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._passes, masks = [], self.mask_truncated_completions
        self.mask_truncated_completions &= self.model.training  # in an evaluation they count
        output = super()._generate_and_score_completions(inputs)
        self.mask_truncated_completions = masks
        if not self.model.training:  # there are no advantages to learn from
            self._mask = output["completion_mask"]
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
        if self.accelerator.is_main_process:
            self._watch(
                self._raw_rewards[:, self._correct_column],
                self._metrics["train"]["completions/clipped_ratio"][-1],
                self.args.max_completion_length or 0,
                (inputs[0].get("answer"), text_of(self._logs["completion"][0])),
            )
        return output

    @torch.no_grad()
    def _measure(self, output: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """(length, entropy) of every response of all processes.

        From the pass in which TRL computed the old log-probs, if it made one and the model has no dropout;
        else by one more forward pass, in eval mode.
        """
        if found := [name for name in PICTURES if output.get(name) is not None]:
            raise NotImplementedError(f"FGOTrainer reads text responses only; the batch has {found}")
        mask, old = output["completion_mask"], output.get("old_per_token_logps")
        passed = next((one for one in self._passes if one[0] is old and not drops(self.model)), None)
        if passed is None:
            self.model.eval()
            passed = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([output["prompt_ids"], output["completion_ids"]], 1),
                torch.cat([output["prompt_mask"], mask], 1),
                output["completion_ids"].shape[1],
                batch_size=self.args.per_device_train_batch_size,
            )
            self.model.train()
        self._passes = []
        # groups may straddle processes
        return gather(mask.sum(1)), gather(self._entropy(passed, mask))

    def _entropy(self, passed: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        return response_entropy(passed[0].float(), passed[1].float(), mask)[self.args.entropy]

    @torch.no_grad()
    def _examine(self) -> torch.Tensor:
        """correct, length and entropy of the evaluation's last batch, (rows of all processes, 3).

        TRL has just computed its log-probs for the loss.
        """
        length = self._mask.sum(1)
        start = self.accelerator.process_index * len(length)
        correct = self._correct()[start : start + len(length)]
        known = self._passes[-1:]  # a fused loss computes none
        entropy = self._entropy(known[0], self._mask) if known else torch.full_like(correct, torch.nan)
        return gather(torch.stack([correct, length.to(correct), entropy], 1))

    def _correct(self) -> torch.Tensor:
        """1 right, 0 wrong, NaN unscorable, (rows of all processes,)."""
        judged = self._raw_rewards[:, self._correct_column]
        return torch.where(judged.isnan(), judged, (judged > 0).to(judged.dtype))

    def _judge(self, length, entropy, own_advantages) -> dict[str, torch.Tensor]:
        """The batch as (Q, G) tensors with the advantages that will be used."""
        shape = (-1, self.num_generations)
        raw = self._raw_rewards
        reward = (raw * self.reward_weights.to(raw.device)).nansum(1)
        reward = reward.masked_fill(raw.isnan().all(1), torch.nan).view(shape)
        correct, length, entropy = self._correct().view(shape), length.view(shape), entropy.view(shape)
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


def _same_prompts(inputs: list[dict[str, Any]], size: int, device: torch.device) -> None:
    """RuntimeError unless every run of ``size`` gathered rows asks one question, as the view assumes."""
    keys = gather(torch.tensor([crc32(repr(row["prompt"]).encode()) for row in inputs], device=device))
    keys = keys.view(-1, size)
    if not (keys == keys[:, :1]).all():
        raise RuntimeError(f"the {size} rows of a question must lie together; TRL gave another order")


def _unsupported(missing: list[str]) -> RuntimeError:
    return RuntimeError(f"FGOTrainer supports {SUPPORTED}; trl {version('trl')} lacks {', '.join(missing)}")
