"""What the live beam tree decodes again: with other settings, a forced token, or the reader's own board."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from labkit import checks
from labkit.figures.tree_layout import NAMES
from labkit.traces import BeamTrace

BEAMS = 16  # states kept, at most: a step costs their number squared


@dataclass(frozen=True)
class Shown:
    """What the instrument shows; a request makes another one of it.

    histories   per tree what was decoded, newest last: (trace, forward calls before it, what was forced)
    which       the tree that changed last; note: what was done
    chosen      settings of the first tree, once changed
    own         the reader's tokens in the place of the prompt's
    """

    prompt: int
    histories: tuple[tuple[tuple[BeamTrace, int, tuple[int, int] | None], ...], ...] = ()
    which: int = 0
    note: str = ""
    chosen: dict[str, Any] | None = None
    own: tuple[int, ...] | None = None


class Again:
    """Makes ``Shown``.

    Args:
        recorded: One or two traces of the same prompts.
        run: See ``beam_tree``; also called with ``watch``. None: nothing can be decoded.
        side: Of the board, 0: a text.
        watch: Called after each forward call; what it raises ends the decode.
    """

    def __init__(self, recorded: list[BeamTrace], run: Callable | None, side: int, watch: Callable):
        self._recorded, self._run, self._side, self._watch = recorded, run, side, watch

    def begin(self, shown: Shown) -> Shown:
        """The trees of its prompt, as recorded or, where something was changed, decoded again."""
        ones = [trace.of_prompt(shown.prompt) for trace in self._recorded]
        for i, one in enumerate(ones):
            chosen = shown.chosen if i == 0 else None
            if chosen or shown.own:
                tokens = np.array(shown.own or one.beam_tokens[0])
                ones[i] = self._decode(one, tokens, chosen or {"strategy": one.meta["strategy"]})
        return replace(shown, histories=tuple(((one, 0, None),) for one in ones), which=0, note="")

    def settings(self, shown: Shown, chosen: dict[str, Any]) -> Shown:
        """The first tree with another strategy, beam or threshold."""
        checks.integer("beam", chosen["beam"], 1, BEAMS)
        return self.begin(replace(shown, chosen=chosen))

    def board(self, shown: Shown, tokens: Sequence[int]) -> Shown:
        """Both trees of a board that someone typed, row by row, 0 where nothing stands."""
        length = self._recorded[0].sequences.shape[1]
        if not self._side or len(tokens) != length:
            checks.fail("board", f"{len(tokens)} cells", f"the {length} cells of a square board")
        for position, digit in enumerate(tokens):
            checks.integer(f"digit of {self.name(position)}", digit, 0, self._side)
        if all(tokens):
            checks.fail("board", "no open cell", "one with an open cell to fill")
        for one, other in _clashes(tokens, self._side):
            checks.fail(self.name(other), tokens[other], f"another digit than {self.name(one)} of its unit")
        mask = self._recorded[0].meta["mask_id"]
        own = tuple(digit or mask for digit in tokens)
        made = self.begin(replace(shown, own=own))
        ends = [history[-1][0] for history in made.histories]
        told = [
            "broke the rules" if _clashes(one.sequences[0], self._side) else "solved it" for one in ends
        ]
        names = [NAMES.get(name := one.meta["strategy"], name) for one in ends]
        note = ", ".join(f"{name} {end}" for name, end in zip(names, told, strict=True))
        return replace(made, note=f"your own puzzle: {note}")

    def force(self, shown: Shown, which: int, row: int, position: int, token: int, text: str) -> Shown:
        """Tree ``which`` decoded on from its state ``row`` with ``token`` at a masked ``position``."""
        one, offset, _ = shown.histories[which][-1]
        mask = one.meta["mask_id"]
        tokens = one.beam_tokens[checks.integer("row", row, 0, len(one.beam_tokens) - 1)].copy()
        if tokens[checks.integer("position", position, 0, len(tokens) - 1)] != mask:
            checks.fail("position", position, "one that is still masked")
        if self._side:
            checks.integer("digit", token, 1, self._side)
        elif token == mask or checks.integer("token", token, 0) == mask:
            checks.fail("token", token, f"another one than the mask {mask}")
        tokens[position] = token
        again = self._decode(one, tokens, {"strategy": one.meta["strategy"]})
        spent = offset + int(one.beam_step[row])
        longer = (*shown.histories[which], (again, spent, (position, token)))
        note = f"forced {self.name(position)} = {text} after call {spent}"
        return replace(_with(shown, which, longer), note=note)

    def back(self, shown: Shown, which: int) -> Shown:
        """Tree ``which`` as it was before the last token was forced."""
        history = shown.histories[which]
        return replace(_with(shown, which, history[:-1] or history), note="")

    def name(self, position: int) -> str:
        side = self._side
        return f"r{position // side + 1}c{position % side + 1}" if side else str(position)

    def _decode(self, one: BeamTrace, tokens: np.ndarray, settings: dict[str, Any]) -> BeamTrace:
        if self._run is None:
            checks.fail("run", None, "a function that decodes, to decode again")
        given = one.meta["parameters"] | settings
        kept = {
            key: value for key, value in given.items() if key not in ("gen_length", "steps", "strategy")
        }
        row = [int(token) for token in tokens if token >= 0]  # without the padding
        mask = one.meta["mask_id"]
        return self._run([row], settings["strategy"], mask_id=mask, watch=self._watch, **kept)


def _with(shown: Shown, which: int, history: tuple) -> Shown:
    kept = list(shown.histories)
    kept[which] = history
    return replace(shown, histories=tuple(kept), which=which)


def _clashes(tokens: Sequence[int], side: int) -> list[tuple[int, int]]:
    """Pairs of cells that hold the same digit in one row, column or block."""
    block, clashes = round(side**0.5), []
    filled = [place for place, digit in enumerate(tokens) if digit]
    for one, other in combinations(filled, 2):
        (y, x), (v, u) = divmod(one, side), divmod(other, side)
        meet = y == v or x == u or (y // block, x // block) == (v // block, u // block)
        if meet and tokens[one] == tokens[other]:
            clashes.append((one, other))
    return clashes
