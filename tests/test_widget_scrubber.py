"""scrubber's Python side: the curves as sent, thinning, completions on demand, size, errors, re-runs."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets.widgets.widget import _instances

from labkit.figures import theme
from labkit.traces import GroupTrace, TrainTrace
from labkit.widgets import Comparison, base, scrubber
from labkit.widgets.curve_pack import thin

module = importlib.import_module("labkit.widgets.scrubber")


def make(arm="fgo", seed=0, steps=12, every=3, **series):
    step = np.arange(1, steps + 1)
    rng = np.random.default_rng(seed)
    samples = [
        {"step": int(s), "prompt": "Q=", "text": f"{arm} at {s}", "correct": bool(i), "length": 4}
        for s in step[::every] for i in range(2)
    ]  # fmt: skip
    series = series or {"reward": rng.normal(size=steps), "entropy": rng.normal(size=steps)}
    return TrainTrace(step, series, samples, {"arm": arm, "seed": seed})


def sent(widget):
    """{(run, panel): (steps, values)} as the browser decodes them."""
    pairs = np.frombuffer(widget.points, "<i4").reshape(-1, 2)
    return {
        (run, panel): (pairs[a : a + n, 0], pairs[a : a + n, 1].copy().view("<f4"))
        for run, panel, a, n in widget.extent
    }


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr(base, "display", lambda thing, **_: found.append(thing))
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    theme.apply()
    return found


def test_every_curve_of_every_run_arrives_without_its_gaps(shown):
    gaps = np.array([1.0, np.nan, 3.0])
    layers = np.array([[1.0, 3.0], [2.0, 4.0], [np.nan, np.nan]])
    counts = np.array([1.0, 0.0, 2.0])
    a = make("fgo", 0, 3, reward=gaps, natural_zeros=layers)
    b = make("grpo", 5, 3, reward=-gaps, **{"fgo/invalid_groups": counts})
    widget = scrubber({"FGO": a, "GRPO": [b]})
    assert widget.runs == [{"arm": "FGO", "seed": "0"}, {"arm": "GRPO", "seed": "5"}]
    panel = {label: i for i, label in enumerate(widget.panels)}
    curves = {key: (s.tolist(), v.tolist()) for key, (s, v) in sent(widget).items()}
    assert curves == {
        (0, panel["reward (−1 to 1)"]): ([1, 3], [1, 3]),
        (1, panel["reward (−1 to 1)"]): ([1, 3], [-1, -3]),
        (0, panel["zero by ReLU² itself"]): ([1, 2], [2, 3]),
        (1, panel["invalid groups, cumulative"]): ([1, 2, 3], [1, 1, 3]),
    }


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(4, 60), st.integers(0, 99))
def test_thinning_keeps_the_ends_and_the_extremes(length, limit, seed):
    steps = np.arange(length) * 3
    values = np.random.default_rng(seed).integers(-5, 6, length).astype(float)
    kept_steps, kept = thin(steps, values, limit)
    assert len(kept) <= max(limit, 4)
    assert (kept_steps[0], kept_steps[-1]) == (steps[0], steps[-1])
    assert (kept.min(), kept.max()) == (values.min(), values.max())
    assert (np.diff(kept_steps) > 0).all()
    assert dict(zip(kept_steps, kept, strict=True)).items() <= dict(zip(steps, values, strict=True)).items()


def test_completions_come_for_the_step_and_the_runs_that_are_shown(shown):
    widget = scrubber({"FGO": make("fgo"), "GRPO": make("grpo", every=100)}, step=4)
    one, other = widget.completions["runs"]
    assert [row["text"] for row in one["rows"]] == ["fgo at 4"] * 2
    assert [row["correct"] for row in one["rows"]] == [False, True]
    assert (other["rows"], other["near"]) == ([], [1])
    widget.step = 5
    one, _ = widget.completions["runs"]
    assert (one["rows"], one["near"]) == ([], [1, 4, 7])
    widget.shown = [1]
    assert [found["run"] for found in widget.completions["runs"]] == [1]
    assert scrubber({"FGO": make(), "GRPO": [make(), make()]}, shown=["GRPO"]).shown == [0, 1]
    widget.shown = [0, 7]
    assert "shown must be an integer between 0 and 1; got 7" in widget.problem
    widget.shown = [0]
    assert widget.problem == ""


def test_many_runs_and_long_texts_stay_under_a_megabyte(shown):
    names = [f"name {i}" for i in range(8)]
    runs = [make("fgo", seed, 2000, 1, **{n: np.arange(2000.0) for n in names}) for seed in range(12)]
    for run in runs:
        for sample in run.samples:
            sample["text"] = "x" * 5000
    widget = scrubber({"FGO": runs})
    state = widget.get_state()
    size = sum(len(v) if isinstance(v, bytes | memoryview) else len(repr(v)) for v in state.values())
    assert size < 1_000_000
    most, longest = widget.thinned
    assert longest == 2000
    assert max(count for *_, count in widget.extent) <= most
    assert widget.completions["more"] == 6
    usual = scrubber({"FGO": [make("fgo", s, 512, **{n: np.zeros(512) for n in names}) for s in range(12)]})
    assert usual.thinned == []


def test_questions_take_the_place_of_steps_in_a_group_trace(shown):
    trace = GroupTrace(
        ["Q1=", "Q2="], ["1", "2"], [["a", "b"], ["c", "d"]], np.array([[True, False], [True, True]]),
        np.array([[3, 5], [2, 2]]), {"full_sum": np.array([[1.0, 2.0], [3.0, 4.0]])}, {}, {"seed": 3},
    )  # fmt: skip
    widget = scrubber(trace, step=1)
    assert widget.unit == "question"
    curves = {widget.panels[panel]: v.tolist() for (_, panel), (_, v) in sent(widget).items()}
    assert curves["right responses of the group"] == [0.5, 1.0]
    assert curves["response length (tokens)"] == [4.0, 2.0]
    assert curves["entropy, sum (nats)"] == [1.5, 3.5]
    assert [row["text"] for row in widget.completions["runs"][0]["rows"]] == ["c", "d"]


def test_bad_input_is_one_clear_error():
    with pytest.raises(ValueError, match="traces must be TrainTraces, lists .*; got 'int'"):
        scrubber({"FGO": [make(), 3]})
    with pytest.raises(ValueError, match="got 'str'"):
        scrubber("runs")
    with pytest.raises(ValueError, match="traces must be at least one TrainTrace"):
        scrubber({})
    with pytest.raises(ValueError, match="at least one step; got 'a trace of run 0 without steps'"):
        scrubber(TrainTrace(np.array([], int), {"reward": np.array([])}))
    with pytest.raises(ValueError, match="on must be one of 'entropy', 'reward'; got 'speed'"):
        scrubber(make(), on=["speed"])
    with pytest.raises(ValueError, match="traces must be runs that logged something; got 'fgo'"):
        scrubber(make(reward=np.full(12, np.nan)))
    with pytest.raises(ValueError, match="shown must be one of 'FGO'; got 'PPO'"):
        scrubber({"FGO": make()}, shown=["PPO"])
    with pytest.raises(ValueError, match="traces must be of steps up to 2,147,483,647; got 2147483648"):
        scrubber(TrainTrace(np.array([1, 2**31]), {"reward": np.ones(2)}))  # tokens, for instance
    with pytest.raises(ValueError, match="traces must be of steps up to 2,147,483,647; got 4294967297"):
        scrubber(TrainTrace(np.arange(2), {"reward": np.ones(2)}, [{"step": 2**32 + 1, "text": "x"}]))
    with pytest.raises(ValueError, match="step must be an integer between 0 and 12; got 13"):
        scrubber(make(), step=13)


def test_headless_it_is_a_figure_and_the_texts_of_a_step(shown, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    arms = {"FGO": [make("fgo", 0), make("fgo", 1)], "GRPO": make("grpo", every=100)}
    arms["GRPO"].samples.clear()
    assert scrubber(arms, step=5, title="a finding") is None
    (bundle,) = shown
    said = bundle["text/html"].split("</iframe>")[1]
    assert 'alt="Figure: a finding; ' in said
    assert "fgo at 4" in said
    assert "GRPO: no completions were kept." in said


def test_twenty_re_runs_leak_nothing(shown):
    trace, counts = make(), []
    for _ in range(20):
        scrubber(trace)
        counts.append(len(_instances))
    assert counts[-1] == counts[1]


def test_what_a_sample_does_not_know_is_null_in_the_page(shown):
    trace = make()
    trace.samples[:] = [{"step": 1, "text": "a", "length": None, "entropy": np.nan}]
    (row,) = scrubber(trace, step=1).completions["runs"][0]["rows"]
    assert (row["length"], row["entropy"]) == (None, None)


def test_a_run_that_cannot_be_drawn_does_not_spoil_the_next(shown):
    draw, first, second = Comparison(), make(), make()
    first.meta["model"], second.meta["model"] = "Qwen/Qwen2.5-0.5B", "Qwen/Qwen3-0.6B"
    draw(first)
    with pytest.raises(ValueError, match="without steps"):
        draw(TrainTrace(np.zeros(0, int)))
    widget = draw(second)
    assert [run["arm"].split(",")[0] for run in widget.runs] == ["run 1", "run 2"]
    assert widget.title == "Run 2, model Qwen/Qwen3-0.6B beside 1"


def test_runs_join_under_one_cursor_and_are_named_by_what_differs(shown, monkeypatch):
    draw = Comparison(last=2)
    for alpha, seed in ((0.1, 0), (0.5, 0), (0.5, 7)):
        trace = make(seed=seed)
        trace.meta |= {"alpha": alpha, "time": f"at {alpha} {seed}", "versions": {"numpy": seed}}
        widget = draw(trace)
    assert [run["arm"] for run in widget.runs] == ["run 2, seed 0", "run 3, seed 7"]
    assert widget.title == "Run 3, seed 7 beside 2"
    grown = draw.grow(make(seed=8, steps=5))  # beside the last finished one, which stays
    assert grown is widget
    assert [run["arm"] for run in widget.runs] == ["run 3, seed 7", "run 4, seed 8"]
    assert widget.step == 5
    draw(make(seed=8, steps=6))
    assert sent(widget)[1, 0][0].tolist() == [1, 2, 3, 4, 5, 6]
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    assert len(Comparison()(make()).axes) == 2
