"""A short training loop for small models on a GPU: many runs in little time, for the study.

Same models, text, optimiser, schedule and trace as ``pretrain``; it differs in the machinery. The forward
and backward pass run on a bfloat16 copy and are replayed as one CUDA graph; Loro moves float32 weights
from which the copy is refreshed. On a CPU it is the same arithmetic without the graph.
"""

import copy
import time

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.elas import variants
from labkit.elas.data import Text, windows
from labkit.elas.evaluation import evaluate
from labkit.elas.instruments import gradient_agreement, layer_statistics
from labkit.elas.loro import Loro, cosine_restart
from labkit.elas.model import ElasForCausalLM
from labkit.elas.pretrain import PretrainConfig, build_model
from labkit.elas.trainer import trace_of
from labkit.traces import TrainTrace


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
    graph      on CUDA capture the whole once and replay it; make a new one when the mask switches
    """

    def __init__(self, net: ElasForCausalLM, rows: Tensor, compiled: bool, graph: bool = True):
        self.net, self.tokens, self.graph = net, rows.clone(), None
        self.loss = torch.compile(cross_entropy, dynamic=False) if compiled else cross_entropy
        if compiled:
            for layer in net.model.layers:
                if layer._compiled_call_impl is None:
                    layer.compile(dynamic=False)
        for activation in net.activations():
            _ = activation.sparse  # read the switch now: it may not be read inside a graph
        if rows.is_cuda and graph:
            self._capture()

    def _run(self) -> Tensor:
        loss = self.loss(logits_of(self.net, self.tokens[:, :-1]), self.tokens[:, 1:])
        loss.backward()
        return loss.detach()

    def _clear(self) -> None:
        for p in self.net.parameters():
            p.grad = None

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._clear()
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        self._clear()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.out = self._run()

    def __call__(self, rows: Tensor) -> Tensor:
        self.tokens.copy_(rows)
        if self.graph is None:
            self._clear()
            return self._run()
        self.graph.replay()
        return self.out


class FastRun:
    """One run of ``config``: ``train`` does it, ``throughput`` only times its steps.

    rule, half   as in ``variants.use`` (None: the arm's own activation)
    compiled, graph   see TrainStep;  dtype   of the copy that computes
    """

    def __init__(
        self,
        config: PretrainConfig,
        text: Text,
        device: str = "cuda",
        *,
        rule: str | None = None,
        half: bool = False,
        compiled: bool = True,
        graph: bool = True,
        dtype: torch.dtype = torch.bfloat16,
    ):
        self.config, self.text, self.how = config, text, (compiled, graph)
        self.model = build_model(config, text).to(device)
        if rule is not None:
            variants.use(self.model, rule, half=half)
        self.net = copy.deepcopy(self.model).to_dtype(dtype)
        self.masked = any(a.start[0] for a in self.model.activations())
        self.every = config.exact_every if self.model.config.rank is not None else None
        self.optimizer = Loro.for_model(
            self.model, lr=config.lr, exact_every=self.every, weight_decay=config.weight_decay
        )
        self.rows = torch.from_numpy(windows(text.train, config.seq_len).astype(np.int32)).to(device)
        few = max(1, config.eval_tokens // config.seq_len)
        self.held_out = windows(text.held_out, config.seq_len, 10 * few)
        self.some = windows(text.held_out, config.seq_len, few)
        self.order, self.generator = np.empty(0, int), np.random.default_rng(config.seed)

    def throughput(self, steps: int = 10) -> dict[str, float]:
        """{ms: a training step, optimiser included; peak_bytes: of forward and backward}, mask on."""
        self._switch(self.masked)
        cuda = self.rows.is_cuda
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        step = TrainStep(self.net, self._batch().long(), *self.how)
        peak = torch.cuda.max_memory_allocated() if cuda else 0
        times = []
        for _ in range(steps):
            if cuda:
                torch.cuda.synchronize()
            started = time.perf_counter()
            step(self._batch())
            self._update(0.0)
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        return {"ms": 1000 * float(np.median(times)), "peak_bytes": peak}

    def train(self, deadline: float = float("inf")) -> TrainTrace:
        """The curves, as ``pretrain`` gives them; stops at ``deadline`` (time.time()) or at a NaN.

        Beside pretrain's series: gradient_cosine and gradient_norm_ratio (n, layers), and for a
        ``rule`` overflows and peak. ``meta["held_out_nats"]``: the last loss, on 10 eval_tokens.
        """
        config, started = self.config, time.perf_counter()
        self._switch(self.masked and config.dense_steps == 0)
        step = TrainStep(self.net, self._batch().long(), *self.how)
        self.order, self.generator = np.empty(0, int), np.random.default_rng(config.seed)
        log, losses = [self._measure(0)], []
        for n in range(1, config.steps + 1):
            if self.masked and config.dense_steps and n == config.dense_steps + 1:
                self._switch(True)
                step = TrainStep(self.net, step.tokens, *self.how)
            factor = cosine_restart(n - 1, total=config.steps, warmup=config.lr_warmup, every=self.every)
            loss = step(self._batch())
            self._update(config.lr * factor)
            if n % config.log_every == 0:
                losses.append((n, loss.clone(), config.lr * factor))
            if n % config.eval_every == 0 or n == config.steps:
                log += [{"step": at, "loss": v.item(), "learning_rate": lr} for at, v, lr in losses]
                losses = []
                log.append(self._measure(n))
                if not np.isfinite(log[-1]["eval_nats"]) or time.time() > deadline:
                    break
        meta = {"steps_done": n, "precision": f"{self.net.dtype} over float32 weights"}
        seconds, findings = time.perf_counter() - started, self.optimizer.findings
        trace = trace_of(config, self.model, self.text, self.some, log, seconds, findings)
        with torch.compiler.set_stance("force_eager"):
            whole = evaluate(self.net, self.held_out, self.text.token_bytes, 32)
        meta |= {"held_out_nats": whole.nats, "held_out_bits_per_byte": whole.bits_per_byte}
        trace.meta |= meta | {"held_out_tokens": whole.tokens}
        return trace

    def _switch(self, on: bool) -> None:
        for model in (self.model, self.net):
            model.set_sparse(on)

    def _batch(self) -> Tensor:
        if len(self.order) < self.config.batch_size:
            self.order = self.generator.permutation(len(self.rows))
        picked, self.order = np.split(self.order, [self.config.batch_size])
        return self.rows[torch.from_numpy(picked).to(self.rows.device)]

    def _update(self, lr: float) -> None:
        weights, copies = list(self.model.parameters()), list(self.net.parameters())
        for w, c in zip(weights, copies, strict=True):
            w.grad = None if c.grad is None else c.grad.float()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(copies, weights)

    def _measure(self, step: int) -> dict[str, float]:
        """One row of the log; the statistics are of the float32 weights."""
        with torch.compiler.set_stance("force_eager"):
            loss = evaluate(self.net, self.some, self.text.token_bytes, 32)
        row = {"step": step, "eval_nats": loss.nats, "eval_bits_per_byte": loss.bits_per_byte}
        activations = self.net.activations()
        if not activations:
            return row
        row["mask_on"] = float(activations[0].sparse)
        rows = self.held_out[:4, :-1]
        found = layer_statistics(self.model, rows)
        if not isinstance(activations[0], variants.StudyReLU2):
            found |= {f"gradient_{k}": v for k, v in gradient_agreement(self.model, rows).items()}
        else:
            found["overflows"] = np.array([a.overflows.item() for a in activations])
            found["peak"] = np.array([a.peak.item() for a in activations])
        return row | {
            f"{name}/{i}": float(v) for name, values in found.items() for i, v in enumerate(values)
        }
