"""Each rule that users compare SOAR with, against a loop of one prompt written from its paper's words.

``unmask`` is the common loop: a rule is told what stands in the block and says which positions to fill.
"""

import math

import numpy as np
import pytest
import torch
from test_soar_search import MASK, TinyModel, prompts_for

from labkit.soar import decode
from labkit.soar.noise import PromptNoise
from labkit.soar.prompts import lay_out

END = 5


class Ending(TinyModel):
    """A TinyModel whose token 5 ends a text."""

    eos_id, mask_id = END, MASK


def distributions(model, sequence, adjust=lambda logits: logits):
    """fp64 probabilities (L, V) with the mask excluded."""
    logits = model.one(torch.tensor(sequence)).float()
    logits[:, MASK] = -math.inf
    return torch.softmax(adjust(logits), -1)


def probability(p):
    return p.max().item()


def margin(p):
    first, second = sorted(p.tolist())[::-1][:2]
    return first - second


def entropy(p):
    return -sum(x * math.log(x) for x in p.tolist() if x > 0)


CONFIDENCE = {"probability": probability, "margin": margin, "entropy": lambda p: -entropy(p)}


def unmask(model, prompt, gen, block, rule, confidence=probability, adjust=lambda logits: logits):
    """(sequence, calls): ``rule(masks, sure, p, at)`` names the positions of the block to fill now.

    masks  masked positions of the block, most confident first, the lower of equals first
    sure   {position: confidence}; p {position: probabilities}; at  dict that starts empty in each block
    """
    sequence, calls = list(prompt) + [MASK] * gen, 0
    slots = [i for i, token in enumerate(sequence) if token == MASK]
    size = block or max(1, len(slots))
    for number in range(0, len(slots), size):
        at = {"block": slots[number : number + size], "before": number, "all": len(slots)}
        while masks := [i for i in at["block"] if sequence[i] == MASK]:
            calls += 1
            probs = distributions(model, sequence, adjust)
            p = {i: probs[i] for i in masks}
            sure = {i: confidence(p[i]) for i in masks}
            chosen = rule(sorted(masks, key=lambda i: -sure[i]), sure, p, at)
            assert chosen
            for i in chosen:
                sequence[i] = int(p[i].argmax())
    return sequence, calls


def best(count):
    return lambda masks, sure, p, at: masks[:count]


def agree(strategy, rule, cases=16, confidence="probability", **options):
    """``decode`` gives the spec's tokens and calls for every prompt, in one batch and in several."""
    worked = set()
    for seed in range(cases):
        rng = np.random.default_rng(seed)
        gen = int(rng.choice([0, 6, 8, 12]))
        block = int(rng.choice([2, 4])) if gen in (8, 12) and rng.random() < 0.5 else None
        prompts = prompts_for(rng, gen)
        model = TinyModel(seed, sharp=float(rng.choice([1.0, 4.0, 8.0])))
        given = {"mask_id": MASK, "gen_length": gen, "block_length": block, "confidence": confidence}
        trace = decode(model, prompts, strategy, batch_size=int(rng.integers(1, 6)), **given, **options)
        for p, prompt in enumerate(prompts):
            sequence, calls = unmask(model, prompt, gen, block, rule, CONFIDENCE[confidence])
            assert trace.sequences[p, : len(sequence)].tolist() == sequence, (seed, p)
            assert trace.calls[p] == trace.rows[p] == calls, (seed, p)
            if masks := gen or prompt.count(MASK):
                worked.add("alone" if calls == masks else "together")
    return worked


@pytest.mark.parametrize("confidence", CONFIDENCE)
def test_the_order_follows_the_confidence_that_was_asked_for(confidence):
    assert agree("greedy", best(1), confidence=confidence) == {"alone"}
    assert "together" in agree("parallel", best(3), confidence=confidence, max_parallel=3)


def test_the_three_confidences_disagree_where_they_should():
    rows = torch.tensor([[0, 0.5, 0.45, 0.05], [0, 0.46, 0.27, 0.27], [0, 0.49, 0.4999, 0.0101]])
    first = {}
    for name in CONFIDENCE:
        trace = decode(lambda t: rows.log().expand(len(t), -1, -1), [[0] * 3], "greedy", mask_id=0,
                       confidence=name)  # fmt: skip
        first[name] = trace.cand_positions[0, 0]
        expected = [CONFIDENCE[name](row) for row in rows]
        assert trace.beam_confidence[0] == pytest.approx(expected, abs=1e-6)
    assert first == {"probability": 0, "margin": 1, "entropy": 2}


@pytest.mark.parametrize(("top_p", "top_k"), [(0.7, None), (1.0, 2), (0.8, 3), (0.0, None)])
def test_a_sample_comes_from_the_nucleus_alone(top_p, top_k):
    prompts, seed, heat = [[1, 2], [3], [1, 2]], 11, 1.5
    options = {"gen_length": 6, "temperature": heat, "seed": seed, "top_p": top_p, "top_k": top_k}
    model = TinyModel(3, sharp=1.0)
    trace = decode(model, prompts, "greedy", mask_id=MASK, **options)
    noise = PromptNoise(lay_out(prompts, MASK, 6), seed)
    for number, prompt in enumerate(prompts):
        sequence = list(prompt) + [MASK] * 6
        while masks := [i for i, token in enumerate(sequence) if token == MASK]:
            logits = model.one(torch.tensor(sequence))
            logits[:, MASK] = -math.inf
            gumbel = noise(np.array([number]), 6, 6, torch.device("cpu"))[0]
            found = {}
            for i in masks:
                p = torch.softmax(logits[i] / heat, -1).tolist()
                likely = sorted(range(6), key=lambda token: -p[token])
                allowed = [t for n, t in enumerate(likely) if sum(p[u] for u in likely[:n]) <= top_p]
                allowed = allowed[:top_k]
                token = max(allowed, key=lambda t: logits[i, t] / heat + gumbel[i - len(prompt), t])
                found[i] = torch.softmax(logits[i], -1)[token].item(), token
            where = max(masks, key=lambda i: found[i][0])
            sequence[where] = found[where][1]
        assert trace.sequences[number, : len(sequence)].tolist() == sequence
        alone = decode(model, [prompt], "greedy", mask_id=MASK, **options)
        if number < 2:
            assert alone.sequences[0].tolist() == sequence


@pytest.mark.parametrize("penalty", [0.5, 3.0])
def test_an_eos_penalty_is_subtracted_from_the_logit(penalty):
    def adjust(logits):
        logits[:, END] -= penalty
        return logits

    changed = 0
    for seed in range(20):
        model, options = Ending(seed), {"gen_length": 8, "eos_early_stop": False}
        found = decode(model, [[1, 2, 3]], "greedy", eos_penalty=penalty, **options).sequences[0].tolist()
        assert found == unmask(model, [1, 2, 3], 8, None, best(1), adjust=adjust)[0]
        changed += found != decode(model, [[1, 2, 3]], "greedy", **options).sequences[0].tolist()
    assert changed


def test_suppressed_ends_are_never_predicted_or_filled_in_last():
    late = 0
    for seed in range(30):
        model, options = Ending(seed), {"gen_length": 8, "eos_early_stop": False}
        never = decode(model, [[1, 2, 3]], "greedy", suppress_eos="logits", **options)
        assert END not in never.sequences[0]
        for kind in CONFIDENCE:
            last = decode(
                model, [[1, 2, 3]], "greedy", suppress_eos="confidence", confidence=kind, **options
            )
            for step in range(8):  # an end is taken only where every mask predicts one
                here = last.beam_step == step
                if last.cand_tokens[last.cand_step == step][0, 0] == END:
                    assert set(last.beam_prediction[here][0]) <= {-1, END}
                    late += 1
    assert late


def above(threshold):
    return lambda masks, sure, p, at: [i for i in masks if sure[i] > threshold] or masks[:1]


@pytest.mark.parametrize("threshold", [0.4, 0.7])
def test_fast_dllm_commits_all_above_the_threshold(threshold):
    assert "together" in agree("fast_dllm", above(threshold), threshold=threshold)
    margins = agree("fast_dllm", above(threshold), confidence="margin", threshold=threshold)
    assert "together" in margins


def test_fast_dllm_has_no_cap_and_adaptive_has_one():
    rows = torch.tensor([[0, 0.95, 0.05]]).log().expand(8, -1)
    options = {"mask_id": 0, "gen_length": None}
    calls = {
        name: decode(lambda t: rows.expand(len(t), -1, -1), [[0] * 8], name, **options).calls[0]
        for name in ("adaptive", "fast_dllm")
    }
    assert calls == {"adaptive": 2, "fast_dllm": 1}


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.0])
def test_factor_rule_takes_the_largest_n_that_it_allows(factor):
    def rule(masks, sure, p, at):
        allowed = [n for n in range(1, len(masks) + 1) if (n + 1) * (1 - sure[masks[n - 1]]) < factor]
        return masks[: max(allowed, default=1)]

    assert "together" in agree("factor", rule, factor=factor)


@pytest.mark.parametrize("confidence", CONFIDENCE)
@pytest.mark.parametrize("gamma", [0.05, 0.5, 2.0])
def test_eb_bounds_the_entropy_of_what_is_committed_together(gamma, confidence):
    def rule(masks, sure, p, at):
        h = [entropy(p[i]) for i in masks]
        allowed = [n for n in range(1, len(masks) + 1) if sum(h[:n]) - max(h[:n]) <= gamma]
        return masks[: max(allowed)]

    assert "together" in agree("eb", rule, cases=20, confidence=confidence, gamma=gamma)


@pytest.mark.parametrize(("limit", "history"), [(0.02, 2), (0.3, 1), (0.3, 3)])
def test_klass_commits_what_is_sure_and_stood_still(limit, history):
    def rule(masks, sure, p, at):
        before, streak = at.get("p", {}), at.setdefault("streak", {})
        for i in masks:
            change = sum(a * math.log(a / b) for a, b in zip(p[i].tolist(), before[i].tolist(), strict=True)
                         if a) if i in before else math.inf  # fmt: skip
            streak[i] = streak.get(i, 0) + 1 if change < limit else 0
        at["p"] = p
        return [i for i in masks if streak[i] >= history and sure[i] > 0.5] or masks[:1]

    options = {"threshold": 0.5, "kl_threshold": limit, "kl_history": history}
    assert "together" in agree("klass", rule, cases=80, **options)


@pytest.mark.parametrize("gap", [1.5, 3.0])
def test_prophet_fills_the_block_once_the_gaps_are_wide_enough(gap):
    stages = set()

    def rule(masks, sure, p, at):
        at["calls"] = at.get("calls", 0) + 1
        progress = (at["before"] + at["calls"]) / at["all"]
        stage = 0 if progress < 0.33 else 1 if progress < 0.67 else 2
        wide = [math.log(a / b) for a, b in (sorted(p[i].tolist())[:-3:-1] for i in masks)]
        if sum(wide) / len(wide) < gap * (3 - stage) / 3:
            return masks[:1]
        stages.add(stage if len(masks) > 1 else None)
        return masks

    assert "together" in agree("prophet", rule, gap=gap)
    assert stages >= {0, 1, 2}


def running_confidence(model, prompt, gen, block, steps):
    """(sequence, calls, positions masked again) by MDPO's decoder, in blocks."""
    sequence, calls, again = list(prompt) + [MASK] * gen, 0, 0
    slots = [i for i, token in enumerate(sequence) if token == MASK]
    size = block or max(1, len(slots))
    blocks = [slots[n : n + size] for n in range(0, len(slots), size)]
    for places in blocks:
        spend, held, stand = (steps or size * len(blocks)) // len(blocks), {}, 0
        for step in range(spend):
            stand += max(1, len(places) // spend + (step < len(places) % spend))
            probs, calls = distributions(model, sequence), calls + 1
            filled = {i: int(probs[i].argmax()) for i in places if sequence[i] == MASK}
            held |= {i: probs[i].max().item() for i in filled}
            kept = sorted(places, key=lambda i: -held[i])[:stand]
            for i in places:
                if i in kept:
                    sequence[i] = filled.get(i, sequence[i])
                else:
                    again += sequence[i] != MASK
                    sequence[i] = MASK
            if stand >= len(places):
                break
    return sequence, calls, again


@pytest.mark.parametrize("pace", [None, 1, 2, 3])
def test_running_confidence_remasking_masks_again_what_is_less_sure_than_the_new(pace):
    again = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        gen = int(rng.choice([0, 6, 8, 12]))
        block = int(rng.choice([2, 4])) if gen in (8, 12) and rng.random() < 0.5 else None
        steps = None if pace is None else pace * (gen // block if block else 1)
        prompts, model = prompts_for(rng, gen), TinyModel(seed, sharp=float(rng.choice([1.0, 4.0])))
        trace = decode(model, prompts, "rcr", mask_id=MASK, gen_length=gen, block_length=block,
                       steps=steps, batch_size=3)  # fmt: skip
        for p, prompt in enumerate(prompts):
            sequence, calls, times = running_confidence(model, prompt, gen, block, steps)
            assert trace.sequences[p, : len(sequence)].tolist() == sequence
            assert trace.calls[p] == trace.rows[p] == calls
            mine = trace.cand_tokens[trace.cand_prompt == p]
            assert (mine == MASK).sum() == times
            again += times
    assert (again > 0) == (pace not in (1, 2))  # of two steps the second fills all


def order_token(model, prompt, gen, block, beam, branch):
    """(sequence, calls, rows) of a beam search over (position, token) pairs by mean log-likelihood."""
    start = list(prompt) + [MASK] * gen
    slots = [i for i, token in enumerate(start) if token == MASK]
    size = block or max(1, len(slots))
    blocks = [slots[n : n + size] for n in range(0, len(slots), size)]
    beams, calls, rows = [(0.0, start)], 0, 0
    while any(MASK in sequence for _, sequence in beams):
        children, calls = [], calls + 1
        for total, sequence in beams:  # all have as many masks
            rows += 1
            places = next(part for part in blocks if any(sequence[i] == MASK for i in part))
            probs = distributions(model, sequence)
            pairs = []
            for i in [i for i in places if sequence[i] == MASK]:
                likely = sorted(range(1, 6), key=lambda token: -probs[i, token])
                pairs += [(probs[i, token].item(), i, token) for token in likely[:branch]]
            for p, i, token in sorted(pairs, reverse=True)[:beam]:
                child = sequence.copy()
                child[i] = token
                children.append((total + math.log(p), child))
        beams = []
        for total, child in sorted(children, key=lambda pair: -pair[0]):
            if child not in [other for _, other in beams] and len(beams) < beam:
                beams.append((total, child))
    return beams[0][1], calls, rows, beams[0][0] / max(1, len(slots))


@pytest.mark.parametrize(("beam", "branch"), [(1, 3), (2, 2), (4, 3), (5, 9)])
def test_order_token_search_keeps_the_likeliest_of_positions_and_tokens(beam, branch):
    second, other = 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        gen = int(rng.choice([0, 6, 8]))
        block = int(rng.choice([2, 4])) if gen == 8 and rng.random() < 0.5 else None
        prompts, model = prompts_for(rng, gen), TinyModel(seed, sharp=float(rng.choice([1.0, 4.0])))
        options = {"mask_id": MASK, "gen_length": gen, "block_length": block, "beam": beam}
        trace = decode(model, prompts, "order_token", token_beam=branch, batch_size=2, **options)
        greedy = decode(model, prompts, "greedy", **options)
        for p, prompt in enumerate(prompts):
            sequence, calls, rows, score = order_token(model, prompt, gen, block, beam, branch)
            assert trace.sequences[p, : len(sequence)].tolist() == sequence
            assert (trace.calls[p], trace.rows[p]) == (calls, rows)
            assert trace.scores[p] == pytest.approx(score, abs=1e-5)
        taken = trace.cand_fate == 0
        state = {key: n for n, key in enumerate(
            zip(trace.beam_prompt, trace.beam_step, trace.beam_slot, strict=True))}  # fmt: skip
        parent = [
            state[key] for key in zip(trace.cand_prompt, trace.cand_step, trace.cand_parent, strict=True)
        ]
        likeliest = trace.beam_prediction[parent, trace.cand_positions[:, 0]]
        second += (trace.cand_tokens[:, 0] != likeliest)[taken].sum()
        other += (trace.sequences != greedy.sequences).any()
    if beam == 1:  # the likeliest pair is greedy's
        assert (second, other) == (0, 0)
    else:
        assert second
        assert other


WRONG = {
    "confidence": ({"confidence": "sure"}, "confidence must be one of 'probability', 'margin', 'entropy'"),
    "entropy": (
        {"confidence": "entropy"},
        "confidence must be 'probability' or 'margin' for strategy 'soar'",
    ),
    "entropy as a share": (
        {"confidence": "entropy", "strategy": "factor"},
        "confidence must be 'probability' or 'margin' for strategy 'factor'",
    ),
    "likelihood": (
        {"confidence": "margin", "strategy": "order_token"},
        "confidence must be 'probability' for strategy 'order_token'; got 'margin'",
    ),
    "token_beam": ({"token_beam": 0}, "token_beam must be an integer >= 1; got 0"),
    "factor": ({"factor": -1}, "factor must be a number >= 0; got -1"),
    "gamma": ({"gamma": math.inf}, "gamma must be a finite number >= 0; got inf"),
    "kl_threshold": ({"kl_threshold": -0.1}, "kl_threshold must be a number >= 0; got -0.1"),
    "kl_history": ({"kl_history": 0}, "kl_history must be an integer >= 1; got 0"),
    "gap": ({"gap": "wide"}, "gap must be a number >= 0; got 'wide'"),
    "steps": ({"steps": 8, "strategy": "eb"}, "steps must be None for strategy 'eb'.*; got 8"),
    "top_p": ({"top_p": 1.5}, r"top_p must be a number in \[0, 1\]; got 1.5"),
    "top_k": ({"top_k": 0}, "top_k must be an integer >= 1; got 0"),
    "suppress_eos": ({"suppress_eos": "yes"}, "suppress_eos must be one of None, 'logits', 'confidence'"),
    "no eos": ({"suppress_eos": "logits"}, "suppress_eos must be None for a model without eos_id"),
    "eos_penalty": ({"eos_penalty": -1}, "eos_penalty must be a number >= 0; got -1"),
    "penalty of nothing": ({"eos_penalty": 2}, "eos_penalty must be 0 for a model without eos_id; got 2"),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_a_wrong_option_is_one_clear_error(case):
    change, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        decode(TinyModel(0), [[1, 2]], mask_id=MASK, gen_length=8, **change)
