"""The beam tree draws what the trace says, no more and no less."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.collections import LineCollection

from labkit.figures import beam_tree, theme, tree_layout
from labkit.soar import decode
from labkit.traces import ACCELERATE, FINISHED, KEPT, MERGED, PRUNED, SEARCH


def board_model(tokens):
    """4x4 logits from a fixed random net, row by row: sure of some cells, unsure of others."""
    source = torch.Generator().manual_seed(1)
    place, digit = torch.randn(16, 5, generator=source), torch.randn(5, 5, generator=source)
    return 3 * (place + digit[tokens].mean(1, keepdim=True) + digit[tokens])


PROMPTS = [[0] * 12 + [1, 2, 3, 4], [1, 2, 3, 4] + [0] * 12]


@pytest.fixture(scope="module")
def trace():
    made = decode(board_model, PROMPTS, "soar", mask_id=0, beam=3, threshold=0.95, max_parallel=2)
    assert set(made.beam_mode) == {SEARCH, ACCELERATE, FINISHED}  # else the tests below say little
    assert set(made.cand_fate) == {KEPT, MERGED, PRUNED}
    return made


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def edges(figure):
    return [part for part in figure.axes[0].collections if isinstance(part, LineCollection)]


@pytest.mark.parametrize("prompt", [0, 1])
def test_one_marker_per_state_and_per_dropped_candidate(trace, prompt):
    one = trace.of_prompt(prompt)
    figure = beam_tree.beam_tree(trace, prompt)
    drawn = {}
    for part in figure.axes[0].collections:
        points = part.get_offsets()
        if not str(part.get_label()).startswith("_"):
            drawn[part.get_label()] = len(points)
    for mode, (name, *_) in beam_tree.MODES.items():
        assert drawn[name] == (one.beam_mode == mode).sum()
    for fate, (name, *_) in beam_tree.FATES.items():
        assert drawn[name] == (one.cand_fate == fate).sum()
    assert sum(len(part.get_segments()) for part in edges(figure)) == len(one.cand_step)


@pytest.mark.parametrize("prompt", [0, 1])
def test_the_bold_path_leads_from_the_start_to_the_answer(trace, prompt):
    one = trace.of_prompt(prompt)
    place = tree_layout.place_all(one)
    assert one.beam_step[place.answer].tolist() == list(range(one.calls[0] + 1))
    assert one.beam_tokens[place.answer[-1]].tolist() == one.sequences[0].tolist()
    bold = [part for part in edges(beam_tree.beam_tree(trace, prompt)) if part.get_linewidth()[0] == 3]
    assert sum(len(part.get_segments()) for part in bold) == one.calls[0]


def test_nothing_lies_on_top_of_anything(trace):
    for prompt in range(2):
        place = tree_layout.place_all(trace.of_prompt(prompt))
        points = np.vstack([place.beam, place.stub[~np.isnan(place.stub[:, 0])]])
        assert len(np.unique(points.round(6), axis=0)) == len(points)


def test_modes_and_fates_differ_in_marker_and_in_colour():
    looks = [*beam_tree.MODES.values(), *beam_tree.FATES.values()]
    for column in (1, 2):
        assert len({look[column] for look in looks}) == len(looks)


def test_the_title_counts_what_the_trace_holds(trace):
    greedy = decode(board_model, PROMPTS, "greedy", mask_id=0)
    one = trace.of_prompt(0)
    title = beam_tree.beam_tree(trace, 0, truth=one.sequences[0], baseline=greedy).get_suptitle()
    assert title.startswith(f"SOAR solved it in {one.calls[0]} forward calls (greedy: 12);")
    assert f"{(one.cand_fate != KEPT).sum()} of {len(one.cand_step)} candidates dropped" in title
    wrong = beam_tree.beam_tree(trace, 0, truth=one.sequences[0] + 1).get_suptitle()
    assert wrong.startswith("SOAR got it wrong in")


def test_the_board_shows_digits_the_call_that_filled_them_and_mistakes(trace):
    one = trace.of_prompt(0)
    truth = one.sequences[0].copy()
    truth[3] = truth[3] % 4 + 1
    figure = beam_tree.beam_tree(trace, 0, truth=truth, side=4)
    board = figure.axes[-1]
    texts = [text.get_text() for text in board.texts]
    assert len(texts) == 16 + 12  # every digit, and a call for each filled cell
    assert sum(line.get_linewidth() == 2.5 for line in board.lines) == 1
    assert "1 wrong" in theme.describe(figure)


def test_a_text_grows_beside_the_tree(trace):
    letters = "_abcd"
    figure = beam_tree.beam_tree(trace, 0, vocabulary=letters.__getitem__)
    one = trace.of_prompt(0)
    grown = figure.axes[-1].texts
    assert len(grown) == 16 * (one.calls[0] + 1)
    last = [text.get_text() for text in grown[-16:]]
    assert last == [letters[token] for token in one.sequences[0]]
    boxed = sum(text.get_bbox_patch() is not None for text in grown)
    assert boxed == 12  # every mask is filled by one call
    told = [text.get_text() for text in figure.axes[0].texts]
    assert all(text.split(": ")[1][0] in letters for text in told)


def test_a_long_path_tells_how_many_not_which():
    long = decode(board_model, [[0] * 16], "greedy", mask_id=0)
    texts = [text.get_text() for text in beam_tree.beam_tree(long).axes[0].texts]
    assert texts == ["+1"] * 16


@pytest.mark.parametrize("strategy", ["greedy", "parallel", "adaptive", "pbs"])
def test_every_strategy_and_a_single_beam_draw(strategy):
    made = decode(board_model, PROMPTS[:1], strategy, mask_id=0)
    assert beam_tree.beam_tree(made).axes
    done = decode(board_model, [[1] * 16], strategy, mask_id=0)  # nothing to do: one dot
    assert beam_tree.beam_tree(done).get_suptitle().endswith("0 of 0 candidates dropped")


def test_bad_arguments(trace):
    bare = decode(board_model, PROMPTS, "soar", mask_id=0, record=False)
    with pytest.raises(ValueError, match="trace must be decoded with record=True"):
        beam_tree.beam_tree(bare)
    with pytest.raises(ValueError, match="prompt must be an integer between 0 and 1; got 2"):
        beam_tree.beam_tree(trace, 2)
    with pytest.raises(ValueError, match="side must be the side of a board of 16 cells; got 9"):
        beam_tree.beam_tree(trace, side=9)
    with pytest.raises(ValueError, match="side must be an integer >= 1; got -4"):
        beam_tree.beam_tree(trace, side=-4)


def test_a_long_text_is_drawn_as_points():
    sure = 4 * torch.rand(256, 9, generator=torch.Generator().manual_seed(0))
    one = decode(lambda t: sure.expand(len(t), -1, -1), [[7]], "pbs", mask_id=0, gen_length=255, beam=4)
    text = beam_tree.beam_tree(one, vocabulary=str).axes[-1]
    assert not text.texts  # 65,536 of them take a minute
    kinds = text.images[0].get_array()
    assert kinds.shape == (256, 256)
    assert (kinds == 3).sum() == 255  # each of the 255 calls fills one position
    assert (kinds == 1).sum() == 256  # the prompt's token is grey in every line
