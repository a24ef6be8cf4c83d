"""labkit train elas: pre-train one arm from the shell, with a bar, checkpoints and a clear error."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import checks
from labkit.device import is_main_process
from labkit.elas.config import PretrainConfig
from labkit.elas.pretrain import pretrain
from labkit.elas.sources import SOURCES
from labkit.options import help_field, parse_options
from labkit.paths import runs_dir
from labkit.traces import TrainTrace

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


@dataclass(frozen=True)
class Arguments:
    """What the command is told beside the fields of PretrainConfig."""

    output: str | None = help_field("folder for checkpoints, model and curves; default: runs/elas", None)
    resume: bool = help_field("go on from the newest checkpoint in the output folder", False)


def parse(argv: Sequence[str]) -> tuple[PretrainConfig, Arguments]:
    """The configuration that ``argv`` asks for. ValueError names what is wrong."""
    kinds = ", ".join(f"{name} ({source.licence})" for name, source in SOURCES.items())
    config, arguments = parse_options(
        (PretrainConfig, Arguments), argv, presets=PRESETS, preset="smoke", prog="labkit train elas",
        description=PretrainConfig.__doc__,
        epilog=f"Texts for --source, several joined by '+': {kinds}. All but sympy are downloaded on first "
        "use. Several processes: torchrun --nproc_per_node N -m labkit train elas ...",
    )  # fmt: skip
    return config, arguments


def main(argv: Sequence[str]) -> int:
    """Train, leaving model/ and trace.npz in the output folder; 0. ValueError or OSError for bad input."""
    config, arguments = parse(argv)
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
        _report(trace, output)
    return 0


def _report(trace: TrainTrace, output: Path) -> None:
    meta = trace.meta
    print(
        f"{meta['arm']}, {meta['parameters']:,} parameters: {meta['eval_nats']:.4f} nats per token, "
        f"{meta['eval_bits_per_byte']:.4f} bits per byte (unigram {meta['unigram_bits_per_byte']:.4f})"
    )
    for finding in trace.findings:
        print(f"finding, {finding}")
    print(f"model: {output / 'model'}\ncurves: {output / 'trace.npz'}")
