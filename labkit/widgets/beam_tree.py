"""The live beam tree: walk it, scrub it, move the threshold, force a token and see the search go on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import traitlets

from labkit import checks
from labkit.figures.beam_tree import beam_tree as static_tree
from labkit.figures.tree_layout import vocabulary_of
from labkit.traces import SEARCH, BeamTrace
from labkit.widgets import base
from labkit.widgets.beam_pack import pack, texts
from labkit.widgets.esm import esm
from labkit.widgets.export import NOTEBOOK, Instrument


def beam_tree(
    trace: BeamTrace,
    run: Callable[..., BeamTrace] | None = None,
    *,
    compare: BeamTrace | None = None,
    prompt: int = 0,
    truth: np.ndarray | None = None,
    side: int | None = None,
    vocabulary: Callable[[int], str] | None = None,
    name: str = "beam tree",
) -> "BeamTree | None":
    """Show the tree of one prompt as an instrument, and without a kernel.

    trace       what ``decode`` returned for any number of prompts
    run         run(prompts, strategy, **parameters) -> BeamTrace, normally ``partial(decode, model)``;
                without it nothing can be decoded again: no "force this token", no other settings
    compare     another strategy's trace of the same prompts, drawn below on the same calls
    truth       int (P, L) right answers
    side        draw side x side boards; None: text
    vocabulary  token id -> its text, for instance ``lambda i: tokenizer.decode([i])``; None: the texts that
                ``generate`` noted in the trace, if it made it

    ValueError if a trace was made with record=False, or an argument does not fit the trace.
    """

    def build() -> BeamTree:
        return BeamTree(
            trace, run, compare=compare, prompt=prompt, truth=truth, side=side, vocabulary=vocabulary
        )

    return base.present(build, name=name)


class BeamTree(Instrument):
    """The widget behind ``beam_tree``. The traits below are what browser and kernel share.

    trees      one or two packed traces (labkit.widgets.beam_pack)
    tree, row, candidate   the selection: which tree, which state of it, which candidate (-1: none)
    preview    threshold under preview
    prompt, prompts, side, texts, settings, can_run   what is shown and what can be changed
    note, problem          what was done last; the error of the last request, empty if it worked
    """

    _entry = "beam_tree.js"
    _esm = esm(_entry)
    _css = base.static("instrument.css", "beam_tree.css")
    trees: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    tree = traitlets.Int(0).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    candidate = traitlets.Int(-1).tag(sync=True)
    preview = traitlets.Float(0.9).tag(sync=True)
    prompt = traitlets.Int(0).tag(sync=True)
    prompts = traitlets.Int(1).tag(sync=True)
    side = traitlets.Int(0).tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)
    can_run = traitlets.Bool(False).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        trace: BeamTrace,
        run: Callable[..., BeamTrace] | None,
        *,
        compare: BeamTrace | None,
        prompt: int,
        truth: np.ndarray | None,
        side: int | None,
        vocabulary: Callable[[int], str] | None,
    ):
        length = trace.sequences.shape[1]
        if any(not len(one.beam_step) for one in (trace, compare) if one is not None):
            raise ValueError("trace must be decoded with record=True; this one has no beams to show")
        if side is not None and side**2 != length:
            checks.fail("side", side, f"the side of a board of {length} cells, or None")
        if compare is not None and compare.sequences.shape != trace.sequences.shape:
            checks.fail("compare", compare.sequences.shape, f"a trace of the same {trace.sequences.shape}")
        if truth is not None and np.shape(truth) != trace.sequences.shape:
            checks.fail("truth", np.shape(truth), f"of the shape of the sequences {trace.sequences.shape}")
        checks.integer("prompt", prompt, 0, len(trace.sequences) - 1)
        self._recorded = [trace] if compare is None else [trace, compare]
        self._run, self._truth, self._vocabulary = run, truth, vocabulary or vocabulary_of(trace)
        self._chosen: dict[str, Any] | None = None  # settings of the first tree, once changed
        self._shown: list[list[tuple[BeamTrace, int, tuple[int, int] | None]]] = []  # per tree, a history
        super().__init__(
            prompt=prompt, prompts=len(trace.sequences), side=side or 0, can_run=run is not None,
            preview=trace.meta["parameters"]["threshold"],
        )  # fmt: skip
        self._load()
        self.observe(self._guarded(self._load), "prompt")
        self.on_msg(lambda _widget, content, _buffers: self._guarded(self._answer)(content))

    def still(self) -> list[object]:
        right = None if self._truth is None else self._truth[self.prompt]
        rest: dict[str, Any] = {"truth": right, "side": self.side or None, "vocabulary": self._vocabulary}
        first, *others = self._recorded
        drawn = [static_tree(first, self.prompt, baseline=others[0] if others else None, **rest)]
        return [*drawn, *(static_tree(one, self.prompt, **rest) for one in others)]

    def heading(self) -> str:
        return self.trees[0]["finding"]

    def frozen(self, room: int) -> tuple[dict[str, Any], str]:
        missing = f"Forcing a token, other settings or another prompt {NOTEBOOK}"
        if not self.can_run and self.prompts == 1:
            missing = ""
        return {"can_run": False, "prompts": 1, "busy": False, "problem": ""}, missing

    def _guarded(self, work: Callable[..., None]) -> Callable[..., None]:
        """``work`` with its errors shown in the panel: an exception in a callback would vanish."""

        def guarded(content: dict[str, Any]) -> None:
            self.problem, self.busy = "", True
            try:
                work(content)
            except Exception as error:
                self.problem = base.error_text(error)
            finally:
                self.busy = False

        return guarded

    def _load(self, _change: object = None) -> None:
        """The recorded traces of ``prompt``; the first one decoded again if its settings were changed."""
        ones = [trace.of_prompt(self.prompt) for trace in self._recorded]
        if self._chosen is not None:
            ones[0] = self._decode(ones[0], ones[0].beam_tokens[0], self._chosen)
        self._shown = [[(one, 0, None)] for one in ones]
        self.note = ""
        self._show(0)

    def _answer(self, content: dict[str, Any]) -> None:
        """A request of the browser: decode with other settings, force a token, or go back."""
        kind, which = content["kind"], int(content.get("tree", 0))
        if kind == "decode":
            self._chosen = {key: content[key] for key in ("strategy", "beam", "threshold")}
            return self._load()
        if kind == "back":
            if len(self._shown[which]) > 1:
                self._shown[which].pop()
            self.note = ""
            return self._show(which)
        if kind == "force":
            one, offset, _ = self._shown[which][-1]
            row, position, token = (int(content[key]) for key in ("row", "position", "token"))
            tokens = one.beam_tokens[row].copy()
            if tokens[position] != one.meta["mask_id"]:
                checks.fail("position", position, "one that is still masked")
            tokens[position] = token
            again = self._decode(one, tokens, {"strategy": one.meta["strategy"]})
            spent = offset + int(one.beam_step[row])
            self._shown[which].append((again, spent, (position, token)))
            self.note = f"forced {self._name(position)} = {self._text(token)} after call {spent}"
            return self._show(which)
        checks.fail("kind", kind, "decode, back or force")

    def _decode(self, one: BeamTrace, tokens: np.ndarray, settings: dict[str, Any]) -> BeamTrace:
        if self._run is None:
            checks.fail("run", None, "a function that decodes, to decode again")
        given = one.meta["parameters"] | settings
        kept = {
            key: value for key, value in given.items() if key not in ("gen_length", "steps", "strategy")
        }
        row = [int(token) for token in tokens if token >= 0]  # without the padding
        return self._run([row], settings["strategy"], mask_id=one.meta["mask_id"], **kept)

    def _show(self, which: int) -> None:
        """Send the top of each history; select a telling state of tree ``which``, or the fork."""
        top = [history[-1] for history in self._shown]
        given = [history[0][0] for history in self._shown]
        with self.hold_sync():
            self.texts = texts([one for one, *_ in top], self._vocabulary)
            self.trees = [
                pack(
                    one,
                    given=start.beam_tokens[0] != start.meta["mask_id"],
                    truth=None if self._truth is None else self._truth[self.prompt],
                    offset=offset,
                    forced=forced,
                )
                for (one, offset, forced), start in zip(top, given, strict=True)
            ]
            start = 0 if top[which][2] else _telling(top[which][0], self.trees[which]["answer"])
            self.tree, self.row, self.candidate = which, start, -1
            self.preview = float(top[0][0].meta["parameters"]["threshold"])

    def _name(self, position: int) -> str:
        return f"r{position // self.side + 1}c{position % self.side + 1}" if self.side else str(position)

    def _text(self, token: int) -> str:
        return str(token) if self._vocabulary is None else self._vocabulary(token)


def _telling(one: BeamTrace, answer: bytes) -> int:
    """Where to begin: the last state on the way to the answer that was unsure, else the middle one."""
    path = np.frombuffer(answer, "<i4")
    unsure = path[one.beam_mode[path] == SEARCH]
    return int(unsure[-1] if len(unsure) else path[len(path) // 2])
