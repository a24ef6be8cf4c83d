"""Hostile files, outputs, names and servers: each costs itself alone, or is one line that names it."""

import io
import json
import os
import sys
import types

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from notebook_maker import displayed, write_run
from test_traces import mask_trace

from labkit import reading
from labkit.__main__ import main
from labkit.checks import visible
from labkit.metrics import record
from labkit.runner import site
from labkit.runner.cells import PLOTLY
from labkit.runner.compare import read_run
from labkit.runner.report import write_report
from labkit.runner.sweep import _table, read_grid, sweep
from labkit.runner.sweep_table import PANELS, write_table
from labkit.soar import decode
from labkit.traces import MaskTrace, TrainTrace
from labkit.yaml_values import load_yaml


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def change(path, **facts):
    """Put ``facts`` into the one notebook of a run.json."""
    run = json.loads(path.read_text())
    run["notebooks"][0] |= facts
    path.write_text(json.dumps(run))


@pytest.mark.parametrize("read", [
    lambda path: reading.read_bytes(path, 9, "path"), lambda path: reading.read_json(path, "path"),
    lambda path: reading.read_npz(path, "path"), MaskTrace.load,
])  # fmt: skip
def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in (".", "endless", "pipe"):
        with pytest.raises(ValueError, match=f"path must be a .*{tmp_path / name}"):
            read(tmp_path / name)


DAMAGED = [
    {"output_type": "stream", "name": "stdout"}, {"output_type": "error"}, {"metadata": {}},
    *({"output_type": "display_data", "data": data} for data in (
        {PLOTLY: "text"}, {PLOTLY: {}}, {PLOTLY: {"data": [], "layout": []}}, {"image/png": {}},
        {"text/html": 7}, {"text/html": None}, {"text/markdown": {}}, {"text/plain": 7},
        {"image/png": {}, "text/html": '<div class="labkit-twin"><iframe srcdoc="x">'},
    )),
]  # fmt: skip


def test_a_damaged_output_costs_neither_the_report_nor_the_site(folder):
    nbformat.write(nbformat.v4.new_notebook(cells=[displayed({"text/plain": "whole"})]), folder / "n.ipynb")
    book = json.loads((folder / "n.ipynb").read_text())
    book["cells"][0]["outputs"] += DAMAGED
    (folder / "n.ipynb").write_text(json.dumps(book))
    write_report(folder)
    page = (folder / "n.html").read_text()
    assert "<pre>whole</pre>" in page
    assert page.count("This output is damaged and left out") == len(DAMAGED) - 2
    cells = nbformat.reads(json.dumps(book), 4).cells
    assert list(site._instruments(cells)) == []


def test_a_display_of_no_mimebundle_costs_neither_cell_nor_notebook():
    from labkit.runner.execute import IOPUB_TIMEOUT, Client, Engine

    book = types.SimpleNamespace(nb=nbformat.v4.new_notebook())
    client, outputs = Client(book), []
    client.clear_before_next_output = False  # as each cell begins
    for data in ({"text/plain": None}, {"image/png": 5}, {"text/plain": "whole"}):
        content, kind = {"data": data, "metadata": {}}, {"msg_type": "display_data"}
        client.output(outputs, {**kind, "header": kind, "content": content, "parent_header": {}}, None, 0)
    assert ["damaged and left out" in one.get("text", "") for one in outputs] == [True, True, False]
    assert outputs[2].data == {"text/plain": "whole"}
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "execute", lambda client: made.append(client.iopub_timeout))
        Engine.execute_managed_notebook(book, "python3", start_timeout=1)
    assert made == [IOPUB_TIMEOUT]


@pytest.mark.parametrize("cell", [{}, {"source": 1}, {"cell_type": 1}, {"metadata": {"tags": [1]}}])
def test_a_cell_that_is_none_is_one_line(folder, cell):
    whole = {"cell_type": "raw", "source": "", "metadata": {}}
    bare = whole | cell if cell else {"metadata": {}}
    (folder / "n.ipynb").write_text(
        json.dumps({"cells": [bare], "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
    )
    with pytest.raises(ValueError, match=r"NOTEBOOK must be a valid notebook; .*n\.ipynb is not: "):
        write_report(folder)


def test_of_a_log_without_end_or_of_no_text_the_end_is_shown(folder):
    change(folder / "run.json", error="failed")
    with (folder / "n.log").open("wb") as log:
        log.truncate(2**40)  # a hole
        log.seek(0, os.SEEK_END)
        log.write(b"\nlast \xff line")
    write_report(folder)
    assert "last \ufffd line" in (folder / "n.html").read_text()
    (folder / "n.log").unlink()
    os.mkfifo(folder / "n.log")
    write_report(folder)


def test_a_line_of_millions_is_looked_at_once(folder):
    """A pattern that begins anywhere in it would take days."""
    cell = nbformat.v4.new_code_cell("x")
    text = "old\rnew\n" + "x" * 3_000_000
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "n.ipynb")
    write_report(folder)
    page = (folder / "n.html").read_text()
    assert "x" * 3_000_000 in page
    assert "<pre>new\nx" in page


def test_half_a_character_does_not_lose_the_report(folder):
    change(folder / "run.json", error="no \udce9", metrics={"m": {"value": 1.0, "unit": "\ud800"}})
    write_report(folder)
    assert "no \\udce9" in (folder / "report.html").read_text()


@pytest.mark.parametrize("facts", [
    {"seconds": 10**400}, {"gpu_memory": -(10**400)}, {"metrics": {"m": {"value": 10**400, "unit": ""}}},
    {"baseline": True}, {"baseline": [1]}, {"baseline": {"metrics": [1]}},
])  # fmt: skip
def test_a_run_json_of_numbers_beyond_floats_or_of_no_baseline_is_one_line(folder, facts):
    change(folder / "run.json", **facts)
    with pytest.raises(ValueError, match=r"run\.json"):
        read_run(folder)


def test_a_site_that_is_ended_leaves_the_old_one_whole(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    old = tmp_path / "runs" / "site" / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("old")

    def ended(_folder, _run, _docs, part):
        part.mkdir()
        (part / "index.html").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(site, "_write", ended)
    with pytest.raises(KeyboardInterrupt):
        site.write_site(folder)
    assert old.read_text() == "old"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["site"]
    monkeypatch.setattr(site, "_write", lambda folder, run, docs, part: part.mkdir())
    site.write_site(folder)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["site"]
    assert not old.exists()


@pytest.mark.parametrize(("text", "value"), [
    ("12:30", "12:30"), ("190:20:30", "190:20:30"), ("010", "010"), ("-007", "-007"), ("0o17", 15),
    ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("+1", 1), ("1.", 1.0), ("007.5", 7.5), ("-1.5E3", -1500.0),
    ("-.5", -0.5), ("1e3", 1000.0), ("1.5.2", "1.5.2"), ("0x", "0x"), ("\u0661e3", "\u0661e3"),
    ("{<<: {a: 1, b: 2}, a: 3}", {"a": 3, "b": 2}), ("[&x {a: 1}, {<<: *x, a: 2}]", [{"a": 1}, {"a": 2}]),
])  # fmt: skip
def test_numbers_are_those_that_people_mean(text, value):
    found = load_yaml(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["{a: 1, a: 2}", "a: 1\nb: {c: 1, c: 1}", "n: [1]\nn: [2]"])
def test_a_key_that_stands_twice_loses_no_value(text):
    with pytest.raises(ValueError, match="the key '[acn]' stands twice in a mapping"):
        load_yaml(text)


@pytest.mark.parametrize(("spec", "problem"), [
    ("{from: 9007199254740993, to: 9007199254740999, count: 2}", "n must be a range whose ends a float"),
    ("{from: 1, to: 9007199254740993, count: 2}", "n must be a range whose ends a float"),
    ("{from: 1, to: 4, count: 2, log: 'no'}", "n.log must be one of True, False; got 'no'"),
])  # fmt: skip
def test_a_range_is_what_is_written(tmp_path, spec, problem):
    (tmp_path / "g.yaml").write_text(f"n: {spec}")
    with pytest.raises(ValueError, match=problem):
        read_grid(tmp_path / "g.yaml")


def test_no_metric_takes_another_column():
    metrics = {name: {"value": 7.0} for name in ("size", "seconds", "error", "loss")}
    (row,) = _table([{"size": 3}], [{"seconds": 1.5, "error": "", "metrics": metrics}]).to_dict("records")
    assert (row["size"], row["seconds"], row["error"], row["loss"]) == (3, 1.5, "", 7.0)
    assert {name: row[f"metric {name}"] for name in ("size", "seconds", "error")} == dict.fromkeys(
        ("size", "seconds", "error"), 7.0
    )
    with pytest.raises(ValueError, match="--grid must be of parameters by other names .*; got 'error'"):
        sweep("00", {"error": [1]})


def test_hundreds_of_metrics_are_written_and_some_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "labkit.figures.sweep.sweep_curves",
        lambda table, parameters, metrics: drawn.extend(metrics) or Page,
    )
    table = pd.DataFrame({"p": [1, 2], **{f"m{i}": [0.0, 1.0] for i in range(300)}, "seconds": 1.0})
    write_table(tmp_path, table.assign(error=""), ["p"])
    assert len(drawn) == PANELS
    assert len(pd.read_csv(tmp_path / "sweep.csv").columns) == 303


class Page:
    """A figure."""

    @staticmethod
    def savefig(path):
        path.write_bytes(b"")


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\0", "\u202e", "\ud800", "\x7f"])
def test_a_name_and_a_unit_are_printable(text):
    with pytest.raises(ValueError, match="name must be printable text"):
        record(text, 1.0)
    with pytest.raises(ValueError, match="unit must be printable text"):
        record("m", 1.0, text)


def test_a_terminal_obeys_no_text():
    assert visible("a\x1b[31m\0\x9b\u202e\udce9") == r"a\x1b[31m\x00\x9b\u202e" + "\udce9"
    assert visible("tab\t, é, 漢, [/INST]\n") == "tab\t, é, 漢, [/INST]\n"


def test_a_terminal_that_lacks_a_character_shows_its_number(monkeypatch, capsys):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert main(["list", "00"]) == 0
    assert main(["report", "\u20ac\udce9\x1b"]) == 2
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    assert rb"\xb7" in sys.stdout.buffer.getvalue()
    assert rb"got '\u20ac\udce9\x1b'" in sys.stderr.buffer.getvalue()


def test_a_path_is_shown_not_obeyed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "\x1b[31m").mkdir()
    assert main(["show", "\x1b[31m/x.npz"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"\x1b[31m/x.npz" in said
    (tmp_path / "\x1b[31m" / "x.npz").write_text("none")  # of a file that is there the error says str(path)
    assert main(["show", "\x1b[31m/x.npz"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"\x1b[31m/x.npz" in said


def odd(trace, path, **arrays):
    """``trace`` saved with other ``arrays`` and, for ``about``, other plain facts."""
    content = dict(np.load(trace.save(path)))
    plain = json.loads(str(content["json"])) | arrays.pop("about", {})
    np.savez(path, **content | arrays | {"json": np.array(json.dumps(plain))})
    return path


@pytest.mark.parametrize("facts", [
    {"about": {"meta": {"findings": 5}}}, {"about": {"samples": [{"step": [1], "text": "x"}]}},
    {"step": np.array([], int), "series/loss": np.array([])}, {"series/loss": np.array([1, {}], object)},
])  # fmt: skip
def test_a_whole_file_that_leads_nowhere_is_one_line_for_show(tmp_path, capsys, facts):
    trace = TrainTrace(np.array([1, 2]), {"loss": np.array([2.0, 1.0])})
    path = odd(trace, tmp_path / "trace.npz", **facts)
    assert main(["show", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(path) in said
    assert not path.with_suffix(".html").exists()


@pytest.mark.parametrize("field", ["cand_parent", "cand_step", "beam_parent"])
def test_an_index_that_leads_nowhere_is_one_line_for_show(tmp_path, capsys, field):
    trace = decode(lambda t: torch.eye(7).expand(len(t), 7, 7), [[1, 2, 3]], "pbs", mask_id=0, gen_length=4)
    path = odd(trace, tmp_path / "trace.npz", **{field: np.full_like(getattr(trace, field), 999)})
    assert main(["show", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"TRACE_OR_FOLDER must hold a whole trace; {path} does not (IndexError" in said


@pytest.mark.parametrize("make", [
    os.mkfifo, os.mkdir, lambda path: path.write_text('{"log_history": [{"step": 1e400}]}'),
    lambda path: path.write_text(json.dumps({"log_history": [{"step": 10**30, "loss": 1}]})),
])  # fmt: skip
def test_a_training_log_that_is_none_is_one_line(tmp_path, capsys, make):
    make(tmp_path / "trainer_state.json")
    assert main(["show", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(tmp_path) in said


def test_masks_survive_tests_own_change(tmp_path):
    """``odd`` alone damages nothing."""
    assert MaskTrace.load(odd(mask_trace(), tmp_path / "mask.npz")).tokens == ["def"]
