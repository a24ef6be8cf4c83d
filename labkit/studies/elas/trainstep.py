"""Forward and backward pass of a small model, compiled and replayed as one CUDA graph."""

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.cuda_graph import capture
from labkit.elas.model import ElasForCausalLM


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def logits_of(net: ElasForCausalLM, tokens: Tensor) -> Tensor:
    """``net(tokens).logits``, without transformers' look for packed rows, which no CUDA graph can hold."""
    inner, x = net.model, net.model.embed_tokens(tokens)
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    rotary = inner.rotary_emb(x, position_ids=positions)
    for layer in inner.layers:
        x = layer(x, attention_mask=None, position_ids=positions, position_embeddings=rotary)
    return net.lm_head(inner.norm(x))


class TrainStep:
    """tokens (B, L + 1) -> loss, with ``.grad`` of every parameter of ``net`` fresh after each call.

    compiled   torch.compile every decoder layer and the loss
    graph      on CUDA capture the whole once and replay it; the mask's switch is captured with it
    """

    def __init__(self, net: ElasForCausalLM, rows: Tensor, compiled: bool, graph: bool = True):
        self.net, self.tokens = net, rows.clone()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.loss = torch.compile(cross_entropy, dynamic=False) if compiled else cross_entropy
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
        loss = self.loss(logits_of(self.net, self.tokens[:, :-1]), self.tokens[:, 1:])
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
