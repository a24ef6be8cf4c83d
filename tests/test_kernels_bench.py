"""The kernel benches: their bars, their quantiles, what they say without a GPU."""

import importlib

import pytest
import torch

pytest.importorskip("triton")
GPU = torch.cuda.is_available()


def test_bars_and_quantiles_by_hand():
    from sparse24 import timing

    spread = timing.quantiles([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    assert spread == {"p20": 2.0, "p50": 5.0, "p80": 8.0}
    faster = timing.goal("speed", 1.3, 1.2, 1.4, "x")
    assert (faster["floor_reached"], faster["goal_reached"]) == (True, False)
    shorter = timing.goal("host", 24.0, 40, 25, "us", lower=True)
    assert (shorter["floor_reached"], shorter["goal_reached"]) == (True, True)


@pytest.mark.skipif(GPU, reason="about machines without a GPU")
@pytest.mark.parametrize("package", ["sparse24", "tokenstats"])
def test_bench_says_what_it_needs(package, monkeypatch):
    bench = importlib.import_module(f"{package}.bench")
    monkeypatch.setattr("sys.argv", ["bench"])
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        bench.main()
