"""Forward and backward pass of a model, compiled and replayed as one CUDA graph."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.cuda_graph import capture
from labkit.elas.model import ElasForCausalLM


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def loss_and_gradient(logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """``scale`` times the summed cross entropy, float32, and its gradient in the logits' own dtype."""
    wide = logits.float()
    log_sums = wide.logsumexp(-1, keepdim=True)
    loss = (log_sums - wide.gather(-1, targets[:, None])).sum()
    hit = targets[:, None] == torch.arange(logits.shape[-1], device=logits.device)
    return loss * scale, (((wide - log_sums).exp() - hit.float()) * scale).to(logits.dtype)


class HeadLoss(torch.autograd.Function):
    """Mean cross entropy of hidden states x (N, h) under a head (V, h), ``rows`` of the N at a time.

    The gradients are made with the loss: of the N x V logits no more than ``rows`` x V exist at once.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, targets: Tensor, rows: int, loss_and_gradient) -> Tensor:
        total = torch.zeros((), device=x.device)
        dx, dw = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)
        for some, wanted, out in zip(x.split(rows), targets.split(rows), dx.split(rows), strict=True):
            loss, grad = loss_and_gradient(some @ weight.T, wanted, 1 / len(x))
            total += loss
            torch.mm(grad, weight, out=out)
            dw += grad.T @ some
        ctx.save_for_backward(dx, dw.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw = ctx.saved_tensors
        return grads[0].to(dx.dtype) * dx, grads[0].to(dw.dtype) * dw, None, None, None


def hidden_of(net: ElasForCausalLM, tokens: Tensor) -> Tensor:
    """What the head is given, without transformers' look for packed rows, which no CUDA graph can hold."""
    inner, x = net.model, net.model.embed_tokens(tokens)
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    rotary = inner.rotary_emb(x, position_ids=positions)
    for layer in inner.layers:
        x = layer(x, attention_mask=None, position_ids=positions, position_embeddings=rotary)
    return inner.norm(x)


def logits_of(net: ElasForCausalLM, tokens: Tensor) -> Tensor:
    """``net(tokens).logits``."""
    return net.lm_head(hidden_of(net, tokens))


class TrainStep:
    """tokens (B, L + 1) -> loss, with ``.grad`` of every parameter of ``net`` fresh after each call.

    compiled   torch.compile every decoder layer and the loss
    graph      on CUDA capture the whole once and replay it; the mask's switch is captured with it
    chunk      tokens whose logits exist at a time, see HeadLoss; None: all
    """

    def __init__(
        self,
        net: ElasForCausalLM,
        rows: Tensor,
        compiled: bool,
        graph: bool = True,
        chunk: int | None = None,
    ):
        self.net, self.tokens = net, rows.clone()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.out: Any = None
        self.chunk, loss = chunk, cross_entropy if chunk is None else loss_and_gradient
        self.loss: Any = torch.compile(loss, dynamic=False) if compiled else loss
        if compiled:
            for layer in net.model.layers:
                if layer._compiled_call_impl is None:
                    layer.compile(dynamic=False)
        for activation in net.activations():
            _ = activation.sparse  # read the switch now: it may not be read inside a graph
        if rows.is_cuda and graph:
            self.graph, self.out = capture(self._run)
            self.grads = [p.grad for p in self.net.parameters()]

    def _run(self) -> Tensor:
        for p in self.net.parameters():
            p.grad = None
        inputs, targets = self.tokens[:, :-1], self.tokens[:, 1:]
        if self.chunk is None:
            loss = self.loss(logits_of(self.net, inputs), targets)
        else:
            x, head = hidden_of(self.net, inputs).flatten(0, 1), self.net.lm_head.weight
            loss = HeadLoss.apply(x, head, targets.flatten(), self.chunk, self.loss)
        loss.backward()
        return loss.detach()

    def __call__(self, rows: Tensor) -> Tensor:
        self.tokens.copy_(rows)
        if self.graph is None:
            return self._run()
        self.graph.replay()
        for p, grad in zip(self.net.parameters(), self.grads, strict=True):
            p.grad = grad  # another step of the same net has its own
        return self.out

    def release(self) -> None:
        """Give the graph's memory back; the step is not called again."""
        self.graph, self.grads, self.out = None, [], None
        for p in self.net.parameters():
            p.grad = None
