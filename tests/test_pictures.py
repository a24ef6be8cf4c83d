"""README's pictures are those of the code and data as they are: each holds a digest of what made it."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pictures
import pytest
import torch
from beam_film import beam_film

from labkit.paths import ROOT
from labkit.soar import decode

SHOWN = dict(re.findall(r"!\[([^\]]*)\]\(notebooks/pictures/([^)]+)\)", (ROOT / "README.md").read_text()))


def test_the_readme_shows_every_picture_with_words_and_none_else():
    assert set(SHOWN.values()) == set(pictures.sources()) == {p.name for p in pictures.FOLDER.iterdir()}
    assert all(len(words) > 40 for words in SHOWN)


@pytest.mark.parametrize("name", pictures.sources())
def test_a_picture_was_made_from_what_is_here(name):
    picture = pictures.FOLDER / name
    assert pictures.recorded(picture) == pictures.sources()[name], "make pictures"
    assert picture.stat().st_size < 2_000_000


def guessing(tokens):
    source = torch.Generator().manual_seed(1)
    place, digit = torch.randn(16, 5, generator=source), torch.randn(5, 5, generator=source)
    return 3 * (place + digit[tokens].mean(1, keepdim=True) + digit[tokens])


def test_the_film_shows_each_state_and_each_cell_from_its_call_on():
    prompt = [[0] * 12 + [1, 2, 3, 4]]
    soar = decode(guessing, prompt, "soar", mask_id=0, beam=3, threshold=0.95, max_parallel=2)
    greedy = decode(guessing, prompt, "greedy", mask_id=0)
    truth = soar.sequences[0].copy()
    truth[3] = truth[3] % 4 + 1
    film = beam_film(soar, greedy, truth=truth, side=4, source="made of < this")
    root = ElementTree.fromstring(film)
    name = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{name}metadata").text == "made of < this"
    groups = [group for group in root.iter(f"{name}g") if group.get("class").startswith("f")]
    calls = [int(group.get("class")[1:]) for group in groups]
    filled = [group for group in groups if group.find(f"{name}rect") is not None]
    assert len(filled) == 2 * 12
    assert max(calls) == 12 == int(greedy.calls[0])
    assert len(groups) == len(soar.beam_step) + len(soar.cand_step) + len(filled) + 2
    struck = [group for group in filled if group.find(f"{name}path") is not None]
    assert len(struck) == 1 + int((greedy.sequences[0] != truth).sum())
    assert f"{calls[-1]} calls, " in film
    assert "SOAR got it wrong in" in root.find(f"{name}title").text
    with pytest.raises(ValueError, match="side must be the side of a board of 16 cells; got 9"):
        beam_film(soar, greedy, truth=np.ones(81, int), side=9)
