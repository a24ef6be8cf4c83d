"""Cached models against the definition: a whole forward in which hooks put the frozen keys and values."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from test_soar_models import DREAM, LLADA, dream_native, llada_tensors, write
from torch import nn
from transformers import LlamaForCausalLM, Qwen2ForCausalLM

from labkit.soar import decode, load_model
from labkit.soar.models.block_cache import BlockCached, with_cache
from labkit.soar.models.caches import APPROXIMATE, CACHES, Cached
from labkit.soar.models.diffusion_lm import DiffusionLM
from labkit.soar.models.families import llada_config, qwen2_config
from labkit.soar.models.keys_values import KeysAndValues
from labkit.soar.models.rope import rotate_in_fp32
from labkit.soar.tasks.sudoku_model import SudokuConfig, SudokuLM
from labkit.soar.tasks.sums import SumsConfig, SumsLM
from labkit.studies import harness
from labkit.studies.soar import caches, records

MASK, EOS, LENGTH = 39, 38, 32


def random_model(family, layers=2, block_causal=None, dtype=torch.float32, std=0.3):
    """A tiny model with weights large enough for attention to matter."""
    torch.manual_seed(7)
    if family == "sums":
        model = SumsLM(SumsConfig(width=32, layers=layers))
    elif family == "sudoku":
        model = SudokuLM(SudokuConfig(side=4, width=32, layers=layers))
    elif family == "llada":
        net = LlamaForCausalLM(llada_config(LLADA | {"n_layers": layers}))
        rotate_in_fp32(net)
        model = DiffusionLM(net, MASK, EOS, LENGTH, False, block_causal)
    else:
        net = Qwen2ForCausalLM(qwen2_config(DREAM | {"num_hidden_layers": layers}, "Dream"))
        model = DiffusionLM(net, MASK, EOS, LENGTH, True, block_causal)
    for value in model.parameters():
        nn.init.normal_(value, std=std)
    return model.eval().requires_grad_(False).to(dtype)


def projections(model):
    """(module, how many leading columns of its output are neither keys nor values)."""
    if isinstance(model, DiffusionLM):
        return [(part, 0) for layer in model.net.model.layers
                for part in (layer.self_attn.k_proj, layer.self_attn.v_proj)]  # fmt: skip
    return [(block.qkv, model.config.width) for block in model.blocks]


@contextmanager
def hooks(model, make):
    handles = [
        part.register_forward_hook(make(i, lead)) for i, (part, lead) in enumerate(projections(model))
    ]
    yield
    for handle in handles:
        handle.remove()


def by_definition(model, row, block, again):
    """Logits (W, V) of one row (n,): keys and values outside ``again`` are those of the start state."""
    start, kept, frozen = row.clone(), {}, torch.ones(len(row), dtype=torch.bool)
    start[block] = model.mask_id
    frozen[sorted(again)] = False

    def keep(number, lead):
        def hook(part, given, made):
            kept[number] = made.clone()

        return hook

    def put(number, lead):
        def hook(part, given, made):
            made = made.clone()
            made[:, frozen, lead:] = kept[number][:, frozen, lead:]
            return made

        return hook

    at = torch.tensor([block])
    with hooks(model, keep):
        first = model.logits_at(start[None], at)
    if torch.equal(start, row):
        return first[0]
    with hooks(model, put):
        return model.logits_at(row[None], at)[0]


def asked(model, block):
    return {max(0, i - 1) for i in block} if model.shift else set(block)


def computed_again(model, cache, row, block):
    """The sets of the module docstring, written again."""
    every = range(len(row))
    if cache == "approximate-dual":
        again = set(block)
    elif cache == "approximate-prefix":
        again = set(block) | {i for i in every if row[i] == model.mask_id and i > min(block)}
    else:
        size = model.block_causal
        again = {i for i in every if min(block) // size <= i // size <= max(block) // size}
    return again | asked(model, block)


def states(model, rng, count=6):
    """Rows in the middle of decoding: different lengths, scattered slots, some of the block filled."""
    made = []
    fixed = model.max_length if not isinstance(model, DiffusionLM) else None
    for number in range(count):
        length = fixed or int(rng.integers(9, 17))
        row = torch.from_numpy(rng.integers(1, min(38, model.vocab_size), length))
        if number % 2:  # a prompt, then what it generates
            slots = list(range(length - 8, length))
        else:
            slots = sorted(rng.choice(length, 8, replace=False).tolist())
        begin = int(rng.integers(0, 5))
        block = slots[begin : begin + 4]
        row[slots[begin + 4 :]] = model.mask_id
        left = rng.random(len(block)) < 0.5
        left[0] |= left.all() or not left.any()  # some are filled, some are not
        left[-1] = not left[0] if len(block) > 1 else left[-1]
        row[torch.tensor(block)[torch.from_numpy(left)]] = model.mask_id
        made.append((row, block))
    return made


def batch(made, order=None):
    """(tokens, positions, lengths) as decode hands them over."""
    made = [made[i] for i in order] if order is not None else made
    lengths = [len(row) for row, _ in made]
    tokens = torch.zeros(len(made), max(lengths), dtype=torch.long)
    positions = torch.zeros(len(made), max(len(block) for _, block in made), dtype=torch.long)
    for number, (row, block) in enumerate(made):
        tokens[number, : len(row)] = row
        positions[number] = block[0]
        positions[number, : len(block)] = torch.tensor(block)
    return tokens, positions, None if len(set(lengths)) == 1 else lengths


FAMILIES = ["llada", "dream", "sums", "sudoku"]


@pytest.mark.parametrize("cache", APPROXIMATE)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_definition(family, cache):
    model, rng = random_model(family, layers=3), np.random.default_rng(1)
    made = states(model, rng)
    cached, stale = with_cache(model, cache), 0.0
    tokens, positions, lengths = batch(made)
    got = cached.logits_at(tokens, positions, lengths)
    again = cached.logits_at(tokens, positions, lengths)  # now from what was kept
    plain = model.logits_at(tokens, positions, lengths)
    torch.testing.assert_close(again, got, atol=2e-5, rtol=1e-5)
    for number, (row, block) in enumerate(made):
        want = by_definition(model, row, block, computed_again(model, cache, row, block))
        torch.testing.assert_close(got[number, : len(block)], want, atol=2e-5, rtol=1e-4)
        stale = max(stale, (plain[number, : len(block)] - want).abs().max())
    assert stale > 1e-2  # else this test would say little


@pytest.mark.parametrize("cache", APPROXIMATE)
def test_the_definition_holds_in_bf16_with_rotation_in_fp32(cache):
    model, rng = random_model("llada", dtype=torch.bfloat16, std=0.1), np.random.default_rng(2)
    made = states(model, rng)
    cached = with_cache(model, cache)
    got = cached.logits_at(*batch(made))
    assert cached._kept.keys[0].dtype == torch.bfloat16
    for number, (row, block) in enumerate(made):
        want = by_definition(model, row, block, computed_again(model, cache, row, block))
        torch.testing.assert_close(got[number, : len(block)], want, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("family", "cache"),
    [(f, c) for f in FAMILIES for c in CACHES if c in APPROXIMATE or f in ("llada", "dream")],
)
def test_the_first_step_of_a_block_is_exact(family, cache):
    model = random_model(family, block_causal=4 if cache == "exact-block" else None)
    made = states(model, np.random.default_rng(3))
    for row, block in made:
        row[block] = model.mask_id
    given = batch(made)
    torch.testing.assert_close(
        with_cache(model, cache).logits_at(*given), model.logits_at(*given), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("cache", APPROXIMATE)
@pytest.mark.parametrize("family", ["llada", "dream", "sums"])
def test_with_one_layer_nothing_can_go_stale(family, cache):
    model = random_model(family, layers=1)
    given = batch(states(model, np.random.default_rng(4)))
    torch.testing.assert_close(
        with_cache(model, cache).logits_at(*given), model.logits_at(*given), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("family", ["llada", "dream", "sudoku"])
def test_one_block_makes_both_the_same_and_without_a_prompt_exact(family):
    model, rng = random_model(family), np.random.default_rng(5)
    length = getattr(model, "max_length", 16) if family == "sudoku" else 12
    row = torch.from_numpy(rng.integers(1, 5, (1, length)))
    row[0, ::3] = model.mask_id
    for slots, exact in ((range(4, length), False), (range(length), True)):
        given = row, torch.tensor([list(slots)])
        one, two = (with_cache(model, cache).logits_at(*given) for cache in APPROXIMATE)
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
        off = (one - model.logits_at(*given)).abs().max()
        assert off < 1e-5 if exact else off > 1e-3


@pytest.mark.parametrize("size", [1, 3, 4, 16])
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_the_exact_cache_is_exact(family, size):
    model, rng = random_model(family, layers=3, block_causal=size), np.random.default_rng(6)
    for _ in range(3):
        made = states(model, rng)
        given, cached = batch(made), with_cache(model, "exact-block")
        want = model.logits_at(*given)
        for _ in range(2):  # filling, then filled
            got = cached.logits_at(*given)
            for number, (_, block) in enumerate(made):
                assert (got - want)[number, : len(block)].abs().max() <= 1e-5
        row, block = made[0]
        by_hand = by_definition(model, row, block, computed_again(model, "exact-block", row, block))
        assert (got[0, : len(block)] - by_hand).abs().max() <= 1e-5


def test_block_causal_attention_sees_its_own_block_and_those_before():
    model = random_model("llada", block_causal=4)
    tokens = torch.randint(0, 38, (1, 12))
    base = model(tokens)
    for changed in range(12):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % 38
        moved = ((model(other) - base).abs().amax(-1) > 1e-5)[0]
        assert moved.tolist() == [i // 4 >= changed // 4 for i in range(12)]
    padded = torch.cat([tokens, tokens[:, :2]], 1).repeat(2, 1)
    torch.testing.assert_close(model(padded, [12, 14])[:1, :12], base, atol=1e-5, rtol=1e-5)
    whole = random_model("llada", block_causal=12)
    torch.testing.assert_close(whole(tokens), random_model("llada")(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cache", CACHES)
def test_neither_batch_nor_order_nor_eviction_changes_a_logit(cache):
    model = random_model("dream", block_causal=5 if cache == "exact-block" else None)
    made = states(model, np.random.default_rng(8))
    twin = made[3][0].clone()  # another beam of the same block
    twin[made[3][1][-1]] = model.mask_id if twin[made[3][1][-1]] != model.mask_id else 5
    made.append((twin, made[3][1]))
    layers, heads, head = model.kv_shape
    one = 2 * layers * 16 * heads * head * 4
    want = with_cache(model, cache).logits_at(*batch(made))
    rng = np.random.default_rng(9)
    for limit in (one, 2 * one, 2**30):
        cached = with_cache(model, cache, cache_bytes=limit)
        for _ in range(3):
            order = rng.permutation(len(made))
            got = cached.logits_at(*batch(made, order))
            torch.testing.assert_close(got, want[order], atol=1e-5, rtol=1e-5)
        assert 0 < cached.kept_bytes <= limit
    for number, state in enumerate(made):
        alone = with_cache(model, cache).logits_at(*batch([state]))
        width = len(state[1])
        torch.testing.assert_close(alone[0], want[number, :width], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cache", APPROXIMATE)
def test_tokens_are_not_taken_for_padding(cache):
    model = random_model("llada")
    row, block = torch.randint(1, 38, (10,)), [6, 7, 8, 9]
    row[8:] = MASK
    made = [(row, block), (torch.cat([row, torch.zeros(2, dtype=torch.long)]), block)]  # 0 pads as well
    got = with_cache(model, cache).logits_at(*batch(made))
    for number, state in enumerate(made):
        alone = with_cache(model, cache).logits_at(*batch([state]))
        torch.testing.assert_close(got[number], alone[0], atol=1e-5, rtol=1e-5)


def test_what_is_computed():
    """One prompt of 3 tokens, 8 to generate in blocks of 4, greedy: 2 whole forwards, 6 of a part."""
    model = random_model("llada")
    want = {"approximate-dual": 2 * 11 + 6 * 4, "approximate-prefix": 2 * 11 + 3 * 8 + 3 * 4}
    for cache, positions in want.items():
        for scale, limit in ((0.0, 2**30), (1.0, 2**30)):
            cached = with_cache(model, cache, cache_bytes=limit)
            options = {"gen_length": 8, "block_length": 4, "cfg_scale": scale, "eos_early_stop": False}
            decode(cached, [[1, 2, 3]], "greedy", **options)
            assert cached.computed == (1 + (scale > 0)) * positions  # guidance finds both of its halves
    causal = BlockCached(random_model("llada", block_causal=4))
    decode(causal, [[1, 2, 3, 4]], "greedy", gen_length=8, block_length=4, eos_early_stop=False)
    assert causal.computed == 2 * 4 + 8 * 4  # the prompt and the first block once, eight steps


def test_beams_and_prompts_with_one_start_share_it():
    model = random_model("sums")
    made = states(model, np.random.default_rng(10), count=1)
    twins = [(made[0][0].clone(), made[0][1]) for _ in range(4)]
    for number, (row, block) in enumerate(twins):
        row[block] = torch.tensor([1 + number, model.mask_id, 2, model.mask_id])[: len(block)]
    cached = with_cache(model, "approximate-dual")
    cached.logits_at(*batch(twins))
    assert cached.computed == model.max_length + 4 * len(made[0][1])
    cached.logits_at(*batch(twins))
    assert cached.computed == model.max_length + 8 * len(made[0][1])


def test_the_oldest_makes_room():
    model = random_model("llada")
    layers, heads, head = model.kv_shape
    kept = KeysAndValues(model, 3 * 2 * layers * 8 * heads * head * 4)
    kept.lay_out(8)
    assert kept.most == 3

    def known(*keys):
        return kept.place(np.array(keys))[1].tolist()

    assert known(1) == [False]
    assert known(2) == [False]
    assert len(kept._used) == 2  # both were used in this call or the one before: neither makes room
    assert known(3) == [False]
    assert known(2, 3) == [True, True]
    assert known(4) == [False]  # in the place of 1
    assert known(2, 3, 4) == [True, True, True]
    assert known(1) == [False]
    kept.lay_out(9)  # another length: nothing is left
    assert known(1) == [False]


@pytest.mark.parametrize("cache", [None, *CACHES])
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_decoding_finishes_and_one_slot_blocks_lose_nothing(family, cache):
    model = random_model(family, block_causal=4 if cache == "exact-block" else None)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [9]]
    cached = model if cache is None else with_cache(model, cache)
    for strategy in ("greedy", "soar"):
        given = {"gen_length": 8, "threshold": 0.3, "beam": 3, "record": False}
        trace = decode(cached, prompts, strategy, block_length=4, **given)
        assert MASK not in trace.sequences
        for number, prompt in enumerate(prompts):
            alone = decode(cached, [prompt], strategy, block_length=4, **given)
            assert alone.sequences[0].tolist() == trace.sequences[number, : len(prompt) + 8].tolist()
        if cache == "exact-block":
            plain = decode(model, prompts, strategy, block_length=4, **given)
            assert plain.sequences.tolist() == trace.sequences.tolist()
        single = [decode(m, prompts, strategy, block_length=1, **given) for m in (model, cached)]
        assert single[0].sequences.tolist() == single[1].sequences.tolist()


@pytest.mark.parametrize("cache", APPROXIMATE)
def test_infill_with_the_labs_models_finishes(cache):
    model = load_model("lab/sums", cache=cache)
    assert isinstance(model, Cached)
    prompts = torch.zeros(5, model.max_length, dtype=torch.long)
    prompts[:, :9] = torch.arange(2, 11)
    prompts[1, 20:23] = 5  # given in the middle: its blocks lie elsewhere
    trace = decode(model, prompts, "soar", block_length=8, beam=3, threshold=0.9)
    assert not (trace.sequences == 0).any()
    again = decode(model, prompts, "soar", block_length=8, beam=3, threshold=0.9)
    assert (trace.sequences == again.sequences).all()
    assert (trace.scores == again.scores).all()


def test_load_model_gives_a_cached_model(tmp_path):
    folder = write(tmp_path / "llada", LLADA, llada_tensors())
    plain, cached = (load_model(folder, block_causal=4, cache=cache) for cache in (None, "exact-block"))
    assert (plain.block_causal, cached.cache, cached.max_length) == (4, "exact-block", 32)
    tokens = torch.randint(0, 38, (2, 12))
    assert torch.equal(plain(tokens), cached(tokens))
    assert not torch.equal(plain(tokens), load_model(folder)(tokens))
    dream = write(tmp_path / "dream", DREAM, dict(dream_native().state_dict()))
    assert load_model(dream, cache="approximate-dual").model.shift


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cache": "dual"}, "cache must be one of None, 'approximate-prefix', .*; got 'dual'"),
        ({"cache": "exact-block"}, "cache must be .* attends in both directions; got 'exact-block'"),
        ({"cache": "approximate-dual", "fixed_rows": 4}, "cache must be None with fixed_rows.*'approx"),
        ({"cache": "approximate-dual", "cache_bytes": 0}, "cache_bytes must be an integer >= 1; got 0"),
        ({"block_causal": 4}, "block_causal must be None for the lab's own models.*; got 4"),
        ({"block_causal": 0}, "block_causal must be an integer >= 1; got 0"),
    ],
    ids=["name", "both directions", "fixed rows", "no bytes", "lab", "block_causal"],
)
def test_what_does_not_fit_is_one_clear_error(given, message):
    with pytest.raises(ValueError, match=message):
        load_model("lab/sums", **given)


def test_too_little_memory_for_one_row_is_an_error():
    model = load_model("lab/sums", cache="approximate-dual", cache_bytes=1000)
    with pytest.raises(
        ValueError, match="cache_bytes must be at least 98304, for one row of 32 positions; got"
    ):
        decode(model, torch.zeros(1, 32, dtype=torch.long), "greedy", block_length=8)


@pytest.mark.gpu
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_a_gpu_gives_the_logits_of_the_cpu(family, cache):
    model = random_model(family, block_causal=4 if cache == "exact-block" else None)
    made = states(model, np.random.default_rng(1))
    want = with_cache(model, cache).logits_at(*batch(made))
    tokens, positions, lengths = batch(made)
    got = with_cache(model.cuda(), cache).logits_at(tokens.cuda(), positions.cuda(), lengths)
    torch.testing.assert_close(got.cpu(), want, atol=1e-3, rtol=1e-3)


def test_the_study_pairs_every_cache_with_no_cache():
    found = caches.quality(caches.sums_task(12), load_model("lab/sums"), progress=False)
    by_arm = {(a["strategy"], a["block_length"], a["cache"]): a for a in found["arms"]}
    assert len(by_arm) == 10
    for (strategy, block, cache), arm in by_arm.items():
        base = by_arm[strategy, block if cache else None, None]
        assert arm["difference"] == pytest.approx(arm["accuracy"] - base["accuracy"])
        assert arm["difference_low"] <= arm["difference"] <= arm["difference_high"]
        plain = by_arm[strategy, block, None]
        assert arm["fewer"] == pytest.approx(plain["positions"] / arm["positions"])
        assert arm["fewer"] > 1 or cache is None
    assert by_arm["greedy", 8, None]["positions"] == 23 * 32
    # three blocks of 8, 8 and 7: each begins with a whole forward
    assert by_arm["greedy", 8, "approximate-dual"]["positions"] == 3 * 32 + 8 * 7 * 2 + 7 * 6
    assert 0.5 < by_arm["greedy", 8, None]["accuracy"] <= 1


def test_the_study_runs_from_the_shell(tmp_path, capsys):
    given = ["--device", "cpu", "--sums", "3", "--tiny", "--out", str(tmp_path), "--stages"]
    assert harness.run(caches.STUDY, [*given, "llada"]) == 0
    assert harness.run(caches.STUDY, [*given, "lab/sums"]) == 0  # keeps the other stage
    found = json.loads((tmp_path / "caches.json").read_text())
    assert set(found) == {"llada", "lab/sums"}
    assert "times faster" in capsys.readouterr().out
    arms = found["llada"]["arms"]
    assert [arm["faster"] for arm in arms if arm["cache"] is None] == [1.0] * 4
    assert all((arm["kept_bytes"] > 0) == (arm["cache"] in CACHES) for arm in arms)
    assert (
        found["llada"]["exact-block"]["largest difference"]
        < 0.1 * found["llada"]["exact-block"]["deviation"]
    )
    about = found["lab/sums"]["provenance"]
    assert about["command"].endswith("soar-caches --device cpu --sums 3 --tiny --out OUT --stages lab/sums")


def test_the_recorded_study_is_whole_and_drawn():
    found = records.caches()
    qualities = {name: stage for name, stage in found.items() if name.startswith("lab/")}
    assert {"lab/sudoku9", "lab/sums"} <= set(qualities)
    for stage in qualities.values():
        blocks = len({arm["block_length"] for arm in stage["arms"]})
        assert len(stage["arms"]) == 2 * (3 * blocks - 1)  # both strategies; one block needs no dual cache
    pytest.importorskip("plotly")  # the other tests of this file run on a GPU machine without it
    from matplotlib import pyplot

    from labkit.figures import cache_cost, theme

    theme.apply()
    figure = cache_cost.plane(qualities, found["llada"])
    left, right = figure.axes
    marks = [line for line in left.lines if line.get_marker() != "None"]
    arms = [arm for stage in qualities.values() for arm in stage["arms"]]
    assert sorted(line.get_xdata()[0] for line in marks) == sorted(100 * arm["accuracy"] for arm in arms)
    cached = [arm for arm in found["llada"]["arms"] if arm["cache"]]
    assert [text.get_text() for text in right.texts].count("") == 0
    assert len(right.texts) == len(cached)
    assert f"up to {max(arm['faster'] for arm in cached):.1f}×" in figure.get_suptitle()
    pyplot.close(figure)
