"""mask_grid, scrubber and the preset block on a bare page: keys, pointer, words, speed, clean-up."""

import importlib
from functools import partial

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from browser.lab import PICTURES, changes, comes, drawn
from browser.stage import frames, stage
from playwright.sync_api import expect

import sparse24
from labkit.figures.curves import REINFORCEMENT
from labkit.traces import MaskTrace, TrainTrace
from labkit.widgets.curve_pack import panels_of, runs_of
from labkit.widgets.take_away import CopyText

masks = importlib.import_module("labkit.widgets.mask_grid")
curves = importlib.import_module("labkit.widgets.scrubber")
GRID, CURSOR = "canvas.mg-grid", "canvas[role=slider]"
PIXELS = "node => [...node.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL()).join()"


@pytest.fixture(scope="module")
def grid():
    rng = np.random.default_rng(0)
    scales = np.exp(rng.normal(size=384))
    x = (rng.normal(-0.1, 1, size=(3, 64, 384)) * scales).clip(0).astype("f") ** 2
    kept = sparse24.mask24(torch.from_numpy(x)).numpy()
    words = ["def", " return", "self", "\n", " if", "(", ")", ":"]
    trace = MaskTrace(x, kept, [words[i % 8] for i in range(64)], {})
    return masks.MaskGrid({"": trace}, layer=1, token=20, feature=40), trace


def run(arm, seed, steps, every=4):
    rng = np.random.default_rng(10 * seed + len(arm))
    step = np.arange(1, steps + 1)
    series = {name: rng.normal(size=steps).cumsum() for name in REINFORCEMENT}
    samples = [
        {"step": int(s), "prompt": "Q8+4=", "text": f"{arm} wrote 8+4=12;A12$", "correct": bool(i % 2),
         "length": 11, "entropy": 0.7, "advantage": -0.25}
        for s in (step[::every] if every else ()) for i in range(3)
    ]  # fmt: skip
    return TrainTrace(step, series, samples, {"arm": arm, "seed": seed})


def scrubber(arms, **state):
    runs = runs_of(arms)
    return curves.Scrubber(runs, panels_of([trace for *_, trace in runs], None), **state)


TWELVE = {arm: [run(arm, seed, 512) for seed in range(3)] for arm in ("a", "bb", "ccc", "dddd")}


def get(page, name):
    return page.evaluate(f"model.get('{name}')")


def becomes(page, name, value):
    comes(lambda: get(page, name), value, name)


def pixels(page):
    drawn(page)
    return page.locator("#stage").evaluate(PIXELS)


def percentile(times, share=0.95):
    return sorted(times)[int(share * (len(times) - 1))]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 1920])
def test_pictures_for_people(browser, grid, theme, width):
    small = scrubber({"GRPO": run("grpo", 0, 24), "FGO": run("fgo", 0, 24)}, step=13)
    large = scrubber(TWELVE, step=257)
    drawn = {}
    for name, widget in (("mask_grid", grid[0]), ("scrubber", small), ("scrubber_12_runs", large)):
        page = browser.new_page(viewport={"width": width - 360, "height": 1150})
        assert stage(page, widget, dark=theme == "dark") == []
        drawn[name] = pixels(page)
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{name}_{theme}_{width}.png")
        page.close()
    assert len(set(drawn.values())) == 3


def test_the_mask_by_keyboard(page, grid):
    widget, trace = grid
    errors, look = stage(page, widget), partial(pixels, page)
    page.locator(GRID).focus()
    moves = {
        "ArrowRight": ("feature", 41), "Shift+ArrowRight": ("feature", 45), "ArrowDown": ("token", 21),
        "PageDown": ("token", 36), "Home": ("feature", 0), "End": ("feature", 383),
        "ArrowUp": ("token", 35), "]": ("layer", 2), "[": ("layer", 1),
    }  # fmt: skip
    for key, (name, value) in moves.items():
        changes(look, page.keyboard.press, key)
        becomes(page, name, value)
    changes(look, page.keyboard.press, "n")
    token, feature = get(page, "token"), get(page, "feature")
    group = trace.activations[1, token, feature - feature % 4 :][:4]
    assert np.count_nonzero(group) > 2
    assert group[feature % 4] != 0
    assert not trace.kept[1, token, feature]
    said = expect(page.locator("[aria-live=polite]"))
    i0, i1 = np.flatnonzero(trace.kept[1, token, feature - feature % 4 :][:4])
    said.to_contain_text(f"bits {i0 | i1 << 2:04b}")
    said.to_contain_text("dropped")
    expect(page.locator(GRID)).to_have_role("application")
    assert page.evaluate("model.saved") > 0
    assert errors == []


def test_the_group_beside_the_grid_is_that_of_the_trace(page, grid):
    widget, trace = grid
    stage(page, widget)
    rng = np.random.default_rng(3)
    for layer, token, feature in zip(*(rng.integers(0, n, 30) for n in trace.kept.shape), strict=True):
        wanted = {"layer": int(layer), "token": int(token), "feature": int(feature)}
        page.evaluate("wanted => Object.entries(wanted).forEach(([name, i]) => model.set(name, i))", wanted)
        drawn(page)
        at = (layer, token, slice(feature - feature % 4, feature - feature % 4 + 4))
        values, kept = trace.activations[at], trace.kept[at]
        shown = [float(text) for text in page.locator(".mg-number").all_inner_texts()]
        assert shown == pytest.approx(values, rel=6e-2)  # down to two digits for the smallest
        fates = page.locator(".mg-fate").all_inner_texts()
        words = [
            "· zero" if value == 0 else "✓ kept" if keep else "× dropped"
            for value, keep in zip(values, kept, strict=True)
        ]
        assert [fate[: len(word)] for fate, word in zip(fates, words, strict=True)] == words
        i0, i1 = np.flatnonzero(kept)
        text = page.locator(".lk-side").inner_text()
        assert f"nibble {i0 | i1 << 2:04b} is the {'high' if feature // 4 % 2 else 'low'} half" in text
        assert f"0x{masks.pack_rows(trace.kept[layer, token])[feature // 8]:02x}" in text
        assert [fate.endswith("stored") for fate in fates] == (kept & (values == 0)).tolist()


def test_the_mask_by_pointer_and_toggles(page, grid):
    widget, _ = grid
    errors, look = stage(page, widget), partial(pixels, page)
    box = page.locator(GRID).bounding_box()
    x, y = box["x"] + 118 + 77 + 5, box["y"] + 20 + 30  # second row, second group, first cell
    changes(look, page.mouse.move, x, y)
    assert get(page, "feature") % 4 == 0
    changes(look, page.mouse.move, x + 17, y)
    assert get(page, "feature") % 4 == 1
    for label in ("natural zeros", "enforced", "difference"):
        changes(look, page.get_by_label(label).press, "Space")
    assert [get(page, name) for name in ("natural", "enforced", "difference")] == [False, False, True]
    expect(page.locator(".lk-title")).to_contain_text("all agree bit for bit")
    for label in ("layer", "token"):
        changes(look, page.get_by_role("slider", name=label).press, "ArrowLeft")
    token = get(page, "token")
    strip = page.locator(".mg-map").bounding_box()
    page.mouse.click(strip["x"] + strip["width"] / 2, strip["y"] + strip["height"] - 3)
    comes(lambda: get(page, "token"), lambda now: now > token)
    assert errors == []


def test_a_difference_is_shown_with_its_bits(page, grid):
    widget, _ = grid
    stage(page, widget)
    wrong = {**widget.compared, "different": 1, "found": [[1, 20, 10, 4, 9]]}
    page.evaluate("wrong => { model.set('compared', wrong); model.set('difference', true); }", wrong)
    expect(page.locator(".lk-title")).to_contain_text("1 differ")
    expect(page.locator(".lk-side")).to_contain_text("≠ the kernel wrote 1001, the reference 0100")


def test_a_layer_on_its_way_does_not_break_the_picture(page, grid):
    widget, _ = grid
    errors = stage(page, widget)
    page.evaluate("model.state.held = [7]; model.set('layer', 2)")
    drawn(page)
    assert page.get_by_role("alert").count() == 0
    changes(partial(pixels, page), page.evaluate, "model.set('held', [2, 1, 0])")
    assert errors == []


def test_an_error_is_seen_and_goes_when_it_is_over(page, grid):
    widget, _ = grid
    stage(page, widget)
    alert = expect(page.get_by_role("alert"))
    page.evaluate("model.set('problem', 'layer must be 0 or 1; got 9')")
    alert.to_have_text("layer must be 0 or 1; got 9")
    page.evaluate("model.set('problem', '')")
    alert.to_have_count(0)
    page.evaluate("model.set('values', new DataView(new ArrayBuffer(2))); model.set('held', [1, 2, 0])")
    alert.to_contain_text("RangeError")


def test_the_cursor_by_keyboard(page):
    errors = stage(page, scrubber({arm: run(arm, 0, 400) for arm in ("GRPO", "FGO")}, step=20))
    page.locator(CURSOR).focus()
    moves = {"ArrowRight": 21, "ArrowLeft": 20, "PageUp": 60, "PageDown": 20, "Home": 1, "End": 400, "s": 1}
    for key, step in moves.items():
        changes(partial(pixels, page), page.keyboard.press, key)
        becomes(page, "step", step)
        expect(page.locator(CURSOR)).to_have_attribute("aria-valuenow", str(step))
    page.keyboard.press("Space")
    becomes(page, "step", lambda step: step > 1)
    page.keyboard.press("Space")  # long before the end, which it reaches in 28 seconds
    expect(page.get_by_role("button", name="▶ play")).to_be_visible()
    assert 1 < get(page, "step") < 400
    stopped = get(page, "step")
    page.wait_for_timeout(300)
    assert get(page, "step") == stopped
    assert errors == []


def test_the_cursor_by_pointer_and_the_values_beside_it(page):
    arms = {"GRPO": run("grpo", 0, 40), "FGO": run("fgo", 0, 40)}
    widget = scrubber(arms, step=20)
    errors = stage(page, widget)
    box = page.locator(CURSOR).bounding_box()
    page.mouse.move(box["x"] + 120, box["y"] + 80)
    corner = page.locator("thead th").first
    hovered = comes(lambda: int(corner.inner_text().split()[-1]), lambda step: step != 20)
    assert get(page, "step") == 20  # a look is no choice
    first = float(page.locator("tbody td").first.inner_text().replace("−", "-"))
    assert first == pytest.approx(arms["GRPO"].series["reward"][hovered - 1], abs=0.006)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 80, steps=4)
    page.mouse.up()
    becomes(page, "step", lambda step: step > hovered)
    assert errors == []


def test_zoom_shows_a_stretch_around_the_cursor(page):
    trace = run("fgo", 0, 400)
    trace.series["reward"][0] = 1e6  # a spike at the start flattens everything
    errors = stage(page, scrubber({"FGO": trace}, step=300))
    page.locator(CURSOR).focus()
    whole = pixels(page)
    for key in ("+", "+", "+"):
        changes(partial(pixels, page), page.keyboard.press, key)
    box = page.locator(CURSOR).bounding_box()
    page.mouse.click(box["x"] + 46 + 1, box["y"] + 80)  # the left end of the first panel: 50 steps in view
    becomes(page, "step", 275)
    page.keyboard.press("Home")  # the view goes with the cursor
    page.keyboard.press("ArrowRight")
    drawn(page)
    page.mouse.click(box["x"] + 46 + 1, box["y"] + 80)
    becomes(page, "step", 1)
    for _ in range(3):
        page.get_by_role("button", name="zoom out").click()
    page.evaluate("model.set('step', 300)")
    page.mouse.move(5, 5)
    comes(lambda: pixels(page), whole)
    assert errors == []


def test_arms_seeds_and_runs_by_checkbox(page):
    arms = {arm: [run(arm, seed, 30) for seed in range(2)] for arm in ("GRPO", "FGO")}
    errors = stage(page, scrubber(arms, step=5))
    wanted = {"GRPO": [2, 3], "1": [2], "FGO, seed 1": [2, 3], "0": [3]}
    for label, shown in wanted.items():
        changes(partial(pixels, page), page.get_by_label(label, exact=True).press, "Space")
        becomes(page, "shown", shown)
    changes(partial(pixels, page), page.get_by_role("slider", name="smooth over").press, "ArrowRight")
    becomes(page, "smooth", 2)
    assert errors == []


def test_completions_or_a_clear_word(page):
    widget = scrubber({"GRPO": run("grpo", 0, 20, every=0), "FGO": run("fgo", 0, 20)}, step=5)
    errors = stage(page, widget)
    cards = page.locator(".sc-card")
    expect(cards.nth(0)).to_contain_text("This run kept no completions.")
    for part in ("fgo wrote 8+4=12", "✗ wrong", "✓ right", "11 tokens", "advantage −0.250"):
        expect(cards.nth(1)).to_contain_text(part)
    widget.step = 6
    page.evaluate("found => { model.set('step', 6); model.set('completions', found); }", widget.completions)
    expect(cards.nth(1)).to_contain_text("No completions were kept at step 6")
    cards.nth(1).get_by_role("button", name="step 9").click()
    becomes(page, "step", 9)
    assert errors == []


def test_without_any_completions_it_says_so(page):
    stage(page, scrubber({"FGO": run("fgo", 0, 20, every=0)}, step=5))
    expect(page.locator(".sc-written")).to_contain_text("These runs kept no completions.")


def test_scrubbing_stays_fluid(page, grid):
    large = scrubber(TWELVE, step=1)
    stage(page, large)
    press = "(key) => document.querySelector('{}').dispatchEvent(new KeyboardEvent('keydown', {{key}}))"
    times = frames(page, f"() => ({press.format(CURSOR)})('ArrowRight')")
    assert get(page, "step") == 121
    assert percentile(times) < 500, times  # 30 ms alone on a machine, 150 beside others
    stage(page, grid[0])
    times = frames(page, f"(i) => ({press.format(GRID)})(i % 2 ? 'ArrowRight' : 'PageDown')", 60)
    assert get(page, "feature") == 70
    assert percentile(times) < 500, times  # 30 ms alone on a machine, 150 beside others


def test_nothing_is_fetched_and_nothing_stays_behind(page, grid):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    widgets = (grid[0], scrubber({"FGO": run("fgo", 0, 9)}, step=5), CopyText(preset="a: 1", command="run"))
    for widget in widgets:
        assert stage(page, widget) == []
        page.evaluate("close_widget()")
        assert page.evaluate("Object.values(model.calls).flat().length") == 0
    assert [url for url in asked if not url.startswith(("blob:", "about:"))] == []


def test_the_preset_can_be_copied(page):
    widget = CopyText(preset="steps: 3\n", command="papermill x.ipynb\n")
    errors = stage(page, widget)
    page.get_by_text("Copy as preset").click()
    yaml = page.get_by_label("YAML")
    comes(yaml.inner_text, "steps: 3\n")
    page.get_by_role("button", name="Copy commands").click()
    page.get_by_text("copied").or_(page.get_by_text("selected: press Ctrl+C")).wait_for()
    page.evaluate("model.set('preset', 'steps: 4')")
    comes(yaml.inner_text, "steps: 4")
    assert errors == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(page, grid, dark):
    small = scrubber({"GRPO": [run("grpo", s, 24) for s in range(2)], "FGO": run("fgo", 0, 24)}, step=13)
    block = CopyText(preset="steps: 3\n", command="papermill x.ipynb\n")
    for widget in (grid[0], small, block):
        stage(page, widget, dark=dark)
        page.locator("details").evaluate_all("all => all.forEach((one) => (one.open = true))")
        result = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
        found = [
            (rule["id"], node["html"][:120], node["failureSummary"])
            for rule in result.response["violations"]
            for node in rule["nodes"]
            if rule["id"] not in ("document-title", "html-has-lang")  # of the bare page
        ]
        assert found == []
