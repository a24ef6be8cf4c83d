"""The kernel benches: their bars, their quantiles, what they say without a GPU."""

import importlib
import json
from pathlib import Path

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
