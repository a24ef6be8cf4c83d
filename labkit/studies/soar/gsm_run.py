"""The command that trains lab/gsm and lab/gsm-early, a call at a time.

python -m labkit.studies soar-models --stages gsm --gsm-data DIR --out OUT [--seconds 570]
torchrun --nproc_per_node 4 -m labkit.studies soar-models --stages gsm ...          one process a GPU

DIR is what ``python -m labkit.studies.soar.gsm_data`` made. --seconds ends a call: the same command goes on
from the state in OUT/gsm-state, as one long call would. --gsm-steps may be changed between calls as long as
the learning rate is constant, for HOLD of the steps. OUT/gsm is the model after the last step of the call,
OUT/gsm-early the one whose exam came nearest to the middle of EARLY; each has its card.json.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from labkit import checks
from labkit.paths import write_json
from labkit.provenance import provenance
from labkit.soar.generate import encode, read
from labkit.soar.models.adapted import save_adapted
from labkit.soar.models.diffusion_lm import DiffusionLM
from labkit.soar.search import decode
from labkit.studies.files import digest
from labkit.studies.harness import Context, Option, Stage
from labkit.studies.soar import gsm_model
from labkit.studies.soar import gsm_problems as gsm
from labkit.studies.soar.gsm_data import ANSWER, SPECIAL
from labkit.studies.soar.gsm_model import EOS, MASK, Problems, Run, train_step
from labkit.studies.soar.gsm_problems import Problem
from labkit.studies.state import load_state, save_state
from labkit.traces import BeamTrace, TrainTrace

EARLY = (0.35, 0.50, 0.65)  # what lab/gsm-early should solve by greedy: from, best, to
EXAM_BLOCK = 32
LOG_EVERY, LOOK_EVERY = 50, 10  # steps between logged losses, between looks at the clock


def run_gsm(context: Context) -> dict[str, Any] | None:
    """Train until --gsm-steps or --seconds; what the models solve, None in all processes but the first."""
    o, rank, ranks, device = context.options, *_processes(context.device)
    if o.gsm_data is None:
        checks.fail("--gsm-data", None, "the folder that python -m labkit.studies.soar.gsm_data made")
    if o.batch % ranks:
        checks.fail("--batch", o.batch, f"a multiple of the {ranks} processes")
    data, state = Path(o.gsm_data), context.out / "gsm-state"
    tokenizer = read_tokenizer(data)
    torch.manual_seed(o.seed)
    model = gsm_model.new_model(o.width or 384, o.layers or 8, len(tokenizer), device)
    fused = device.startswith("cuda")
    run = Run(
        model, gsm_model.optimisers(model, o.optimizer, o.learning_rate, fused),
        Problems(data / "train.npz", device), o.batch // ranks, rank, ranks, o.seed,
    )  # fmt: skip
    if (state / "state.json").exists():
        load_state(run, state)
    exams = {part: held_out(data, part, o.judge) for part in ("validation", "templates-validation")}
    _train(context, run, tokenizer, exams, state)
    found = _finish(context, run, tokenizer, exams, data) if rank == 0 else None
    if ranks > 1:
        dist.destroy_process_group()
    return found


def _processes(device: str) -> tuple[int, int, str]:
    """(rank, processes, device) as torchrun has it."""
    ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
    if ranks > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device != "cpu" else "gloo")
    return rank, ranks, device


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of ``gsm_data`` as transformers has it."""
    pad, mask, eos, _ = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token=pad, mask_token=mask, eos_token=eos,
        model_input_names=["input_ids", "attention_mask"], clean_up_tokenization_spaces=False,
    )  # fmt: skip


def held_out(folder: Path, part: str, count: int) -> list[Problem]:
    """The first ``count`` problems of a held-out part that ``gsm_data`` left in ``folder``."""
    return gsm.read_problems(folder / gsm.SHIPPED.name)[part][:count]


def _train(
    context: Context, run: Run, tokenizer: Any, exams: dict[str, list[Problem]], state: Path
) -> None:
    o, device = context.options, run.problems.tokens.device
    if device.type == "cuda":
        for layer in run.model.net.model.layers:  # one compilation serves all layers
            layer.compile()
    began, before = time.perf_counter(), run.seconds
    while run.step < o.gsm_steps:
        loss = train_step(run, gsm_model.learning_rate(run.step, o.gsm_steps, o.warmup), o.learning_rate)
        if run.step % LOG_EVERY == 0:
            run.log.append({"step": run.step, "loss": loss})
        run.seconds = before + time.perf_counter() - began
        if run.rank == 0 and run.step % o.exam_every == 0 and run.step < o.gsm_steps:
            _exam(context, run, tokenizer, exams)
        if run.step % LOOK_EVERY == 0 and _late(context, run, device):
            break
    if run.rank == 0:
        save_state(run, state)


def _late(context: Context, run: Run, device: torch.device) -> bool:
    """Whether the deadline has passed for any process: all must stop at one step."""
    late = torch.tensor(float(context.late), device=device)
    if run.ranks > 1:
        dist.all_reduce(late, dist.ReduceOp.MAX)
    return bool(late)


def _exam(context: Context, run: Run, tokenizer: Any, exams: dict[str, list[Problem]]) -> dict[str, float]:
    """Shares solved by greedy, logged; the weights are kept if they may become lab/gsm-early."""
    model = shipped(run.model)
    solved = {part: solves(model, tokenizer, asked) for part, asked in exams.items()}
    entry = {"solved": solved["validation"], "solved_templates": solved["templates-validation"]}
    run.log.append({"step": run.step, **entry})
    recent = [float(one["loss"]) for one in run.log if "loss" in one][-20:]
    print(
        f"step {run.step}, {run.seconds:.0f} s: loss {sum(recent) / max(1, len(recent)):.4f}, "
        f"solves {entry['solved']:.1%}, of unseen templates {entry['solved_templates']:.1%}",
        flush=True,
    )
    low, best, high = EARLY
    card = context.out / "gsm-early" / "card.json"
    kept = json.loads(card.read_text())["greedy_on_validation"] if card.exists() else float("inf")
    if low <= entry["solved"] <= high and abs(entry["solved"] - best) < abs(kept - best):
        _save(context, run, tokenizer, "gsm-early", entry)
    return entry


def shipped(model: DiffusionLM) -> DiffusionLM:
    """A copy rounded to bf16, as it will be stored, in eval mode."""
    net: Any = LlamaForCausalLM(cast(LlamaConfig, model.net.config))
    net.load_state_dict(model.net.state_dict())
    net = net.to(model.net.device, torch.bfloat16).eval().requires_grad_(False)
    return DiffusionLM(net, MASK, EOS, model.max_length, False)


def solves(model: DiffusionLM, tokenizer: Any, asked: list[Problem], **options: Any) -> float:
    """Share of problems that a decode, greedy in blocks of EXAM_BLOCK unless told, gets right."""
    prompts = [encode(tokenizer, problem.question) for problem in asked]
    given: dict[str, Any] = {"strategy": "greedy", "block_length": EXAM_BLOCK} | options
    trace = decode(model, prompts, gen_length=ANSWER, record=False, **given)
    return float(gsm.right(answers(trace, tokenizer), asked).mean())


def answers(trace: BeamTrace, tokenizer: Any) -> list[str]:
    """The texts behind the prompts of a decode of ANSWER tokens, each up to its end of text."""
    starts = zip(trace.sequences.tolist(), trace.prompt_length.tolist(), strict=True)
    ends = [tokenizer.eos_token_id]
    return [read(tokenizer, row[start : start + ANSWER], ends)[0] for row, start in starts]


def _save(context: Context, run: Run, tokenizer: Any, name: str, entry: dict[str, float]) -> None:
    """OUT/``name``: the folder that load_model opens, and its card."""
    o, folder = context.options, context.out / name
    shutil.rmtree(folder, ignore_errors=True)
    save_adapted(shipped(run.model).net, tokenizer, folder, mask_id=MASK, shift=False, block_causal=None)
    size = sum(p.numel() for p in run.model.parameters())
    card = {
        "name": f"lab/{name}", "parameters": size, "dtype": "bfloat16", "steps": run.step,
        "training_seconds": run.seconds, "processes": run.ranks, "greedy_on_validation": entry["solved"],
        "greedy_on_unseen_templates": entry["solved_templates"], "judged_on": o.judge,
        "data": f"{len(run.problems.first)} problems of reasoning-gym's gsm_symbolic (Apache-2.0)",
        "batch": o.batch, "learning_rate": o.learning_rate, "optimizer": o.optimizer,
        **provenance(command=context.command, seed=o.seed),
    }  # fmt: skip
    write_json(folder / "card.json", card, strict=True)


def _finish(
    context: Context, run: Run, tokenizer: Any, exams: dict[str, list[Problem]], data: Path
) -> dict[str, Any]:
    entry = _exam(context, run, tokenizer, exams)
    _save(context, run, tokenizer, "gsm", entry)
    made = provenance(arm="gsm", seed=context.options.seed, command=context.command)
    log = [{name: float(value) for name, value in one.items()} for one in run.log]
    TrainTrace.from_log(log, meta=made).save(context.out / "gsm_training.npz")
    done = run.step >= context.options.gsm_steps
    print(f"step {run.step} of {context.options.gsm_steps}" + ("" if done else ": run again to go on"))
    return {
        "greedy_on_validation": {"gsm": entry["solved"]},
        "step": run.step,
        "data": digest(data / "train.npz"),
    }


STAGE = Stage(
    run_gsm, "train lab/gsm and lab/gsm-early, see labkit/studies/soar/gsm_run.py", "models.json", "gsm",
    {"greedy_on_validation": {str: float}, "step": int}, lambda c: dict(vars(c.options)),
    lambda found: json.dumps(found["greedy_on_validation"]),
)  # fmt: skip
OPTIONS = {
    "gsm_data": Option(None, "folder of labkit.studies.soar.gsm_data", kind=str),
    "gsm_steps": Option(30_000, "of gsm, all calls together", tiny=4),
    "warmup": Option(500, "steps of gsm until the highest learning rate", tiny=2),
    "exam_every": Option(1000, "steps of gsm between exams", tiny=2),
    "optimizer": Option("adamw", "of gsm", choices=("adamw", "muon")),
}
