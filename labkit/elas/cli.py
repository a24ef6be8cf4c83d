"""labkit train elas: pre-train one arm from the shell, with a bar, checkpoints and a clear error."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from labkit import checks
from labkit.elas.config import PretrainConfig
from labkit.elas.pretrain import is_main_process, pretrain
from labkit.elas.sources import SOURCES
from labkit.paths import runs_dir
from labkit.yaml_values import as_float, parse_overrides, read_yaml

# smoke: a minute on one core.  12m: the arms of the lab's study.  60m, 130m: the paper's models at LORO's
# settings; 512 rows a step, so raise batch_size or start several processes with torchrun.
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 100, "log_every": 5, "eval_every": 25, "save_every": 25},
    "12m": {
        "size": "12m", "source": "gcide+sotu", "vocab_size": 8192, "max_bytes": None, "seq_len": 512,
        "batch_size": 32, "steps": 1000, "lr_warmup": 100, "dense_steps": 100, "exact_every": 100,
        "log_every": 10, "eval_every": 100, "eval_tokens": 65536, "save_every": 100, "dtype": "bfloat16",
    },
    "60m": {
        "size": "60m", "source": "gcide+sotu", "vocab_size": 32000, "max_bytes": None, "seq_len": 256,
        "batch_size": 64, "accumulation": 8, "steps": 10000, "lr_warmup": 1000, "dense_steps": 1000,
        "exact_every": 500, "log_every": 10, "eval_every": 500, "eval_tokens": 131072, "save_every": 500,
        "dtype": "bfloat16",
    },
}  # fmt: skip
PRESETS["130m"] = PRESETS["60m"] | {"size": "130m", "steps": 20000, "lr_warmup": 2000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``labkit train elas``; nothing heavy is imported for them."""
    parser.add_argument(
        "--preset", default="smoke",
        help=f"{', '.join(PRESETS)} or a YAML file of PretrainConfig fields (default: smoke)",
    )  # fmt: skip
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="overrides",
        help="a field of PretrainConfig (arm, steps, lr, seed, source, ...); the value is read as YAML",
    )  # fmt: skip
    parser.add_argument("--output", help="folder for checkpoints, model and curves (default: runs/elas)")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint in --output"
    )
    kinds = ", ".join(f"{name} ({source.licence})" for name, source in SOURCES.items())
    parser.epilog = (
        f"Texts for -p source, several joined by '+': {kinds}. All but sympy are downloaded on first use. "
        "Several processes: torchrun --nproc_per_node N -m labkit train elas ..."
    )


def main(arguments: argparse.Namespace) -> int:
    """Train, leaving model/ and trace.npz in the output folder; 0. ValueError or OSError for bad input."""
    config = configuration(arguments.preset, parse_overrides(arguments.overrides))
    output = Path(arguments.output) if arguments.output else runs_dir() / "elas"
    main_process = is_main_process()
    if main_process:  # the others may come when this one has begun to write
        found = (output / "pretrain.json").exists()
        if found and not arguments.resume:
            checks.fail("--output", str(output), "new or empty, or come with --resume: it holds a run")
        if arguments.resume and not found:
            checks.fail("--output", str(output), "a folder of an earlier run, to resume it")
    trace = pretrain(config, output_dir=output, resume=arguments.resume, progress=main_process)
    if main_process:
        meta = trace.meta
        print(
            f"{config.arm}, {meta['parameters']:,} parameters: {meta['eval_nats']:.4f} nats per token, "
            f"{meta['eval_bits_per_byte']:.4f} bits per byte (unigram {meta['unigram_bits_per_byte']:.4f})"
        )
        for finding in trace.findings:
            print(f"finding, {finding}")
        print(f"model: {output / 'model'}\ncurves: {output / 'trace.npz'}")
    return 0


def configuration(preset: str, overrides: dict[str, Any]) -> PretrainConfig:
    """The preset's fields with ``overrides`` laid over them. ValueError names what is wrong."""
    fields = PRESETS.get(preset)
    if fields is None:
        path = Path(preset)
        if not path.is_file():
            checks.fail("--preset", preset, f"one of {', '.join(PRESETS)} or a YAML file")
        fields = read_yaml(path, "--preset") or {}
        if not isinstance(fields, dict):
            checks.fail("--preset", preset, "a YAML mapping of PretrainConfig fields")
    types = {field.name: field.type for field in dataclasses.fields(PretrainConfig)}
    chosen = fields | overrides
    for name, value in chosen.items():
        if name not in types:
            hint = checks.did_you_mean(name, types)
            raise ValueError(f"-p must name one of {', '.join(types)}; got {name!r}{hint}")
        if types[name] is float:
            chosen[name] = as_float(value)
    return PretrainConfig(**chosen)
