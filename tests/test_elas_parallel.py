"""The study of DDP and FSDP2, rehearsed: two processes that talk through gloo."""

import json
import time
import weakref

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from labkit.studies.__main__ import main
from labkit.studies.elas import parallel


def test_two_processes_lose_what_one_loses(tmp_path):
    """Ten steps: the dense warm-up ends after three, LORO's exact steps are the fourth and the eighth."""
    words = ["--tiny", "--device", "cpu", "--stages", "same", "--steps", "10", "--out", str(tmp_path)]
    assert main(["elas-parallel", *words]) == 0
    forms = json.loads((tmp_path / "parallel-same.json").read_text())["forms"]
    processes = {form: found["processes"] for form, found in forms.items()}
    assert processes == {"one": 1, "ddp": 2, "fsdp": 2}
    one = forms["one"]["losses"]
    assert len(one) == 10
    assert one[-1] < one[0] - 0.1  # it learns
    for form in ("ddp", "fsdp"):
        assert forms[form]["largest_difference"] < 5e-6  # float64; transformers rounds the loss to float32


def test_the_model_has_ended_before_the_processes_part(tmp_path, monkeypatch):
    """Else one may never end: gloo, which DistributedDataParallel ends, waits for its own thread."""
    made, living, wrapped, destroy = [], [], parallel.wrapped, dist.destroy_process_group

    def remember(*how):
        made.append(weakref.ref((found := wrapped(*how))[0]))
        return found

    def part():
        living.extend(model() is not None for model in made)
        destroy()

    monkeypatch.setattr(parallel, "wrapped", remember)
    monkeypatch.setattr(dist, "destroy_process_group", part)
    where = f"file://{tmp_path}/processes"
    config = parallel.settings(3, 2, tiny=True)
    parallel._worker(0, 1, where, "ddp", config, False, False, tmp_path / "found.json")
    assert living == [False]


def _stay(rank, file):
    file.write_text("{}")
    time.sleep(12)


def test_a_process_that_never_ends_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 1)
    how = {"join": False, "start_method": "forkserver"}
    context = mp.start_processes(_stay, (tmp_path / "found.json",), 1, **how)
    with pytest.raises(RuntimeError, match="elas-parallel did not end in 1 s after its work"):
        parallel._end(context, tmp_path / "found.json")
    context.processes[0].join(30)
    assert not context.processes[0].is_alive()
