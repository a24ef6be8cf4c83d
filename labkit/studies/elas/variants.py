"""The activation as other people run it, for the study: soft thresholding, and float16 in the middle.

StudyReLU2   Sparse24ReLU2 with those two switches, counting what float16 cannot hold
use          put it into a model, in the place of every Sparse24ReLU2
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.checks import choice
from labkit.elas.layers import Sparse24ReLU2, pad_to_groups
from sparse24 import mask24

RULES = ("magnitude", "soft", "soft scaled")
LARGEST = 65504.0  # float16
SCALES = (0.5, 2.0)  # the clamp of the fitted scale


class StudyReLU2(Sparse24ReLU2):
    """relu(x)² under a 2:4 rule, straight-through.

    rule    "magnitude": keep the two largest of four (ELAS);  "soft": also subtract from them the
            largest value that was dropped;  "soft scaled": times the factor, in [0.5, 2], that brings
            the result nearest to the dense activation, fitted in every training forward pass (S-STE)
    half    True: the squared activation passes through float16, whose largest number is 65504, as the
            authors' 2:4 kernels take it; overflow becomes inf, the backward pass is untouched

    Counted in training mode: ``overflows`` int64, activations beyond 65504; ``peak`` float32, the largest.
    """

    overflows: Tensor
    peak: Tensor
    scale: Tensor

    def __init__(self, rule: str = "magnitude", *, half: bool = False, **options):
        super().__init__("ste", **options)
        self.rule = choice("rule", rule, RULES)
        self.through_half = choice("half", half, (True, False))
        self.register_buffer("overflows", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("peak", torch.zeros(()), persistent=False)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forget(self) -> None:
        """Count from zero again, and with a scale of one, for another run of the same module."""
        self.overflows.zero_()
        self.peak.zero_()
        self.scale.fill_(1)

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x).square()
        with torch.no_grad():
            if self.training:
                self.overflows += (y > LARGEST).sum()
                self.peak.copy_(torch.maximum(self.peak, y.max()))
            used = y.to(torch.float16).to(y.dtype) if self.through_half else y
            if self.sparse:
                used = self._rule(used)
        if used is y:
            return y
        return Through.apply(y, used)

    def _rule(self, y: Tensor) -> Tensor:
        width = y.shape[-1]
        groups = pad_to_groups(y)
        kept = mask24(groups)
        if self.rule == "magnitude":
            return (groups * kept)[..., :width]
        threshold = groups.masked_fill(kept, 0).unflatten(-1, (-1, 4)).amax(-1, keepdim=True)
        soft = ((groups.unflatten(-1, (-1, 4)) - threshold).flatten(-2) * kept)[..., :width]
        if self.rule == "soft":
            return soft
        if self.training:
            fitted = (y.float() * soft.float()).sum() / soft.float().square().sum().clamp(min=1e-20)
            self.scale.copy_(fitted.clamp(*SCALES))
        return soft * self.scale.to(soft.dtype)


class Through(torch.autograd.Function):
    """Forward: the second argument. Backward: the gradient goes to the first unchanged."""

    @staticmethod
    def forward(ctx, y: Tensor, used: Tensor) -> Tensor:
        return used.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


def use(model: nn.Module, rule: str = "magnitude", *, half: bool = False) -> list[StudyReLU2]:
    """Replace every Sparse24ReLU2 of ``model``, keeping its switch; the new ones, first layer first."""
    made = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Sparse24ReLU2):
                new = StudyReLU2(rule, half=half, sparse=child.start[0], warmup_steps=child.start[1])
                new.load_state_dict(child.state_dict())
                setattr(parent, name, new.to(child.mask_enabled.device))
                made.append(new)
    return made
