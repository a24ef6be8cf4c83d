"""A short training loop for small models on a GPU: many runs in little time, for the study.

FastRun      the runs of one arm
built_for    what runs of one FastRun have in common

Same models, text, optimiser, schedule and trace as ``pretrain``; it differs in the machinery. The forward
and backward pass run on a bfloat16 copy and are replayed as one CUDA graph; Loro moves float32 weights
from which the copy is refreshed. On a CPU it is the same arithmetic without the graph.
"""

import copy
import dataclasses
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.checks import fail
from labkit.elas.config import PretrainConfig, build_model
from labkit.elas.data import END, Text, windows
from labkit.elas.evaluation import Loss, evaluate
from labkit.elas.instruments import gradient_agreement, layer_statistics
from labkit.elas.loro import Loro
from labkit.elas.model import ElasForCausalLM
from labkit.elas.schedule import cosine_restart
from labkit.elas.trainer import trace_of
from labkit.studies.elas import variants
from labkit.studies.elas.trainstep import TrainStep
from labkit.traces import TrainTrace

FREE = ("seed", "lr", "dense_steps")  # fields in which the runs of one FastRun may differ


def built_for(config: PretrainConfig) -> dict[str, Any]:
    """The fields that a FastRun is built for; its runs may differ in the others, FREE."""
    return {name: v for name, v in dataclasses.asdict(config).items() if name not in FREE}


class FastRun:
    """Runs of one arm: ``train`` does one, ``throughput`` times its steps.

    What was compiled and captured serves every run, so seeds and learning rates cost their steps alone.

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
        self.text, self.how = text, (compiled, graph)
        self.steps: dict[bool, TrainStep] = {}
        model: Any = build_model(config, text)  # transformers wraps .to() so that its type is lost
        self.model: ElasForCausalLM = model.to(device)
        if rule is not None:
            variants.use(self.model, rule, half=half)
        self.net = copy.deepcopy(self.model).to_dtype(dtype)
        self.masked = any(a.start[0] for a in self.model.activations())
        self.every = config.exact_every if self.model.config.rank is not None else None
        self.rows = torch.from_numpy(windows(text.train, config.seq_len).astype(np.int32)).to(device)
        validation, test = validation_and_test(text)
        few = max(1, config.eval_tokens // config.seq_len)
        self.validation, self.test = (windows(s, config.seq_len, 10 * few) for s in (validation, test))
        self.some = windows(validation, config.seq_len, few)
        self.start(config)

    def start(self, config: PretrainConfig) -> None:
        """Draw the weights and the order of the text afresh, in place, for a run of ``config``."""
        self.config, drawn = config, build_model(config, self.text).state_dict()
        for model in (self.model, self.net):
            model.load_state_dict(drawn)
            for activation in model.activations():
                if isinstance(activation, variants.StudyReLU2):
                    activation.forget()
        self.optimizer = Loro.for_model(
            self.model, lr=config.lr, exact_every=self.every, weight_decay=config.weight_decay
        )
        self.order, self.generator = np.empty(0, int), np.random.default_rng(config.seed)

    def throughput(self, steps: int = 40) -> dict[str, Any]:
        """Time of a training step with its optimiser, mask on, of weights that stay as they are.

        {ms: {p20, p50, p80} of a step, exact_ms: of one with LORO's exact update (None for dense arms),
        tokens_per_second: with one exact step in ``exact_every``, peak_bytes: of forward and backward}
        """
        self.steps.clear()
        if cuda := self.rows.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        step = self._step(self.masked)
        peak = torch.cuda.max_memory_allocated() if cuda else 0
        times = [self._time(step) for _ in range(steps + 3)][3:]
        p20, p50, p80 = np.quantile(times, (0.2, 0.5, 0.8)).tolist()
        exact, mean = None, p50
        if self.every:
            exact = float(np.median([self._time(step, exact=True) for _ in range(4)][1:]))
            mean += (exact - p50) / self.every
        tokens = 1000 * self.config.batch_size * self.config.seq_len / mean
        ms = {"p20": p20, "p50": p50, "p80": p80}
        return {"ms": ms, "exact_ms": exact, "tokens_per_second": tokens, "peak_bytes": peak}

    def _time(self, step: TrainStep, exact: bool = False) -> float:
        """Milliseconds of one step at learning rate 0, alone on the card."""
        for group in self.optimizer.param_groups:
            group["steps"] = self.every - 1 if exact and self.every else 0
        if self.rows.is_cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        step(self._batch())
        self._update(0.0)
        if self.rows.is_cuda:
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - started)

    def train(
        self,
        config: PretrainConfig | None = None,
        *,
        deadline: float = float("inf"),
        statistics: bool = True,
        judge: bool = True,
    ) -> TrainTrace:
        """One run from the start; it stops at ``deadline`` (time.time()) or where the loss is not finite.

        config       with another seed, lr or dense_steps than the run was built for (ValueError for more)
        statistics   measure the layers at every evaluation, else only the loss
        judge        read the test text at the end; False while settings are being chosen

        Series as ``pretrain`` has them, eval_* on part of the validation text; gradient_cosine and
        gradient_norm_ratio (n, layers), and for a ``rule`` overflows and peak. ``meta``: steps_done,
        validation_nats, and where judged test_nats, test_bits_per_byte, test_tokens, each on ten times
        ``eval_tokens`` or the whole side.
        """
        config, started = config or self.config, time.perf_counter()
        if built_for(config) != built_for(self.config):
            fail("config", config, f"but for {', '.join(FREE)} the one of this run, {self.config}")
        log, losses = self._begin(config, statistics), []
        n = first = int(log[-1]["step"])
        step = self._step(self.masked and config.dense_steps <= first)
        for n in range(first + 1, config.steps + 1):
            if self.masked and n == config.dense_steps + 1:
                step = self._step(True)
            factor = cosine_restart(n - 1, total=config.steps, warmup=config.lr_warmup, every=self.every)
            loss = step(self._batch())
            self._update(config.lr * factor)
            if n % config.log_every == 0:
                losses.append((n, loss.clone(), config.lr * factor))
            if n % config.eval_every == 0 or n == config.steps:
                log += [{"step": at, "loss": v.item(), "learning_rate": lr} for at, v, lr in losses]
                losses = []
                log.append(self._measure(n, statistics))
                self._reached(log, late := time.time() > deadline)
                if not np.isfinite(log[-1]["eval_nats"]) or late:
                    break
        seconds, findings = time.perf_counter() - started, self.optimizer.findings
        trace = trace_of(config, self.model, self.text, self.some, log, seconds, findings)
        trace.meta |= {"steps_done": n, "precision": f"{self.net.dtype} over float32 weights"}
        trace.meta["validation_nats"] = self._loss(self.validation).nats
        if judge:
            whole = self._loss(self.test)
            trace.meta |= {"test_nats": whole.nats, "test_bits_per_byte": whole.bits_per_byte}
            trace.meta["test_tokens"] = whole.tokens
        return trace

    def _begin(self, config: PretrainConfig, statistics: bool) -> list[dict[str, float]]:
        """Make ready for the first step of ``config``; the log so far."""
        self.start(config)
        self._switch(self.masked and config.dense_steps == 0)
        return [self._measure(0, statistics)]

    def _reached(self, log: list[dict[str, float]], late: bool) -> None:
        """Told at every evaluation; ``late``: the run ends here."""

    def _switch(self, on: bool) -> None:
        for model in (self.model, self.net):
            model.set_sparse(on)

    def _step(self, on: bool) -> TrainStep:
        """The training step with the mask on or off, made at its first use."""
        self._switch(on)
        if on not in self.steps:
            self.steps[on] = TrainStep(self.net, self.rows[: self.config.batch_size].long(), *self.how)
        return self.steps[on]

    def _batch(self) -> Tensor:
        if len(self.order) < self.config.batch_size:
            self.order = self.generator.permutation(len(self.rows))
        picked, self.order = np.split(self.order, [self.config.batch_size])
        return self.rows[torch.from_numpy(picked).to(self.rows.device)]

    def _update(self, lr: float) -> None:
        weights: list[Tensor] = list(self.model.parameters())
        copies: list[Tensor] = list(self.net.parameters())
        for w, c in zip(weights, copies, strict=True):
            w.grad = None if c.grad is None else c.grad.float()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(copies, weights)

    def _loss(self, rows: np.ndarray) -> Loss:
        with torch.compiler.set_stance("force_eager"):
            return evaluate(self.net, rows, self.text.token_bytes, 32)

    def _measure(self, step: int, statistics: bool) -> dict[str, float]:
        """One row of the log; the statistics are of the float32 weights."""
        loss = self._loss(self.some)
        row = {"step": step, "eval_nats": loss.nats, "eval_bits_per_byte": loss.bits_per_byte}
        activations = self.net.activations()
        if not activations:
            return row
        row["mask_on"] = float(activations[0].sparse)
        if not statistics:
            return row
        rows = self.validation[:4, :-1]
        found = layer_statistics(self.model, rows)
        if not isinstance(activations[0], variants.StudyReLU2):
            found |= {f"gradient_{k}": v for k, v in gradient_agreement(self.model, rows).items()}
        else:
            found["overflows"] = np.array([a.overflows.item() for a in activations])
            found["peak"] = np.array([a.peak.item() for a in activations])
        return row | {
            f"{name}/{i}": float(v) for name, values in found.items() for i, v in enumerate(values)
        }


def validation_and_test(text: Text) -> tuple[np.ndarray, np.ndarray]:
    """The held-out stream in two at the end of a file near its middle, so that no file is on both sides.

    ValueError if it has fewer than two files.
    """
    ends = np.flatnonzero(text.held_out == text.tokenizer.token_to_id(END))[:-1] + 1
    if not len(ends):
        fail("text", text.name, "one with at least two held-out files")
    validation, test = np.split(text.held_out, [ends[np.abs(ends - len(text.held_out) / 2).argmin()]])
    return validation, test
