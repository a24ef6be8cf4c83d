"""exercise: a guess is judged against what was computed; the page does not hold the answer."""

import importlib

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances

from labkit.widgets import base, exercise

module = importlib.import_module("labkit.widgets.exercise")
WORST = np.argmin([0.9, 0.4, 0.7])  # a numpy number, as notebooks compute them
OPTIONS = {"the first": WORST == 0, "the middle one": WORST == 1, "the <last>": WORST == 2}


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    for place in (base, module):
        monkeypatch.setattr(place, "display", lambda thing, **_: found.append(thing))
    return found


def reveal(widget, guess):
    """What the reader is told who chooses ``guess`` and presses Reveal."""
    widget.set_state({"guess": guess, "asked": widget.asked + 1})
    return widget.told


def test_a_choice_is_judged_by_what_holds(shown):
    assert exercise("Which layer?", OPTIONS, "It keeps 40 %.") is None
    widget = shown[-1]
    assert widget.options == list(OPTIONS)
    assert reveal(widget, "") == module.FIRST
    assert reveal(widget, "the first") == "✗ No. It is: the middle one. It keeps 40 %."
    assert reveal(widget, "the middle one") == "✓ Right: the middle one. It keeps 40 %."


def test_a_number_is_right_within_its_tolerance(shown):
    exercise("How many bytes?", 100 * np.float32(9) / 16, "Packed.", unit="%", within=2)
    widget = shown[-1]
    assert widget.options == []
    assert reveal(widget, "") == reveal(widget, "many") == module.FIRST
    assert reveal(widget, "58.25") == "✓ Right, within 2. It is: 56.25 %. Packed."
    assert reveal(widget, "58.3") == "✗ Off by more than 2. It is: 56.25 %. Packed."
    assert reveal(widget, "nan").startswith("✗")


def test_the_page_does_not_hold_the_answer_before_it_is_asked_for(shown):
    exercise("How many?", 56.25, "Packed.", within=2)
    left_out = ("_esm", "_css", "layout", "twin")  # scripts; names by chance, which may hold "56"
    state = {name: value for name, value in shown[-1].get_state().items() if name not in left_out}
    assert "56" not in str(state)
    assert "Packed" not in str(state)


def test_headless_is_text(shown, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    before = len(_instances)
    exercise("Which layer?", OPTIONS, "It keeps 40 %.")
    (bundle,) = shown
    assert bundle["text/plain"].splitlines() == [
        "Which layer?", "- the first", "- the middle one", "- the <last>",
        "Answer: the middle one. It keeps 40 %.",
    ]  # fmt: skip
    assert "<li>the &lt;last&gt;</li>" in bundle["text/html"]
    assert "<details><summary>Reveal</summary>the middle one." in bundle["text/html"]
    assert len(_instances) == before


def test_a_notebook_without_a_kernel_shows_the_text(shown):
    exercise("Which layer?", OPTIONS)
    bundle, widget = shown
    assert "<details><summary>Reveal</summary>the middle one." in bundle["text/html"]
    assert widget.twin in bundle["text/html"]


def test_re_runs_leak_nothing(shown):
    counts = []
    for _ in range(5):
        exercise("Which layer?", OPTIONS)
        counts.append(len(_instances))
    assert counts[-1] == counts[1]


@pytest.mark.parametrize(
    ("answer", "options", "problem"),
    [
        ({"a": False, "b": False}, {}, r"two options or more of which just one holds; got \{'a"),
        ({"a": True, "b": True}, {}, "just one holds"),
        ({"a": True}, {}, "two options or more"),
        (float("nan"), {"within": 1}, r"answer must be a finite number or \{.*\}; got nan"),
        (None, {"within": 1}, r"answer must be a finite number or \{.*\}; got None"),
        (10**400, {"within": 1}, r"answer must be a finite number or \{.*\}; got 10000"),
        (3.0, {}, "within must be a number above 0, in the unit of the answer; got 0.0"),
        (3.0, {"within": float("nan")}, "within must be a number >= 0; got nan"),
    ],
)
def test_what_cannot_be_asked(answer, options, problem):
    with pytest.raises(ValueError, match=problem):
        exercise("?", answer, **options)
