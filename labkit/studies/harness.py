"""What every study shares: stages in order, a deadline, resume, provenance, JSON, errors kept.

Study     a name, its stages in their order, its own options
Stage     one step: a function of the Context, the file its result goes to and the shape it must have
Option    an option of a study, with the value that a rehearsal (--tiny) takes
Context   what a stage is given: options, folder, deadline, command
run       a study from the words of a command line

A stage returns a dict, which is checked, given its provenance and put into a JSON file of --out; or None,
if it has written its own files. A stage that fails is told, its traceback kept in errors.txt, and the
others run. One whose result stands in --out, of the same inputs, is not run again.
"""

import argparse
import json
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from labkit import checks, device
from labkit.paths import runs_dir
from labkit.provenance import provenance
from labkit.studies.files import Join, check, digest, put


@dataclass(frozen=True)
class Option:
    """``--name`` of a study, read as the type of its default (a tuple: one or several of its first)."""

    default: Any
    help: str
    tiny: Any = None  # in a rehearsal; None: the default
    choices: tuple[Any, ...] = ()
    kind: type | None = None  # of a value, where the default is None
    least: float = 1  # of a number

    def add_to(self, parser: argparse.ArgumentParser, name: str) -> None:
        """Make it an argument of ``parser``; what is not given stays None."""
        several = isinstance(self.default, tuple)
        kind = self.kind or type(self.default[0] if several else self.default)
        how: dict[str, Any] = {"type": kind} | ({"nargs": "+"} if several else {})
        if kind is bool:
            how = {"action": "store_true", "default": None}
        shown = " ".join(map(str, self.default)) if several else self.default
        told = self.help if self.default in (None, False) else f"{self.help} (default: {shown})"
        parser.add_argument(f"--{name.replace('_', '-')}", help=told.replace("%", "%%"), **how)

    def value(self, name: str, given: Any, tiny: bool) -> Any:
        """What holds: given, or the rehearsal's, or the default. ValueError if it is not allowed."""
        if given is None:
            given = self.tiny if tiny and self.tiny is not None else self.default
        for one in given if isinstance(given, (tuple, list)) else (given,):
            if self.choices:
                checks.choice(name, one, self.choices)
            elif isinstance(one, float):
                checks.number(name, one, self.least)
            elif isinstance(one, int) and not isinstance(one, bool):
                checks.integer(name, one, int(self.least))
        return given


@dataclass
class Context:
    """What the stages of one call share."""

    command: str  # as it was given, --out and absolute paths by their options: OUT
    out: Path
    device: str  # "cuda" or "cpu"
    tiny: bool
    deadline: float  # a time.time() after which nothing new is begun
    stages: tuple[str, ...]  # those of this call
    options: SimpleNamespace  # the study's own
    prepared: Any = None  # what Study.prepare returned
    failures: int = 0

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return time.time() > self.deadline

    def pick(self, *names: str) -> dict[str, Any]:
        """Some of the options by name."""
        return {name: getattr(self.options, name) for name in names}

    def write(
        self, body: Mapping[str, Any], file: str, *keys: str, join: Join | None = None, **made: Any
    ) -> None:
        """Put ``body`` into the JSON ``file``, under ``keys`` beside what stands there, see ``put``.

        Its provenance is that of this call, of ``made`` and of what ``body`` has under "provenance".
        """
        about = provenance(command=self.command, **made | body.get("provenance", {}))
        put(self.out / file, {**body, "provenance": about}, *keys, join=join)

    def tell(self, what: str, error: BaseException) -> None:
        """Keep an error in errors.txt and show it: nothing else is lost."""
        self.failures += 1
        text = f"{what}\n{''.join(traceback.format_exception(error))}\n"
        with (self.out / "errors.txt").open("a") as file:
            file.write(text)
        print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Stage:
    """One step of a study. Neighbours that share one ``run`` are one call of it: see Context.stages."""

    run: Callable[[Context], Mapping[str, Any] | None]
    about: str
    file: str = ""  # of --out, for what run returns
    key: str = ""  # in that file; empty: all of it
    shape: Any = None  # see files.check
    inputs: Callable[[Context], dict[str, Any]] | None = None  # what decides the result; None: run always
    show: Callable[[Any], str] = lambda found: ""  # a result in words

    def fingerprint(self, name: str, context: Context) -> dict[str, Any]:
        """The inputs for the provenance, and their digest; empty for a stage without."""
        if self.inputs is None:
            return {}
        inputs = self.inputs(context)
        return inputs | {"fingerprint": digest([name, context.device, context.tiny, inputs])}

    def stands(self, name: str, context: Context) -> bool:
        """Whether --out has the result of the same inputs."""
        path = context.out / self.file
        if not (mine := self.fingerprint(name, context)) or not path.is_file():
            return False
        body = json.loads(path.read_text())
        body = body.get(self.key, {}) if self.key else body
        return body.get("provenance", {}).get("fingerprint") == mine["fingerprint"]


@dataclass(frozen=True)
class Study:
    """Stages by name, in their order.

    default   the stages run when --stages is not given; empty: all
    out       the folder where --out is not given; None: runs/studies/NAME
    prepare   called before anything is written; its ValueError is a bad command, told in one line
    """

    name: str
    about: str
    stages: Mapping[str, Stage]
    options: Mapping[str, Option] = field(default_factory=dict)
    default: tuple[str, ...] = ()
    prepare: Callable[[Context], Any] | None = None
    out: Path | None = None


def run(study: Study, words: list[str]) -> int:
    """Run a study's stages; 0, or 1 if something failed, or 2 if the command is wrong."""
    given = _parser(study).parse_args(words)
    try:
        context = _context(study, given, words)
        if study.prepare:
            context.prepared = study.prepare(context)
    except (ValueError, OSError) as error:
        print(f"{study.name}: {error}", file=sys.stderr)
        return 2
    context.out.mkdir(parents=True, exist_ok=True)
    for _, group in groupby(context.stages, key=lambda name: study.stages[name].run):
        names = list(group)
        told, stage = ", ".join(names), study.stages[names[0]]
        if context.late:
            print(f"{told}: no time left", flush=True)
            continue
        if not given.again and stage.stands(told, context):
            print(f"{told}: stands in {stage.file} (--again runs it once more)", flush=True)
            continue
        began = time.perf_counter()
        try:
            found = stage.run(context)
            spent = time.perf_counter() - began
            if found is not None:
                check(told, found, stage.shape or {})
                made = (
                    {} if context.late else stage.fingerprint(told, context)
                )  # cut short: to be run again
                context.write(found, stage.file, *filter(None, [stage.key]), stage_seconds=spent, **made)
        except Exception as error:
            context.tell(told, error)
            continue
        print(f"{told}: {spent:.1f} s\n{stage.show(found) if found else ''}".strip(), flush=True)
    return 1 if context.failures else 0


def _parser(study: Study) -> argparse.ArgumentParser:
    stages = "\n".join(f"  {name:18} {stage.about}" for name, stage in study.stages.items())
    parser = argparse.ArgumentParser(
        prog=f"python -m labkit.studies {study.name}", description=f"{study.about}\n\nstages:\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    default = " ".join(study.default) or "all"
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help=f"default: {default}")
    parser.add_argument(
        "--out", type=Path, help=f"gone on with if it has results; runs/studies/{study.name}"
    )
    parser.add_argument("--seconds", type=float, help="begin nothing new after so many (default: no limit)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal at the smallest sizes")
    parser.add_argument("--again", action="store_true", help="also run stages whose results are there")
    for name, option in study.options.items():
        option.add_to(parser, name)
    return parser


def _context(study: Study, given: argparse.Namespace, words: list[str]) -> Context:
    """ValueError names the option that is not allowed."""
    for name in given.stages or ():
        checks.choice("stages", name, tuple(study.stages))
    wanted = given.stages or study.default or study.stages
    out = given.out or study.out or runs_dir() / "studies" / study.name
    shown = [
        option.lstrip("-").upper() if option == "--out" or Path(word).is_absolute() else word
        for option, word in pairwise(["", *words])
    ]  # folders of one machine are not told
    limit = float("inf") if given.seconds is None else checks.number("seconds", given.seconds, 0)
    values = {name: o.value(name, getattr(given, name), given.tiny) for name, o in study.options.items()}
    return Context(
        command=f"python -m labkit.studies {shlex.join([study.name, *shown])}",
        out=out,
        device=given.device or device.current(),
        tiny=given.tiny,
        deadline=time.time() + limit,
        stages=tuple(name for name in study.stages if name in wanted),
        options=SimpleNamespace(**values),
    )
