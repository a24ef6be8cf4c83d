"""Training states and loss of masked diffusion, against loops written from their definition."""

import math

import pytest
import torch

from labkit.soar.masking import Draws, draw, mask_answers, masked_loss

MASK, G = 99, 10


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_states_are_uniform_or_what_block_decoding_sees():
    torch.manual_seed(0)
    answers, used = torch.arange(4 * G).view(4, G), torch.tensor([10, 10, 3, 7])
    draws = Draws(
        rate=torch.full((4, 1), 0.5),
        block=torch.tensor([0, 4, 4, 3]),
        chosen=torch.tensor([0.9, 0.99, 0.99, 0.5]),  # of 3, of 1 (three slots used), of 3 blocks
        struck=torch.rand(4, G),
    )
    states = mask_answers(answers, used, draws, MASK)
    spans = [(0, 10), (8, 10), (0, 4), (3, 6)]  # the last block of 4 is cut off by the answer's end
    for row, (low, high) in enumerate(spans):
        for slot in range(G):
            counted = low <= slot < high and draws.struck[row, slot] < 0.5
            hidden = counted or slot >= high
            assert states.counted[row, slot] == counted
            assert states.inputs[row, slot] == (MASK if hidden else answers[row, slot])
        assert states.weight[row].item() == pytest.approx(1 / (0.5 * (high - low)))


def test_blocks_behind_the_end_of_the_text_are_never_chosen():
    answers = torch.zeros(500, G, dtype=torch.long)
    draws = draw(500, G, source(), block_lengths=[2], block_share=1.0)
    counted = mask_answers(answers, torch.full((500,), 5), draws, MASK).counted
    assert counted[:, :6].any(0).all()
    assert not counted[:, 6:].any()


def test_rates_are_spread_over_the_batch_and_masks_have_them():
    draws = draw(64, 4000, source(1), block_lengths=[8], block_share=0.0, least_rate=0.0)
    assert torch.equal(
        (draws.rate.flatten().sort().values * 64).long(), torch.arange(64)
    )  # one in each 64th
    struck = (draws.struck < draws.rate).float().mean(1)
    assert (struck - draws.rate.flatten()).abs().max() < 5 * math.sqrt(0.25 / 4000)
    assert not draws.block.any()


def test_blocks_take_their_share_and_each_length():
    block = draw(4000, 64, source(2), block_lengths=[8, 32], block_share=0.25).block
    for length in (8, 32):
        assert abs((block == length).float().mean() - 0.125) < 5 * math.sqrt(0.125 * 0.875 / 4000)
    assert set(block.tolist()) == {0, 8, 32}


def test_processes_share_out_one_draw():
    whole = draw(6, G, source(3), block_lengths=[4], block_share=0.5)
    for name, value in vars(whole).items():
        parts = [getattr(whole.part(index, 3), name) for index in range(3)]
        assert torch.equal(torch.cat(parts), value)


def test_the_loss_is_the_weighted_sum_of_its_equation():
    torch.manual_seed(1)
    logits, targets = torch.randn(3, G, 7), torch.randint(7, (3, G))
    draws = draw(3, G, source(4), block_lengths=[4], block_share=0.5)
    states = mask_answers(targets, torch.tensor([10, 4, 1]), draws, MASK)
    total, plain, masks = 0.0, 0.0, 0
    for row in range(3):
        nats = 0.0
        for slot in range(G):
            if states.counted[row, slot]:
                scores = [math.exp(value) for value in logits[row, slot].tolist()]
                nats -= math.log(scores[targets[row, slot]] / sum(scores))
                masks += 1
        total += nats * states.weight[row].item() / 3
        plain += nats
    assert masks > 3
    assert masked_loss(logits, targets, states.counted, states.weight).item() == pytest.approx(
        total, rel=1e-5
    )
    assert masked_loss(logits, targets, states.counted).item() == pytest.approx(plain / masks, rel=1e-5)
    assert masked_loss(logits, targets, torch.zeros(3, G, dtype=torch.bool)).item() == 0


def test_the_weighted_loss_is_the_mean_over_tokens_whatever_the_rate():
    """E[1/(t n) sum over masks] = mean over slots: the weight makes a fixed loss per slot unbiased."""
    logits = torch.zeros(4096, G, 2)  # log 2 nats a slot
    targets = torch.zeros(4096, G, dtype=torch.long)
    draws = draw(4096, G, source(5), block_lengths=[3], block_share=0.5, least_rate=0.05)
    states = mask_answers(targets, torch.full((4096,), G), draws, MASK)
    loss = masked_loss(logits, targets, states.counted, states.weight).item()
    assert loss == pytest.approx(math.log(2), abs=0.03)


@pytest.mark.parametrize("wrong", [{"block_lengths": [0]}, {"block_lengths": [11]}, {"block_share": 1.5}])
def test_what_cannot_be_drawn_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        draw(2, G, source(), **{"block_lengths": [4], "block_share": 0.5} | wrong)
