"""A fast batched sampler for a Fleet: static key-value cache, one CUDA graph per cache length.

Every row starts at position 0 and walks forward one token at a time; while a row is still inside its
prompt the prompt's token is forced, then the sampled one is taken. So rows of all prompt lengths share
one layout without left padding, one causal span, and one graph replay per token.

encode, decode   rows of the verbose sums <-> tensors of characters
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from labkit import checks
from labkit.cuda_graph import capture
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.measures import response_entropy
from labkit.fgo.tasks import CHARACTERS, PAD

LOOK_EVERY = 8  # steps between two looks (a wait for the device) at whether every row has ended

_CODES = np.frombuffer(CHARACTERS.encode(), np.uint8)
_LOOKUP = np.full(128, CHARACTERS.index("?"), np.int64)
_LOOKUP[_CODES] = np.arange(len(CHARACTERS))


@dataclass
class Responses:
    """Sampled rows, padded on the right, (R, B, T) each.

    ids      int: prompt, response, padding
    mask     bool: True on the response's tokens, its end token included
    logp     float32: log-probability of the token there (0 outside the response)
    entropy  float32: entropy in nats of the distribution it was drawn from (0 outside the response)
    """

    ids: Tensor
    mask: Tensor
    logp: Tensor
    entropy: Tensor

    @property
    def length(self) -> Tensor:
        """Tokens of each response, int (R, B)."""
        return self.mask.sum(2)

    @property
    def entropies(self) -> dict[str, Tensor]:
        """``response_entropy`` of each response, {kind: (R, B)}."""
        return response_entropy(self.logp, self.entropy, self.mask)


def encode(prompts: list[str], width: int | None = None) -> tuple[Tensor, Tensor]:
    """(ids, length) of prompts: int (n, width) padded on the right, and (n,)."""
    width = width or max(map(len, prompts))
    text = "".join(prompt.ljust(width, PAD) for prompt in prompts)
    ids = _LOOKUP[np.frombuffer(text.encode("ascii"), np.uint8)].reshape(len(prompts), width)
    return torch.from_numpy(ids), torch.tensor([len(prompt) for prompt in prompts])


def decode(responses: Responses) -> list[list[str]]:
    """The text of every response, end token included: R lists of B strings."""
    codes = _CODES[responses.ids.cpu().numpy()]
    mask = responses.mask.cpu().numpy()
    return [
        [line[kept].tobytes().decode() for line, kept in zip(block, keep, strict=True)]
        for block, keep in zip(codes, mask, strict=True)
    ]


class Sampler:
    """Draws ``rows`` responses for each copy of a fleet, at temperature 1 or greedily.

    rows        of each copy; fixed, as buffers and graphs are
    prompt      tokens of the longest prompt
    max_tokens  a response stops there, with or without an end token
    span        the cache is read in lengths that are multiples of this; one graph each, captured once
    """

    def __init__(self, fleet: Fleet, rows: int, prompt: int, max_tokens: int, *, span: int = 32):
        for name, value in {"rows": rows, "prompt": prompt, "max_tokens": max_tokens, "span": span}.items():
            checks.integer(name, value, 1)
        self.fleet, self.rows, self.max_tokens, self.span = fleet, rows, max_tokens, span
        self.width = prompt + max_tokens
        config, device = fleet.config, fleet.device
        on_gpu = device.type == "cuda"
        dtype = torch.bfloat16 if on_gpu else torch.float32
        room = -(-self.width // span) * span
        heads = config.num_key_value_heads
        shape = (fleet.copies * rows, heads, room, config.hidden_size // config.num_attention_heads)
        self.keys, self.values = (
            [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
            for _ in range(2)
        )
        self.weights = {
            name: torch.empty_like(value, dtype=dtype, requires_grad=False)
            for name, value in fleet.weights.items()
        }
        table = (fleet.copies, rows, self.width)
        self.ids = torch.zeros(table, dtype=torch.long, device=device)
        self.logp, self.entropy = (torch.zeros(table, device=device) for _ in range(2))
        self.prompt_length = torch.zeros(table[:2], dtype=torch.long, device=device)
        self.done = torch.zeros(table[:2], dtype=torch.bool, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.noise = torch.ones(1, device=device)  # 1 draws, 0 takes the best
        self.graphs: dict[int, torch.cuda.CUDAGraph] | None = {} if on_gpu else None

    @torch.no_grad()
    def __call__(self, ids: Tensor, length: Tensor, *, greedy: bool = False, seed: int | None = None):
        """Responses to prompts ids (R, B, P), right-padded, of ``length`` (R, B) tokens each.

        seed  seeds torch's generator of the device; None leaves it as it is
        """
        wanted = (self.fleet.copies, self.rows)
        if ids.shape[:2] != wanted or ids.shape[2] > self.width - self.max_tokens:
            checks.fail("ids", tuple(ids.shape), f"{wanted} rows of up to {self.width - self.max_tokens}")
        if seed is not None:
            torch.manual_seed(seed)
        for name, value in self.fleet.weights.items():
            self.weights[name].copy_(value)
        pad, end = self.fleet.config.pad_token_id, self.fleet.config.eos_token_id
        self.ids.fill_(pad)
        self.ids[..., : ids.shape[2]] = ids
        self.prompt_length.copy_(length)
        self.logp.zero_(), self.entropy.zero_()
        self.done.fill_(False)
        self.noise.fill_(0.0 if greedy else 1.0)
        self.position.zero_()
        for step in range(self.width - 1):
            self._advance(-(-(step + 1) // self.span) * self.span)
            if step % LOOK_EVERY == LOOK_EVERY - 1 and bool(self.done.all()):
                break
        every = torch.arange(self.width, device=self.ids.device)
        start = self.prompt_length[..., None]
        inside = (every >= start) & (every < start + self.max_tokens)
        ended = ((self.ids == end) & inside).cumsum(2)
        mask = inside & ((ended == 0) | ((ended == 1) & (self.ids == end)))
        return Responses(self.ids.clone(), mask, self.logp * mask, self.entropy * mask)

    def _advance(self, span: int) -> None:
        if self.graphs is None:
            return self._step(span)
        if span not in self.graphs:
            saved = [t.clone() for t in self._state()]
            graph, _ = capture(partial(self._step, span), warmups=1)  # more could walk off the table
            for tensor, value in zip(self._state(), saved, strict=True):
                tensor.copy_(value)
            self.graphs[span] = graph
        self.graphs[span].replay()

    def _state(self) -> list[Tensor]:
        return [self.ids, self.logp, self.entropy, self.done, self.position]

    def _step(self, span: int) -> None:
        """Read the token at ``position`` of every row, choose the next one, move on."""
        seen = torch.arange(span, device=self.ids.device) <= self.position

        def attend(layer, q, k, v):
            keys, values = self.keys[layer], self.values[layer]
            keys.index_copy_(2, self.position, k)
            values.index_copy_(2, self.position, v)
            # query heads that share keys stand in one row like queries of one head: no key is copied
            mixed = scaled_dot_product_attention(
                q.view(*k.shape[:2], -1, k.shape[-1]), keys[:, :, :span], values[:, :, :span],
                attn_mask=seen.expand(1, 1, q.shape[1] // k.shape[1], -1),
            )  # fmt: skip
            return mixed.reshape(q.shape)

        token = self.ids.index_select(2, self.position)
        logits = self.fleet.run(token, self.position, attend, self.weights)[:, :, 0].float()
        logp = logits.log_softmax(-1)
        gumbel = -torch.empty_like(logp).exponential_().clamp(min=1e-20).log()
        choice = (logp + self.noise * gumbel).argmax(-1)
        following = self.position + 1
        forced = following < self.prompt_length
        pad, end = self.fleet.config.pad_token_id, self.fleet.config.eos_token_id
        given = self.ids.index_select(2, following).squeeze(2)
        chosen = torch.where(forced, given, torch.where(self.done, pad, choice))
        self.ids.index_copy_(2, following, chosen[..., None])
        self.logp.index_copy_(2, following, logp.gather(-1, chosen[..., None]))
        self.entropy.index_copy_(2, following, -(logp.exp() * logp).sum(-1, keepdim=True))
        full = following >= self.prompt_length + self.max_tokens - 1
        self.done |= ~forced & ((chosen == end) | full)
        self.position += 1
