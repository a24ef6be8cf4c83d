"""Traces: what is saved comes back, pickles and strangers are refused, shares are right."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from labkit.traces import GroupTrace, MaskTrace, TrainTrace


def mask_trace():
    activations = np.array([[[4, 0, 3, 1, 0, 0, 0, 2]], [[0, 0, 0, 0, 1, 1, 1, 1]]], np.float32)
    kept = np.array([[[1, 0, 1, 0, 1, 0, 0, 1]], [[1, 1, 0, 0, 1, 1, 0, 0]]], bool)
    return MaskTrace(activations, kept, ["def"], {"seed": 1})


def test_mask_shares_by_hand():
    trace = mask_trace()
    np.testing.assert_allclose(trace.natural_zeros, [4 / 8, 4 / 8])
    np.testing.assert_allclose(trace.enforced_zeros, [1 / 8, 2 / 8])
    np.testing.assert_allclose(trace.crowded_groups, [1 / 2, 1 / 2])
    np.testing.assert_allclose(trace.energy_kept, [29 / 30, 2 / 4])


def test_an_all_zero_layer_keeps_all_of_its_energy():
    trace = MaskTrace(np.zeros((1, 2, 4), np.float32), np.ones((1, 2, 4), bool), ["a", "b"])
    assert trace.energy_kept.tolist() == [1.0]


@pytest.mark.parametrize(
    ("scale", "kept"), [(1e200, 0.8), (1e-200, 0.8), (np.nan, np.nan), (np.inf, np.nan)]
)
def test_energy_needs_finite_values_of_any_size(scale, kept):
    activations = np.array([[[2.0, 1.0, 0.0, 0.0]]])
    activations[activations > 0] *= scale  # 4 of 5 squares, the mask drops the smaller
    trace = MaskTrace(activations, np.array([[[True, False, True, False]]]), ["a"])
    np.testing.assert_allclose(trace.energy_kept, [kept])


@pytest.mark.parametrize(
    "trace",
    [
        mask_trace(),
        TrainTrace(np.array([1, 5]), {"loss": np.array([2.0, np.nan])}, [{"step": 1, "text": "é"}]),
        GroupTrace(["1+1="], ["2"], [["2", "3"]], np.array([[True, False]]), np.array([[1, 1]]),
                   {"full_sum": np.ones((1, 2))}, {"fgo": np.array([[0.5, -0.5]])}),
    ],
    ids=lambda trace: type(trace).__name__,
)  # fmt: skip
def test_round_trip(tmp_path, trace):
    again = type(trace).load(trace.save(tmp_path / "trace.npz"))
    for name, value in vars(trace).items():
        np.testing.assert_equal(getattr(again, name), value)
    assert [path.name for path in tmp_path.iterdir()] == ["trace.npz"]


def test_strangers_are_refused(tmp_path):
    path = mask_trace().save(tmp_path / "mask.npz")
    with pytest.raises(ValueError, match="must hold a TrainTrace of format 1; .* holds MaskTrace 1"):
        TrainTrace.load(path)
    np.savez(tmp_path / "pickle.npz", json=np.array({"kind": 1}, dtype=object))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:100])
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "list.npz", json=np.array("[]"))
    np.savez(tmp_path / "bare.npz", json=np.array('{"kind": "MaskTrace", "format": 1, "tokens": []}'))
    for name in ("pickle.npz", "text.npz", "cut.npz", "array.npy", "list.npz", "bare.npz"):
        with pytest.raises(ValueError, match=f"path must be a MaskTrace npz; .*{name} is not"):
            MaskTrace.load(tmp_path / name)
    with pytest.raises(ValueError, match="path must end in .npz"):
        mask_trace().save(tmp_path / "mask.pkl")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"activations": np.array([[["a"]]])}, "activations must be float"),
        ({"activations": np.array(1.0)}, "activations must be float"),
        ({"kept": np.zeros((1, 9, 8), bool)}, r"kept must be bool \(1, 1, 8\); got bool \(1, 9, 8\)"),
        ({"other": np.zeros(3)}, "unexpected keyword argument 'other'"),
        ({"json": {"tokens": "d"}}, "tokens must be a list; got 'str'"),
        ({"json": {"tokens": ["a", "b"]}}, "tokens must be one for each of the 1 in activations"),
        ({"json": {"meta": []}}, "meta must be a dict; got 'list'"),
        ({"json": "[" * 100_000}, "recursion"),
    ],
)
def test_a_mask_trace_of_other_types_or_sizes_is_refused(tmp_path, changed, problem):
    content = {"kind": "MaskTrace", "format": 1, "tokens": ["def"], "meta": {}}
    if isinstance(entry := changed.get("json"), dict):
        changed = {"json": np.array(json.dumps(content | entry))}
    whole = {name: getattr(mask_trace(), name)[:1] for name in ("activations", "kept")}
    whole = {"json": np.array(json.dumps(content)), **whole}
    np.savez(tmp_path / "odd.npz", **whole)
    assert MaskTrace.load(tmp_path / "odd.npz").tokens == ["def"]
    np.savez(tmp_path / "odd.npz", **whole | changed)
    with pytest.raises(ValueError, match=f"path must be a MaskTrace npz; .*odd.npz is not .*{problem}"):
        MaskTrace.load(tmp_path / "odd.npz")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: TrainTrace(np.array([1, 5, 5, 9])), r"step must be ascending; got \[5, 5\]"),
        (lambda: TrainTrace([1, 2]), "step must be a numpy array, int"),
        (lambda: TrainTrace(np.arange(2), {"x": np.zeros(3)}), r"series\['x'\] must be number \(2, ...\)"),
        (lambda: TrainTrace(np.arange(2), samples=[{"step": 1}]), "samples must be dicts with step and"),
        (lambda: TrainTrace(np.arange(2), samples=[{"step": "x", "text": ""}]), "step of a sample must be"),
        (lambda: TrainTrace(np.arange(2), samples=[{"step": 0.5, "text": ""}]), "step of a sample .*whole"),
        (lambda: TrainTrace(np.arange(2), samples=[{"step": 0, "text": None}]), "text of a sample .*a str"),
        (lambda: TrainTrace(np.array([3, 2, 1], np.uint8)), r"step must be ascending; got \[3, 2\]"),
        (lambda: TrainTrace(np.arange(2), {"x": np.zeros((2, 3, 4))}),
         r"series\['x'\] must be of shape \(n,\) or \(n, layers\); got \(2, 3, 4\)"),
        (lambda: TrainTrace(np.arange(2), {"a\0b": np.zeros(2)}), r"names of series .*; got 'a\\x00b'"),
        (lambda: TrainTrace(np.arange(2), {"\udcff": np.zeros(2)}), "names of series must be text without"),
        (lambda: TrainTrace(np.arange(2), {3: np.zeros(2)}), "names of series must be text .*; got 3"),
        (lambda: MaskTrace(np.zeros((0, 1, 4)), np.zeros((0, 1, 4), bool), ["a"]),
         r"activations must be .* none of them 0, .*; got \(0, 1, 4\)"),
        (lambda: TrainTrace(np.arange(2), meta={"findings": [1]}), r"meta\['findings'\] must be dicts"),
        (lambda: GroupTrace(["1"], ["2"], [["a"]], np.ones((1, 2), bool), np.ones((1, 2), int)),
         "texts must be a list of 2 responses for each question"),
        (lambda: GroupTrace([], ["2"], [["a"]], np.ones((1, 1), bool), np.ones((1, 1), int)),
         "prompts must be one for each of the 1 questions"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_names_the_field(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_an_npz_that_unpacks_to_more_than_the_limit_is_not_unpacked(tmp_path, monkeypatch):
    big = TrainTrace(np.arange(1000), {"loss": np.zeros(1000)}).save(tmp_path / "big.npz")
    assert big.stat().st_size < 9000
    monkeypatch.setattr(np, "load", None)
    monkeypatch.setattr("labkit.reading.DATA_BYTES", 9000)
    with pytest.raises(ValueError, match=r"path must unpack to at most 9,000 bytes; .*big.npz has 1\d,\d"):
        TrainTrace.load(big)
    monkeypatch.undo()
    assert len(TrainTrace.load(big).step) == 1000


def test_a_flipped_byte_never_raises_anything_else(tmp_path):
    path = mask_trace().save(tmp_path / "mask.npz")
    whole = path.read_bytes()
    for i in range(0, len(whole), 3):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        with contextlib.suppress(ValueError, OSError):  # some bytes matter to nobody
            MaskTrace.load(path)


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_a_trace_is_not_run(tmp_path):
    np.savez(tmp_path / "bomb.npz", json=np.array(Bomb(tmp_path / "run"), dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        MaskTrace.load(tmp_path / "bomb.npz")
    assert not (tmp_path / "run").exists()


def test_a_pointer_out_of_the_file_names_the_path(tmp_path):
    path = mask_trace().save(tmp_path / "mask.npz")
    whole = bytearray(path.read_bytes())
    whole[-6:-2] = b"\xff\xff\xff\xff"  # of the end record: where the directory begins
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"path must be a MaskTrace npz; .*mask.npz is not"):
        MaskTrace.load(path)


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path):
    sample = {"step": np.int64(1), "text": "a", "length": np.int32(7), "correct": np.bool_(True)}
    trace = TrainTrace(np.arange(2), samples=[sample], meta={"seed": np.int64(3), "lr": np.float32(0.5)})
    again = TrainTrace.load(trace.save(tmp_path / "a.npz"))
    assert again.meta == {"seed": 3, "lr": 0.5}
    assert again.samples == [{"step": 1, "text": "a", "length": 7, "correct": True}]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda trace: trace.series.update(x=[1.0, None]), r"series\['x'\] must be a numpy array"),
        (lambda trace: trace.series.update(x=np.array([1, None], object)), r"series\['x'\] must be number"),
        (lambda trace: trace.series.update(x=np.zeros(3)), r"series\['x'\] must be number \(2, ...\)"),
        (lambda trace: trace.meta.update(path=Path("a")), "meta must hold .*PosixPath is not"),
        (lambda trace: trace.meta.update({(1, 2): 3}), "meta must hold what JSON can"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, spoil, problem):
    trace = TrainTrace(np.arange(2), {"loss": np.zeros(2)})
    spoil(trace)
    with pytest.raises(ValueError, match=problem):
        trace.save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = mask_trace().save(tmp_path / "mask.npz")
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space"):
        mask_trace().save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_bad_shapes_name_the_argument():
    with pytest.raises(ValueError, match="activations must be .* multiple of 4; got"):
        MaskTrace(np.zeros((1, 2, 6)), np.zeros((1, 2, 6), bool), [])
    with pytest.raises(ValueError, match="kept must be bool"):
        MaskTrace(np.zeros((1, 2, 4)), np.zeros((1, 2, 4)), [])


def test_a_log_keeps_numbers_of_numpy():
    trace = TrainTrace.from_log([{"step": 1, "loss": np.float32(0.5), "name": "x"}])
    assert {name: values.tolist() for name, values in trace.series.items()} == {"loss": [0.5]}


def test_a_log_becomes_curves():
    trace = TrainTrace.from_log(
        [{"step": 2, "loss": 1.0}, {"step": 1, "loss": 3.0}, {"step": 2, "eval": 5}]
    )
    assert trace.step.tolist() == [1, 2]
    steps, values = trace.curve("eval")
    assert (steps.tolist(), values.tolist()) == ([2], [5.0])
    with pytest.raises(ValueError, match=r"name must be one of \['eval', 'loss'\]; got 'acc'"):
        trace.curve("acc")
