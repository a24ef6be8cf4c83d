"""What a beam proposes: every strategy as one rule, "commit n at once, or try positions one by one".

greedy       one beam; n by schedule, 1 a step by default
parallel     one beam; n by schedule, ``max_parallel`` a step by default
adaptive     one beam; all above the threshold, at most ``max_parallel``, at least one: SOAR with one beam
fast_dllm    the same without a cap: Fast-dLLM's threshold rule (arXiv 2505.22618, section 3.3)
factor       one beam; Fast-dLLM's factor rule (counts.by_factor)
eb           one beam; EB-Sampler (counts.by_entropy)
klass        one beam; all that are sure and stable, else one (counts.ready, stability)
prophet      one beam; one a step, then the whole block (counts.by_gap)
rcr          one beam; n by schedule, and what is less sure than the new is masked again (remasking)
pbs          ``beam`` beams; always one by one (position beam search, SOAR section 3)
order_token  ``beam`` beams; one by one, over positions and tokens, by likelihood
soar         ``beam`` beams; n at once where enough masks pass the threshold, else one by one

Order-Token Search (Shen et al., arXiv 2601.20339) keeps the beams of highest likelihood among children
that differ in order and in tokens. Of the paper we could read the abstract, a summary and a rewrite by
others, not its algorithm. By these it draws children with Gumbel noise where a block begins and scores
each by one more forward: the log-likelihood of the new block, masked again in the model's full
prediction. Ours branches at every step over the most probable (position, token) pairs, ``token_beam``
tokens a position, and scores a commit by its log-likelihood in the state that proposes it: no noise
without ``temperature``, no further forward. It is a beam search over the paper's space, not the paper's
algorithm; its published gains are not claimed for it.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from labkit import checks
from labkit.soar import counts
from labkit.soar.config import DecodeConfig
from labkit.soar.prediction import NEVER, UNMEASURED, Prediction, Proposal

FUSED = ("greedy", "parallel", "adaptive", "fast_dllm", "pbs", "soar")  # what ``beam_kernel`` can do
UNCAPPED = ("fast_dllm", "factor", "eb", "klass", "prophet", "rcr")  # one candidate may fill a whole block
# The option that bounds a strategy.
BOUND = {"factor": "factor", "eb": "gamma", "klass": "kl_history", "prophet": "gap"}


@dataclass(frozen=True)
class Rule:
    """The strategy of one decode for its P prompts."""

    strategy: str
    width: int  # beams kept per prompt (K)
    reach: int  # most tokens one candidate commits (D)
    threshold: float
    min_parallel: int
    collapse: int  # soar: keep one beam after an accelerate step that committed at least so many tokens
    mean: bool  # score = mean confidence of the committed tokens, else their sum
    steps: Tensor | None = None  # (P,) int64 steps per block (greedy, parallel); None: ``reach`` a step
    bound: float = 0.0  # what the strategy compares its measure with (BOUND)
    fused: bool = True  # ``beam_kernel`` may move the beams
    branches: int = 1  # tokens proposed of a position: W * branches candidates, all W likeliest first

    @classmethod
    def of(
        cls,
        config: DecodeConfig,
        count: Tensor,  # (P,) int64 masks to fill, on the host
        device: torch.device,
    ) -> "Rule":
        """ValueError if ``steps`` is not a multiple of the number of blocks of every prompt."""
        most = max(1, int(count.max()))
        block_length, steps = config.block_length or most, None
        reach = {"greedy": 1, "pbs": 1, "order_token": 1}.get(
            config.strategy, min(config.max_parallel, block_length)
        )
        if config.steps is not None:
            blocks = (-(-count // block_length)).clamp(min=1)
            for number in blocks.unique().tolist():
                if config.steps % number:
                    allowed = f"a positive multiple of the number of blocks, {number}"
                    checks.fail("steps", config.steps, allowed)
            steps = config.steps // blocks
            reach = max(1, -(-min(block_length, most) // int(steps.min())))
            steps = steps.to(device)
        if config.strategy in UNCAPPED:
            reach = min(block_length, most)
        return cls(
            strategy={"fast_dllm": "adaptive"}.get(config.strategy, config.strategy),
            width=config.beam,
            reach=reach,
            threshold=config.threshold,
            min_parallel=config.min_parallel,
            collapse=config.min_collapse,
            mean=config.score == "mean",
            steps=steps,
            bound=getattr(config, BOUND.get(config.strategy, ""), 0.0),
            # The kernel takes a confidence below 0, a negative entropy, for 0.
            fused=config.strategy in FUSED and config.confidence != "entropy",
            branches=config.token_beam if config.strategy == "order_token" else 1,
        )

    def worth(self, confidence: Tensor) -> Tensor:
        """fp64: what a commit of this ``confidence`` adds to the score; its logarithm for a likelihood."""
        exact = confidence.double()
        return exact.log() if self.strategy == "order_token" else exact

    def offered(self, prediction: Prediction) -> Prediction:
        """What may be committed in this step of ``prediction``: all of it, but for KLASS."""
        if self.strategy != "klass":
            return prediction
        confidence = prediction.confidence
        chosen = counts.ready(confidence, prediction.measure, self.bound, self.threshold)
        hidden = chosen.any(-1, keepdim=True) & ~chosen
        return replace(prediction, confidence=confidence.masked_fill(hidden, NEVER))

    def num_transfer_tokens(
        self,
        prediction: Prediction,
        prompt: Tensor,  # (A,) int64
        size: Tensor,  # (A, K) int64 masks the block began with
        step: Tensor,  # (A, K) int64 steps spent in the block
        progress: Tensor = UNMEASURED,  # (A, K) fp64, prophet: share of a decode one by one, this step too
    ) -> Tensor:
        """How many tokens a beam commits at once, int64 (A, K); 0: it tries positions one by one."""
        confidence, measure = prediction.confidence, prediction.measure
        masks = (confidence > NEVER).sum(-1)
        if self.strategy in ("pbs", "order_token"):
            return torch.zeros_like(masks)
        if self.strategy in ("adaptive", "soar"):
            num_confident = (confidence > self.threshold).sum(-1)
            return torch.where(num_confident >= self.min_parallel, num_confident.clamp(max=self.reach), 0)
        if self.strategy == "klass":
            quota = counts.ready(confidence, measure, self.bound, self.threshold).sum(-1)
        elif self.strategy == "factor":
            quota = counts.by_factor(confidence, self.bound)
        elif self.strategy == "eb":
            quota = counts.by_entropy(confidence, measure, self.bound)
        elif self.strategy == "prophet":
            quota = counts.by_gap(confidence, measure, progress, self.bound)
        elif self.steps is None and self.strategy == "rcr":
            quota = masks.clamp(max=1)
        elif self.steps is None:
            quota = masks.clamp(max=self.reach)
        else:  # m masks over S steps: the first m mod S steps take one more
            steps = self.steps[prompt][:, None]
            quota = torch.minimum(size // steps + (step < size % steps), masks)
        return torch.where(quota > 1, quota, 0)  # one token at once is one by one

    def propose(
        self,
        prediction: Prediction,
        num_transfer_tokens: Tensor,  # (A, K) int64
    ) -> Proposal:
        """The candidates of every beam, K columns of D commits each.

        Where a beam commits n tokens at once, column 0 holds its n most confident positions; otherwise
        column j holds the j-th most confident one. Equal confidences: the lower position first.
        """
        prompts, width, window = prediction.confidence.shape
        # 1) The positions of each beam, most confident first, at least as many as are asked for below.
        confidence, order = torch.sort(prediction.confidence, dim=-1, descending=True, stable=True)
        if (lacking := max(width, self.reach) - window) > 0:
            confidence = torch.nn.functional.pad(confidence, (0, lacking), value=NEVER)
            order = torch.nn.functional.pad(order, (0, lacking))
        # 2) The rank (A, K, K * D) of what each commit of each candidate takes.
        column = torch.arange(width, device=order.device)[:, None]
        place = torch.arange(self.reach, device=order.device)[None]
        number = num_transfer_tokens[..., None, None]
        real = torch.where(number > 0, (column == 0) & (place < number), place == 0)
        rank = torch.where(number > 0, place, column.expand(-1, self.reach))
        rank = rank.expand(prompts, -1, -1, -1).flatten(2)
        # 3) What stands there.
        shape = (prompts, width, width, self.reach)
        order, confidence = order.gather(2, rank), confidence.gather(2, rank).view(shape)
        return Proposal(
            real=real & (confidence > NEVER),
            positions=prediction.positions.gather(2, order).view(shape),
            tokens=prediction.tokens.gather(2, order).view(shape),
            confidence=confidence,
            accelerated=(num_transfer_tokens > 0).any(-1),
        )
