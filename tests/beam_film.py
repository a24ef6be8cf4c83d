"""A decode as a moving picture: a tree that grows call by call beside the boards of two decoders.

beam_film   an SVG moved by its own styles: no script, and still, complete, where motion is not wanted
"""

from collections.abc import Iterable
from html import escape

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from labkit import checks
from labkit.figures import theme
from labkit.figures.board import history
from labkit.figures.tree_layout import FATES, MODES, NAMES, Places, finding, one_prompt, place_all
from labkit.traces import ACCELERATE, FINISHED, KEPT, SEARCH, BeamTrace

SECONDS, HOLD = 0.3, 4.0  # of a call; of the end, before it begins again
WIDTH, CELL, RANK, TOP = 980, 23, 44, 96  # pixels: the picture, a cell, a row of the beam, above both
SHAPES = {
    SEARCH: '<circle cx="{x}" cy="{y}" r="6.5" fill="{c}"/>',
    ACCELERATE: '<path d="M{x} {y}m-6 -7.5l13 7.5l-13 7.5z" fill="{c}"/>',
    FINISHED: '<path d="M{x} {y}m0 -8.5l8.5 8.5l-8.5 8.5l-8.5 -8.5z" fill="{c}"/>',
}
STYLE = f"""
svg {{ font: 13px "DejaVu Sans", Verdana, sans-serif; --ink: #1b1f24; --soft: #57606a; --line: #afb8c1;
  --given: #d9dce1; }}
text {{ fill: var(--ink); }} .soft {{ fill: var(--soft); }} .edge {{ stroke: var(--line); }}
.path {{ stroke: var(--ink); stroke-width: 2.6; }} .cell {{ fill: none; stroke: var(--line); }}
.given {{ fill: var(--given); }} .given + text {{ fill: #1b1f24; font-weight: 700; }}
.block {{ fill: none; stroke: var(--ink); stroke-width: 2; }}
.wrong {{ stroke: {theme.RED}; stroke-width: 3; }}
@media (prefers-color-scheme: dark) {{ svg {{ --ink: #f0f3f6; --soft: #9ea7b3; --line: #57606a; }} }}
@media (prefers-reduced-motion: reduce) {{ * {{ animation: none !important; }} }}
"""


def beam_film(
    trace: BeamTrace, rival: BeamTrace, prompt: int = 0, *, truth: np.ndarray, side: int, source: str = ""
) -> str:
    """The SVG of one prompt: ``trace``'s tree and board, and ``rival``'s board on the same calls.

    truth   int (side^2,) the right answer, by which wrong cells are struck out
    source  a digest of what the picture was made from, kept in its metadata

    ValueError if a trace was made with record=False or is no board of ``side``.
    """
    one, other = one_prompt(trace, prompt), one_prompt(rival, prompt)
    if one.sequences.shape[1] != side**2:
        checks.fail("side", side, f"the side of a board of {one.sequences.shape[1]} cells")
    place = place_all(one)
    calls = [int(which.beam_step.max()) for which in (one, other)]
    title, height = finding(one, place.answer, truth), TOP + side * CELL + 56
    room = WIDTH - 2 * side * CELL - 84  # of the tree
    parts = [
        f'<text x="14" y="26" font-size="16" font-weight="700">{escape(title)}</text>',
        *_legend(),
        *_tree(one, place, 34, (room - 40) / max(calls[0], 1)),
    ]
    for left, which in ((room + 28, one), (room + side * CELL + 70, other)):
        parts += _board(which, truth, side, left, max(calls))
    parts += _counter(max(calls), height - 14)
    name = NAMES.get(other.meta["strategy"], other.meta["strategy"])
    rivals = finding(other, place_all(other).answer, truth)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">\n<title>{escape(f"{title}. Beside it {name}: {rivals}")}</title>\n'
        f'<metadata>{escape(source)}</metadata>\n<style>{STYLE}{_keyframes(max(calls))}</style>\n'
        + "\n".join(parts) + "\n</svg>\n"
    )  # fmt: skip


def _keyframes(calls: int) -> str:
    """``f3``: shown from call 3 on. ``t3``: shown at call 3 alone."""
    whole = calls * SECONDS + HOLD
    rules = [f'[class^="f"], [class^="t"] {{ animation: {whole:g}s step-end infinite; }}']
    for call in range(calls + 1):
        at, then = (f"{min(100 * n * SECONDS / whole, 100):.2f}%" for n in (call, call + 1))
        hide = "" if call == calls else f"{then} {{ opacity: 0; }}"
        begin = "" if call == 0 else "0% { opacity: 0; }"
        rules.append(f".f{call} {{ animation-name: f{call}; }} .t{call} {{ animation-name: t{call}; }}")
        rules.append(f"@keyframes f{call} {{ {begin} {at} {{ opacity: 1; }} }}")
        rules.append(f"@keyframes t{call} {{ {begin} {at} {{ opacity: 1; }} {hide} }}")
    return "\n".join(rules)


def _legend() -> Iterable[str]:
    left = 14
    for mode, (name, colour, _) in MODES.items():
        yield SHAPES[mode].format(x=left + 8, y=52, c=colour)
        yield f'<text x="{left + 22}" y="57" class="soft">{escape(name)}</text>'
        left += 46 + int(7.6 * len(name))
    yield _cross(left + 6, 52, FATES)
    yield f'<text x="{left + 18}" y="57" class="soft">dropped candidate</text>'


def _cross(x: float, y: float, fates: dict) -> str:
    colour = next(iter(fates.values()))[1]
    return f'<path d="M{x:.1f} {y:.1f}m-3 -3l6 6m0 -6l-6 6" stroke="{colour}" stroke-width="1.4"/>'


def _tree(one: BeamTrace, place: Places, left: float, step: float) -> Iterable[str]:
    """Each state with the edge that leads to it, from its call on; then what was dropped on the way."""

    def at(point: np.ndarray) -> tuple[float, float]:
        return round(left + step * point[0], 1), round(TOP + 14 - RANK * point[1], 1)

    answer = set(place.answer.tolist())
    for c, fate in enumerate(one.cand_fate):
        (x, y), kept = at(place.beam[place.source[c]]), fate == KEPT
        end = at(place.beam[place.target[c]] if kept else place.stub[c])
        bold = kept and place.target[c] in answer and place.source[c] in answer
        line = f'<path d="M{x} {y}L{end[0]} {end[1]}" class="{"path" if bold else "edge"}"/>'
        yield f'<g class="f{one.cand_step[c] + 1}">{line}{"" if kept else _cross(*end, FATES)}</g>'
    for row, mode in enumerate(one.beam_mode):
        x, y = at(place.beam[row])
        yield f'<g class="f{one.beam_step[row]}">{SHAPES[mode].format(x=x, y=y, c=MODES[mode][1])}</g>'
    for call in range(0, int(one.beam_step.max()) + 1, 2):
        x, y = at(np.array([call, -int(one.beam_slot.max())]))
        yield f'<text x="{x}" y="{y + 44}" text-anchor="middle" class="soft" font-size="11">{call}</text>'
    x, y = at(np.array([one.beam_step.max() / 2, -int(one.beam_slot.max())]))
    yield f'<text x="{x}" y="{y + 62}" text-anchor="middle" class="soft">forward calls</text>'


def _board(one: BeamTrace, truth: np.ndarray, side: int, left: float, calls: int) -> Iterable[str]:
    """The board on the way to the answer: each cell from the call on that filled it, in its colour."""
    tokens, when = history(one, place_all(one).answer)[-1]
    colours = colormaps[theme.MAGNITUDE]
    name = NAMES.get(one.meta["strategy"], one.meta["strategy"].capitalize())
    yield f'<text x="{left}" y="{TOP - 12}" font-weight="700">{escape(name)}</text>'
    for cell, token in enumerate(tokens):
        x, y = left + CELL * (cell % side), TOP + CELL * (cell // side)
        box = f'x="{x}" y="{y}" width="{CELL}" height="{CELL}"'
        digit = f'<text x="{x + CELL / 2}" y="{y + 16.5}" text-anchor="middle"'
        yield f'<rect {box} class="cell"/>'
        if when[cell] <= 0:
            yield f'<rect {box} class="given"/>{digit}>{token}</text>'
            continue
        late = 0.08 + 0.84 * (when[cell] - 1) / max(calls - 1, 1)
        ink = theme.PAPER if late < 0.466 else theme.BLACK
        wrong = token != truth[cell]
        struck = f'<path d="M{x + 3} {y + 20}l17 -17" class="wrong"/>' if wrong else ""
        yield (f'<g class="f{when[cell]}"><rect {box} fill="{to_hex(colours(late))}"/>'
               f'{digit} style="fill: {ink}">{token}</text>{struck}</g>')  # fmt: skip
    block = CELL * round(side**0.5)
    for x in range(round(side**0.5)):
        for y in range(round(side**0.5)):
            place = f'x="{left + x * block}" y="{TOP + y * block}" width="{block}" height="{block}"'
            yield f'<rect {place} class="block"/>'
    wrong = int((tokens != truth).sum())
    ends = f"{int(one.beam_step.max())} calls, {f'{wrong} cells wrong' if wrong else 'solved'}"
    yield (f'<g class="f{int(one.beam_step.max())}"><text x="{left}" y="{TOP + side * CELL + 22}">'
           f"{ends}</text></g>")  # fmt: skip


def _counter(calls: int, y: float) -> Iterable[str]:
    for call in range(calls + 1):
        still = "" if call == calls else ' opacity="0"'
        yield f'<g class="t{call}"{still}><text x="14" y="{y}" class="soft">forward call {call}</text></g>'
