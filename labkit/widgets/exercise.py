"""Predict, then reveal: a question whose answer the notebook has computed.

    exercise("Which layer loses most?", {"the first": worst == 0, "one between": 0 < worst < last,
             "the last": worst == last}, f"Layer {worst} keeps {kept:.1%} of its energy.")
    exercise("How much of its bytes does a packed tensor take?", 100 * packed / dense,
             "Two of four values and their places stay.", unit="%", within=5)

A choice is {option: does it hold}, so no option is typed in as the right one. Headless, question, options
and answer are text.
"""

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass

import anywidget
from IPython.display import HTML, display
from traitlets import Int, List, Unicode

from labkit import checks
from labkit.widgets.base import headless, present, static
from labkit.widgets.esm import esm
from labkit.widgets.export import UNTRUSTED, answer_ping

FIRST = "Answer first: a wrong guess teaches more than none."


@dataclass(frozen=True)
class Question:
    """What is asked and what is right: an entry of ``options``, or, without any, the number ``value``."""

    text: str
    why: str
    options: tuple[str, ...] = ()
    right: str = ""
    value: float = math.nan
    unit: str = ""
    within: float = 0.0

    @property
    def answer(self) -> str:
        right = self.right if self.options else f"{self.value:,.4g} {self.unit}".rstrip()
        return f"{right.rstrip('.')}. {self.why}".strip()

    def judge(self, guess: str) -> str:
        """What a reader is told who guessed ``guess``: an option, or a number as text."""
        if self.options:
            if guess not in self.options:
                return FIRST
            return f"✓ Right: {self.answer}" if guess == self.right else f"✗ No. It is: {self.answer}"
        try:
            off = abs(float(guess) - self.value)
        except ValueError:
            return FIRST
        verdict = "✓ Right, within" if off <= self.within else "✗ Off by more than"
        return f"{verdict} {self.within:,.4g}. It is: {self.answer}"

    def plain(self) -> str:
        return "\n".join([self.text, *(f"- {one}" for one in self.options), f"Answer: {self.answer}"])

    def folded(self) -> str:
        """The same as HTML, the answer folded away."""
        options = "".join(f"<li>{html.escape(one)}</li>" for one in self.options)
        return (
            f"<div><b>Predict.</b> {html.escape(self.text)}{f'<ul>{options}</ul>' if options else ''}"
            f"<details><summary>Reveal</summary>{html.escape(self.answer)}</details></div>"
        )


class Exercise(anywidget.AnyWidget):
    """The live question; ``exercise`` makes it. Python judges the guess: the page does not hold the answer.

    guess, asked   what the reader chose, and how often *Reveal* was pressed
    told           what stands below after that
    """

    _esm = esm("exercise.js")
    _css = static("instrument.css", "exercise.css")
    instrument = None
    twin, question, unit = Unicode().tag(sync=True), Unicode().tag(sync=True), Unicode().tag(sync=True)
    options = List(Unicode()).tag(sync=True)
    guess, asked, told = Unicode().tag(sync=True), Int(0).tag(sync=True), Unicode().tag(sync=True)

    def __init__(self, one: Question):
        super().__init__(question=one.text, options=[*one.options], unit=one.unit)
        self._one = one
        self.observe(lambda _: self.set_trait("told", one.judge(self.guess)), "asked")
        self.on_msg(answer_ping)

    def __repr__(self) -> str:
        return UNTRUSTED

    def still(self) -> list[object]:
        return [HTML(self._one.folded())]


def exercise(
    question: str,
    answer: Mapping[str, bool] | float,
    why: str = "",
    *,
    unit: str = "",
    within: float = 0.0,
    name: str = "exercise",
) -> None:
    """Ask for a prediction and check it; headless, show question and answer as text.

    Args:
        question: plain text.
        answer: {option: does it hold}, in the order to show, of which just one does; or a finite number.
        why: shown with the answer: the number that was computed, and what explains it.
        unit: of a number.
        within: how far, in ``unit``, a guess may be from a number; above 0.
        name: unique in its cell; running the cell again replaces the exercise of that name.

    Raises:
        ValueError: not just one option holds, or ``answer`` or ``within`` is no number as above.
    """
    if isinstance(answer, Mapping):
        holds = [option for option, true in answer.items() if true]
        if len(answer) < 2 or len(holds) != 1:
            checks.fail("answer", dict(answer), "two options or more of which just one holds")
        one = Question(question, why, tuple(answer), holds[0])
    else:
        try:
            value = float(answer)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        room = checks.number("within", within, 0)
        if not math.isfinite(value):
            checks.fail("answer", answer, "a finite number or {option: does it hold}")
        if room == 0:
            checks.fail("within", within, "a number above 0, in the unit of the answer")
        one = Question(question, why, value=value, unit=unit, within=room)
    if headless():
        display({"text/html": one.folded(), "text/plain": one.plain()}, raw=True)
    else:
        present(lambda: Exercise(one), name=name)
