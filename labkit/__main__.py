"""The command line of the lab.

labkit list       the notebooks with their parameters, defaults and what they mean
labkit notebooks  copies of the notebooks and presets, to edit
labkit run        execute notebooks headless, compare with baselines, write runs/latest/report.html
labkit train      pre-train ELAS or its baselines, fine-tune by FGO, make a diffusion LM of a causal LM
labkit eval       a causal LM on a benchmark: accuracy, length, ACT, the paper's figures beside
labkit decode     a question to a masked diffusion language model: the answer fills in, its trace is kept
labkit lm-eval    lm-evaluation-harness on such a model; its options are those of `lm_eval run`
labkit show       a trace or a folder of training logs as one HTML page that needs no Python
labkit sweep      one notebook over a grid of parameters, here or on a dask cluster; repeated, it goes on
labkit report     write report.html of a finished run again
labkit site       a finished run as a static site, runs/site
labkit compare    two runs, metric by metric
labkit baseline   accept the metrics of a run as the new baselines, after showing what moves

Exit codes: 0 all fine, 1 a notebook failed, 2 bad usage, 3 a metric is off its baseline, 130 Ctrl-C,
143 SIGTERM, 129 SIGHUP (the terminal was closed), 141 nobody reads its output (labkit list | head).
"""

import argparse
import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from importlib import import_module

from labkit import __version__

RUNNER = "labkit.runner.commands"
TRAINERS = {  # algorithm: (its command, what it does)
    "elas": ("labkit.elas.cli", "pre-train a low-rank LLaMA"),
    "fgo": ("labkit.fgo.cli", "compress the chain-of-thought of a causal LM"),
    "dlm": ("labkit.soar.train_cli", "turn a causal LM into a masked diffusion LM"),
}
FLAG = {"action": "store_true"}
SEVERAL = {"nargs": "*", "metavar": "NOTEBOOK", "help": "file, name or number; default: all"}


def _late(module: str, name: str) -> Callable:
    """``module``'s function ``name``, imported when it is called: torch takes seconds.

    Nothing slow is imported before ``main`` runs, where Ctrl-C prints no traceback.
    """
    return lambda arguments: getattr(import_module(module), name)(arguments)


# command: (what it calls, {option: argparse's words for it})
COMMANDS: dict[str, tuple[Callable, dict[str, dict]]] = {
    "list": (_late(RUNNER, "describe"), {
        "notebooks": SEVERAL, "--json": {**FLAG, "help": "the same as JSON"},
    }),
    "notebooks": (_late(RUNNER, "copy"), {"folder": {"metavar": "FOLDER", "help": "new or empty"}}),
    "run": (_late(RUNNER, "run"), {
        "notebooks": SEVERAL,
        "--preset": {"default": "smoke", "help": "smoke, full or a YAML file (default: smoke)"},
        "-p": {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE"),
               "dest": "overrides", "help": "set one parameter; the value is read as YAML"},
        "--jobs": {"type": int, "default": 1, "help": "notebooks at a time (default: 1)"},
        "--timeout": {"type": float, "default": 1800, "help": "seconds for one notebook (default: 1800)"},
        "--resume": {**FLAG, "help": "keep executions that already finished unchanged"},
    }),
    "decode": (_late("labkit.soar.cli", "decode"), {
        "question": {"metavar": "QUESTION", "help": "text; a user's message by the chat template"},
        "--model": {"required": True, "metavar": "NAME_OR_FOLDER",
                    "help": "a LLaDA, Dream or SDAR folder, its name on the hub, lab/gsm or lab/sums"},
        "--strategy": {"default": "soar", "help": "greedy, parallel, adaptive, fast_dllm, factor, eb, "
                       "klass, prophet, rcr, pbs, order_token or soar (default)"},
        "--beam": {"type": int, "help": "beams of pbs, order_token and soar (default: 2)"},
        "--threshold": {"type": float, "help": "confidence that accelerates (default: 0.9)"},
        "--gen-length": {"type": int, "help": "tokens to generate (default: 128, of lab/sums 23)"},
        "--block-length": {"type": int, "help": "fill blocks of so many in turn (default: one block)"},
        "--temperature": {"type": float, "help": "of the noise on the logits (default: 0, none)"},
        "--seed": {"type": int, "help": "for --temperature (default: a fresh one)"},
        "--stop": {"action": "append", "default": [], "metavar": "TEXT",
                   "help": "end the answer before this text; may be repeated"},
        "--device": {"default": "auto", "help": "auto, cpu, cuda or cuda:N (default: auto)"},
        "--output": {"metavar": "FILE", "help": "the trace, .npz (default: runs/decode/trace.npz)"},
    }),
    "show": (_late("labkit.widgets.show", "show"), {
        "trace": {"metavar": "TRACE_OR_FOLDER", "help": "a trace (.npz), or a folder with one, with "
                  "trainer_state.json of TRL or transformers, or with TensorBoard's event files; or "
                  "the JSON of `make bench`"},
        "-o": {"dest": "output", "metavar": "FILE", "help": "the page (default: TRACE.html)"},
        "--prompt": {"type": int, "default": 0, "help": "which prompt of a decode (default: 0)"},
    }),
    "sweep": (_late(RUNNER, "sweep"), {
        "notebook": {"metavar": "NOTEBOOK"},
        "--grid": {"required": True, "help": "YAML: parameter -> list, {from, to, count[, log]}, {seeds}"},
        "--preset": {"default": "smoke", "help": "the parameters that stay (default: smoke)"},
        "--jobs": {"type": int, "help": "local workers (default: one per CUDA device, 2 without)"},
        "--scheduler": {"help": "a running dask scheduler, tcp://host:port, on its workers' devices"},
        "--timeout": {"type": float, "default": 1800, "help": "seconds for one point (default: 1800)"},
    }),
    "report": (_late(RUNNER, "report"), {
        "folder": {"help": "the run's folder, for instance runs/latest"},
    }),
    "site": (_late(RUNNER, "site"), {
        "folder": {"nargs": "?", "help": "the run's folder (default: runs/latest)"},
    }),
    "compare": (_late(RUNNER, "compare"), {"run_a": {}, "run_b": {}}),
    "baseline update": (_late(RUNNER, "update_baselines"), {
        "folder": {"nargs": "?", "help": "the run (default: runs/latest)"},
        "--seeds": {"nargs": "+", "default": [], "metavar": "RUN",
                    "help": "runs with other seeds, on other Pythons too: they set new tolerances"},
        "--yes": {**FLAG, "help": "do not ask"},
    }),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """All commands and their options, but those of train, eval and lm-eval, which read their own."""
    top = argparse.ArgumentParser(
        prog="labkit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"labkit {__version__}")
    known = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", help="labkit COMMAND --help lists its options"
    )
    for name, (call, options) in COMMANDS.items():
        first, _, second = name.partition(" ")
        command = known.add_parser(first)
        if second:
            command = command.add_subparsers(required=True, metavar=second).add_parser(second)
        for option, words in options.items():
            command.add_argument(option, **words)
        command.set_defaults(call=call)
    trainers = known.add_parser("train").add_subparsers(dest="algorithm", required=True)
    for name, (_, purpose) in TRAINERS.items():
        trainers.add_parser(name, help=purpose)
    for name in ("eval", "lm-eval"):
        known.add_parser(name)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input or an unusable folder is one line on stderr and exit code 2."""
    argv = _with_negatives(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    name = " ".join(["labkit", *argv[:1]])
    try:
        from labkit.runner.processes import interrupted_by_signals

        with interrupted_by_signals(), _flushed():
            if argv[:1] == ["train"] and argv[1:2] and argv[1] in TRAINERS:
                return import_module(TRAINERS[argv[1]][0]).main(argv[2:])
            if argv[:1] == ["eval"]:
                return import_module("labkit.studies.fgo.evaluation").main(argv[1:])
            if argv[:1] == ["lm-eval"]:
                import_module("labkit.elas")  # for `--model hf`: transformers opens the folders it saves
                return import_module("labkit.soar.cli").evaluate(argv[1:])
            arguments = parser().parse_args(argv)
            return arguments.call(arguments)
    except BrokenPipeError:
        if sys.stdout:  # what is left for it would be an error again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        from labkit.checks import visible

        full = getattr(error, "errno", None) == errno.ENOSPC
        advice = "; free some and repeat: sweep and run --resume keep what finished" if full else ""
        print(f"{name}: {visible(str(error))}{advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        how = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(f"{name}: {how}", file=sys.stderr)
        return 128 + number


@contextlib.contextmanager
def _flushed() -> Iterator[None]:
    """What a command printed is out when it ends, or the error is its own."""
    yield
    if sys.stdout:  # None where the shell closed it
        sys.stdout.flush()


def _with_negatives(argv: list[str]) -> list[str]:
    """``argv`` with a blank before the -1e-3 or -.inf of `-p NAME -1e-3`: argparse takes it for an option.

    YAML drops the blank.
    """
    number = re.compile(r"-\.?(\d|inf)")
    return [
        f" {word}" if i > 1 and argv[i - 2] == "-p" and number.match(word) else word
        for i, word in enumerate(argv)
    ]


if __name__ == "__main__":
    sys.exit(main())
