"""One process of the study: it keeps the arm it has compiled, for the jobs of that arm one after another.

start            pin the process to a card
work             one job: the timing of a step, or a run
save_checkpoint  a model to ship, with its card
"""

import copy
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from labkit.elas.checkpoints import save_model
from labkit.elas.data import Text, load_text
from labkit.elas.evaluation import evaluate
from labkit.elas.model import ElasForCausalLM
from labkit.provenance import device_name, provenance
from labkit.studies.elas import variants
from labkit.studies.elas.fastloop import FastRun
from labkit.studies.elas.plan import RECORDED, TRACED, Job
from labkit.traces import TrainTrace


@dataclass(frozen=True)
class How:
    """What all jobs of a call share: machinery, where traces go, when to stop."""

    device: str
    compiled: bool
    graph: bool
    folder: Path
    command: str
    deadline: float


def start(card: int, device: str) -> None:
    """Make ``card`` this process's GPU."""
    torch.set_num_threads(min(2, torch.get_num_threads()))  # one stays one: $OMP_NUM_THREADS
    if device == "cuda":
        torch.cuda.set_device(card)


def work(job: Job, how: How) -> dict | TrainTrace | None:
    """The job's result: of "times" a dict, else a trace; None where the deadline cut a run short.

    Runs of the TRACED stages are saved as they are, also when cut short, with the checkpoint to keep.
    """
    if _held.get("built") != job.built:
        _held.clear()  # the card's memory before the next arm takes it
        torch.compiler.reset()
        _held.update(built=job.built, run=_make(job, how))
    run: FastRun = _held["run"]
    if job.stage == "times":
        run.start(job.config)
        return run.throughput() | {"device": device_name()}
    tuning = job.stage == "tune"
    trace = run.train(job.config, deadline=how.deadline, statistics=not tuning, judge=not tuning)
    cut = trace.meta["steps_done"] < job.config.steps and math.isfinite(trace.meta["eval_nats"])
    if cut and job.stage in RECORDED:
        return None
    trace.meta |= {"arm": job.shown, "options": dict(job.options)}
    trace.meta["provenance"] = provenance(command=how.command)
    if not tuning and not run.masked and run.net.activations():
        trace.meta["posthoc_nats"] = posthoc(run)
    if job.stage in TRACED:
        trace.save(how.folder / f"{job.name}.npz")
    if job.keep:
        save_checkpoint(how.folder / job.keep, run.model, trace, run.text.tokenizer)
    return trace


_held: dict = {}  # the FastRun of this process and the Job.built it is for


@cache
def _text(source: str, vocab_size: int, max_bytes: int | None) -> Text:
    return load_text(source, vocab_size=vocab_size, max_bytes=max_bytes)


def _make(job: Job, how: How) -> FastRun:
    c = job.config
    dtype = torch.bfloat16 if how.device == "cuda" else torch.float32
    return FastRun(
        c, _text(c.source, c.vocab_size, c.max_bytes), how.device,
        compiled=how.compiled, graph=how.graph, dtype=dtype, **job.options,
    )  # fmt: skip


def posthoc(run: FastRun) -> dict[str, float]:
    """Test nats of a model trained without a mask when each rule is laid on afterwards.

    The scale of "soft scaled" is fitted on four training rows.
    """
    found, net = {}, copy.deepcopy(run.net)
    for rule in variants.RULES:
        variants.use(net, rule)
        net.set_sparse(True)
        with torch.compiler.set_stance("force_eager"):
            with torch.no_grad():
                net.train()(input_ids=run.rows[:4, :-1].long(), use_cache=False)
            found[rule] = evaluate(net, run.test, run.text.token_bytes, 32).nats
    return found


def save_checkpoint(folder: Path, model: ElasForCausalLM, trace: TrainTrace, tokenizer) -> None:
    """bfloat16 safetensors, tokenizer and configuration, see ``save_model``, and a card."""
    save_model(folder, model.to_dtype(torch.bfloat16), tokenizer)
    (folder / "README.md").write_text(card(folder.name, trace))


def card(name: str, trace: TrainTrace) -> str:
    """What a model is, where its data came from, how it was trained and how good it is: Markdown."""
    meta, origin = trace.meta, trace.meta["provenance"]
    config = meta["config"]
    mask = "with the 2:4 mask" if meta["arm"].startswith("elas") else "without a mask"
    return f"""# {name}

A low-rank ReLU² language model ({meta["parameters"]:,} parameters), trained {mask}. Input and output are
tokens of the byte-level BPE in tokenizer.json.

- Data: {config["source"]} ({meta["text"]}), {meta["steps_done"]} of {config["steps"]} planned steps of
  {config["batch_size"]} x {config["seq_len"]} tokens, seed {config["seed"]}
- Test loss: {meta["test_nats"]:.4f} nats per token, {meta["test_bits_per_byte"]:.4f} bits
  per byte over {meta["test_tokens"]:,} tokens; counting tokens alone gives
  {meta["unigram_bits_per_byte"]:.4f} bits per byte
- Trained with `{origin["command"]}` on {origin["device"]}, {origin["time"]},
  {json.dumps(origin["versions"])}
- Weights: Apache-2.0, like the lab. Text: {config["source"]}, see labkit/elas/sources.py for its licence
"""
