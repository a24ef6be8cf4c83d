"""Every instrument as a reader uses it, round after round: for ``tests/soak.py``."""

import itertools
import time
from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
import torch
from ipywidgets import IntSlider
from test_widget_beam_tree import PROMPTS, RUN
from test_widget_mask_grid import make

from labkit.figures import theme
from labkit.traces import TrainTrace
from labkit.widgets import Comparison, base, beam_tree, explore, mask_grid, run_panel, scrubber

STEPS = np.arange(1, 200)


def curves(steps: int = 199, progress=lambda done, total: None) -> TrainTrace:
    """A training that logs and writes a sample at every step."""
    log = []
    for step in STEPS[:steps]:
        log.append({"step": int(step), "loss": float(np.exp(-step / 50))})
        progress(int(step), steps)
    return TrainTrace.from_log(log, samples=[{"step": int(s), "text": "x" * 200} for s in STEPS[:steps]])


def use() -> Iterator[int]:
    """The number of the round, after each: all cells run again, every control moved, one request bad."""
    base.display = lambda *_, **__: None  # there is no notebook to show them in
    theme.apply()
    torch.manual_seed(0)
    trace = RUN(PROMPTS, "soar", mask_id=0, beam=3, threshold=0.95)
    masks = make(layers=4, tokens=8, features=16)
    for number in itertools.count():
        grid = mask_grid(masks, read=lambda text: make(tokens=len(text), seed=len(text)))
        for layer in range(4):
            grid.layer = layer
        grid._handle_custom_msg({"text": "a" * (1 + number % 9)}, [])
        shown = scrubber({"one": [curves()], "two": [curves()]})
        for step in range(1, 199, 9):
            shown.step = step
        tree = beam_tree(trace, RUN, side=4)
        for ask in ({"kind": "decode", "strategy": "pbs", "beam": 2, "threshold": 0.8},
                    {"kind": "decode", "strategy": "pbs", "beam": 0, "threshold": 0.8},
                    {"kind": "force", "tree": 0, "row": 0, "position": 0, "token": 3}):  # fmt: skip
            tree._handle_custom_msg(ask, [])
        slider = IntSlider(1, 0, 5)
        explore(lambda size: go.Figure(layout={"title": str(size)}), name="e", size=slider)
        slider.value = number % 6
        panel = run_panel(
            lambda seed, progress: curves(50 + seed % 9, progress), Comparison(),
            notebook="06", result=curves(), seed=IntSlider(3, 0, 9),
        )  # fmt: skip
        panel._inputs["seed"].value = number % 9
        panel.start()
        while panel._job.running:
            time.sleep(0.01)
        yield number
