"""The live beam tree: walk it, scrub it, move the threshold, force a token and see the search go on."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import traitlets

from labkit import checks
from labkit.figures.beam_tree import beam_tree as static_tree
from labkit.figures.tree_layout import vocabulary_of
from labkit.progress import Stopped
from labkit.traces import SEARCH, BeamTrace
from labkit.widgets import base
from labkit.widgets.beam_again import BEAMS, Again, Shown
from labkit.widgets.beam_pack import pack, texts
from labkit.widgets.esm import esm
from labkit.widgets.export import NOTEBOOK, Instrument
from labkit.widgets.job import Job

PERIOD = 0.2  # seconds between two words about how far a decode is


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
                its ``watch`` lets Stop end it. Without it nothing can be decoded again
    compare     another strategy's trace of the same prompts, drawn below on the same calls
    truth       int (P, L) right answers
    side        draw side x side boards; None: text
    vocabulary  token id -> its text, for instance ``lambda i: tokenizer.decode([i])``; None: the texts that
                ``generate`` noted in the trace, if it made it

    ValueError if a trace was made with record=False, or an argument does not fit the trace.
    """
    given: dict[str, Any] = {
        "compare": compare, "prompt": prompt, "truth": truth, "side": side, "vocabulary": vocabulary
    }  # fmt: skip
    return base.present(lambda: BeamTree(trace, run, **given), name=name)


class BeamTree(Instrument):
    """The widget behind ``beam_tree``. The traits below are what browser and kernel share.

    trees      one or two packed traces (labkit.widgets.beam_pack)
    tree, row, candidate   the selection: which tree, which state of it, which candidate (-1: none)
    preview    threshold under preview
    prompt, prompts, side, texts, can_run, most_beams   what is shown and what can be changed
    busy, note, problem    whether it decodes; what was done last; the error of the last request
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
    most_beams = traitlets.Int(BEAMS).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        trace: BeamTrace,
        run: Callable[..., BeamTrace] | None,
        *,
        compare: BeamTrace | None = None,
        prompt: int = 0,
        truth: np.ndarray | None = None,
        side: int | None = None,
        vocabulary: Callable[[int], str] | None = None,
    ):
        length = trace.sequences.shape[1]
        if any(not len(one.beam_step) for one in (trace, compare) if one is not None):
            raise ValueError("trace must be decoded with record=True; this one has no beams to show")
        if side is not None and checks.integer("side", side, 1) ** 2 != length:
            checks.fail("side", side, f"the side of a board of {length} cells, or None")
        if compare is not None and compare.sequences.shape != trace.sequences.shape:
            checks.fail("compare", compare.sequences.shape, f"a trace of the same {trace.sequences.shape}")
        if truth is not None and np.shape(truth) != trace.sequences.shape:
            checks.fail("truth", np.shape(truth), f"of the shape of the sequences {trace.sequences.shape}")
        self._recorded = [trace] if compare is None else [trace, compare]
        self._truth, self._vocabulary = truth, vocabulary or vocabulary_of(trace)
        self._job, self._calls, self._told = Job(threaded=False), 0, 0.0
        self._again = Again(self._recorded, run, side or 0, self._watch)
        self._shown = self._again.begin(Shown(prompt))
        super().__init__(
            prompt=prompt, prompts=len(trace.sequences), side=side or 0, can_run=run is not None,
            preview=trace.meta["parameters"]["threshold"],
        )  # fmt: skip
        self._show()
        self.observe(self._turn, "prompt")
        self.on_msg(lambda _widget, content, _buffers: self._answer(content))

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

    def _turn(self, _change: object) -> None:
        """Another prompt; the first tree is decoded again if its settings were changed."""
        if self.prompt != self._shown.prompt:
            wanted = replace(self._shown, prompt=self.prompt, own=None)
            self._request(lambda: self._again.begin(wanted))

    def _answer(self, content: dict[str, Any]) -> None:
        """A request of the browser."""
        again, shown, which = self._again, self._shown, content.get("tree", 0)
        match content:
            case {"kind": "stop"}:
                self._job.stop()
            case {"kind": "decode"}:
                chosen = {key: content[key] for key in ("strategy", "beam", "threshold")}
                self._request(lambda: again.settings(shown, chosen))
            case {"kind": "board", "tokens": tokens}:
                self._request(lambda: again.board(shown, tokens))
            case {"kind": "back"}:
                self._request(lambda: again.back(shown, which))
            case {"kind": "force", "row": row, "position": position, "token": token}:
                text = str(token) if self._vocabulary is None else self.texts.get(str(token), "?")
                self._request(lambda: again.force(shown, which, row, position, token, text))

    def _request(self, work: Callable[[], Shown]) -> None:
        if self._job.running:
            return
        self.problem, self.note, self._calls, self.busy = "", "", 0, True
        self._job.start(work, self._finish)

    def _watch(self, _prompts: np.ndarray, _best: np.ndarray) -> None:
        """After each forward call: how far it is, and Stop."""
        self._calls += 1
        self._job.check(f"{self._calls} forward calls; the trees are the former ones")
        if (now := time.perf_counter()) - self._told > PERIOD:
            self._told, self.note = now, f"decoding: {self._calls} forward calls"

    def _finish(self, outcome: object) -> None:
        """An exception in a callback would vanish: it is shown in the panel."""
        self.busy = False
        self.note = ""
        if isinstance(outcome, Shown):
            self._shown = outcome
            self._show()
        elif isinstance(outcome, Stopped):
            self.note = str(outcome)
        elif isinstance(outcome, BaseException):
            self.problem = base.error_text(outcome)
        self.prompt = self._shown.prompt

    def close(self) -> None:
        if job := getattr(self, "_job", None):
            job.stop()
        super().close()

    def _show(self) -> None:
        """Send the top of each history; select a telling state of the tree that changed, or the fork."""
        shown = self._shown
        top = [history[-1] for history in shown.histories]
        truth = None if self._truth is None or shown.own else self._truth[shown.prompt]
        with self.hold_sync():
            self.texts = texts([one for one, *_ in top], self._vocabulary)
            self.trees = [
                pack(
                    one,
                    given=history[0][0].beam_tokens[0] != one.meta["mask_id"],
                    truth=truth,
                    offset=offset,
                    forced=forced,
                )
                for (one, offset, forced), history in zip(top, shown.histories, strict=True)
            ]
            which, self.note = shown.which, shown.note
            start = 0 if top[which][2] else _telling(top[which][0], self.trees[which]["answer"])
            self.tree, self.row, self.candidate = which, start, -1
            self.preview = float(top[0][0].meta["parameters"]["threshold"])


def _telling(one: BeamTrace, answer: bytes) -> int:
    """Where to begin: the last state on the way to the answer that was unsure, else the middle one."""
    path = np.frombuffer(answer, "<i4")
    unsure = path[one.beam_mode[path] == SEARCH]
    return int(unsure[-1] if len(unsure) else path[len(path) // 2])
