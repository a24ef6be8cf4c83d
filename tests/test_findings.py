"""The table of findings says what the records say, and nothing where there is no record."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from labkit.figures.tables import findings_by_paper, findings_table
from labkit.kernels import bench_results
from labkit.notebooks import find_notebooks
from labkit.paths import ROOT
from labkit.runner import baselines
from labkit.studies import harness, readme, report
from labkit.studies.elas import claims as elas
from labkit.studies.elas import records as elas_records
from labkit.studies.fgo import claims as fgo
from labkit.studies.fgo.frontier import strongest_rival
from labkit.studies.fgo.records import runs
from labkit.studies.soar import claims as soar
from labkit.studies.soar import records as soar_records
from labkit.studies.soar.outcomes import FAMILIES

ORIGIN = {"device": "Card 9", "time": "2026-01-02T03:04:05+00:00"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(elas_records, "RESULTS", tmp_path / "elas" / "results")
    monkeypatch.setattr(soar_records, "RESULTS", tmp_path / "soar" / "results")
    for name in ("elas", "soar"):
        (tmp_path / name / "results").mkdir(parents=True)
    return tmp_path


def test_every_recorded_row_is_complete_and_links_to_a_notebook():
    stems = {path.stem for path in find_notebooks()}
    rows = report.findings()
    assert len(rows) >= 2
    for row in rows:
        assert all([row.paper, row.claim, row.measured, row.conditions])
        assert row.notebook in stems
        assert "nan" not in row.measured
    text = findings_table(rows).data
    assert text.count("<tr>") == len(rows) + 1


def test_folded_by_paper_nothing_is_lost_and_nulls_are_counted():
    rows = report.findings()
    text = findings_by_paper(rows).data
    assert text.count("<details>") == len({row.paper for row in rows})
    assert text.count("<tr>") == len(rows) + text.count("<details>")
    counted = re.findall(r"(\w+): \d+ questions?, (\d+) results, (\d+) of them nulls", text)
    results = [(row.paper, one) for row in rows for one in row.measured.split("; ")]
    nulls = [paper for paper, one in results if "not resolved" in one or "no difference" in one]
    assert sum(int(found[1]) for found in counted) == len(results)
    assert {paper: int(null) for paper, _, null in counted} == {
        **Counter(nulls), "all": nulls.count("all")
    }  # fmt: skip
    assert min(nulls.count(paper) for paper in ("ELAS", "SOAR", "FGO")) > 0


def test_kernel_numbers_are_those_of_the_bench():
    sparse = [goal for goal in bench_results("sparse24")["goals"] if "sparse product" in goal["name"]]
    low, high = min(goal["value"] for goal in sparse), max(goal["value"] for goal in sparse)
    assert f"against cuBLAS {low:.2f} to {high:.2f}x" in report.kernel_claims()[0].measured


def test_a_feed_forward_row_names_gradient_and_rival():
    found = report.kernel_claims()[0].measured
    assert "torch.compile in its default mode (not max-autotune): full rank, masked gradient" in found
    record = json.loads((ROOT / "labkit/studies/elas/results/speed.json").read_text())["ffn"]
    ms = {
        r["rival"]: r["ms"]["p50"]
        for r in record
        if (r["tokens"], r["pass"]) == (16384, "forward + backward")
    }
    ratio = ms["LORO ReLU², compiled"] / ms["ELAS packed, straight-through"]
    assert f"straight-through gradient (the default), forward and backward {ratio:.2f}x" in found


def test_soar_rows_name_the_settings_and_claim_nothing_from_one_seed(folder):
    def outcome(of, right, calls):
        return {"label": of, "family": of, "setting": {}, "accuracy": sum(right) / 8, "calls": calls,
                "rows": calls, "speed": 50 / calls, "seconds": 1.0,
                "right": np.packbits(np.array(right, bool)).tobytes().hex()}  # fmt: skip

    test = [outcome("greedy", [1, 1, 1, 0, 0, 0, 0, 0], 50), outcome("soar", [1, 1, 1, 1, 1, 0, 0, 0], 10),
            outcome("adaptive", [1, 1, 0, 0, 0, 0, 0, 0], 5)]  # fmt: skip
    chosen = {f"{of}, {rule}": of for of in ("soar", "adaptive") for rule in ("accurate", "accurate, 3x")}
    record = {"test": test, "validation": test, "chosen": chosen, "tried": dict.fromkeys(FAMILIES, 1),
              "puzzles": {"validation": 8, "test": 8}, "kernel": None, "provenance": ORIGIN}  # fmt: skip
    (folder / "soar" / "results" / "study.json").write_text(json.dumps({"lab/nine": {"3": record}}))
    first, second = soar.claims()
    assert first.measured.startswith("soar: +25.00 points (1 seed, no interval) against greedy, 5.0x fewer")
    assert "adaptive: -12.50 points (1 seed, no interval) against greedy, 10.0x fewer" in first.measured
    assert "solved" not in first.measured
    assert first.conditions == f"Card 9, 2026-01-02; {soar_records.OLD_KERNEL}"
    assert "(lab/nine)" in second.claim


def test_elas_rows_pair_the_seeds(folder):
    values = {
        "lowrank_relu2": (2.0, 2.2, 2.4, 9.9), "elas_ste": (2.1, 2.3, 2.5), "equal_flops": (2.1, 2.3, None),
        "lowrank_swiglu": (1.5, 1.7, 2.9), "elas_no_warmup": (2.1, 2.3, 2.5),
        "elas_masked": (2.2, 2.4, 2.6), "elas_soft": (2.0, 2.3, 2.6), "elas_soft_scaled": (2.1, 2.3),
    }  # fmt: skip
    runs = [
        {"stage": "arms", "arm": arm, "seed": seed, "test_nats": nats, "parameters": 5e6}
        for arm, row in values.items() for seed, nats in enumerate(row)
    ]  # fmt: skip
    config = {"steps": 7, "batch_size": 2, "seq_len": 600}
    study = {"runs": [*runs, runs[0] | {"stage": "tune", "test_nats": 1e9}], "config": config,
             "provenance": ORIGIN, "loro_revision": 2, "text": {"name": "t"}}  # fmt: skip
    (folder / "elas" / "results" / "study.json").write_text(json.dumps(study))
    row, tried = elas.loss_headline()
    mask, cheap, gate = row.measured.split("; ")
    assert mask.endswith("its mask +0.100 nats (95 % +0.100 to +0.100, 3 seeds): worse")
    assert cheap.endswith("+0.000 and +0.000 nats (2 seeds, no interval): no verdict from 2 seeds")
    assert "not resolved at n = 3 seeds (per token of test text, 5M parameters, 7 steps of 1,200" in gate
    assert row.conditions == "Card 9, 2026-01-02"
    warm, exact, soft, scaled = tried.measured.split("; ")
    assert warm.startswith("no dense warm-up minus ELAS +0.000 nats (95 % +0.000 to +0.000, 3 seeds)")
    assert exact.endswith("masked gradient minus ELAS +0.100 nats (95 % +0.100 to +0.100, 3 seeds): worse")
    assert soft.endswith("not resolved at n = 3 seeds")
    assert scaled.endswith("no verdict from 2 seeds")
    forms = {"LORO ReLU²": (100, 200), "ELAS packed, masked gradient": (50, 80)}
    ffn = [
        {"form": f, "batch": b, "saved_bytes": n} for f, ns in forms.items() for b, n in enumerate(ns, 1)
    ]
    (folder / "elas" / "results" / "memory.json").write_text(json.dumps({"ffn": ffn, "provenance": ORIGIN}))
    assert elas.memory_headline()[0].measured.startswith("40% of the same")


def test_without_records_there_are_no_rows(folder):
    papers = {row.notebook for row in report.findings()}
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


def test_fgo_rows_answer_three_questions_what_is_open_first():
    rows = fgo.claims()
    arms, said = runs(), [row.measured for row in rows]
    assert len(rows) == 3
    assert any(words == fgo.sentence(arms, "FGO", "GRPO") for words in said)
    assert any(words.startswith(f"FGO minus {strongest_rival(arms)}: ") for words in said)
    assert any(words.count("w/o entropy") == len(fgo.twins(arms)) > 0 for words in said)
    settled = [not re.search(r"accuracy [^,]*(?<=seeds\)): (not resolved|no difference)", w) for w in said]
    assert settled == sorted(settled)
    assert all("11 families x 4 learning rates on 2 validation seeds" in row.conditions for row in rows)


def test_the_numbers_of_the_readme_are_those_of_the_records():
    page = (ROOT / "README.md").read_text()
    assert readme.update(page) == page, "python -m labkit.studies.readme --write"
    goals = {g["name"]: g["value"] for n in ("sparse24", "tokenstats") for g in bench_results(n)["goals"]}
    values = [value for name, value in goals.items() if "sparse product" in name]
    assert f"| {min(values):.2f} to {max(values):.2f}x |" in page
    assert f"| {100 * goals['token statistics, share of copy']:.1f} % of copy bandwidth |" in page
    faster = json.loads((ROOT / "labkit/studies/soar/results/bench_lab.json").read_text())["times faster"]
    assert f"| {faster['one at a time']:.0f}x |" in page


def test_a_number_that_was_edited_by_hand_is_put_right_and_a_lost_row_is_named():
    page = (ROOT / "README.md").read_text()
    row = next(line for line in page.split("\n") if line.startswith("| sparse product"))
    assert readme.update(page.replace(row, "| sparse product against cuBLAS | 9x | 1.35x |")) == page
    with pytest.raises(ValueError, match="README.md has no row"):
        readme.update(page.replace(row, ""))


def test_the_pages_of_results_say_what_their_files_say(tmp_path):
    assert harness.run(report.STUDY, ["--out", str(tmp_path)]) == 0
    for paper in ("soar", "fgo"):
        page = (ROOT / "labkit" / "studies" / paper / "results" / "README.md").read_text()
        assert (tmp_path / paper / "results" / "README.md").read_text() == page, (
            "python -m labkit.studies report"
        )
