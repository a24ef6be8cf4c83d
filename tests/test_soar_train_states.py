"""The states that training draws against those that ``decode`` shows to a model that predicts the text."""

import json
from collections import Counter, defaultdict
from itertools import combinations, pairwise, permutations

import pytest
import torch
from test_soar_train_dlm import causal_lm, char_tokenizer
from transformers import LlamaForCausalLM

from labkit.__main__ import main
from labkit.soar import decode
from labkit.soar.adapt import Adaptation, Rows
from labkit.soar.masking import draw, mask_answers

EOS, MASK = 0, 13
PAIRS = {"1=": "2", "1+2=": "3", "12+34=": "46", "9+9+9+9=": "36+0", "1+1=": "2+0+0", "=": "4"}
ROWS = [{"prompt": prompt, "answer": answer} for prompt, answer in PAIRS.items()]


class Knowing:
    """Predicts ``row``; the higher ``ranks`` at a place in a block, the surer."""

    mask_id, eos_id = MASK, EOS

    def __init__(self, row, ranks, block_causal):
        self.row, self.block_causal, self.seen = torch.tensor(row), block_causal, set()
        self.sure = torch.tensor([1.0 + ranks[place % len(ranks)] for place in range(len(row))])

    def __call__(self, tokens):
        self.seen |= set(map(tuple, tokens.tolist()))
        logits = torch.nn.functional.one_hot(self.row, MASK + 1) * self.sure[:, None]
        return logits.expand(len(tokens), -1, -1).clone()


def decoded(prompt, answer, size, block_causal=None):
    """What the model is shown while the answer is decoded, in every order within blocks, and the result."""
    found = set()
    for ranks in permutations(range(size)):
        model = Knowing([*prompt, *answer], ranks, block_causal)
        given = {"gen_length": len(answer), "block_length": size, "record": False}
        trace = decode(model, [prompt], "greedy", **given)
        assert trace.sequences[0].tolist() == [*prompt, *answer]
        found |= model.seen | {(*prompt, *answer)}
    return found


def stated(prompt, answer, size, aligned):
    """{(row, slots counted): how likely}: a block in use, any number of its masks, any of so many."""
    before, slots, used = len(prompt), len(answer), answer.index(EOS) + 1
    cuts = [0, *(n for n in range(1, slots) if ((before if aligned else 0) + n) % size == 0), slots]
    blocks = [range(low, high) for low, high in pairwise(cuts) if low < used]
    found = defaultdict(float)
    for block in blocks:
        for number in range(len(block) + 1):
            chosen = list(combinations(block, number))
            for counted in chosen:
                masked = {*counted, *range(block.stop, slots)}
                if min(masked, default=slots) >= used:  # the text is whole: decode is done
                    counted, masked = (), set()
                row = [MASK if n in masked else token for n, token in enumerate(answer)]
                found[(*prompt, *row), counted] += 1 / len(blocks) / (len(block) + 1) / len(chosen)
    return found


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("used", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("before", [1, 3, 5])
def test_block_states_are_those_of_decode_at_the_stated_rates(before, used, aligned):
    size, slots, count = 3, 6, 6000
    prompt, answer = list(range(1, 1 + before)), [*range(6, 5 + used), *[EOS] * (slots - used + 1)]
    want = stated(prompt, answer, size, aligned)
    assert {row for row, _ in want} == decoded(prompt, answer, size, size if aligned else None)
    source = torch.Generator().manual_seed(before)
    draws = draw(count, slots, source, block_lengths=[size], block_share=1.0, least_rate=0.0)
    tokens, lengths = torch.tensor([answer]).expand(count, -1), torch.full((count,), used)
    states = mask_answers(tokens, lengths, draws, MASK, before if aligned else 0)
    pairs = zip(states.inputs.tolist(), states.counted.tolist(), strict=True)
    found = Counter(
        ((*prompt, *row), tuple(n for n, one in enumerate(counted) if one)) for row, counted in pairs
    )
    assert found.keys() == want.keys()
    for state, share in want.items():
        assert abs(found[state] / count - share) < 5 * (share * (1 - share) / count) ** 0.5


@pytest.mark.parametrize(
    ("size", "block_causal", "slots"), [(2, None, 6), (3, None, 6), (4, None, 8), (2, 4, 6), (4, 4, 8)]
)
def test_the_command_trains_on_states_of_decode(size, block_causal, slots, tmp_path, monkeypatch, capsys):
    causal_lm("llama").save_pretrained(tmp_path / "net")
    char_tokenizer().save_pretrained(tmp_path / "net")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    shown, forward = [], LlamaForCausalLM.forward

    def watched(self, input_ids, position_ids, **given):
        padding = (position_ids == 0).sum(1) - 1
        shown.extend(row[skip:] for row, skip in zip(input_ids.tolist(), padding.tolist(), strict=True))
        return forward(self, input_ids=input_ids, position_ids=position_ids, **given)

    monkeypatch.setattr(LlamaForCausalLM, "forward", watched)
    words = {
        "model": tmp_path / "net", "dataset": tmp_path / "rows.jsonl", "output_dir": tmp_path / "out",
        "block_lengths": size, "block_causal": block_causal or "null", "block_share": 1, "max_steps": 8,
        "per_device_train_batch_size": 6, "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    assert main(["train", "dlm", *(str(w) for name in words for w in (f"--{name}", words[name]))]) == 0
    ids = char_tokenizer()
    known = set()
    for row in ROWS:
        answer = [*ids(row["answer"])["input_ids"], *[EOS] * slots][:slots]
        known |= decoded(ids(row["prompt"])["input_ids"], answer, size, block_causal)
    assert len(shown) == 48
    assert {tuple(row) for row in shown} <= known
    assert f"--gen-length {slots} --block-length {size} QUESTION" in capsys.readouterr().out


def test_slots_are_whole_blocks():
    for given, tokens, slots in [
        ({}, 20, 20), ({}, 45, 64),
        ({"block_lengths": [8, 32]}, 20, 24), ({"block_lengths": [8, 10]}, 9, 40),
        ({"block_causal": 4}, 3, 4), ({"block_causal": 8, "block_lengths": [2, 4]}, 5, 8),
    ]:  # fmt: skip
        assert Adaptation(**given).slots(tokens) == slots
    assert Adaptation(block_causal=4).block_lengths == [4]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"answer_length": 45},
            "answer_length must be a multiple of each of block_lengths=.32., .* got 45",
        ),
        (
            {"block_causal": 4, "block_lengths": [3]},
            "block_lengths must be divisors of block_causal=4; got 3",
        ),
        ({"block_causal": 4, "answer_length": 2}, "answer_length must be a multiple"),
    ],
)
def test_states_that_decode_refuses_are_not_trained_on(given, message):
    with pytest.raises(ValueError, match=message):
        Adaptation(**given)


def test_rows_end_where_decode_ends_and_hold_no_mask():
    tokenizer = char_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<|mask|>"})
    rows = Rows([{"prompt": "1=", "answer": "1<eos>2"}], tokenizer, Adaptation(), 64)
    assert rows.rows == [([2, 12], [2, EOS])]
    for row in ({"prompt": "<|mask|>=", "answer": "1"}, {"prompt": "1=", "answer": "<|mask|>"}):
        with pytest.raises(
            ValueError, match="--dataset must be text without <|mask|>; got 'row 1 with it'"
        ):
            Rows([{"prompt": "1", "answer": "1"}, row], tokenizer, Adaptation(), 64)
