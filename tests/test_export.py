"""Instruments as pages without Python: what is in them, what is not, and `labkit show`."""

import base64
import json
import re
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from labkit.__main__ import main
from labkit.soar import decode
from labkit.traces import BeamTrace, GroupTrace, MaskTrace, Trace, TrainTrace
from labkit.widgets import export
from labkit.widgets.beam_tree import BeamTree
from labkit.widgets.curve_pack import panels_of, runs_of
from labkit.widgets.mask_grid import MaskGrid
from labkit.widgets.scrubber import Scrubber
from labkit.widgets.take_away import CopyText


def logits(tokens):
    return 3 * torch.randn(16, 5, generator=torch.Generator().manual_seed(1)).expand(len(tokens), -1, -1)


RUN = partial(decode, logits)


@pytest.fixture(scope="module")
def beams():
    return RUN([[0] * 12 + [1, 2, 3, 4], [0] * 16], "soar", mask_id=0, beam=3, threshold=0.95)


def masks(layers=2):
    values = np.random.default_rng(0).normal(size=(layers, 6, 32)).clip(0).astype("f") ** 2
    return MaskTrace(values, np.tile([True, True, False, False], (layers, 6, 8)), list("tokens"))


def training(steps=5):
    samples = [{"step": step, "text": f"</script> written at {step}"} for step in range(1, steps + 1)]
    return TrainTrace(np.arange(1, steps + 1), {"loss": np.arange(float(steps))}, samples)


def curves(trace):
    runs = runs_of(trace)
    return Scrubber(runs, panels_of([one for *_, one in runs], None))


def groups():
    right = np.array([[True, False]])
    return GroupTrace(["1+1="], ["2"], [["2", "3"]], right, np.array([[1, 1]]))


def state_of(page):
    """The state in a page, as its script reads it, byte strings still in base64."""
    (text,) = re.findall(r'<script type="text/plain" id="state">(.*?)</script>', page)
    return json.loads(zlib.decompress(base64.b64decode(text)))


def shown(source):
    """What `labkit show` wrote of a trace or folder: {panel: steps of its first run}, and the state."""
    page = source.with_suffix(".show.html")
    assert main(["show", str(source), "-o", str(page)]) == 0
    state = state_of(page.read_text())
    points = np.frombuffer(base64.b64decode(state["points"]["base64"]), "<i4").reshape(-1, 2)
    curves = {state["panels"][panel]: points[i : i + n, 0].tolist()
              for run, panel, i, n in state["extent"] if run == 0}  # fmt: skip
    return curves, state


def tree(beams, run=RUN):
    return BeamTree(beams, run, compare=None, prompt=1, truth=None, side=4, vocabulary=None)


def test_every_instrument_is_one_page_that_names_no_address(beams, tmp_path):
    for number, one in enumerate([tree(beams), MaskGrid({"": masks()}), curves(training()), CopyText()]):
        page = one.export(tmp_path / f"{number}.html").read_text()
        assert len(re.findall("<script", page)) == len(re.findall("</script>", page)) == 2
        assert not re.search(r"https?://|<link|src=|@import", page)
        assert "default-src 'none'" in page
        shared = {name for name in one.keys if not name.startswith("_")} - {"layout", "style", "twin"}
        assert shared <= state_of(page).keys()


def test_what_needs_python_is_off_and_said_in_one_line(beams):
    page = export.page(tree(beams))
    state = state_of(page)
    assert (state["can_run"], state["prompts"], state["prompt"]) == (False, 1, 1)
    (line,) = re.findall('<p class="lk-missing">(.*?)</p>', page)
    assert line.startswith("Forcing a token, other settings or another prompt needs Python")
    assert '<p class="lk-missing">' not in export.page(curves(training()))


def test_bytes_arrive_as_they_were(beams):
    one = tree(beams)
    packed = state_of(export.page(one))["trees"][0]
    assert base64.b64decode(packed["parent"]["base64"]) == one.trees[0]["parent"]


def test_a_page_holds_all_layers_or_says_how_many():
    grid = MaskGrid({"start": masks(4), "end": masks(4)}, layer=2)
    state = state_of(export.page(grid))
    assert state["held"] == list(range(8))
    assert state["frozen"]
    traits, line = grid.frozen(3 * grid._per_plane)
    assert traits["held"] == [1, 2, 3]
    assert line.startswith("3 of 8 layers and steps")


def test_a_page_holds_what_was_written_at_every_step_or_says_how_much():
    one = curves(training(40))
    archive = state_of(export.page(one))["archive"]
    assert [archive[0][str(step)]["rows"][0]["text"][-2:].strip() for step in (7, 40)] == ["7", "40"]
    size = sum(len(json.dumps(rows)) for rows in archive[0].values())
    traits, line = one.frozen(size // 4)
    assert len(traits["archive"][0]) == 8
    assert line.startswith("The completions of 8 of 40 steps")


def test_a_twin_is_a_frame_over_a_picture_and_only_a_picture_where_that_is_too_large(monkeypatch):
    figure, axes = pyplot.subplots()
    axes.set_title("a <finding>")
    shown = [export.picture(figure), "<p>words</p>"]
    pyplot.close(figure)
    bundle = export.twin("key", shown, curves(training()), widget=True)
    text = bundle["text/html"]
    assert text.count('<iframe title="Figure: a &lt;finding&gt;" sandbox="allow-scripts"') == 1
    assert text.count("<img ") == 1
    assert "<p>words</p>" in text
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == "Figure: a <finding>"
    monkeypatch.setattr(export, "FRAMED", 10_000)
    assert "<iframe" not in export.twin("key", shown, curves(training()), widget=True)["text/html"]


def test_a_trace_of_any_kind_is_loaded_and_only_its_own_by_a_kind(beams, tmp_path):
    masks().save(tmp_path / "a.npz")
    assert isinstance(Trace.load(tmp_path / "a.npz"), MaskTrace)
    with pytest.raises(ValueError, match=r"must hold a BeamTrace of format 1; .* holds MaskTrace 1"):
        BeamTrace.load(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["beams", "masks", "training", "groups"])
def test_show_writes_the_page_of_every_kind_of_trace(kind, beams, tmp_path, capsys):
    made = {"beams": beams, "masks": masks(), "training": training(), "groups": groups()}
    made[kind].save(tmp_path / "trace.npz")
    assert main(["show", str(tmp_path / "trace.npz")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'trace.html'}\n"
    assert main(["show", str(tmp_path), "-o", str(tmp_path / "own.html")]) == 0
    first, second = ((tmp_path / name).read_text() for name in ("trace.html", "own.html"))
    assert state_of(first) == state_of(second)
    if kind == "beams":
        assert state_of(first)["side"] == 4


def log(folder, steps):
    history = [{"step": step, "loss": 1 / step, "reward": 0.1 * step} for step in steps]
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))


def test_show_reads_the_logs_of_trl_one_run_for_all_its_checkpoints(tmp_path):
    log(tmp_path / "one" / "checkpoint-10", range(1, 11))
    log(tmp_path / "one" / "checkpoint-9", range(1, 10))
    log(tmp_path / "two", [1, 2])
    assert main(["show", str(tmp_path), "-o", str(tmp_path / "page.html")]) == 0
    state = state_of((tmp_path / "page.html").read_text())
    assert [run["arm"] for run in state["runs"]] == ["one", "two"]
    assert sorted({(run, count) for run, _, _, count in state["extent"]}) == [(0, 10), (1, 2)]


def test_show_reads_tensorboards_files_of_the_old_and_the_new_style(tmp_path):
    writers = pytest.importorskip("torch.utils.tensorboard")
    wanted = {"old": [3.0, 1.5, 0.25], "new": [2.0, -1.0]}
    for name, values in wanted.items():
        with writers.SummaryWriter(tmp_path / name) as writer:
            writer.add_text("note", "no scalar", 1)
            writer.add_histogram("weights", np.arange(9.0), 1)
            for step, value in enumerate(values, 7):
                writer.add_scalar("train/loss", value, step, new_style=name == "new")
    (tmp_path / "cut off").mkdir()
    (tmp_path / "cut off" / "events.out.tfevents.1.host").write_bytes(b"\x18" + b"\0" * 40)
    assert main(["show", str(tmp_path), "-o", str(tmp_path / "page.html")]) == 0
    state = state_of((tmp_path / "page.html").read_text())
    assert [run["arm"] for run in state["runs"]] == ["new", "old"]
    assert state["panels"] == ["training loss (nats per token)"]
    points = np.frombuffer(base64.b64decode(state["points"]["base64"]), "<i4").reshape(-1, 2)
    assert points[:, 0].tolist() == [7, 8, 7, 8, 9]
    assert points[:, 1].view("<f4").tolist() == wanted["new"] + wanted["old"]


def test_show_says_what_it_cannot_read(tmp_path, capsys):
    assert main(["show", str(tmp_path)]) == 2
    assert "must be a folder with a .npz trace, trainer_state.json" in capsys.readouterr().err
    (tmp_path / "trainer_state.json").write_text("{}")
    assert main(["show", str(tmp_path)]) == 2
    assert "must hold transformers' log_history" in capsys.readouterr().err
    for name, told in (
        ("none.npz", "TRACE_OR_FOLDER must be a file or folder that exists; got"),
        (
            "trainer_state.json",
            "must be a .npz trace, the JSON of `make bench` or, of a run, a folder with",
        ),
    ):
        assert main(["show", str(tmp_path / name)]) == 2
        assert told in capsys.readouterr().err
    (tmp_path / "trainer_state.json").write_text('{"log_history": []}')
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"no event")
    pytest.importorskip("tensorboard")
    assert main(["show", str(tmp_path)]) == 2
    assert "TensorBoard's events.out.tfevents.* with scalars; got" in capsys.readouterr().err


def test_show_does_not_write_over_what_it_shows(tmp_path, capsys):
    source = training().save(tmp_path / "trace.npz")
    before = source.read_bytes()
    assert main(["show", str(source), "-o", f"{tmp_path}/../{tmp_path.name}/trace.npz"]) == 2
    assert "-o must be another file than the trace" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_a_dot_in_a_folders_name_is_no_ending_and_here_is_a_folder(tmp_path, monkeypatch, capsys):
    for name in ("lr0.01", "lr0.02"):
        log(tmp_path / name, [1, 2])
        assert main(["show", str(tmp_path / name)]) == 0
    monkeypatch.chdir(tmp_path / "lr0.01")
    (tmp_path / "lr0.01.html").unlink()
    assert main(["show", "."]) == 0
    assert main(["show", "/"]) == 2
    assert "TRACE_OR_FOLDER must be a file or a folder with a name" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["lr0.01.html", "lr0.02.html"]
