"""mask_grid's Python side: the packed bits it shows, the kernel it checks, its size, errors and re-runs."""

import importlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets.widgets.widget import _instances

import sparse24
from labkit import kernels
from labkit.traces import MaskTrace
from labkit.widgets import base, mask_grid

module = importlib.import_module("labkit.widgets.mask_grid")


def make(layers=2, tokens=5, features=12, seed=0):
    x = np.random.default_rng(seed).normal(size=(layers, tokens, features)).clip(0).astype("f") ** 2
    kept = sparse24.mask24(torch.from_numpy(x)).numpy()
    return MaskTrace(x, kept, [f"t{i}" for i in range(tokens)], {})


def cells(grid):
    """(held planes, tokens, features) as the browser decodes them."""
    shape = (len(grid.held), len(grid.tokens), grid.features)
    roots = np.frombuffer(grid.values, "<f2").reshape(shape).astype(float)
    return np.sign(roots) * roots**2 * np.array(grid.scales)[:, None, None]


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr(base, "display", lambda thing, **_: found.append(thing))
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.sampled_from([4, 8, 12, 36]))
def test_packed_rows_are_those_of_sparse24(seed, features):
    trace = make(1, 3, features, seed)
    packed = sparse24.compress(torch.from_numpy(trace.activations[0]), layout="rows", backend="reference")
    assert np.array_equal(module.pack_rows(trace.kept[0]), packed.metadata.numpy())


def test_state_holds_what_the_trace_says(shown):
    trace = make()
    grid = mask_grid(trace, layer=1, token=3, feature=7)
    assert (grid.layer, grid.token, grid.feature) == (1, 3, 7)
    assert grid.held == [0, 1]
    assert np.allclose(cells(grid), trace.activations, rtol=1.1e-3, atol=0)
    assert np.array_equal(cells(grid) == 0, trace.activations == 0)
    assert grid.metadata == module.pack_rows(trace.kept).tobytes()
    assert grid.shares[1]["energy"] == pytest.approx(trace.energy_kept[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_layer_that_is_not_finite_goes_into_json(shown, value):
    trace = make()
    trace.activations[0, 0, 0] = value
    shares = mask_grid(trace).shares
    json.dumps(shares, allow_nan=False)  # as in a page and in a message
    assert shares[0]["energy"] is None
    assert shares[1]["energy"] == pytest.approx(trace.energy_kept[1])


def test_a_value_too_small_for_half_precision_is_not_a_zero(shown):
    trace = make()
    trace.activations[0, 0, :4] = [1e6, 0, 1e-30, 0]
    found = cells(mask_grid(trace))[0, 0, :4]
    assert (found != 0).tolist() == [True, False, True, False]


def test_the_kernel_is_really_run_and_a_fault_is_found(shown, monkeypatch):
    trace = make(2, 3, 16)
    honest = mask_grid(trace).compared
    assert (honest["groups"], honest["different"], honest["found"]) == (24, 0, [])
    from sparse24 import triton

    pack = triton.pack

    def faulty(*args):
        values, metadata = pack(*args)
        metadata = metadata.clone()
        metadata[4, 1] ^= 0x30  # layer 1, token 1, group 3: its first place
        return values, metadata

    monkeypatch.setattr(triton, "pack", faulty)
    wrong = mask_grid(trace).compared
    assert wrong["different"] == 1
    ((plane, token, group, reference, kernel),) = wrong["found"]
    assert (plane, token, group) == (1, 1, 3)
    assert reference ^ kernel == 3
    assert "1 DIFFER" in module.sentence(wrong)


def test_the_comparison_runs_elsewhere_where_triton_has_no_interpreter(monkeypatch):
    from sparse24 import triton

    monkeypatch.setattr(triton, "INTERPRETED", False)
    trace = make()
    result = kernels.compare_packing(trace.activations)
    assert result["groups"] == trace.activations.size // 4
    assert not result["differs"].any()
    assert np.array_equal(result["nibbles"][0], result["nibbles"][1])


def test_without_triton_it_says_so(shown, monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert "Triton is not installed" in mask_grid(make()).compared["problem"]


def test_a_large_trace_stays_under_a_megabyte_and_fetches_layers_as_they_are_asked_for(shown, monkeypatch):
    monkeypatch.setattr(module, "_compare", lambda activations: {"problem": "not here"})
    trace = make(6, 300, 1536)
    grid = mask_grid({"start": trace, "end": trace})
    for layer in (0, 5):
        grid.layer = layer
        assert grid.step * 6 + layer in grid.held
        state = grid.get_state()
        size = sum(len(v) if isinstance(v, bytes | memoryview) else len(repr(v)) for v in state.values())
        assert size < 1_000_000
        found = cells(grid)[grid.held.index(6 + layer)]
        wanted = trace.activations[layer, : len(grid.tokens)]
        assert np.allclose(found, wanted, rtol=1.1e-3, atol=1e-8 * wanted.max())
    assert grid.left_out == 300 - len(grid.tokens) > 0


def test_a_layer_that_is_not_there_is_said_in_the_instrument(shown):
    grid = mask_grid(make())
    grid.layer = 9
    assert "layer must be an integer between 0 and 1; got 9" in grid.problem
    grid.layer = 1
    assert grid.problem == ""


def test_bad_input_is_one_clear_error():
    trace = make()
    with pytest.raises(ValueError, match="trace must be a MaskTrace or a mapping"):
        mask_grid("trace")
    with pytest.raises(ValueError, match="trace must be traces of one shape"):
        mask_grid({"a": trace, "b": make(features=8)})
    with pytest.raises(ValueError, match="token must be an integer between 0 and 4; got 5"):
        mask_grid(trace, token=5)
    trace.kept[0, 0, :4] = True
    with pytest.raises(ValueError, match=r"trace.kept must be two kept of every four; got \[2, 4\]"):
        mask_grid(trace)


def test_headless_it_is_a_figure_and_its_words(shown, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    trace = make()
    assert mask_grid(trace, layer=1, token=2, feature=5) is None
    (bundle,) = shown
    said = bundle["text/html"].split("</iframe>")[1]
    assert said.count("<img ") == 1
    i0, i1 = np.flatnonzero(trace.kept[1, 2, 4:8])
    assert f"Places {i0} and {i1} are stored: bits {i0 | i1 << 2:04b}" in said
    assert "30 groups" in said
    assert "all agree bit for bit" in said


def test_twenty_re_runs_leak_nothing(shown):
    trace, counts = make(1, 2, 4), []
    for _ in range(20):
        mask_grid(trace)
        counts.append(len(_instances))
    assert counts[-1] == counts[1]


def test_a_text_of_ones_own_takes_the_place_of_the_mask(shown):
    def read(text):
        values = np.random.default_rng(len(text)).random((2, len(text), 8)).astype("f")
        return MaskTrace(values, sparse24.mask24(torch.from_numpy(values)).numpy(), list(text), {})

    grid = mask_grid(read("before"), read=read, token=5)
    assert grid.longest == 400
    grid._handle_custom_msg({"text": "abc"}, [])
    assert (grid.problem, grid.tokens, grid.token) == ("", ["a", "b", "c"], 2)
    assert grid.held == [0, 1]
    rows = np.frombuffer(grid.metadata, "u1").reshape(2, 3, 1)
    assert (rows == module.pack_rows(read("abc").kept)).all()
    for text, told in (("", "got ''"), (" ", "got ' '"), ("x" * 401, "of 1 to 400 signs"), (3, "got 3")):
        grid._handle_custom_msg({"text": text}, [])
        assert grid.problem.startswith("text must be of 1 to 400 signs")
        assert told in grid.problem
        assert grid.tokens == ["a", "b", "c"]
