"""The study of ``generate``'s speed, rehearsed; what it refuses to time; what its record says."""

import json

import pytest
import torch

from labkit.elas.model import ElasConfig, ElasForCausalLM
from labkit.studies.__main__ import main
from labkit.studies.elas import generate
from labkit.studies.elas.claims60m import claims_generate
from labkit.studies.elas.records import RESULTS

WORDS = ("elas-generate", "--tiny", "--device", "cpu", "--stages", "60m", "--out")


def test_every_form_is_timed_at_every_batch(tmp_path):
    assert main([*WORDS, str(tmp_path)]) == 0
    found = json.loads((tmp_path / "generate.json").read_text())["60m"]
    seen = [(row["batch"], row["form"]) for row in found["rows"]]
    forms = ["full-rank SwiGLU", "LORO", "LORO ReLU²", "ELAS", "ELAS, eager"]
    assert seen == [(batch, form) for batch in (1, 2) for form in forms]
    for row in found["rows"]:
        ms = row["ms_per_token"]
        assert 0 < ms["p20"] <= ms["p50"] <= ms["p80"]
        assert row["tokens_per_second"] == pytest.approx(1000 * row["batch"] / ms["p50"])
        assert row["largest_gap"] <= generate.TOLERANCE
    shape = found["parameters"]
    assert shape["ELAS"] == shape["LORO ReLU²"] < shape["LORO"] < shape["full-rank SwiGLU"]


def test_a_form_that_chooses_other_tokens_is_not_timed(tmp_path, monkeypatch):
    """As with a cache that forgets: the last token comes again and again."""

    def stuck(model, prompt, new, **how):
        return torch.cat([prompt, prompt[:, -1:].expand(-1, new)], 1)

    monkeypatch.setattr(generate, "_decoded", stuck)
    assert main([*WORDS, str(tmp_path)]) == 1
    assert "standard deviations below the best" in (tmp_path / "errors.txt").read_text()
    assert not (tmp_path / "generate.json").exists()


def test_the_gap_is_that_of_the_worst_choice():
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    torch.manual_seed(1)
    model = ElasForCausalLM(ElasConfig(**shape, num_attention_heads=2, rank=8, warmup_steps=0)).eval()
    prompt = torch.randint(1, 64, (2, generate.PROMPT))
    text = model.generate(prompt, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert generate.largest_gap(model, text) == pytest.approx(0, abs=1e-5)
    before = text[1, : generate.PROMPT + 4]  # the last token of the second row becomes the least likely
    last = model(before[None]).logits[0, -1].detach()
    text[1, -1] = last.argmin()
    assert generate.largest_gap(model, text) == pytest.approx(float((last.max() - last.min()) / last.std()))


def test_the_rows_of_the_table_say_what_was_recorded():
    record = json.loads((RESULTS / "generate.json").read_text())
    for row, (size, found) in zip(claims_generate(), record.items(), strict=True):
        speed = {(r["form"], r["batch"]): r["tokens_per_second"] for r in found["rows"]}
        assert len(speed) == 5 * 4
        assert f"at the {size} shape, batch 1/2/4/8" in row.claim
        assert f"ELAS {speed['ELAS', 1]:,.0f}/{speed['ELAS', 2]:,.0f}/" in row.measured
        against = [speed["ELAS", b] / speed["full-rank SwiGLU", b] for b in (1, 2, 4, 8)]
        assert f"ELAS {min(against):.2f} to {max(against):.2f}x of full rank's" in row.measured
        assert max(r["largest_gap"] for r in found["rows"]) < generate.TOLERANCE
