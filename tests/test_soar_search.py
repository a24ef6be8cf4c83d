"""decode against a slow search written from the specification, one prompt and one beam at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.soar import decode, load_model
from labkit.soar.config import STRATEGIES
from labkit.studies.soar.one_at_a_time import decode_one
from labkit.traces import ACCELERATE, FINISHED, KEPT, MERGED, PRUNED, BeamTrace
from tokenstats import token_stats

MASK = 0


class TinyModel:
    """Random two-layer network of a sequence, row by row, so that logits never depend on the batch."""

    def __init__(self, seed, vocabulary=6, width=8, sharp=4.0, length=24):
        source = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(shape, generator=source)

        self.digit, self.place = draw(vocabulary, width), draw(length, width)
        self.mix, self.out = draw(width, width), draw(width, vocabulary) * sharp / width**0.5
        self.rows = 0

    def __call__(self, tokens):
        self.rows += len(tokens)
        return torch.stack([self.one(row) for row in tokens])

    def one(self, row):
        x = self.digit[row] + self.place[: len(row)]
        x = torch.tanh(x + (x @ self.mix).mean(0))
        return x @ self.out


def reference(model, prompt, strategy, gen, *, block=None, steps=None, beam=2, threshold=0.9,
              min_parallel=1, max_parallel=5, collapse=1, mean=True):  # fmt: skip
    """(sequence, calls, rows) of one prompt, in plain Python. gen=0 fills the masks it contains."""
    start = list(prompt) + [MASK] * gen
    slots = [i for i, token in enumerate(start) if token == MASK]
    block = block or max(1, len(slots))
    blocks = [slots[i : i + block] for i in range(0, len(slots), block)]
    width = beam if strategy in ("pbs", "soar") else 1
    # beam: (sequence, total confidence, committed, block, steps in this block)
    beams, calls, rows = [(start, 0.0, 0, 0, 0)], 0, 0

    def rank(total, committed):
        return total / max(committed, 1) if mean else total

    while any(MASK in sequence for sequence, *_ in beams):
        calls += 1
        candidates, accelerated = [], False
        for sequence, total, committed, at, step in beams:
            if MASK not in sequence:
                candidates.append((sequence, total, committed, at, step))
                continue
            rows += 1
            logits = model.one(torch.tensor(sequence)).float()
            logits[:, MASK] = -math.inf
            token, confidence = (item.tolist() for item in token_stats(logits)[:2])
            masks = [i for i in blocks[at] if sequence[i] == MASK]
            masks.sort(key=lambda i: -confidence[i])  # stable: the lower position first
            sure = sum(confidence[i] > threshold for i in masks)
            if strategy in ("greedy", "parallel"):
                if steps is None:
                    count = 1 if strategy == "greedy" else max_parallel
                else:
                    m, spend = len(blocks[at]), steps // len(blocks)
                    count = m // spend + (step < m % spend)
                choices = [masks[:count]]
            elif strategy in ("adaptive", "soar") and sure >= min_parallel:
                choices, accelerated = [masks[: min(sure, max_parallel)]], True
            else:
                choices = [[i] for i in masks[:width]]
            for chosen in choices:
                new = list(sequence)
                for i in chosen:
                    new[i] = token[i]
                gain = sum(confidence[i] for i in chosen)
                candidates.append((new, total + gain, committed + len(chosen), at, step + 1))
        candidates.sort(key=lambda c: -rank(c[1], c[2]))
        unique = []
        for candidate in candidates:
            if candidate[0] not in [other[0] for other in unique]:
                unique.append(candidate)
        keep = width
        fewer = beams[0][0].count(MASK) - unique[0][0].count(MASK)
        if strategy == "soar" and accelerated and fewer >= collapse:
            keep = 1
        beams = []
        for sequence, total, committed, at, step in unique[:keep]:
            if at < len(blocks) - 1 and all(sequence[i] != MASK for i in blocks[at]):
                at, step = at + 1, 0
            beams.append((sequence, total, committed, at, step))
    return beams[0][0], calls, rows


def setting(rng):
    """A random strategy with random parameters: (decode keywords, reference keywords, gen)."""
    strategy = rng.choice(["greedy", "parallel", "adaptive", "pbs", "soar", "soar", "soar"])
    gen = int(rng.choice([0, 4, 6, 8, 12]))
    block = int(rng.choice([2, 4])) if gen in (4, 8, 12) and rng.random() < 0.5 else None
    blocks = gen // block if block else 1
    steps = None
    if strategy in ("greedy", "parallel") and rng.random() < 0.7:
        steps = blocks * int(rng.integers(1, 6))
    most = int(rng.integers(1, 6))
    both = {
        "steps": steps,
        "beam": int(rng.integers(1, 5)),
        "threshold": float(rng.choice([0.5, 0.7, 0.9])),
        "max_parallel": most,
        "min_parallel": int(rng.integers(1, min(2, most) + 1)),
    }
    collapse, mean = int(rng.integers(1, 3)), bool(rng.random() < 0.5)
    ours = {**both, "block_length": block, "gen_length": gen, "min_collapse": collapse}
    ours |= {"score": "mean" if mean else "sum", "strategy": strategy, "mask_id": MASK}
    return ours, {**both, "strategy": strategy, "block": block, "collapse": collapse, "mean": mean}, gen


def prompts_for(rng, gen, count=5):
    """Token lists of different lengths; for infill with masks (perhaps none) at random places."""
    rows = []
    for _ in range(count):
        row = rng.integers(1, 6, size=int(rng.integers(3, 11)))
        if not gen:
            row[rng.random(len(row)) < 0.6] = MASK
        rows.append(row.tolist())
    return rows


@pytest.mark.parametrize("seed", range(200))
def test_same_tokens_calls_and_rows_as_reference(seed):
    rng = np.random.default_rng(seed)
    ours, theirs, gen = setting(rng)
    prompts = prompts_for(rng, gen)
    model = TinyModel(seed, sharp=float(rng.choice([1.0, 4.0, 8.0])))
    trace = decode(model, prompts, record=False, **ours)
    assert model.rows == trace.rows.sum() == trace.meta["forward_rows"]  # only live rows are forwarded
    for p, prompt in enumerate(prompts):
        sequence, calls, rows = reference(model, prompt, gen=gen, **theirs)
        found = trace.sequences[p]
        assert found[: len(sequence)].tolist() == sequence
        assert (found[len(sequence) :] == -1).all()
        assert (trace.calls[p], trace.rows[p]) == (calls, rows)


def test_the_random_settings_reach_every_branch():
    drawn = [setting(np.random.default_rng(seed))[0] for seed in range(200)]
    for name in ("greedy", "parallel", "adaptive", "pbs", "soar"):
        assert sum(s["strategy"] == name for s in drawn) >= 15
    soar = [s for s in drawn if s["strategy"] == "soar"]
    for key, values in {
        "score": ("mean", "sum"),
        "min_collapse": (1, 2),
        "block_length": (None, 2, 4),
    }.items():
        assert all(any(s[key] == value for s in soar) for value in values)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("gen", [0, 8])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_prompts_that_wait_for_a_place_get_the_same_trace(strategy, gen, batch_size):
    prompts = prompts_for(np.random.default_rng(6), gen, count=11)
    prompts.insert(2, [1, 2])  # infill: nothing to do
    options = {"gen_length": gen, "mask_id": MASK, "temperature": 0.7, "seed": 7, "threshold": 0.6}
    together = decode(TinyModel(5), prompts, strategy, **options)
    waiting = decode(TinyModel(5), prompts, strategy, batch_size=batch_size, **options)
    for name, value in vars(together).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(waiting, name), value, err_msg=name)
    assert waiting.meta["forward_rows"] == together.meta["forward_rows"]


def test_a_finished_prompt_makes_room_for_the_next():
    sizes = []

    def model(tokens):
        sizes.append(len(tokens))
        return TinyModel(0)(tokens)

    prompts = [[1] * 3 + [MASK] * n + [2] * (5 - n) for n in (1, 5, 2, 3, 1)]
    decode(model, prompts, "greedy", mask_id=MASK, batch_size=2)
    assert sizes == [2] * 6  # 12 masks: two at a time, to the end


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("gen", [0, 8])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_of_one_and_of_many_agree(strategy, gen, temperature):
    prompts = prompts_for(np.random.default_rng(3), gen, count=12)
    model = TinyModel(5)
    options = {"gen_length": gen, "mask_id": MASK, "temperature": temperature, "seed": 7}
    many = decode(model, prompts, strategy, **options)
    back = decode(model, prompts[::-1], strategy, **options)
    for p, prompt in enumerate(prompts):
        alone = decode(model, [prompt], strategy, **options)
        width = alone.sequences.shape[1]
        assert alone.sequences[0].tolist() == many.sequences[p, :width].tolist()
        assert alone.sequences[0].tolist() == back.sequences[-1 - p, :width].tolist()
        assert alone.scores[0] == many.scores[p]
        assert (alone.calls[0], alone.rows[0]) == (many.calls[p], many.rows[p])


def test_temperature_follows_the_seed_and_copies_of_a_prompt_differ():
    prompts = [[1, 2, 3]] * 6

    def sample(seed):
        options = {"mask_id": MASK, "gen_length": 8, "temperature": 1.0, "seed": seed}
        return decode(TinyModel(1, sharp=1.0), prompts, "greedy", **options).sequences

    assert (sample(0) == sample(0)).all()
    assert (sample(0) != sample(1)).any()
    assert len({tuple(row) for row in sample(0).tolist()}) > 1


def test_a_hot_sample_has_the_frequencies_of_the_softmax():
    logits = torch.tensor([-9.0, 0.0, 1.0, 2.0])
    options = {"mask_id": 0, "gen_length": 1, "temperature": 1.0, "seed": 0, "record": False}
    trace = decode(lambda tokens: logits.expand(*tokens.shape, 4), [[1]] * 4000, "greedy", **options)
    share = np.bincount(trace.sequences[:, 1], minlength=4)[1:] / 4000
    assert np.allclose(share, torch.softmax(logits[1:], 0).numpy(), atol=0.03)


def test_the_noise_of_a_sample_is_added_in_fp32_whatever_the_logits_are():
    logits = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    options = {"mask_id": 0, "gen_length": 1, "temperature": 0.7, "seed": 0, "record": False}
    half, full = (
        decode(lambda tokens, x=x: x.expand(*tokens.shape, 64), [[1]] * 2000, "greedy", **options)
        for x in (logits, logits.float())
    )
    assert (half.sequences == full.sequences).all()


def tabled(*rows):
    """A model that gives position i the log-probabilities ``rows[i]``, whatever the tokens."""
    return lambda tokens: torch.tensor(rows, dtype=torch.float64).log().expand(len(tokens), -1, -1)


def test_ties_go_to_the_lower_position_and_a_hand_written_tree_comes_out():
    # tokens 1, 2; the three positions have confidence .6, .8, .8
    model = tabled([0, 0.6, 0.4], [0, 0.2, 0.8], [0, 0.8, 0.2])
    trace = decode(model, [[0, 0, 0]], "pbs", mask_id=0, beam=2, score="sum")
    first = trace.cand_step == 0
    assert trace.cand_positions[first].tolist() == [[1], [2]]
    second = trace.cand_step == 1  # {1,2} from both beams, {0,1}, {0,2}: equal sequences merge
    assert trace.cand_fate[second].tolist() == [KEPT, MERGED, KEPT, PRUNED]
    assert trace.cand_positions[second].tolist() == [[2], [1], [0], [0]]
    assert np.allclose(trace.cand_score[second], [1.6, 1.6, 1.4, 1.4])
    assert trace.sequences.tolist() == [[1, 2, 1]]
    assert (trace.calls[0], trace.rows[0]) == (3, 5)


def test_an_accelerate_step_commits_the_sure_ones_and_keeps_one_beam():
    model = tabled([0, 0.95, 0.05], [0, 0.6, 0.4], [0, 0.02, 0.98], [0, 0.3, 0.7])
    trace = decode(model, [[0, 0, 0, 0]], "soar", mask_id=0, threshold=0.9)
    assert trace.beam_mode.tolist()[0] == ACCELERATE
    assert trace.cand_positions[0].tolist() == [2, 0, -1, -1]
    assert trace.cand_score[0] == pytest.approx((0.95 + 0.98) / 2)
    assert (trace.beam_step == 1).sum() == 1
    assert trace.sequences.tolist() == [[1, 1, 2, 2]]


def test_a_mask_is_sure_above_the_threshold_not_at_it():
    model = tabled([0, 1, 0], [0, 0, 1], [0, 1, 0])  # confidence 1 everywhere, exactly
    calls = [decode(model, [[0, 0, 0]], "soar", mask_id=0, threshold=t).calls[0] for t in (0.999, 1.0)]
    assert calls == [1, 3]


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 20])
def test_a_schedule_spreads_the_masks_evenly(steps):
    trace = decode(TinyModel(2), [[1, 2]], "greedy", mask_id=MASK, gen_length=8, steps=steps)
    spent = (trace.cand_positions >= 0).sum(1)
    assert spent.tolist() == [8 // steps + (i < 8 % steps) for i in range(min(steps, 8))]


def test_blocks_are_filled_left_to_right():
    trace = decode(TinyModel(4), [[1]], "soar", mask_id=MASK, gen_length=12, block_length=4, threshold=0.5)
    for state in trace.beam_tokens:
        masked = np.flatnonzero(state == MASK)
        if len(masked):
            assert (state[1 + (masked[0] - 1) // 4 * 4 + 4 :] == MASK).all()


def test_guidance_hides_the_prompt_from_the_second_half():
    seen = []

    def model(tokens):
        seen.append(tokens.clone())
        return TinyModel(0)(tokens)

    plain = decode(model, [[1, 2, 3]], "greedy", mask_id=MASK, gen_length=4)
    seen.clear()
    guided = decode(model, [[1, 2, 3]], "greedy", mask_id=MASK, gen_length=4, cfg_scale=1.5)
    assert all((hidden[:, :3] == MASK).all() for hidden in seen[1::2])
    assert all((given[:, :3] == torch.tensor([1, 2, 3])).all() for given in seen[::2])
    assert guided.meta["forward_rows"] == 2 * plain.meta["forward_rows"]
    logits, empty = TinyModel(0)(seen[0])[0], TinyModel(0)(seen[1])[0]
    mixed = empty + 2.5 * (logits - empty)
    mixed[:, MASK] = -math.inf
    assert guided.beam_confidence[0, 3:] == pytest.approx(mixed.softmax(-1).amax(-1)[3:].numpy(), abs=1e-6)


class Ending(TinyModel):
    eos_id, mask_id = 5, MASK

    def one(self, row):
        logits = super().one(row)
        logits[5, 5] = 50.0  # the third generated token is EOS, and sure
        return logits


def test_everything_behind_an_eos_is_eos_without_a_forward():
    short = decode(Ending(0), [[1, 2, 3]], "greedy", gen_length=10)
    long = decode(Ending(0), [[1, 2, 3]], "greedy", gen_length=10, eos_early_stop=False)
    assert (short.sequences[0, 5:] == 5).all()
    assert short.calls[0] < long.calls[0] == 10
    assert MASK not in short.sequences[0]
    # until then, both searches are the same
    assert short.sequences[0, :5].tolist() == long.sequences[0, :5].tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("gen", [0, 8])
def test_the_trace_tells_the_whole_story(strategy, gen, tmp_path):
    prompts = prompts_for(np.random.default_rng(8), gen, count=6)
    whole = decode(TinyModel(9), prompts, strategy, mask_id=MASK, gen_length=gen, threshold=0.6, beam=3)
    assert set(np.unique(whole.cand_fate)) <= {KEPT, MERGED, PRUNED}
    for p, prompt in enumerate(prompts):
        t = whole.of_prompt(p)
        assert t.rows[0] == (t.beam_mode != FINISHED).sum()
        assert t.calls[0] == len(set(t.beam_step[t.beam_mode != FINISHED]))
        last = t.beam_step == t.beam_step.max()
        assert (t.beam_mode[last] == FINISHED).all()
        assert t.beam_tokens[last][0].tolist() == t.sequences[0].tolist()
        assert t.beam_score[last][0] == t.scores[0]
        assert t.beam_tokens[0, : len(prompt)].tolist() == prompt
        states = {
            (step, slot): row for row, (step, slot) in enumerate(zip(t.beam_step, t.beam_slot, strict=True))
        }
        kept = t.cand_fate == KEPT
        assert (t.cand_child[~kept] == -1).all()
        born = {
            (step + 1, child) for step, child in zip(t.cand_step[kept], t.cand_child[kept], strict=True)
        }
        assert born == {key for key in states if key[0] > 0}
        assert kept.sum() == len(born)
        for c in range(len(t.cand_step)):
            parent = states[t.cand_step[c], t.cand_parent[c]]
            used = t.cand_positions[c] >= 0
            where = t.cand_positions[c][used]
            assert np.isnan(t.cand_confidence[c][~used]).all()
            again = t.cand_tokens[c] == MASK  # masked again, by rcr alone
            assert strategy == "rcr" or not again.any()
            assert (t.beam_tokens[parent, t.cand_positions[c][again]] != MASK).all()
            fills = t.cand_positions[c][used & ~again]
            assert (t.beam_tokens[parent, fills] == MASK).all()
            likeliest = t.beam_prediction[parent, fills] == t.cand_tokens[c][used & ~again]
            sure = t.cand_confidence[c][used & ~again]
            assert strategy == "order_token" or likeliest.all()
            assert (t.beam_confidence[parent, fills][likeliest] == sure[likeliest]).all()
            assert (t.beam_confidence[parent, fills][~likeliest] >= sure[~likeliest]).all()
            if kept[c]:
                child = states[t.cand_step[c] + 1, t.cand_child[c]]
                made = t.beam_tokens[parent].copy()
                made[where] = t.cand_tokens[c][used]
                assert made.tolist() == t.beam_tokens[child].tolist()
                assert t.beam_parent[child] == t.cand_parent[c]
                assert t.beam_score[child] == t.cand_score[c]
                assert t.beam_committed[child] == t.beam_committed[parent] + used.sum() - 2 * again.sum()
        scored = ~np.isnan(t.beam_confidence)
        assert (scored == (t.beam_prediction >= 0)).all()
        assert (t.beam_tokens[scored] == MASK).all()
    again = BeamTrace.load(whole.save(tmp_path / "beam.npz"))
    for name, value in vars(whole).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(again, name), value)
    bare = decode(
        TinyModel(9), prompts, strategy, mask_id=MASK, gen_length=gen, threshold=0.6, beam=3, record=False
    )
    assert len(bare.beam_step) == len(bare.cand_step) == 0
    np.testing.assert_array_equal(bare.sequences, whole.sequences)


def test_a_prompt_without_masks_costs_nothing():
    trace = decode(TinyModel(0), [[1, 2], [1, MASK]], "soar", mask_id=MASK)
    assert trace.calls.tolist() == [0, 1]
    assert trace.sequences[0].tolist() == [1, 2]
    assert trace.beam_mode[trace.beam_prompt == 0].tolist() == [FINISHED]


def test_a_model_that_prefers_the_mask_still_never_answers_with_it():
    def model(tokens):
        return torch.tensor([9.0, 0.0, 1.0]).expand(*tokens.shape, 3)

    for strategy in STRATEGIES:
        trace = decode(model, [[1]], strategy, mask_id=0, gen_length=6, beam=3)
        assert trace.sequences.tolist() == [[1, 2, 2, 2, 2, 2, 2]]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_result_is_finished_whatever_was_asked(data):
    """More beams than masks, too few or too many steps, blocks, waiting prompts: never a mask left."""
    strategy = data.draw(st.sampled_from(STRATEGIES))
    gen = data.draw(st.sampled_from([0, 1, 4, 6]))
    block = data.draw(st.sampled_from([None, 1, 2])) if gen in (4, 6) else None
    tokens = st.integers(0 if not gen else 1, 5)
    prompts = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=4))
    options = {"gen_length": gen, "block_length": block, "beam": data.draw(st.integers(1, 9))}
    if strategy in ("greedy", "parallel", "rcr"):
        blocks = gen // block if block else 1
        options["steps"] = data.draw(st.sampled_from([None, blocks, 3 * blocks, 20 * blocks]))
    options["threshold"] = data.draw(st.sampled_from([0.0, 0.6, 1.0]))
    options["batch_size"] = data.draw(st.sampled_from([None, 1, 2]))
    trace = decode(TinyModel(data.draw(st.integers(0, 9))), prompts, strategy, mask_id=MASK, **options)
    for prompt, row in zip(prompts, trace.sequences.tolist(), strict=True):
        row = [token for token in row if token >= 0]
        assert len(row) == len(prompt) + gen
        assert MASK not in row
        assert all(token in (MASK, new) for token, new in zip(prompt, row, strict=False))


WRONG = {
    "beam": ({"beam": 0}, "beam must be an integer >= 1; got 0"),
    "beam type": ({"beam": 2.0}, "beam must be an integer >= 1; got 2.0"),
    "threshold": ({"threshold": 1.5}, r"threshold must be a number in \[0, 1\]; got 1.5"),
    "threshold nan": ({"threshold": math.nan}, r"threshold must be a number in \[0, 1\]; got nan"),
    "blocks": ({"block_length": 3}, "gen_length must be a multiple of block_length=3; got 8"),
    "gen_length": ({"gen_length": -1}, "gen_length must be an integer >= 0; got -1"),
    "gen_length type": ({"gen_length": False}, "gen_length must be an integer >= 0; got False"),
    "block_length": ({"block_length": 0}, "block_length must be an integer >= 1; got 0"),
    "strategy": ({"strategy": "best"}, "strategy must be one of 'greedy', .*; got 'best'"),
    "score": ({"score": "max"}, "score must be one of 'mean', 'sum'; got 'max'"),
    "steps of soar": ({"steps": 8}, "steps must be None for strategy 'soar'.*; got 8"),
    "steps": ({"steps": 0, "strategy": "greedy"}, "steps must be an integer >= 1; got 0"),
    "few steps": (
        {"steps": 3, "block_length": 2, "strategy": "greedy"},
        "steps must be a positive multiple of the number of blocks, 4; got 3",
    ),
    "min_parallel": ({"min_parallel": 6}, "min_parallel must be an integer between 1 and 5; got 6"),
    "max_parallel": ({"max_parallel": 0}, "max_parallel must be an integer >= 1; got 0"),
    "min_collapse": ({"min_collapse": 0}, "min_collapse must be an integer >= 1; got 0"),
    "temperature": ({"temperature": -1.0}, "temperature must be a number >= 0; got -1.0"),
    "cfg_scale": ({"cfg_scale": "1"}, "cfg_scale must be a number >= 0; got '1'"),
    "seed": ({"seed": -1}, "seed must be an integer >= 0; got -1"),
    "batch_size": ({"batch_size": 0}, "batch_size must be an integer >= 1; got 0"),
    "record": ({"record": "yes"}, "record must be one of True, False; got 'yes'"),
    "mask_id": ({"mask_id": None}, "mask_id must be an integer >= 0; got None"),
    "no prompt": ({"prompts": []}, "prompts must be a LongTensor .*; got 'no prompt'"),
    "empty prompt": ({"prompts": [[1], []]}, "prompts must be .*; got 'an empty prompt'"),
    "text prompt": ({"prompts": "hello"}, "prompts must be .*; got 'str'"),
    "float prompt": ({"prompts": torch.ones(1, 2)}, r"prompts must be .*; got 'torch.float32 \(1, 2\)'"),
    "flat prompt": ({"prompts": [1, 2]}, "prompts must be .*; got 1"),
    "negative token": ({"prompts": [[1, -1]]}, r"prompts must be .*; got \[1, -1\]"),
    "mask in prompt": ({"prompts": [[1, MASK]]}, "prompts must hold no mask_id=0 when gen_length > 0"),
    "model": ({"model": 3}, "model must be callable"),
    "model shape": ({"model": lambda t: t.float()}, r"model must map tokens \(B, L\) to float logits"),
    "nan": ({"model": lambda t: torch.full((*t.shape, 4), math.nan)}, "model must give finite logits"),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_bad_input_is_one_clear_error(case):
    change, message = WRONG[case]
    options = {
        "model": TinyModel(0),
        "prompts": [[1, 2]],
        "strategy": "soar",
        "mask_id": MASK,
        "gen_length": 8,
    }
    with pytest.raises(ValueError, match=message):
        decode(**(options | change))


def test_a_prompt_longer_than_the_model_is_refused():
    model = TinyModel(0)
    model.max_length = 9
    with pytest.raises(ValueError, match="gen_length must be at most 7, .* max_length=9 .*; got 8"):
        decode(model, [[1, 2]], mask_id=MASK, gen_length=8)
    for prompt, gen_length in (([1] * 9, 8), ([MASK] * 10, None)):
        with pytest.raises(ValueError, match="prompts must be at most max_length=9 long"):
            decode(model, [prompt], mask_id=MASK, gen_length=gen_length)


@pytest.mark.parametrize("how", [{}, {"fixed_rows": 2}, {"cache": "approximate-prefix"}])
def test_a_model_of_one_length_says_which(how):
    model = load_model("lab/sums", **how)
    for length in (22, 24):
        with pytest.raises(ValueError, match=f"gen_length must be exactly 23, .*; got {length}"):
            decode(model, [[1] * 9], gen_length=length)
    with pytest.raises(ValueError, match="prompts must be exactly max_length=32 long, .*'31 positions'"):
        decode(model, [[0] * 32, [0] * 31])


@pytest.mark.parametrize("gen", [0, 8])
@pytest.mark.parametrize("strategy", ["greedy", "pbs", "soar"])
def test_the_one_at_a_time_decoder_of_the_bench_agrees(strategy, gen):
    """What the bench's speed is measured against gives the same answers in as many calls."""
    rng = np.random.default_rng(11)
    for seed, prompt in enumerate(prompts_for(rng, gen, count=12)):
        model, collapse = TinyModel(seed), 1 + seed % 2
        options = {"mask_id": MASK, "gen_length": gen, "threshold": 0.6, "min_collapse": collapse}
        options |= {"block_length": 4 if gen else None, "score": ("mean", "sum")[seed % 2]}
        options["beam"] = 1 if strategy == "greedy" else 3
        ours = decode(model, [prompt], strategy, record=False, **options)
        theirs, calls = decode_one(model, prompt, strategy if strategy == "soar" else "pbs", **options)
        assert ours.sequences[0].tolist() == theirs
        assert calls == (ours.calls if strategy == "soar" else ours.rows)[0]


@pytest.mark.parametrize("gen", [0, 8])
def test_the_prompts_stay_as_they_are(gen):
    for prompts in (torch.tensor([[1, 2, 1], [3, 1, 2]]), [[1, 2, 1], [3, 1, 2]]):
        if not gen:
            prompts[0][1] = MASK
        before = [list(map(int, row)) for row in prompts]
        decode(TinyModel(0), prompts, "soar", mask_id=MASK, gen_length=gen)
        assert [list(map(int, row)) for row in prompts] == before


def test_a_token_the_model_does_not_know_is_refused():
    model = TinyModel(0)
    model.vocab_size = 6
    with pytest.raises(
        ValueError, match="prompts must be of token ids below the model's 6; got 'token id 6'"
    ):
        decode(model, [[1, 6]], mask_id=MASK, gen_length=2)
    with pytest.raises(ValueError, match="mask_id must be an integer between 0 and 5; got 6"):
        decode(model, [[1, 2]], mask_id=6, gen_length=2)


def test_numpy_numbers_are_fine_and_the_trace_can_be_saved(tmp_path):
    """Sliders and grids hand them over; JSON, which keeps the parameters, takes none."""
    trace = decode(
        TinyModel(0), [[1, 2]], "soar", mask_id=MASK, gen_length=np.int64(8), block_length=np.int64(4),
        beam=np.int64(2), threshold=np.float32(0.5), min_parallel=np.int64(1), max_parallel=np.int64(3),
        min_collapse=np.int64(1), eos_early_stop=np.True_,
    )  # fmt: skip
    greedy = decode(TinyModel(0), [[1, 2]], "greedy", mask_id=MASK, gen_length=8, steps=np.int64(4))
    for number, made in enumerate((trace, greedy)):
        saved = made.save(tmp_path / f"{number}.npz")
        assert BeamTrace.load(saved).meta["parameters"] == made.meta["parameters"]


@pytest.mark.parametrize("strategy", ["greedy", "soar", "pbs", "order_token"])
def test_a_recording_takes_at_most_twice_its_tokens(strategy):
    """As ids of 8 bytes, which is how ``sequences`` holds them."""
    options = {"mask_id": MASK, "gen_length": 64, "block_length": 16, "beam": 4, "threshold": 0.5}
    trace = decode(TinyModel(0, length=200), [[1] * 100] * 4, strategy, **options)
    tables = [a for name, a in vars(trace).items() if name.startswith(("beam_", "cand_"))]
    assert sum(a.nbytes for a in tables) <= 2 * trace.sequences.itemsize * trace.beam_tokens.size
