"""The study of DDP and FSDP2, rehearsed: two processes that talk through gloo."""

import json

from labkit.studies.__main__ import main


def test_two_processes_lose_what_one_loses(tmp_path):
    """Ten steps: the dense warm-up ends after three, LORO's exact steps are the fourth and the eighth."""
    words = ["--tiny", "--device", "cpu", "--stages", "same", "--steps", "10", "--out", str(tmp_path)]
    assert main(["elas-parallel", *words]) == 0
    forms = json.loads((tmp_path / "same.json").read_text())["forms"]
    assert {form: found["processes"] for form, found in forms.items()} == {"one": 1, "ddp": 2, "fsdp": 2}
    one = forms["one"]["losses"]
    assert len(one) == 10
    assert one[-1] < one[0] - 0.1  # it learns
    for form in ("ddp", "fsdp"):
        assert forms[form]["largest_difference"] < 1e-3
