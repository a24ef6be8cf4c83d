"""What counts as a right final answer: wordings decided by hand, right and wrong, and laws over numbers."""

import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.fgo.answers import final_answer
from labkit.fgo.math_judge import MathJudge
from labkit.fgo.rewards import answer_reward, math_reward
from labkit.fgo.values import same_answer

SOLUTION = "Half of 48 is <<48/2=24>>24.\nTogether <<48+24=72>>72 clips.\n#### 72"

RIGHT = [
    # tags, one within another, several of them
    ("I think <answer> 12 </answer>", "12"),
    ("<ANSWER>\n12\n</ANSWER>", "12"),
    ("<answer>The answer is 12.</answer>", "12"),
    ("<answer>\\(12\\)</answer>", "12"),
    ("<answer>#### 12</answer>", "12"),
    ("<answer>\\boxed{\\text{(B)}}</answer>", "B"),
    ("\\boxed{3} was wrong, so \\boxed{4}", "4"),
    ("\\boxed{4}. Check: 2+2=4, 9 left over.", "4"),
    ("$$\\boxed{\\dfrac{\\sqrt{3}}{2}}$$", "\\frac{\\sqrt{3}}{2}"),
    ("\\boxed{\\{1, 2, 3\\}}", "\\{3, 2, 1\\}"),
    ("\\boxed 7", "7"),
    ("\\fbox{-7}", "-7"),
    ("<think>\\boxed{3}? No.</think>The answer is 4.", "4"),
    ("<think>it is 3</think>\\boxed{4}", "4"),
    # GSM8K as published, on either side
    (SOLUTION, "72"),
    ("\\boxed{72}", SOLUTION),
    (SOLUTION, SOLUTION),
    ("So there are 72 clips.", SOLUTION),
    ("#### 1,080", "1080"),
    ("#### $18.50", "18.5"),
    ("#### 42\nDone.", "42"),
    ("#### blue", "Blue"),
    # a gold answer that is a whole solution of MATH
    ("It is 14", "We get $x = \\boxed{14}$ at last."),
    # headings are no answers
    ("#### Step 1: add 3 and 4\nThis gives 7", "7"),
    ("#### Final thoughts\nIt is 7", "7"),
    ("### 2. Sum\nIt is 7", "7"),
    ("\\boxed{7}\n#### Note\n", "7"),
    ("#### 3 more steps\nIt is 7", "7"),
    # said in words
    ("The answer is 12.", "12"),
    ("The final answer is: **12**", "12"),
    ("**Answer:** 12", "12"),
    ("**Answer: 12**", "12"),
    ("Final answer: $12$ because 6 + 6 = 12, not 13", "12"),
    ("The answer is 12. Check: 24 / 2 = 12 and 3 * 4 is 12, so 100 % sure", "12"),
    ("The answer to question 3 is 12", "12"),
    ("The answer is Paris.", "paris"),
    ("The answer is 2\\pi.", "2\\pi"),
    ("The answer is 2 + 3 = 5.", "5"),
    ("Answer: (B)", "B"),
    ("The answer is (1, 2).", "(1,2)"),
    ("So the answer is \\frac{3}{4}.", "3/4"),
    # typesetting
    ("<answer>**12**</answer>", "12"),
    ("<answer>`12`</answer>", "12"),
    ("<answer>$$12$$</answer>", "12"),
    ("<answer>\"12\"</answer>", "12"),
    ("<answer>\\text{even}</answer>", "even"),
    ("<answer>\\mathrm{E}</answer>", "E"),
    ("\\boxed{x = 12}", "12"),
    ("\\boxed{12\\!}", "12"),
    ("\\boxed{\\left(1, \\frac12\\right)}", "(1, 0.5)"),
    ("\\boxed{x+1}", "x + 1"),
    # numbers
    ("\\boxed{1,234}", "1234"),
    ("\\boxed{1{,}234}", "1234"),
    ("\\boxed{1\\,234\\,567}", "1,234,567"),
    ("It is 1,234.50", "1234.5"),
    ("It is .5", "0.5"),
    ("It is −5", "-5"),
    ("It is \N{EN DASH}5", "-5"),
    ("It is 1e-3", "0.001"),
    ("It is 1E3", "1000"),
    ("\\boxed{1.5 \\times 10^{3}}", "1500"),
    ("\\boxed{2 × 10^-2}", "0.02"),
    ("\\boxed{+12}", "12"),
    ("\\boxed{012}", "12"),
    ("\\boxed{12.}", "12"),
    ("\\boxed{1 1/2}", "1.5"),
    ("\\boxed{1\\frac{1}{2}}", "3/2"),
    ("\\boxed{-\\tfrac{1}{2}}", "-0.5"),
    ("\\boxed{\\frac{-1}{2}}", "-1/2"),
    ("5-3", "3"),
    ("x=-3", "-3"),
    ("<answer>NaN</answer>", "nan"),
    ("\\boxed{\\frac{270}7}", "270/7"),
    ("\\boxed{\\frac1{2}}", "0.5"),
    ("\\boxed{3½}", "7/2"),
    ("It is 1 1/2", "3/2"),
    ("It is $-1\\frac{3}{4}$ now", "-1.75"),
    ("The answer is 1 1/2 cups of flour, or so I think.", "1.5"),
    # units
    ("<answer>12 apples</answer>", "12"),
    ("\\boxed{12\\text{ cm}}", "12 cm"),
    ("\\boxed{12\\text{ cm}^2}", "12"),
    ("\\boxed{12 \\text{ centimeters}}", "12 cm"),
    ("\\boxed{\\$12}", "12"),
    ("\\boxed{-$12}", "-12 dollars"),
    ("<answer>$1,200.00</answer>", "$1200"),
    ("\\boxed{50\\%}", "50"),
    ("<answer>50 percent</answer>", "50%"),
    ("\\boxed{90^\\circ}", "90"),
    ("<answer>1 dollar</answer>", "$1"),
    ("<answer>5 million</answer>", "5,000,000"),
    ("<answer>5 hundred thousand</answer>", "500,000"),
    ("The answer is 2 millions.", "2000000"),
    ("It is 5 million.", "5000000"),
    ("\\boxed{12\\text{ in}^2}", "12"),
    ("\\boxed{12 in.}", "12 inches"),
    ("<answer>60 miles per hour</answer>", "60"),
    # dates, text
    ("It is 20/6/2020", "20/6/2020"),
    ("Route 66", "Route 66"),
]  # fmt: skip
WRONG = [
    ("", "0"),
    ("", "12"),
    ("-5", "5"),
    ("−5", "5"),
    ("it is 12, not 13", "12"),
    ("<answer>3,5</answer>", "35"),
    ("<answer>3,5</answer>", "3.5"),
    ("<answer>1,2345</answer>", "12345"),
    ("The pair is 1,2", "12"),
    ("The pair is 1,2", "2"),
    ("<answer>1_0</answer>", "10"),
    ("<answer>4 2</answer>", "42"),
    ("<answer>4 2</answer>", "4"),
    ("<answer>3 or 4</answer>", "4"),
    ("<answer>3 or 4</answer>", "3"),
    ("The answer is 3 or 4", "3"),
    ("The answer is 3 or 4", "4"),
    ("The answer is 5x", "5"),
    ("The answer is 2\\pi", "2"),
    ("<answer>12 or so many</answer>", "12"),
    ("<answer>5, 6</answer>", "5"),
    ("\\boxed{5}, no: \\boxed{6}", "5"),
    ("<answer>5</answer> hmm <answer>6</answer>", "5"),
    ("\\boxed{2x}", "2"),
    ("\\boxed{2\\pi}", "2"),
    ("\\boxed{2 pi}", "2"),
    ("\\boxed{2i}", "2"),
    ("\\boxed{2\\sqrt{3}}", "2"),
    ("\\boxed{2^3}", "2"),
    ("\\boxed{5!}", "120"),
    ("\\boxed{5 squared}", "5"),
    ("\\boxed{2 thirds}", "2"),
    ("\\boxed{5 dozen}", "5"),
    ("<answer>5 million</answer>", "5"),
    ("<answer>5 hundred thousand</answer>", "500"),
    ("It is 5 million.", "5"),
    ("The answer is 5 million people of all ages there.", "5"),
    ("\\boxed{5 dozens}", "5"),
    ("\\boxed{3 eighths}", "3"),
    ("\\boxed{5 hundredths}", "5"),
    ("\\boxed{6 choose 2}", "6"),
    ("It is 3½", "3"),
    ("It is 1 1/2", "1/2"),
    ("It is 1\\frac{3}{4}", "3/4"),
    ("The answer is 3, 4, and 5", "3"),
    ("The answer is 3, 4 or 5", "3"),
    ("The answer is 5 × 6", "5"),
    ("The answer is 5 squared", "5"),
    ("<answer>5%°</answer>", "5"),
    ("<answer>5 km</answer>", "5 m"),
    ("<answer>$5</answer>", "5 euros"),
    ("<answer>50%</answer>", "0.5"),
    ("<answer>5 cm^2</answer>", "5 cm^3"),
    ("\\boxed{(1,2)}", "[1,2]"),
    ("\\boxed{(1,2)}", "(2,1)"),
    ("\\boxed{(1,2)}", "(1,2,3)"),
    ("\\boxed{(1,2)}", "12"),
    ("\\boxed{\\frac{1}{2}}", "2"),
    ("\\boxed{\\frac{1}{2}}", "12"),
    ("It is \\frac{1}{2}", "2"),
    ("\\boxed{0.333}", "1/3"),
    ("\\boxed{1/0}", "1"),
    ("<answer>inf</answer>", "infinity and beyond"),
    ("<answer>nan</answer>", "0"),
    ("<answer>1e999999999</answer>", "1"),
    ("#### Step 7", "7"),
    ("#### Step 1: add\nIt is 8", "1"),
    ("\\boxed{72}", SOLUTION.replace("#### 72", "#### 73")),
    ("The answer is 24", SOLUTION),
    ("It is 20/6/2020", "2020"),
    ("It is 20/6/2020", "20/6/2021"),
    ("\\boxed{4", "5"),
    ("<answer></answer>", "0"),
    ("<think>12</think>It is 13", "12"),
]  # fmt: skip


@pytest.mark.parametrize(("completion", "answer"), RIGHT)
def test_right(completion, answer):
    assert answer_reward([completion], [answer]) == [1.0], repr(final_answer(completion))


@pytest.mark.parametrize(("completion", "answer"), WRONG)
def test_wrong(completion, answer):
    assert answer_reward([completion], [answer]) == [-1.0], repr(final_answer(completion))


def test_an_answer_that_is_none_or_blank_takes_no_part():
    assert answer_reward(["None", "", "1"], [None, " ", "1"]) == [None, None, 1.0]


WRAPPINGS = [
    "<answer>{}</answer>", "\\boxed{{{}}}", "#### {}", "The answer is {}.", "**{}**", "$\\boxed{{{}}}$",
    "<answer>\\text{{{}}}</answer>", "it is {}",
]  # fmt: skip


@given(st.integers(-(10**9), 10**9), st.integers(0, 4), st.sampled_from(WRAPPINGS))
def test_a_decimal_is_itself_however_written(units, places, wrapping):
    value = Fraction(units, 10**places)
    written = f"{units / 10**places:,.{places}f}" if places else f"{units:,}"
    assert answer_reward([wrapping.format(written)], [f"{written.replace(',', '')}"]) == [1.0]
    assert answer_reward([wrapping.format(written)], [str(value + 1)]) == [-1.0]


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_read_and_equality_is_symmetric(first, second):
    assert isinstance(final_answer(first), str)
    assert same_answer(first, first)
    assert same_answer(first, second) == same_answer(second, first)


# LaTeX, judged by math-verify in a process of its own


def test_math_reward_reads_worked_solutions_and_lets_null_answers_take_no_part():
    pytest.importorskip("math_verify")
    completions = ["\\boxed{72}", "so it is $72$", "\\boxed{71}", "1", "1"]
    assert math_reward(completions, [SOLUTION] * 3 + [None, " "]) == [1.0, 1.0, -1.0, None, None]
    assert math_reward(["\\boxed{\\frac{2}{4}}"], ["so \\boxed{\\frac{1}{2}}"]) == [1.0]


def test_no_completion_can_hang_the_judge_nor_does_one_spoil_the_next():
    pytest.importorskip("math_verify")
    judge = MathJudge(seconds=2)
    assert judge("5", "$\\boxed{5}$") is True
    start = time.monotonic()
    assert judge("5", "$\\boxed{9^{9^{9^{9}}}}$") is False
    assert time.monotonic() - start < 60
    verdicts = []  # not the main thread: a trainer may call from any
    thread = threading.Thread(target=lambda: verdicts.extend([judge("5", "$5$"), judge("5", "$6$")]))
    thread.start()
    thread.join()
    assert verdicts == [True, False]
    judge.close()


def test_a_judge_that_dies_or_does_not_start_is_told(monkeypatch):
    pytest.importorskip("math_verify")
    judge = MathJudge()
    assert judge("5", "$5$") is True
    judge._process.kill()
    judge._process.wait()
    assert judge("5", "$5$") is True
    judge.close()
    monkeypatch.setattr("labkit.fgo.math_judge.sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="math-verify's process did not start"):
        judge("5", "$5$")
