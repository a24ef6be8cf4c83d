"""The kernel benches: their bars, their quantiles, what they say without a GPU."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
GPU = torch.cuda.is_available()
RESULTS = Path(__file__).parents[1] / "kernels" / "results"


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


def timed(rival, p20, p50, p80, rows=64):
    ms = {"p20": p20, "p50": p50, "p80": p80}
    return {"section": "product", "rival": rival, "rows": rows, "ms": ms, "speedup": 1 / p50}


def result(*rows, copy=3000.0, card="H100"):
    return {
        "bench": "sparse24", "card": card, "date": "2026-11-24T10:43:30", "ceilings": {"copy_gbps": copy},
        "rows": list(rows),
    }  # fmt: skip


def test_two_benches_are_compared_row_by_row():
    """A verdict needs samples that lie apart; another shape is another row."""
    from sparse24.compare import compare, lines

    before = result(timed("a", 0.9, 1.0, 1.1), timed("b", 0.9, 1.0, 1.1), timed("c", 1, 1, 1, rows=8))
    after = result(timed("a", 0.4, 0.5, 0.6), timed("b", 1.0, 1.2, 1.3), timed("c", 9, 9, 9, rows=9))
    found = compare(before, after)
    assert [(row["what"], row["ratio"], row["verdict"]) for row in found] == [
        ("product: a, rows 64", 2.0, "faster"), ("product: b, rows 64", 0.8333, "same")
    ]  # fmt: skip
    assert [row["verdict"] for row in compare(after, before)] == ["slower", "same"]
    told = lines(before, after)
    assert [line.split()[0] for line in told] == ["faster", "1"]
    assert told[-1] == "1 of 2 rows as before (2026-11-24), 1 new"
    told = lines(before, result(timed("b", 0.9, 1.0, 1.1), copy=2900.0, card="A100"))
    assert told[0] == "not the same machine or bench: sparse24 on H100, then sparse24 on A100"
    assert told[1] == "the card's own copy_gbps is 0.967 times that of before: doubt what follows"


def test_a_bench_stands_under_the_roofs_of_its_card():
    """By hand: 1000 x 500 x 2000 is 2e9 operations over 7 MB; 2e9 in 0.01 ms are 200 TFLOP/s."""
    from labkit.figures.roofline import roofline

    ms = {"p20": 0.01, "p50": 0.01, "p80": 0.01}
    product = {"section": "product", "rival": "matmul K,N", "rows": 1000, "k": 500, "n": 2000, "ms": ms}
    one_pass = {"section": "elementwise", "rival": "relu2 eager", "rows": 9, "width": 8, "ms": ms}
    rows = [product, product | {"rival": "cuBLAS K,N", "ms": {**ms, "p50": 0.02}}]
    bench = result(*rows, one_pass | {"share_of_copy": 0.5}) | {"bench": "sparse24"}
    bench["ceilings"]["product_tflops"] = 160.0
    figure = roofline(bench)
    drawn = {(trace.name, trace.xaxis): (list(trace.x), list(trace.y)) for trace in figure.data}
    assert drawn["ours", "x"] == ([285.71], [200.0])
    assert drawn["rivals", "x"] == ([285.71], [100.0])
    assert drawn["rivals", "x2"] == ([50.0], ["relu2 eager, 9 x 8"])
    for name, roof in (("dense roof", 160), ("2:4 roof", 320)):
        x, y = map(np.array, drawn[name, "x"])
        assert y == pytest.approx(np.minimum(3 * x, roof), abs=0.02)  # 3,000 GB/s
    assert sum(trace.showlegend is not False for trace in figure.data) == 4
    assert (
        figure.layout.title.text
        == "sparse24: the best product does 1.25× the dense roof (H100, 2026-11-24)"
    )
    alone = roofline(result(one_pass | {"share_of_copy": 0.5, "rival": "token_stats"}))
    assert alone.layout.title.text == "sparse24: one-pass kernels reach 50 % of a copy (H100, 2026-11-24)"


def test_show_draws_a_bench(tmp_path, capsys):
    from labkit.__main__ import main

    for path in RESULTS.glob("*.json"):
        page = tmp_path / "roof.html"
        assert main(["show", str(path), "-o", str(page)]) == 0
        assert "share of a copy" in page.read_text()
    capsys.readouterr()
    (tmp_path / "odd.json").write_text(json.dumps(result({**timed("a", 1, 1, 1), "share_of_copy": "x"})))
    assert main(["show", str(tmp_path / "odd.json"), "-o", str(tmp_path / "odd.html")]) == 2
    assert "TRACE_OR_FOLDER must" in capsys.readouterr().err
    assert not (tmp_path / "odd.html").exists()
    os.mkfifo(tmp_path / "pipe.json")  # opening it would wait for a writer
    assert main(["show", str(tmp_path / "pipe.json")]) == 2
    assert "TRACE_OR_FOLDER must be a" in capsys.readouterr().err


def test_compare_reads_what_the_bench_writes(tmp_path, monkeypatch, capsys):
    from sparse24 import compare

    written = next((RESULTS).glob("sparse24_*.json"))
    monkeypatch.setattr("sys.argv", ["compare", str(written), str(written)])
    compare.main()
    rows = len(json.loads(written.read_text())["rows"])
    assert capsys.readouterr().out == f"{rows} of {rows} rows as before (2026-11-24)\n"
    for text in ("{}", "[]", "no", '{"rows": [{"ms": 3}]}', json.dumps(result(timed("a", 2, 1, 1)))):
        (tmp_path / "odd.json").write_text(text)
        monkeypatch.setattr("sys.argv", ["compare", str(written), str(tmp_path / "odd.json")])
        with pytest.raises(SystemExit):
            compare.main()
        assert "AFTER must be a JSON file that `make bench` wrote; got" in capsys.readouterr().err
