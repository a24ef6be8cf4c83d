"""What someone types cannot hurt: bounds, Stop, a kernel that is gone, all said where one looks."""

import os
import re
import signal

from axe_playwright_python.sync_playwright import Axe
from browser.lab import book
from browser.test_beam_tree import SET_UP, SHOW, TREE, go_home
from playwright.sync_api import expect

SLOW = """
import time

def slow(tokens):
    time.sleep(2)  # 12 calls: time to press Stop
    return model(tokens)

panel = widgets.beam_tree(soar, partial(decode, slow), side=4)
"""


def test_bounds_stand_beside_the_field_and_hold(show):
    notebook = show(SET_UP, SHOW)
    page = notebook.page
    before = notebook.evaluate("[panel.prompt, panel.trees[0]['beam'], len(panel.trees[0]['counts'])]")
    fault = page.locator(".bt label:has(.lk-number) .lk-fault")
    expect(page.locator(".bt .lk-bounds")).to_have_text(["0 to 1", "1 to 16", "1 to 4"])
    beam = page.get_by_label("beam: states kept")
    for typed, told in (("999", "999 is not one of 1 to 16"), ("", "empty: a whole number from 1 to 16")):
        beam.fill(typed)
        page.locator(".bt-run").first.click()
        expect(fault.nth(1)).to_have_text(told)
        expect(beam).to_have_attribute("aria-invalid", "true")
    beam.fill("3")
    puzzle = page.get_by_label("puzzle or prompt")
    puzzle.fill("9")
    puzzle.press("Enter")
    expect(fault.nth(0)).to_have_text("9 is not one of 0 to 1")
    puzzle.fill("0")
    go_home(page.locator(TREE).first)
    digit = page.get_by_label("digit to force there")
    for typed, told in (("0", "0 is not one of 1 to 4"), ("", "empty: a whole number from 1 to 4")):
        digit.fill(typed)
        page.locator(".bt-form button").click()
        expect(page.locator(".bt-form .lk-fault")).to_have_text(told)
    page.wait_for_timeout(500)  # of what is not sent there is no sign
    now = notebook.evaluate("[panel.prompt, panel.trees[0]['beam'], len(panel.trees[0]['counts'])]")
    assert now == before
    assert notebook.evaluate("panel.problem") == ""
    notebook.screenshot("inputs_bounds")
    assert notebook.console_errors == []


def test_a_puzzle_of_ones_own(show):
    notebook = show(SET_UP, SHOW)
    page = notebook.page
    page.get_by_role("button", name="Your own puzzle").click()
    page.get_by_role("button", name="Empty").click()
    cell = page.get_by_label("r1c1", exact=True)
    cell.click()
    page.keyboard.type("12x")  # the next cell after each digit; x is none
    for i, digit in enumerate(("1", "2", ""), 1):
        expect(page.get_by_label(f"r1c{i}", exact=True)).to_have_value(digit)
    page.keyboard.press("ArrowDown")
    page.keyboard.type("1")  # r2c3
    found = Axe().run(page, context=".bt", options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
    assert found.violations_count == 0, found.generate_report()
    notebook.screenshot("inputs_own")
    page.get_by_role("button", name="Decode it").click()
    page.locator(".bt-note", has_text="your own puzzle: SOAR").wait_for(timeout=60_000)
    tokens = "[int.from_bytes(panel.trees[0]['tokens'][4 * i : 4 * i + 4], 'little') for i in range(16)]"
    assert notebook.evaluate(tokens) == [1, 2, 0, 0, 0, 0, 1] + [0] * 9
    expect(page.locator(".bt-own")).to_be_hidden()
    page.get_by_role("button", name="Your own puzzle").click()
    page.get_by_label("r1c3", exact=True).fill("2")
    page.get_by_role("button", name="Decode it").click()
    told = "r1c3 must be another digit than r1c2 of its unit; got 2"
    page.locator(".bt [role=alert]", has_text=told).wait_for(timeout=60_000)
    assert notebook.console_errors == []


def test_stop_ends_a_decode_and_a_dead_kernel_is_told(lab, open_notebook):
    notebook = open_notebook(lab.add(book(SET_UP, SLOW), "inputs_stop.ipynb"))
    notebook.run_all()
    page = notebook.page
    page.get_by_label("strategy").select_option("greedy")
    page.locator(".bt-run").first.click()
    stop = page.get_by_role("button", name="Stop")
    page.locator(".bt-note", has_text=re.compile("decoding: [0-9]+ forward")).wait_for(timeout=60_000)
    stop.click()
    page.locator(".bt-note", has_text="stopped after").wait_for(timeout=60_000)
    expect(stop).to_be_hidden()
    assert notebook.evaluate("panel.trees[0]['strategy']") == "soar"

    gone = page.locator(".bt .lk-gone")
    expect(gone).to_have_text("")
    os.kill(notebook.evaluate("__import__('os').getpid()"), signal.SIGKILL)
    told = gone.filter(has_text="run the cell again")
    for _ in range(30):  # JupyterLab's own dialog takes the keys until it is closed
        for button in page.locator(".jp-Dialog .jp-mod-accept").all():
            button.click()
        page.locator(TREE).first.press("Home")
        page.wait_for_timeout(1000)
        if told.count():
            break
    expect(told).to_be_visible()
    notebook.screenshot("inputs_gone")
