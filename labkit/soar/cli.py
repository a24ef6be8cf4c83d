"""labkit decode: a question to a masked diffusion language model, the answer filling in, its trace.
labkit lm-eval: lm-evaluation-harness with these models."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from labkit import checks, device
from labkit.paths import runs_dir
from labkit.soar.generate import generate
from labkit.soar.load import load_model

PASSED = ("beam", "threshold", "gen_length", "block_length", "temperature", "seed")
LM_EVAL = ("run", "ls", "validate")  # its commands


def decode(given: argparse.Namespace) -> int:
    """Answer ``given.question`` and keep the trace; 0. ValueError or OSError for bad input."""
    output = Path(given.output) if given.output else runs_dir() / "decode" / "trace.npz"
    if output.suffix != ".npz" or output.is_dir():  # before minutes are spent
        checks.fail("--output", given.output, "a file that ends in .npz")
    output.parent.mkdir(parents=True, exist_ok=True)  # likewise
    place = device.use(given.device)
    try:
        model = load_model(given.model, device=place, dtype=device.model_dtype(place))
    except ValueError as error:  # its ``name`` is what was typed behind --model
        raise ValueError(re.sub("^name must", "--model must", str(error))) from error
    options = {name: getattr(given, name) for name in PASSED if getattr(given, name) is not None}
    console = Console(highlight=False)
    with _filling_in(console) as watch:
        found = generate(model, given.question, given.strategy, stop=given.stop, watch=watch, **options)
    trace = found.trace
    trace.save(output)
    console.print(_printable(found.text))
    print(
        f"\n{trace.calls[0]} forward calls, {trace.rows[0]} rows, {found.seconds:.2f} s, "
        f"ended by {found.finish_reason}\ntrace: {output}"
    )
    return 0


def evaluate(argv: Sequence[str]) -> int:
    """lm_eval's command line, in which "labkit" is a model, and the one unless another is named; 0."""
    if find_spec("lm_eval") is None:
        raise ValueError("lm_eval must be installed: pip install labkit[eval]")
    import lm_eval.models  # noqa: F401, which enters hf, vllm, ...: later they would not enter beside labkit
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import model_registry

    if "labkit" not in model_registry:
        model_registry.register("labkit", target="labkit.soar.harness:LabkitLM")
    command, rest = (argv[0], argv[1:]) if argv[:1] and argv[0] in LM_EVAL else ("run", argv)
    named = any(word in ("-M", "--model") or word.startswith("--model=") for word in rest)
    model = ["--model", "labkit"] if command == "run" and not named else []
    before, sys.argv = sys.argv, ["labkit lm-eval", command, *model, *rest]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
    return 0


@contextmanager
def _filling_in(console: Console) -> Iterator[Callable[[str], None]]:
    """Shows a text as it fills in: in its place on a terminal, else as lines at calls 1, 2, 4, 8, ..."""
    calls = count(1)

    def line(text: str) -> None:
        if (call := next(calls)) & (call - 1) == 0:
            print(f"call {call}: {_printable(text)}", flush=True)

    if not console.is_terminal:
        yield line
        return
    with Live(console=console, transient=True) as live:
        yield lambda text: live.update(_printable(text))


def _printable(text: str) -> Text:
    """``text`` without what would steer the terminal: a model may write anything."""
    return Text("".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text))
