"""The study on words: equal budgets, parts by several calls, one record, what the page says of it."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from labkit.paths import CHECKPOINTS
from labkit.provenance import provenance
from labkit.soar.models.adapted import save_adapted
from labkit.studies import harness
from labkit.studies.soar import gsm_model, gsm_run, page, records, words
from labkit.studies.soar.outcomes import family, label
from labkit.traces import TrainTrace

GREEDY = {"strategy": "greedy", "block_length": 64}
ARMS = {
    "soar": {"strategy": "soar", "beam": 2, "threshold": 0.9, "min_collapse": 2, "block_length": 64},
    "parallel": {"strategy": "parallel", "max_parallel": 4, "block_length": 64},
}


@pytest.fixture
def folder(tmp_path):
    """An untrained model of one layer as ``labkit train dlm`` leaves one."""
    tokenizer, home = gsm_run.read_tokenizer(CHECKPOINTS / "gsm"), tmp_path / "tiny"
    torch.manual_seed(0)
    net = gsm_model.new_model(32, 1, len(tokenizer), "cpu").net
    save_adapted(net, tokenizer, home / "model", mask_id=gsm_model.MASK, shift=False, block_causal=None)
    (home / "result.json").write_text(json.dumps({"steps": 7}))
    about = {"model": "/some/where/net", "parameters": 9, "trained_parameters": 3, "lora_r": 1}
    meta = provenance(arm="dlm", seed=5, **about)
    TrainTrace.from_log([{"step": 1, "loss": 1.0}], meta=meta).save(home / "train_trace.npz")
    return home / "model"


def test_every_family_of_one_number_has_the_settings_of_soar():
    every = words.settings()
    counts = Counter(map(family, every))
    for of in ("adaptive", "adaptive uncapped", "eb", "factor", "klass", "soar"):
        assert counts[of] == 48
    assert len({label(setting) for setting in every}) == len(every)
    assert {setting["block_length"] for setting in every} == {8, 16, 32, 64}
    assert {family(setting) for setting in words.settings(["greedy", "pbs"], [32])} == {"greedy", "pbs"}


def test_calls_share_one_record(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(words, "settings", lambda families, _: [GREEDY, *(ARMS[f] for f in families[1:])])
    out = ["--models", str(folder), "--tiny", "--device", "cpu", "--out", str(tmp_path / "out")]

    def call(*families, test):
        more = [] if test else ["--validate-only"]
        assert harness.run(words.STUDY, [*out, "--families", "greedy", *families, *more]) == 0
        return json.loads((tmp_path / "out" / records.WORDS).read_text())["tiny"]["5"]

    assert call(test=False)["test"] == []
    assert call("parallel", test=False)["tried"] == {"greedy": 1, "parallel": 1}
    run, ran = words._outcomes, []
    monkeypatch.setattr(
        words, "_outcomes", lambda *given: ran.append([label(s) for s in given[2]]) or run(*given)
    )
    found = call("soar", test=True)
    soar = ["soar 2, .9, blocks of 64"]
    assert ran == [soar, ["greedy blocks of 64"], soar]  # greedy was validated before, both are tested
    assert found["tried"] == {"greedy": 1, "parallel": 1, "soar": 1}
    assert [o["label"] for o in found["test"]] == ["greedy blocks of 64", "soar 2, .9, blocks of 64"]
    assert found["chosen"]["soar, accurate"] == "soar 2, .9, blocks of 64"
    assert found["training"] == {
        "name": "tiny", "seed": 5, "steps": 7, "model": "net", "parameters": 9, "trained_parameters": 3,
        "lora_r": 1, "device": found["provenance"]["device"],
    }  # fmt: skip
    assert "Not tested: parallel." in capsys.readouterr().out


def test_a_record_of_other_problems_is_replaced():
    old = {"weights": "a", "kernel": "k", "puzzles": {"test": 2}, "test": [], "validation": []}
    new = old | {"puzzles": {"test": 3}, "tried": {}, "chosen": {}}
    assert words.merged(old, new) is new


def test_what_is_kept_claims_no_more_than_it_holds():
    kept = records.study(records.RESULTS / records.WORDS)
    for name in ("lab/gsm", "lab/gsm-early"):
        (record,) = kept[name].values()
        assert record["puzzles"]["test"] >= 2000
        assert len(record["test"][0]["right"]) == record["puzzles"]["test"]
        for outcome in record["test"]:
            assert np.isclose(outcome["right"].mean(), outcome["accuracy"])
        text = "\n".join(page.study_lines(name, kept[name]))
        assert "2,048 problems)" in text
        assert "seeds" not in text
    assert "Not tested: order_token." in "\n".join(page.study_lines("lab/gsm-early", kept["lab/gsm-early"]))
    (weak,) = kept["smollm2-135m-lora"].values()
    assert "cut by the clock at step 600" in records.note(kept["smollm2-135m-lora"])
    assert weak["test"][0]["accuracy"] < 0.5
