"""The live beam tree: what is packed can be unpacked, and what is asked of it reaches the decoder."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from labkit import widgets
from labkit.soar import decode
from labkit.traces import ACCELERATE, KEPT, MERGED, PRUNED, SEARCH
from labkit.widgets import base
from labkit.widgets.beam_pack import pack, texts
from labkit.widgets.beam_tree import BeamTree

KINDS = {
    "counts": "u2", "parent": "i4", "score": "f4", "committed": "u2", "mode": "u1", "changed": "u2",
    "delta_position": "u2", "delta_token": "i4", "fills": "u2", "fill_position": "u2", "fill_token": "i4",
    "fill_confidence": "f4", "candidates": "u2", "cand_score": "f4", "cand_fate": "u1", "cand_child": "u2",
    "cand_commits": "u2", "commit_rank": "u2", "answer": "i4", "tokens": "i4", "given": "u1",
}  # fmt: skip


def board_model(tokens):
    """4x4 logits from a fixed random net, row by row: sure of some cells, unsure of others."""
    source = torch.Generator().manual_seed(1)
    place, digit = torch.randn(16, 5, generator=source), torch.randn(5, 5, generator=source)
    return 3 * (place + digit[tokens].mean(1, keepdim=True) + digit[tokens])


PROMPTS = [[0] * 12 + [1, 2, 3, 4], [1, 2, 3, 4] + [0] * 12]
RUN = partial(decode, board_model)


@pytest.fixture(scope="module")
def trace():
    made = RUN(PROMPTS, "soar", mask_id=0, beam=3, threshold=0.95, max_parallel=2)
    assert {SEARCH, ACCELERATE} <= set(made.beam_mode)
    assert set(made.cand_fate) == {KEPT, MERGED, PRUNED}
    return made


def unpack(packed):
    return {name: np.frombuffer(packed[name], "<" + kind) for name, kind in KINDS.items()}


def tokens_of(arrays, row):
    """A state rebuilt as the browser does it: the start and every change on the way."""
    path = [row]
    while arrays["parent"][path[-1]] >= 0:
        path.append(arrays["parent"][path[-1]])
    tokens, ends = arrays["tokens"].copy(), np.cumsum(arrays["changed"])
    for step in path[::-1]:
        part = slice(ends[step] - arrays["changed"][step], ends[step])
        tokens[arrays["delta_position"][part]] = arrays["delta_token"][part]
    return tokens


def test_a_commit_of_more_fills_than_a_byte_counts():
    hard = torch.rand(300, 5, generator=torch.Generator().manual_seed(0))
    one = decode(lambda t: hard.expand(len(t), -1, -1), [[0] * 300], "parallel", mask_id=0, steps=1)
    arrays = unpack(pack(one, given=one.beam_tokens[0] > 0))
    assert arrays["cand_commits"].tolist() == [300]
    assert sorted(arrays["fill_position"][arrays["commit_rank"]]) == list(range(300))


@pytest.mark.parametrize(
    "strategy", ["soar", "pbs", "adaptive", "greedy", "parallel", "fast_dllm", "rcr", "order_token"]
)
@pytest.mark.parametrize("prompt", [0, 1])
def test_every_state_fill_and_candidate_comes_back(strategy, prompt):
    one = RUN(PROMPTS, strategy, mask_id=0, beam=3, threshold=0.95).of_prompt(prompt)
    arrays = unpack(pack(one, given=one.beam_tokens[0] > 0))
    for row in range(len(one.beam_step)):
        assert tokens_of(arrays, row).tolist() == one.beam_tokens[row].tolist()
    assert tokens_of(arrays, arrays["answer"][-1]).tolist() == one.sequences[0].tolist()
    assert arrays["counts"].tolist() == np.bincount(one.beam_step).tolist()
    fills, commits = np.cumsum(arrays["fills"]), np.cumsum(arrays["cand_commits"])
    owners = np.repeat(np.arange(len(one.beam_step)), arrays["candidates"])
    found = []
    for c, owner in enumerate(owners):
        ranks = arrays["commit_rank"][commits[c] - arrays["cand_commits"][c] : commits[c]]
        at = fills[owner] - arrays["fills"][owner] + ranks
        parts = (arrays[name][at] for name in ("fill_position", "fill_token", "fill_confidence"))
        found.append([int(owner), int(arrays["cand_fate"][c]), *(part.tolist() for part in parts)])
    first = np.concatenate([[0], np.cumsum(arrays["counts"])])
    wanted = []
    for c in range(len(one.cand_step)):
        real = (one.cand_positions[c] >= 0) & (one.cand_tokens[c] != 0)  # 0: masked again, no fill
        parts = (table[c][real] for table in (one.cand_positions, one.cand_tokens, one.cand_confidence))
        owner = first[one.cand_step[c]] + one.cand_parent[c]
        wanted.append([int(owner), int(one.cand_fate[c]), *(part.tolist() for part in parts)])
    assert sorted(found) == sorted(wanted)


def test_the_threshold_that_was_used_predicts_the_recorded_modes(trace):
    """The browser's preview rule, at the recorded threshold, is the search's own."""
    one = trace.of_prompt(0)
    arrays = unpack(pack(one, given=one.beam_tokens[0] > 0))
    owner = np.repeat(np.arange(len(arrays["fills"])), arrays["fills"])
    sure = np.bincount(owner, arrays["fill_confidence"] > 0.95, len(arrays["fills"]))
    open_ = arrays["fills"] > 0
    assert ((sure >= 1) == (one.beam_mode == ACCELERATE))[open_].all()


def test_five_hundred_calls_of_eight_beams_fit_in_a_megabyte():
    confidence = torch.rand(512, 50, generator=torch.Generator().manual_seed(0))
    made = decode(lambda tokens: 4 * confidence.expand(len(tokens), -1, -1), [[7]], "pbs", mask_id=0,
                  gen_length=511, beam=8)  # fmt: skip
    assert len(made.beam_step) > 4000
    panel = BeamTree(made, None, compare=None, prompt=0, truth=None, side=None, vocabulary=None)
    state = panel.get_state(["trees", "texts", "row", "note"])
    size = sum(len(v) if isinstance(v, bytes) else len(repr(v)) for v in state["trees"][0].values())
    assert size + len(repr(state["texts"])) < 1_000_000
    panel.close()


@pytest.fixture
def panel(trace):
    truth = np.tile(trace.sequences[:1], (2, 1))
    greedy = RUN(PROMPTS, "greedy", mask_id=0)
    made = BeamTree(trace, RUN, compare=greedy, prompt=0, truth=truth, side=4, vocabulary=None)
    yield made
    made.close()


def test_forcing_a_token_decodes_on_from_that_state(panel, trace):
    one = trace.of_prompt(0)
    row = int(np.flatnonzero(one.beam_step == 2)[-1])
    position = int(np.flatnonzero(one.beam_tokens[row] == 0)[0])
    ask = {"kind": "force", "tree": 0, "row": row, "position": position, "token": 3}
    panel._handle_custom_msg(ask, [])
    assert panel.problem == ""
    first, greedy = panel.trees
    assert (first["offset"], first["forced"]) == (2, (position, 3))
    assert greedy["offset"] == 0
    start = np.frombuffer(first["tokens"], "<i4")
    wanted = one.beam_tokens[row].copy()
    wanted[position] = 3
    assert start.tolist() == wanted.tolist()
    again = RUN([wanted.tolist()], "soar", mask_id=0, beam=3, threshold=0.95, max_parallel=2)
    answer = tokens_of(unpack(first), unpack(first)["answer"][-1])
    assert answer.tolist() == again.sequences[0].tolist()
    assert "forced r1c" in panel.note
    panel._handle_custom_msg({"kind": "back", "tree": 0}, [])
    assert panel.trees[0]["offset"] == 0


def test_other_settings_hold_for_the_next_prompt_too(panel):
    panel._handle_custom_msg({"kind": "decode", "strategy": "pbs", "beam": 2, "threshold": 0.8}, [])
    assert (panel.trees[0]["strategy"], panel.trees[0]["beam"]) == ("pbs", 2)
    before = panel.trees[0]["tokens"]
    panel.prompt = 1
    assert (panel.trees[0]["strategy"], panel.trees[1]["strategy"]) == ("pbs", "greedy")
    assert panel.trees[0]["tokens"] != before


def test_an_error_is_shown_and_then_forgotten(panel):
    panel._handle_custom_msg({"kind": "decode", "strategy": "pbs", "beam": 0, "threshold": 0.8}, [])
    assert panel.problem == "beam must be an integer between 1 and 16; got 0"
    assert not panel.busy
    filled = {"kind": "force", "tree": 0, "row": 0, "position": 15, "token": 3}
    panel._handle_custom_msg(filled, [])
    assert "position must be one that is still masked; got 15" in panel.problem
    panel.prompt = 1
    assert panel.problem == ""


def board(*digits, cells=16):
    return {"kind": "board", "tokens": [*digits, *[0] * (cells - len(digits))]}


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"kind": "decode", "beam": 999}, "beam must be an integer between 1 and 16; got 999"),
        ({"kind": "decode", "beam": None}, "beam must be an integer between 1 and 16; got None"),
        ({"kind": "decode", "threshold": 1.5}, "threshold must be a number in [0, 1]; got 1.5"),
        ({"kind": "force", "token": 0}, "digit must be an integer between 1 and 4; got 0"),  # 0 is the mask
        ({"kind": "force", "token": None}, "digit must be an integer between 1 and 4; got None"),
        ({"kind": "force", "row": 99}, "row must be an integer between 0 and "),
        ({"kind": "force", "position": 16}, "position must be an integer between 0 and 15; got 16"),
        (
            {"kind": "board", "tokens": [0] * 15},
            "board must be the 16 cells of a square board; got '15 cells'",
        ),
        (
            {"kind": "board", "tokens": [5] + [0] * 15},
            "digit of r1c1 must be an integer between 0 and 4; got 5",
        ),
        ({"kind": "board", "tokens": [1, 2, 3, 4] * 4}, "board must be one with an open cell to fill"),
        ({"kind": "board", "tokens": [1, 0, 0, 1] + [0] * 12}, "r1c4 must be another digit than r1c1"),
        (
            {"kind": "board", "tokens": [1, 0, 0, 0, 0, 1] + [0] * 10},
            "r2c2 must be another digit than r1c1",
        ),
    ],
)
def test_no_request_passes_its_bounds(panel, monkeypatch, request_, problem):
    rest = {"strategy": "pbs", "beam": 2, "threshold": 0.8, "tree": 0, "row": 0, "position": 0, "token": 3}
    before = panel.trees
    panel._handle_custom_msg(rest | request_, [])
    assert panel.problem.startswith(problem)
    assert panel.trees == before
    assert not panel.busy


def test_a_prompt_that_is_not_there_leaves_the_one_shown(panel):
    panel.prompt = 9
    assert panel.problem == "prompt must be an integer between 0 and 1; got 9"
    assert panel.prompt == 0


def test_a_board_of_ones_own_is_decoded_by_both_strategies(panel):
    own = [1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 4, 0, 0, 0]
    panel._handle_custom_msg({"kind": "board", "tokens": own}, [])
    assert panel.problem == ""
    for tree, strategy in zip(panel.trees, ("soar", "greedy"), strict=True):
        assert np.frombuffer(tree["tokens"], "<i4").tolist() == own
        assert tree["strategy"] == strategy
        assert tree["truth"] is None
    assert panel.note.startswith("your own puzzle: SOAR ")
    panel.prompt = 1  # a recorded prompt again
    assert np.frombuffer(panel.trees[0]["tokens"], "<i4").tolist() == PROMPTS[1]


def test_stop_ends_a_decode_and_keeps_the_trees(trace):
    calls = []

    def slow(tokens):
        calls.append(len(tokens))
        if len(calls) == 3:
            stopped._handle_custom_msg({"kind": "stop"}, [])
        return board_model(tokens)

    stopped = BeamTree(
        trace, partial(decode, slow), compare=None, prompt=0, truth=None, side=4, vocabulary=None
    )
    before = stopped.trees
    asked = {"kind": "decode", "strategy": "greedy", "beam": 1, "threshold": 0.8}
    stopped._handle_custom_msg(asked, [])
    assert stopped.note == "stopped after 3 forward calls; the trees are the former ones"
    assert (stopped.busy, stopped.trees, len(calls)) == (False, before, 3)
    stopped.close()


def test_it_begins_where_the_way_to_the_answer_was_last_unsure(panel, trace):
    one = trace.of_prompt(0)
    path = np.frombuffer(panel.trees[0]["answer"], "<i4")
    assert panel.row in path
    assert one.beam_mode[panel.row] == SEARCH
    later = path[path > panel.row]
    assert not (one.beam_mode[later] == SEARCH).any()


def test_text_of_tokens(trace):
    known = texts([trace], lambda token: f"<{token}>")
    assert known["0"] == "<0>"
    assert set(known) == {"0", "1", "2", "3", "4"}


def test_headless_shows_page_and_pictures(trace, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    shown, open_before = [], pyplot.get_fignums()  # of other tests in this process
    monkeypatch.setattr(base, "display", lambda thing, raw: shown.append(thing))
    greedy = RUN(PROMPTS, "greedy", mask_id=0)
    assert widgets.beam_tree(trace, RUN, compare=greedy, prompt=1, side=4) is None
    (bundle,) = shown
    assert re.findall(r'alt="Figure: (\w+)', bundle["text/html"]) == ["SOAR", "Greedy"]
    assert bundle["text/html"].count("<iframe ") == 1
    assert pyplot.get_fignums() == open_before


def test_bad_arguments(trace):
    rest = {"compare": None, "prompt": 0, "truth": None, "side": None, "vocabulary": None}
    bare = RUN(PROMPTS, "soar", mask_id=0, record=False)
    with pytest.raises(ValueError, match="trace must be decoded with record=True"):
        BeamTree(bare, None, **rest)
    with pytest.raises(ValueError, match="prompt must be an integer between 0 and 1; got 2"):
        BeamTree(trace, None, **rest | {"prompt": 2})
    with pytest.raises(ValueError, match="side must be the side of a board of 16 cells, or None; got 9"):
        BeamTree(trace, None, **rest | {"side": 9})
    with pytest.raises(ValueError, match="side must be an integer >= 1; got -4"):
        BeamTree(trace, None, **rest | {"side": -4})
    with pytest.raises(ValueError, match="truth must be of the shape of the sequences"):
        BeamTree(trace, None, **rest | {"truth": np.zeros(16)})
    with pytest.raises(ValueError, match="compare must be a trace of the same"):
        BeamTree(trace, None, **rest | {"compare": trace.of_prompt(0)})
