"""record: one finite number, shown and kept in the notebook."""

import nbformat
import numpy as np
import pytest

from labkit import metrics


def test_recorded_numbers_are_read_back(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    metrics.record("loss", np.float32(0.5), "nats")
    metrics.record("solved", True)
    outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in shown]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
    nbformat.write(book, tmp_path / "a.ipynb")
    assert metrics.read_metrics(tmp_path / "a.ipynb") == {
        "loss": {"value": 0.5, "unit": "nats"},
        "solved": {"value": 1, "unit": ""},
    }
    assert shown[0]["text/plain"] == "loss = 0.5 nats"


def test_what_the_numbers_were_computed_from_is_read_back(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    metrics.record_input("text", "sympy-1.14.0-512-f0609d4f1613")
    metrics.record("loss", 0.5)
    outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in shown]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
    nbformat.write(book, tmp_path / "a.ipynb")
    assert metrics.read_inputs(tmp_path / "a.ipynb") == {"text": "sympy-1.14.0-512-f0609d4f1613"}
    assert list(metrics.read_metrics(tmp_path / "a.ipynb")) == ["loss"]
    assert shown[0]["text/plain"] == "text: sympy-1.14.0-512-f0609d4f1613"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "3", None, [1.0]])
def test_only_finite_numbers(value):
    with pytest.raises(ValueError, match="value must be one finite number for metric 'x'"):
        metrics.record("x", value)


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_metric_needs_a_name(name):
    with pytest.raises(ValueError, match="name must be a non-empty string"):
        metrics.record(name, 1.0)


@pytest.mark.parametrize(
    ("kind", "bundle", "message"),
    [
        (metrics.MIME, [1], "must hold name, unit, value; got"),
        (metrics.MIME, {"name": "x", "value": 1.0}, "must hold name, unit, value; got"),
        (
            metrics.MIME,
            {"name": "x", "value": "1", "unit": ""},
            "one finite number for metric 'x'; got '1'",
        ),
        (metrics.MIME, {"name": "", "value": 1, "unit": ""}, "name must be a non-empty string"),
        (metrics.MIME, {"name": ["x"], "value": 1, "unit": ""}, "name must be a non-empty string"),
        (metrics.MIME, {"name": "x", "value": 1, "unit": None}, "unit must be text for metric 'x'"),
        (metrics.INPUT, {"name": ["x"], "fingerprint": ""}, "name and fingerprint must be text"),
        (metrics.INPUT, {"name": "x"}, "must hold fingerprint, name; got"),
    ],
)
def test_an_output_that_only_looks_like_a_metric_costs_itself_alone(
    tmp_path, capsys, kind, bundle, message
):
    fine = {metrics.MIME: {"name": "a", "value": 2.0, "unit": "s"}}
    outputs = [nbformat.v4.new_output("display_data", data=data) for data in ({kind: bundle}, fine)]
    cell = nbformat.v4.new_code_cell("x", outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    assert metrics.read_metrics(tmp_path / "a.ipynb") == {"a": {"value": 2.0, "unit": "s"}}
    assert metrics.read_inputs(tmp_path / "a.ipynb") == {}
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "a.ipynb") in line
    assert message in line
