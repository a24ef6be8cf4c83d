"""PretrainConfig: how one arm is trained. ARMS names the models that are compared.

The architecture's own configuration, ElasConfig, stands in model.py.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labkit.checks import choice, fail, integer, number
from labkit.elas.sources import check_source

if TYPE_CHECKING:
    from labkit.elas.data import Text
    from labkit.elas.model import ElasConfig, ElasForCausalLM

# Of Loro's arithmetic, written into every record. 1, until November 2026: K0 of the exact step was read
# from the other factor, and the schedule neither restarted within the warm-up nor had LORO's late cosine.
LORO_REVISION = 2
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

    Attributes:
        arm: a key of ARMS.
        size: a name of ElasConfig.from_name.
        model: any fields of ElasConfig to override in it.
        source: the text, see ``load_text``.
        vocab_size: of its tokenizer.
        max_bytes: the training text ends with the document that reaches so many; None: all of it.
        seq_len: tokens predicted per row.
        batch_size: rows per batch and process.
        accumulation: batches per optimiser step.
        steps: optimiser steps.
        lr: peak learning rate; the default is LORO's, dense arms want less (0.003 was best at "tiny").
        lr_warmup: steps of linear warm-up.
        dense_steps: steps before the 2:4 mask is laid on (the paper's dense warm-up).
        exact_every: Loro's K for low-rank arms; dense arms train with AdamW and no restarts.
        weight_decay: 0 turns it off, as LORO does.
        max_grad_norm: likewise.
        log_every: steps between training-loss points.
        eval_every: steps between held-out evaluations.
        eval_tokens: held-out tokens that each evaluation reads.
        save_every: steps between checkpoints (0: none); a multiple of log_every.
        dtype: "float32" or "bfloat16" (weights and Adam states alike, as published).
        seed: of the start and of the order of the text.

    Raises:
        ValueError: names the field at fault.
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
        integer("eval_tokens", self.eval_tokens, self.seq_len)

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

    if not isinstance(config, PretrainConfig):
        fail("config", config, "a PretrainConfig")
    text = text or read_text(config)
    with torch.random.fork_rng(devices=()):  # drawn on the CPU: no GPU is looked at
        torch.default_generator.manual_seed(config.seed)
        model = ElasForCausalLM(config.model_config(text.vocab_size))
    return model.to_dtype(getattr(torch, config.dtype))


def read_text(config: PretrainConfig) -> "Text":
    """The text of ``config``, see ``load_text``."""
    from labkit.elas.data import load_text

    return load_text(config.source, vocab_size=config.vocab_size, max_bytes=config.max_bytes)
