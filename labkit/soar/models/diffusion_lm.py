"""DiffusionLM: transformers' Llama or Qwen2 as a masked diffusion language model for ``decode``."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from labkit import checks
from labkit.soar.models.keys_values import Past
from labkit.soar.models.tokenizer import load_tokenizer


def as_ids(given: int | Sequence[int] | None) -> tuple[int, ...]:
    """The token ids in None, one id or several."""
    ids = () if given is None else given if isinstance(given, Sequence) else (given,)
    return tuple(checks.integer("eos_id", number, 0) for number in ids)


def eos_ids(model: object) -> tuple[int, ...]:
    """All token ids that end a text of ``model``: its ``eos_ids``, else its ``eos_id``."""
    return as_ids(getattr(model, "eos_ids", None) or getattr(model, "eos_id", None))


def sees(where: torch.Tensor, every: torch.Tensor, block: int) -> torch.Tensor:
    """Bool (B, 1, n, L): whether a place of ``where`` (B, n) looks at one of ``every`` (L,) or (B, L)."""
    return (every // block)[..., None, None, :] <= (where // block)[:, None, :, None]


class DiffusionLM(nn.Module):
    """A masked diffusion LM for ``decode``: tokens (B, L) -> logits (B, L, V), everything seen at once.

    mask_id       token id; max_length  positions the model was made for
    eos_id        None, or the token id that ends a text, or several that do (``eos_ids``); the first is
                  ``eos_id``, what a finished text is filled up with
    shift            True if the logits at position i - 1 predict position i (Dream)
    block_causal     None, or a number of positions: attention is causal over blocks of so many, and a
                     position sees its own block and those before it (block diffusion, arXiv 2503.09573).
                     Blocks begin at multiples of it, counted from the first token of the prompt
    folder           None, or where its tokenizer lies, read when it is first asked for
    """

    def __init__(
        self,
        net: PreTrainedModel,
        mask_id: int,
        eos_id: int | Sequence[int] | None,
        max_length: int,
        shift: bool,
        block_causal: int | None = None,
        folder: Path | None = None,
    ):
        super().__init__()
        self.net, self.mask_id, self.max_length = net, mask_id, max_length
        self.eos_ids = as_ids(eos_id)
        self.eos_id = self.eos_ids[0] if self.eos_ids else None
        self.shift, self.vocab_size = shift, net.config.vocab_size
        self.block_causal, self.folder = block_causal, folder

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer; None for a model that came from no folder."""
        return None if self.folder is None else load_tokenizer(self.folder)

    @property
    def kv_shape(self) -> tuple[int, int, int]:
        """(layers, heads of keys and values, width of a head)."""
        attention = self.net.model.layers[0].self_attn
        about = self.net.config
        return about.num_hidden_layers, about.num_key_value_heads, attention.head_dim

    def forward(self, tokens: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        """Logits (B, L, V); rows longer than their ``lengths`` entry are padding that nobody sees."""
        every = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        return self.logits_at(tokens, every, lengths)

    def logits_at(
        self, tokens: torch.Tensor, positions: torch.Tensor, lengths: list[int] | None = None
    ) -> torch.Tensor:
        """Logits (B, W, V) at ``positions`` (B, W): the head, the widest matrix, runs on those alone."""
        if lengths is not None:  # other prompts of the same decode may be longer than all of these
            tokens = tokens[:, : max(lengths)]
            positions = positions.clamp(max=max(lengths) - 1)  # of padding: any
        padded = lengths is not None and min(lengths) < tokens.shape[1]
        hidden = self.hidden(tokens, torch.tensor(lengths, device=tokens.device) if padded else None)
        if self.shift:
            positions = (positions - 1).clamp(min=0)
        return self.logits_of(torch.take_along_dim(hidden, positions[..., None], 1))

    def hidden(
        self,
        tokens: torch.Tensor,
        lengths: torch.Tensor | None = None,
        where: torch.Tensor | None = None,
        past: Past | None = None,
    ) -> torch.Tensor:
        """(B, n, width) before the head, at the positions ``where`` (B, n) of ``tokens`` (B, L) alone.

        lengths  long (B,): what is behind is padding; None: there is none
        where    None: everywhere, n = L
        past     its ``update(key, value, layer)`` is given the new keys and values (B, heads, n, head) of a
                 layer and returns those to attend to, (B, heads, L, head); None: the new ones
        """
        length = tokens.shape[1]
        if where is None:
            where = torch.arange(length, device=tokens.device)[None]
        else:
            tokens = tokens.gather(1, where)
        seen, body = self._seen(where, length, lengths), self.net.model
        x = body.embed_tokens(tokens)
        # The layers' own call, not the model's, which would make a mask for a cache that only grows.
        given = {
            "attention_mask": seen, "position_ids": where, "past_key_values": past, "is_causal": False,
            "position_embeddings": body.rotary_emb(x, position_ids=where),
        }  # fmt: skip
        for layer in body.layers:
            x = layer(x, **given)
        return body.norm(x)

    def logits_of(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of hidden states (..., width)."""
        return self.net.lm_head(hidden)

    def _seen(self, where: torch.Tensor, length: int, lengths: torch.Tensor | None) -> torch.Tensor | None:
        """Bool (B, 1, n, L), of 1 where nothing depends on it: who sees whom; None if all see all."""
        every, seen = torch.arange(length, device=where.device), None
        if lengths is not None:
            seen = every < lengths[:, None, None, None]
        if self.block_causal is None:
            return seen
        causal = sees(where, every, self.block_causal)
        return causal if seen is None else causal & seen
