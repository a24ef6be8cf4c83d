"""Pages of `labkit show` as a reader gets them: from a file, no network, by keyboard, accessible."""

from functools import partial

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from browser.lab import PICTURES, changes, drawn

from labkit.__main__ import main
from labkit.soar import decode
from labkit.traces import GroupTrace, MaskTrace, TrainTrace


def beams():
    logits = 3 * torch.randn(81, 10, generator=torch.Generator().manual_seed(1))
    return decode(lambda tokens: logits.expand(len(tokens), -1, -1), [[0] * 81], "soar", mask_id=0, beam=3)


def masks():
    values = np.random.default_rng(0).normal(size=(3, 20, 64)).clip(0).astype("f") ** 2
    return MaskTrace(values, np.tile([True, True, False, False], (3, 20, 16)), ["word"] * 20)


def training():
    samples = [{"step": step, "text": f"written at {step}"} for step in (10, 20, 30)]
    return TrainTrace(np.arange(1, 31), {"loss": np.linspace(3, 1, 30)}, samples)


def groups():
    right = np.array([[True, False], [False, False]])
    texts = [["2", "3"], ["4", "written at 1"]]
    return GroupTrace(["1+1=", "2+1="], ["2", "3"], texts, right, np.array([[1, 1], [1, 2]]))


# kind: the trace, what takes the keys, a key, and what it changes
KINDS = {
    "beams": (beams, "input[aria-label='after call']", "ArrowLeft", "node => node.value"),
    "masks": (masks, "canvas.mg-grid", "ArrowRight", "node => node.toDataURL()"),
    "training": (
        training,
        "canvas[role=slider]",
        "ArrowLeft",
        "node => node.ariaValueNow",
    ),
    "groups": (groups, "canvas[role=slider]", "ArrowLeft", "node => node.ariaValueNow"),
}


@pytest.fixture(scope="module", params=KINDS)
def shown(request, tmp_path_factory):
    """(kind, page) as the command wrote it."""
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param][0]().save(folder / "trace.npz")
    assert main(["show", str(folder / "trace.npz")]) == 0
    return request.param, folder / "trace.html"


def test_from_a_file_without_network_by_keyboard(shown, page):
    kind, path = shown
    _, target, key, value = KINDS[kind]
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.goto(path.as_uri())
    node = page.locator(target)
    node.wait_for()
    drawn(page)  # before, there is nothing to walk
    changes(partial(node.evaluate, value), node.press, key)
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"show_{kind}.png")
    assert asked == [path.as_uri()]
    assert said == []


def test_accessible(shown, page):
    page.goto(shown[1].as_uri())
    page.locator("#instrument .lk").wait_for()
    drawn(page)
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


@pytest.mark.parametrize("shown", ["training", "groups"], indirect=True)
def test_what_was_written_is_in_the_page(shown, page):
    kind, path = shown
    page.goto(path.as_uri())
    page.locator("canvas[role=slider]").press("End")
    page.get_by_text("written at 30" if kind == "training" else "written at 1").wait_for()
    page.locator("canvas[role=slider]").press("ArrowLeft")
    if kind == "training":
        page.get_by_text("Kept nearby").wait_for()
