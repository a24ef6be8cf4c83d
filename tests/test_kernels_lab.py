"""The lab's view of the kernels: one group, the byte map, the live check, committed results, figures."""

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit import kernels
from labkit.figures import kernels as figures
from labkit.figures import theme


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def test_pack_group_tells_values_positions_and_bits():
    group = kernels.pack_group([0.25, -1.5, 0.75, 0.75])
    assert group == {
        "values": [0.25, -1.5, 0.75, 0.75],
        "kept": (1, 2),
        "packed": [-1.5, 0.75],
        "nibble": 9,
    }
    with pytest.raises(ValueError, match="values must be four numbers"):
        kernels.pack_group([1.0, 2.0])


def test_byte_map_uses_every_byte_twice():
    numbers = kernels.byte_map()
    assert numbers.shape == (64, 16)
    assert np.array_equal(np.bincount(numbers.ravel()), np.full(512, 2))
    assert np.array_equal(numbers[:8], numbers[8:16])


def test_live_check_finds_no_difference():
    pytest.importorskip("triton")
    rows = kernels.live_check(rows=5, width=20, vocabulary=100)
    assert [row["operation"] for row in rows if row["different"]] == []
    assert all(row["compared"] for row in rows)
    assert isinstance(figures.checked(rows, kernels.backend_words()), Figure)


def test_live_check_would_see_a_difference(monkeypatch):
    pytest.importorskip("triton")
    from sparse24 import triton

    pack = triton.pack
    monkeypatch.setattr(triton, "pack", lambda *args: (pack(*args)[0], pack(*args)[1] ^ 1))
    rows = {row["operation"]: row for row in kernels.live_check(rows=5, width=20, vocabulary=100)}
    assert rows["compress"]["different"] > 0
    assert rows["mask24"]["different"] == 0


def test_committed_results_reach_every_floor():
    for name in ("sparse24", "tokenstats"):
        result = kernels.bench_results(name)
        assert result["schema"] == 1
        assert result["goals"]
        for goal in result["goals"]:
            ours, floor = goal["value"], goal["floor"]
            smaller_is_better = goal["unit"] == "us" or "kept" in goal["name"] or "memory" in goal["name"]
            smaller_is_better |= "peak" in goal["name"]
            assert (ours <= floor) if smaller_is_better else (ours >= floor), goal
    with pytest.raises(ValueError, match="name must be one of"):
        kernels.bench_results("cublas")


def test_figures_state_their_finding():
    sparse, tokens = kernels.bench_results("sparse24"), kernels.bench_results("tokenstats")
    theme.apply()
    title = figures.bandwidth(sparse, tokens).axes[0].get_title(loc="left")
    assert title.startswith("One-pass kernels reach")
    said = "Sparse product 1.37 to 1.51× cuBLAS; feed-forward with backward 1.05 to 1.11×"
    assert figures.speedups(sparse).axes[0].get_title(loc="left") == said
    assert isinstance(figures.byte_map(kernels.byte_map()), Figure)
    assert isinstance(figures.group_bits(0.0, 0.0, 0.0, 0.0, pack=kernels.pack_group), Figure)
