"""The beam tree of a 9 x 9 board in JupyterLab, code shown: what is in sight at the sizes people have."""

import re
from functools import partial

from browser.lab import drawn, settled
from browser.test_beam_tree import SET_UP_OF, STATE
from playwright.sync_api import expect

SET_UP = SET_UP_OF.format(
    n=81, v=10, beam=4, threshold=0.99, prompts="[[0] * 58 + [1 + i % 9 for i in range(23)]] * 3"
)
SHOW = "panel = widgets.beam_tree(soar, partial(decode, model), compare=greedy, side=9)"
# Where the parts of the instrument stand in the part of the notebook that is in sight.
PLACES = """() => {
    document.querySelector('.bt').scrollIntoView({block: 'start'});
    const seen = document.querySelector('.jp-WindowedPanel-outer, .jp-Notebook').getBoundingClientRect();
    const box = node => { const r = node.getBoundingClientRect();
        return {left: r.left, top: r.top - seen.top, right: r.right, bottom: r.bottom - seen.top}; };
    return {room: seen.height, root: box(document.querySelector('.bt')),
        row: box(document.querySelector('.bt .lk-row')),
        trees: [...document.querySelectorAll('.bt canvas[role=application]')].map(box),
        boards: [...document.querySelectorAll('.bt .bt-board:not(.bt-grid)')].map(box),
        wide: document.querySelector('.bt').scrollWidth - document.querySelector('.bt').clientWidth,
        cut: [...document.querySelectorAll('.bt .lk-side *')].filter(node =>
            node.getBoundingClientRect().right > document.querySelector('.bt').getBoundingClientRect().right
        ).length}; }"""


def test_tree_board_and_controls_are_in_sight_together(show):
    notebook = show(SET_UP, SHOW, width=1440, height=1000)
    page = notebook.page
    for width, height in (
        (1440, 1000),
        (1920, 1000),
        (1280, 900),
        (1024, 768),
        (960, 667),
    ):  # 1440 at 150 %
        page.set_viewport_size({"width": width, "height": height})
        drawn(page)
        at = settled(partial(page.evaluate, PLACES), 0.5)  # it looks at its width once more after 0.4 s
        notebook.screenshot(f"beam_tree_sizes_{width}")
        print(width, {name: round(at["root"][name]) for name in ("top", "bottom")}, round(at["room"]))
        assert at["wide"] <= 0, width
        assert at["cut"] == 0, width
        for tree, board in zip(at["trees"], at["boards"], strict=True):
            assert board["left"] >= tree["right"], width  # beside each other
        assert at["boards"][0]["bottom"] <= at["room"], width
        assert at["row"]["top"] >= -1, width
        if width >= 1280:
            assert at["root"]["bottom"] <= at["room"], width  # all of it, legend and keys too
        if width == 1440:
            assert at["root"]["bottom"] - at["root"]["top"] <= 760
    assert notebook.console_errors == []


def test_each_strategy_fills_its_own_axis(show):
    """The last call of either tree stands at the right end, however many calls the other one took."""
    notebook = show(SET_UP, SHOW, width=1440, height=1000)
    calls = notebook.evaluate("[int(soar.calls[0]), int(greedy.calls[0])]")
    assert calls[0] < calls[1] == 58
    for index in (0, 1):
        canvas = notebook.page.locator(".bt canvas[role=application]").nth(index)
        canvas.press("End")
        canvas.press("ArrowLeft")
        state = notebook.page.locator(STATE)
        expect(state).to_have_text(re.compile(f"^Call {calls[index] - 1},"))
        edge = canvas.evaluate("canvas => canvas.clientWidth - 30")
        canvas.click(position={"x": edge, "y": 40})
        expect(state).to_have_text(re.compile(f"^Call {calls[index]},"))
        notebook.comes("panel.tree", index)
