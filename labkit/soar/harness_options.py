"""What the harness is asked for: model_args once, generation_kwargs with each request, both checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any

import torch
from lm_eval.models.utils import normalize_gen_kwargs

from labkit import __version__, checks
from labkit.device import current, model_dtype
from labkit.soar.config import DecodeConfig
from labkit.soar.generate import stop_strings

DTYPES = ("bfloat16", "float16", "float32")
HARNESS = ("mask_id", "gen_length", "block_length", "seed", "batch_size", "record")  # it sets these itself
OPTIONS = tuple(name for name in DecodeConfig.__dataclass_fields__ if name not in HARNESS)
LARGEST = {"cuda": 64, "cpu": 8}  # what batch_size=auto tries first, by kind of device


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """The model_args of a run, checked before any weight is read.

    gen_length      tokens generated at most; a task may ask for fewer
    block_length    of ``decode``; where it does not divide the length, the last block is cut. None: the
                    block that the model's attention is causal over, 32 for one that sees everything
    batch_size      prompts decoded, and rows scored, at a time; "auto": the most that fit, found by halving
                    ``max_batch_size`` where memory runs out; "auto:N": found N times, the longest first
    max_batch_size  where auto begins; None: 64 on a GPU, 8 on a CPU
    device, dtype   None: a GPU in bfloat16, else the CPU in float32
    mc_num          masks drawn for the likelihood of an answer
    check_greedy    say whether greedy decoding gives the answer, which LAMBADA's accuracy is about;
                    False: say of none that it does, and save that decoding
    add_bos_token   begin every prompt with the tokenizer's BOS token, as Dream's published commands do
    seed            of what is sampled and masked
    options         strategy, beam, threshold, ... of ``decode``

    ValueError names the one that is wrong.
    """

    gen_length: int = 256
    block_length: int | None = None
    batch_size: int | str = 8
    max_batch_size: int | None = None
    device: Any = None
    dtype: Any = None
    mc_num: int = 128
    check_greedy: bool = True
    add_bos_token: bool = False
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, low in (("gen_length", 1), ("mc_num", 1), ("seed", 0)):
            checks.integer(name, getattr(self, name), low)
        if self.block_length is not None:
            checks.integer("block_length", self.block_length, 1)
        for name in ("check_greedy", "add_bos_token"):
            checks.choice(name, getattr(self, name), (True, False))
        device = place(self.device)
        dtype = str(model_dtype(device.type)).removeprefix("torch.") if self.dtype is None else self.dtype
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "dtype", checks.choice("dtype", dtype, DTYPES))
        _ = self.rows, self.settings  # their errors

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "ModelArgs":
        """From keywords as lm_eval hands them over: ours, and those of ``decode``."""
        own = [one.name for one in fields(cls) if one.name != "options"]
        for name in given:
            if name not in (*own, *OPTIONS):
                known = ("pretrained", *own, *OPTIONS)
                meant = checks.did_you_mean(name, known)
                raise ValueError(f"model_args must be among {', '.join(known)}; got {name!r}{meant}")
        options = {name: given[name] for name in given if name in OPTIONS}
        return cls(options=options, **{name: given[name] for name in given if name in own})

    @property
    def rows(self) -> tuple[int, int]:
        """(rows of a batch to begin with, how often to look for what fits; 0: the rows are given)."""
        text = str(self.batch_size)
        if text.isdecimal():
            return checks.integer("batch_size", int(text), 1), 0
        word, _, times = text.partition(":")
        if word != "auto" or not (times or "1").isdecimal() or int(times or 1) < 1:
            checks.fail("batch_size", self.batch_size, "an integer >= 1, 'auto' or 'auto:N'")
        most = self.max_batch_size
        if most is None:
            most = LARGEST["cpu" if self.device.type == "cpu" else "cuda"]
        return checks.integer("max_batch_size", most, 1), int(times or 1)

    @property
    def settings(self) -> dict[str, Any]:
        """For the results file: what an answer may depend on."""
        config = DecodeConfig(mask_id=0, **self.options)
        decode = {"strategy": config.strategy} | config.parameters
        decode |= {name: getattr(self, name) for name in ("gen_length", "block_length", "seed", "mc_num")}
        return {"labkit": __version__, "model_dtype": self.dtype, "decode": decode}


def place(device: str | torch.device | None) -> torch.device:
    """The device asked for, by default a GPU; the CPU where there is none: lm_eval always says cuda:0."""
    try:
        found = torch.device(device or current())
    except RuntimeError:
        checks.fail("device", device, "cpu, cuda or cuda:N")
    usable = found.type != "cuda" or torch.cuda.is_available()
    return found if usable else torch.device("cpu")


@dataclass(frozen=True)
class Asked:
    """How one request wants its text; requests that agree can share a ``decode``."""

    length: int  # tokens at most
    stops: tuple[str, ...]  # strings before which the text ends
    options: tuple[tuple[str, Any], ...]  # (name, value) pairs for ``decode``

    @property
    def samples(self) -> bool:
        """Whether anything is drawn."""
        return bool(dict(self.options).get("temperature"))

    def keywords(self, gen_length: int, block_length: int) -> dict[str, Any]:
        """For ``decode``. ``steps`` are those of ``gen_length``, so a shorter text has fewer."""
        length, whole = in_blocks(self.length, block_length), in_blocks(gen_length, block_length)
        block_length = min(block_length, length)
        found = dict(self.options) | {"gen_length": length, "block_length": block_length}
        if found.get("steps") and length < whole:
            blocks = length // block_length
            found["steps"] = blocks * max(1, round(found["steps"] * length / (whole * blocks)))
        return found


def in_blocks(length: int, block_length: int) -> int:
    """``length`` in whole blocks, or as it is within one."""
    return length if length <= block_length else -(-length // block_length) * block_length


def asked(given: Mapping[str, Any], gen_length: int, options: Mapping[str, Any]) -> Asked:
    """A request's generation_kwargs over the model's ``gen_length`` and ``options`` of ``decode``.

    ``do_sample: false`` is temperature 0, whatever the model's; ``do_sample: true`` without a temperature
    is the model's, else 1 as in transformers. top_p and top_k without sampling say nothing and are dropped.
    ValueError names a key that is none of these and no option of ``decode``.
    """
    checks.choice("do_sample", given.get("do_sample"), (None, True, False))  # "false" would be true
    checks.number("temperature", given.get("temperature", 0.0), 0, inf)
    wanted: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), default_max_gen_toks=gen_length))
    length = min(checks.integer("max_gen_toks", wanted.pop("max_gen_toks"), 1), gen_length)
    stops = stop_strings([stop for stop in wanted.pop("until") if stop])
    sample = wanted.pop("do_sample")
    if sample and "temperature" not in wanted:
        wanted["temperature"] = options.get("temperature") or 1.0
    elif "do_sample" not in given and "temperature" not in given:
        wanted.pop("temperature", None)  # the model's
    merged = {**options, **wanted}
    if not checks.number("temperature", merged.get("temperature", 0.0), 0, inf):
        merged = {name: merged[name] for name in merged if name not in ("top_p", "top_k")}
    for name in merged:
        if name not in OPTIONS:
            known = ("until", "max_gen_toks", "do_sample", *OPTIONS)
            checks.fail("generation_kwargs", name, f"among {', '.join(known)}")
    return Asked(length, tuple(stops), tuple(sorted(merged.items())))
