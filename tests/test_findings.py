"""The table of findings says what the records say, and nothing where there is no record."""

import json

import numpy as np
import pytest

from labkit import baselines, findings
from labkit.kernels import bench_results
from labkit.paths import ROOT
from labkit.presets import find_notebooks
from labkit.soar.lab_study import called, load_study
from labkit.traces import TrainTrace

ORIGIN = {"device": "Card 9", "time": "2026-01-02T03:04:05+00:00"}


def outcome(label, accuracy, difference, speed):
    return {"label": label, "accuracy": accuracy, "difference": difference, "speed": speed,
            "difference_low": difference - 0.01, "difference_high": difference + 0.01}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "HERE", tmp_path)
    for name in ("elas", "soar"):
        (tmp_path / name / "results").mkdir(parents=True)
    return tmp_path


def test_every_recorded_row_is_complete_and_links_to_a_notebook():
    stems = {path.stem for path in find_notebooks()}
    rows = findings.findings()
    assert len(rows) >= 2
    for row in rows:
        assert set(row) == {"paper", "question", "found", "measured", "notebook"}
        assert row["notebook"] in stems
        assert "nan" not in row["found"]
    text = findings.table().data
    assert text.count("<tr>") == len(rows) + 1


def test_kernel_numbers_are_those_of_the_bench():
    sparse = [goal for goal in bench_results("sparse24")["goals"] if "sparse product" in goal["name"]]
    low, high = min(goal["value"] for goal in sparse), max(goal["value"] for goal in sparse)
    assert f"{low:.2f} to {high:.2f}x cuBLAS" in findings._kernels()[0]["found"]


@pytest.mark.parametrize(("difference", "noise"), [(0.03, False), (-0.004, True)])
def test_soar_row_names_the_chosen_setting_and_its_noise(folder, difference, noise):
    study = {"provenance": ORIGIN, "lab/nine": {
        "test": [outcome("greedy", 0.8, 0, 1.0), outcome("soar 4, .9", 0.8 + difference, difference, 3.5)],
        "chosen": {"soar, bar": "soar 4, .9"}, "puzzles": {"test": 4000},
    }}  # fmt: skip
    (folder / "soar" / "results" / "study.json").write_text(json.dumps(study))
    (row,) = findings._soar()
    assert f"{100 * difference:+.1f} points" in row["found"]
    assert ("within noise" in row["found"]) is noise
    assert "3.5x fewer forward calls, 4,000 test puzzles" in row["found"]
    assert row["measured"] == "Card 9, 2026-01-02"


def test_elas_rows_pair_the_seeds(folder):
    for arm, values in {"lowrank_relu2": (2.0, 2.2, 9.9), "elas_ste": (2.1, 2.2)}.items():
        for seed, bits in enumerate(values):
            meta = {
                "config": {"seed": seed, "steps": 7},
                "held_out_bits_per_byte": bits,
                "provenance": ORIGIN,
            }
            TrainTrace(np.arange(2), meta=meta).save(folder / "elas" / "results" / f"arms-{arm}-{seed}.npz")
    (row,) = findings._elas_loss()
    assert row["found"].startswith("+0.0500 bits per byte (+0.0000 to +0.1000)")
    assert "2 paired seeds, 7 steps" in row["found"]
    forms = {"LORO ReLU²": (100, 200), "ELAS packed, masked gradient": (50, 80)}
    ffn = [
        {"form": f, "batch": b, "saved_bytes": n} for f, ns in forms.items() for b, n in enumerate(ns, 1)
    ]
    (folder / "elas" / "results" / "memory.json").write_text(json.dumps({"ffn": ffn, "provenance": ORIGIN}))
    assert findings._elas_memory()[0]["found"].startswith("40% of the same")


def test_without_records_there_are_no_rows(folder):
    papers = {row["notebook"] for row in findings.findings()}
    assert not papers & {"02_elas_pretraining", "04_soar_quality_speed"}


def test_the_readme_says_of_the_mask_what_notebook_01_recorded():
    page = (ROOT / "README.md").read_text()
    recorded = baselines.load(baselines.path_of("01_elas_masks", "smoke", "cpu"))["metrics"]
    zeros, taken, kept = (
        recorded[f"recorded_model_{name}"]["value"]
        for name in ("natural_zeros", "enforced_zeros", "energy_kept")
    )
    words = f"{100 * zeros:.0f} % of activations are zero anyway; the mask takes {100 * taken:.1f} % more"
    assert f"{words} and keeps {100 * kept:.1f} % of the energy" in page


def test_the_numbers_of_the_readme_are_those_of_the_records():
    page = (ROOT / "README.md").read_text()
    goals = {g["name"]: g["value"] for n in ("sparse24", "tokenstats") for g in bench_results(n)["goals"]}
    for words, end in (
        ("sparse product", ""),
        ("ffn d", "forward against torch.compile"),
        ("ffn d", "backward against torch.compile"),
    ):
        values = [value for name, value in goals.items() if words in name and name.endswith(end)]
        assert f"{min(values):.2f} to {max(values):.2f}x" in page, (words, end)
    assert f"{goals['token statistics, share of copy']:.1%}".replace("%", " %") in page
    results = ROOT / "labkit" / "soar" / "results"
    faster = json.loads((results / "bench_lab.json").read_text())["times faster"]
    assert f"| {faster['one at a time']:.0f}x |" in page
    study = load_study(results / "study.json")["lab/sudoku9"]
    best = next(o for o in study["test"] if o["label"] == study["chosen"]["soar, bar"])
    gain, low, high = (100 * best[key] for key in ("difference", "difference_low", "difference_high"))
    assert f"{gain:+.2f} points over greedy (95 %: {low:+.2f} to {high:+.2f};" in page
    assert f"with {best['speed']:.1f}x fewer calls" in page


def test_a_checkpoint_in_a_file_is_called_by_its_card():
    assert called("lab/sudoku9-early") == "lab/sudoku9-early"
    assert called("runs/seed1/sudoku9.safetensors") == "lab/sudoku9 trained again, seed 1, 180 s"
