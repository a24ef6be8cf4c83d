"""What a beam proposes: the five strategies as one rule, "commit n together, or try positions one by one".

greedy     one beam; n by schedule, 1 a step by default
parallel   one beam; n by schedule, ``max_parallel`` a step by default
adaptive   one beam; all above the threshold (at most ``max_parallel``), at least one (Fast-dLLM)
pbs        ``beam`` beams; never together (position beam search, SOAR section 3)
soar       ``beam`` beams; together where enough masks pass the threshold, else one by one
"""

from dataclasses import dataclass

import torch

STRATEGIES = ("greedy", "parallel", "adaptive", "pbs", "soar")
NEVER = float("-inf")  # confidence of what is not a candidate


@dataclass(frozen=True)
class Rule:
    """The strategy of one decode, with its parameters already checked.

    width       beams kept per prompt (K)
    reach       most tokens one candidate commits (D)
    steps       long (P,) steps per block for greedy/parallel, or None: ``reach`` tokens a step
    collapse    soar: keep one beam after an accelerate step that committed at least so many tokens
    mean        score = mean confidence of the committed tokens, else their sum
    """

    strategy: str
    width: int
    reach: int
    threshold: float
    min_parallel: int
    collapse: int
    mean: bool
    steps: torch.Tensor | None = None

    def together(
        self, confidence: torch.Tensor, prompt: torch.Tensor, size: torch.Tensor, step: torch.Tensor
    ) -> torch.Tensor:
        """Long (A, K): how many tokens a beam commits together; 0 = it tries positions one by one.

        confidence  (A, K, W), -inf where there is nothing to commit
        prompt      (A,) prompt index; size, step: (A, K) masks the block began with, steps spent in it
        """
        masks = (confidence > NEVER).sum(-1)
        if self.strategy == "pbs":
            return torch.zeros_like(masks)
        if self.strategy in ("adaptive", "soar"):
            sure = (confidence > self.threshold).sum(-1)
            return torch.where(sure >= self.min_parallel, sure.clamp(max=self.reach), 0)
        if self.steps is None:
            quota = masks.clamp(max=self.reach)
        else:  # m masks over S steps: the first m mod S steps take one more
            steps = self.steps[prompt][:, None]
            quota = torch.minimum(size // steps + (step < size % steps), masks)
        return torch.where(quota > 1, quota, 0)  # one token together is one token

    def propose(self, view: "View", together: torch.Tensor) -> "Proposal":
        """The candidates of every beam, K columns of D commits each.

        Column 0 holds the top n where beams commit together; otherwise column j holds the j-th most
        confident position. Equal confidences: the lower position first.
        """
        prompts, width, window = view.confidence.shape
        depth = max(width, self.reach)
        sure, order = torch.sort(view.confidence, dim=-1, descending=True, stable=True)
        if window < depth:
            sure = torch.nn.functional.pad(sure, (0, depth - window), value=NEVER)
            order = torch.nn.functional.pad(order, (0, depth - window))
        column = torch.arange(width, device=sure.device)[:, None]
        place = torch.arange(self.reach, device=sure.device)[None]
        accelerate = (together > 0)[..., None, None]
        real = torch.where(accelerate, (column == 0) & (place < together[..., None, None]), place == 0)
        rank = torch.where(accelerate, place, column.expand(-1, self.reach))
        rank = rank.expand(prompts, -1, -1, -1).flatten(2)
        shape = (prompts, width, width, self.reach)
        confidence = sure.gather(2, rank).view(shape)
        order = order.gather(2, rank)
        return Proposal(
            real=real & (confidence > NEVER),
            positions=view.positions.gather(2, order).view(shape),
            tokens=view.tokens.gather(2, order).view(shape),
            confidence=confidence,
            together=together,
        )


@dataclass
class View:
    """What the model says where a beam may commit, each (A, K, W).

    positions of the window, tokens = argmax there, confidence = its probability, -inf where there
    is no mask to fill
    """

    positions: torch.Tensor
    tokens: torch.Tensor
    confidence: torch.Tensor


@dataclass
class Proposal:
    """Candidates (A, K, K, D): beam, candidate, commit; ``real`` says which commits are meant."""

    real: torch.Tensor
    positions: torch.Tensor
    tokens: torch.Tensor
    confidence: torch.Tensor
    together: torch.Tensor  # (A, K), see Rule.together
