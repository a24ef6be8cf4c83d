"""The published decoder's way of working, written from its description: one prompt at a time, no batch.

What it does as the reference does: eager calls; softmax over the logits of every position; one ``.item()``
per candidate and per commit; candidates as copies of the sequence, sorted and compared on the host; PBS
runs its beams one after the other, SOAR stacks its live beams. What is mended, because it would change the
answer and not the speed: ties, positions out of the block, masks left over, collapse, the mask as a token.
"""

from collections.abc import Sequence

import torch


def decode_one(
    model, prompt, strategy, *, mask_id, gen_length=0, block_length=None, beam=2, threshold=0.9,
    max_parallel=5, min_collapse=1, score="mean", device="cpu",
):  # fmt: skip
    """(sequence as a list, forward calls) of one prompt; strategy "pbs" (greedy: beam=1) or "soar"."""
    start = torch.tensor([list(prompt) + [mask_id] * gen_length], device=device)
    slots = (start[0] == mask_id).nonzero().flatten().tolist()
    block_length = block_length or max(1, len(slots))
    blocks = [slots[i : i + block_length] for i in range(0, len(slots), block_length)]
    beams, calls = [(start, 0.0, 0, 0)], 0
    while any((tokens == mask_id).any().item() for tokens, *_ in beams):
        live = [b for b in beams if (b[0] == mask_id).any().item()]
        with torch.no_grad():
            if strategy == "soar":
                logits, calls = list(model(torch.cat([b[0] for b in live])).split(1)), calls + 1
            else:
                logits, calls = [model(b[0]) for b in live], calls + len(live)
        candidates, accelerated = [], False
        for item in beams:
            tokens, total, committed, at = item
            if not (tokens == mask_id).any().item():
                candidates.append(item)
                continue
            scores = logits.pop(0).float()
            if mask_id < scores.shape[-1]:
                scores[..., mask_id] = float("-inf")
            best = scores.argmax(-1)
            sure = torch.softmax(scores, -1).gather(2, best[..., None])[..., 0]
            inside = torch.zeros_like(tokens, dtype=torch.bool)
            inside[0, blocks[at]] = True
            sure = torch.where(inside & (tokens == mask_id), sure, float("-inf"))[0]
            ranked, order = torch.sort(sure, descending=True, stable=True)
            many = min((sure > threshold).sum().item(), max_parallel) if strategy == "soar" else 0
            choices: list[Sequence[int]]
            if many:
                accelerated, choices = True, [range(many)]
            else:
                choices = [[k] for k in range(beam) if ranked[k].item() > 0]
            for choice in choices:
                new, gain = tokens.clone(), 0.0
                for k in choice:
                    place = int(order[k])
                    new[0, place] = best[0, place].item()
                    gain += ranked[k].item()
                candidates.append((new, total + gain, committed + len(choice), at))
        key = (lambda c: c[1] / max(1, c[2])) if score == "mean" else (lambda c: c[1])
        candidates.sort(key=lambda c: -key(c))
        unique: list[tuple] = []
        for candidate in candidates:
            if not any(torch.equal(candidate[0], other[0]) for other in unique):
                unique.append(candidate)
        fewer = (beams[0][0] == mask_id).sum().item() - (unique[0][0] == mask_id).sum().item()
        keep = 1 if accelerated and fewer >= min_collapse else beam
        beams = []
        for tokens, total, committed, at in unique[:keep]:
            while at < len(blocks) - 1 and not (tokens[0, blocks[at]] == mask_id).any().item():
                at += 1
            beams.append((tokens, total, committed, at))
    return beams[0][0][0].tolist(), calls
