"""pretrain(config) -> TrainTrace: one small, paired, resumable pre-training run on real text.

ARMS names the models to compare; PretrainConfig says how to train one. The loop is transformers'
Trainer (in trainer.py, loaded on first use), the optimiser is Loro, the text is data.py's.
"""

import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.checks import choice, fail, integer, number
from labkit.elas.sources import check_source
from labkit.paths import write_atomic
from labkit.progress import Progress
from labkit.traces import TrainTrace

if TYPE_CHECKING:
    from labkit.elas.data import Text
    from labkit.elas.model import ElasConfig, ElasForCausalLM

# Options of ElasConfig.from_name; the equal-FLOP arm's mlp_rank follows from the size (model_config).
ARMS: dict[str, dict[str, Any]] = {
    "dense_swiglu": {"rank": None, "ffn": "swiglu"},
    "dense_relu2": {"rank": None, "ffn": "relu2", "sparse": False},
    "lowrank_swiglu": {"ffn": "swiglu"},
    "lowrank_relu2": {"ffn": "relu2", "sparse": False},
    "elas_ste": {"ffn": "relu2", "gradient": "ste"},
    "elas_masked": {"ffn": "relu2", "gradient": "masked"},
    "equal_flops": {"ffn": "relu2", "sparse": False},
}
# Fields of ElasConfig that ``model`` cannot set; mlp_rank is free in the other arms.
FOLLOWS = {
    "vocab_size": "the field vocab_size",
    "warmup_steps": "the field dense_steps",
    "mlp_rank": "arm='equal_flops'",
}


@dataclass(frozen=True)
class PretrainConfig:
    """How one arm is trained; arms with the same other fields and seed see the same batches.

    arm, size, model        which model: a key of ARMS, a name of ElasConfig.from_name, and any fields of
                            ElasConfig to override in it
    source, vocab_size, max_bytes   the text, see ``load_text``
    seq_len, batch_size, accumulation   tokens predicted per row, rows per batch (per process), batches
                            per optimiser step
    steps, lr, lr_warmup    optimiser steps, peak learning rate, steps of linear warm-up; the default lr is
                            LORO's: dense arms want less (0.003 was best at "tiny")
    dense_steps             steps before the 2:4 mask is laid on (the paper's dense warm-up)
    exact_every             Loro's K for low-rank arms; dense arms train with AdamW and no restarts
    weight_decay, max_grad_norm   0 turns either off, as LORO does
    log_every, eval_every   steps between training-loss points, and between held-out evaluations
    eval_tokens             held-out tokens that each evaluation reads
    save_every              steps between checkpoints (0: none); a multiple of log_every
    dtype                   "float32" or "bfloat16" (weights and Adam states alike, as published)
    seed                    of the start and of the order of the text

    Everything is checked when a PretrainConfig is made: ValueError names the field at fault.
    """

    arm: str = "elas_ste"
    size: str = "tiny"
    model: dict[str, Any] = field(default_factory=dict)
    source: str = "sympy"
    vocab_size: int = 512
    max_bytes: int | None = 2_000_000
    seq_len: int = 128
    batch_size: int = 8
    accumulation: int = 1
    steps: int = 150
    lr: float = 0.01
    lr_warmup: int = 20
    dense_steps: int = 20
    exact_every: int = 20
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0
    log_every: int = 5
    eval_every: int = 50
    eval_tokens: int = 8192
    save_every: int = 0
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self):
        choice("arm", self.arm, tuple(ARMS))
        choice("dtype", self.dtype, ("float32", "bfloat16"))
        if not isinstance(self.model, dict) or not all(isinstance(key, str) for key in self.model):
            fail("model", self.model, "a mapping of ElasConfig fields by name")
        for name, source in FOLLOWS.items():
            if name in self.model and (name != "mlp_rank" or self.arm == "equal_flops"):
                fail("model", self.model, f"without {name}, which follows from {source}")
        counts = "seq_len batch_size accumulation steps exact_every log_every eval_every"
        for name in counts.split():
            integer(name, getattr(self, name), 1)
        for name in ("lr_warmup", "dense_steps", "save_every"):
            integer(name, getattr(self, name), 0)
        integer("seed", self.seed, 0, 2**32 - 1)  # what numpy takes
        integer("eval_tokens", self.eval_tokens, self.seq_len)
        for name in ("lr", "weight_decay", "max_grad_norm"):
            number(name, getattr(self, name), 0)
        if self.save_every % self.log_every:
            fail("save_every", self.save_every, f"a multiple of log_every={self.log_every}")
        check_source(self.source)
        integer("vocab_size", self.vocab_size, 257, 65536)
        if self.max_bytes is not None:
            integer("max_bytes", self.max_bytes, 1)
        context = self.model_config(self.vocab_size).max_position_embeddings
        integer("seq_len", self.seq_len, 1, context)

    def model_config(self, vocab_size: int) -> "ElasConfig":
        """The arm's ElasConfig for a tokenizer of ``vocab_size``.

        equal_flops: the FFN rank at which a dense forward pass costs what ELAS's costs with its one
        2:4 product at half price, r (2h + 1.5i') / (2h + 2i').
        """
        from labkit.elas.model import SIZES, ElasConfig

        choice("size", self.size, tuple(SIZES))
        options = {"vocab_size": vocab_size, "warmup_steps": self.dense_steps}
        config = ElasConfig.from_name(self.size, **options | ARMS[self.arm] | self.model)
        if self.arm == "equal_flops":
            if config.rank is None:
                fail("model", self.model, "one with a rank for arm='equal_flops'")
            h, i = config.hidden_size, config.intermediate_size
            config.mlp_rank = round(config.rank * (2 * h + 1.5 * i) / (2 * h + 2 * i))
        return config


def build_model(config: PretrainConfig, text: "Text | None" = None) -> "ElasForCausalLM":
    """The untrained model of ``config``, drawn from its seed, in its dtype."""
    import torch

    from labkit.elas.model import ElasForCausalLM

    text = text or _text(config)
    with torch.random.fork_rng(devices=()):  # drawn on the CPU: no GPU is looked at
        torch.default_generator.manual_seed(config.seed)
        model = ElasForCausalLM(config.model_config(text.vocab_size))
    return model.to_dtype(getattr(torch, config.dtype))


def pretrain(
    config: PretrainConfig | None = None,
    *,
    model: "ElasForCausalLM | None" = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: Progress = True,
) -> TrainTrace:
    """Train one arm and return its curves.

    model        trained in place, to look at it afterwards (default: ``build_model(config)``)
    device       "auto": where transformers' Trainer puts it, a GPU if there is one; "cpu"; "cuda"
    output_dir   checkpoints and the finished model with its tokenizer ("model/", which
                 AutoModelForCausalLM and pipeline open) go here; None keeps no files
    resume       go on from the last checkpoint in ``output_dir``; the curve is that of an unbroken run,
                 and a finished one is loaded as it is
    progress     show a bar, or a function called as progress(steps done, steps); it may raise to stop

    Series of the trace: loss, learning_rate, grad_norm; eval_nats, eval_bits_per_byte (token-weighted,
    from step 0 on); mask_on; and for ReLU² arms natural_zeros, crowded_groups, energy_kept,
    gradient_cosine, gradient_norm_ratio (straight-through against masked), each (n, layers). ``meta``
    holds the configuration, parameter count, unigram baseline, the final evaluation, findings (see
    ``Loro.findings``; also the first loss that is not finite), seconds, tokens a second, peak memory
    (CUDA) and provenance. ValueError names the argument at fault.
    """
    config = config or PretrainConfig()
    if not isinstance(config, PretrainConfig):
        fail("config", config, "a PretrainConfig")
    choice("device", device, ("auto", "cpu", "cuda"))
    if output_dir is None and (resume or config.save_every):
        fail("output_dir", None, "a folder where checkpoints are saved or resumed from")
    text = _text(config)
    _check_rows(config, text)
    if model is None:
        model = build_model(config, text)
    from labkit.elas.trainer import run

    if output_dir is None:
        with tempfile.TemporaryDirectory(prefix="labkit-elas-") as folder:
            return run(config, model, text, Path(folder), resume=False, device=device, progress=progress)
    folder = Path(output_dir)
    if is_main_process():  # one process claims the folder, the others may come first
        _claim(folder / "pretrain.json", config, resume)
    trace = run(config, model, text, folder, resume=resume, device=device, progress=progress)
    if is_main_process():
        from labkit.elas.recorded import save_model

        save_model(folder / "model", model, text.tokenizer)
        trace.save(folder / "trace.npz")
    return trace


def is_main_process() -> bool:
    """True unless torchrun or accelerate started this process as another than the first."""
    return int(os.environ.get("RANK", 0)) == 0


def _check_rows(config: PretrainConfig, text: "Text") -> None:
    """ValueError unless the training text fills one batch of every process: a part of one is dropped."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    most = (len(text.train) - 1) // config.seq_len // processes
    if config.batch_size > most:
        words = f"at most {most} rows: the training text of max_bytes={config.max_bytes} has no more"
        fail("batch_size", config.batch_size, words + " for each process" * (processes > 1))


def _text(config: PretrainConfig) -> "Text":
    from labkit.elas.data import load_text

    return load_text(config.source, vocab_size=config.vocab_size, max_bytes=config.max_bytes)


def _claim(path: Path, config: PretrainConfig, resume: bool) -> None:
    """Write the folder's configuration, or on resume insist that it is the one being resumed."""
    mine = json.loads(json.dumps(dataclasses.asdict(config)))
    if resume and path.exists():
        theirs = json.loads(path.read_text())
        changed = sorted(k for k in mine if mine[k] != theirs.get(k))
        if changed:
            fail(
                "config",
                {k: mine[k] for k in changed},
                f"that of {path.parent}, which differs in {', '.join(changed)}",
            )
        return
    write_atomic(path, lambda temporary: temporary.write_text(json.dumps(mine, indent=1)))
