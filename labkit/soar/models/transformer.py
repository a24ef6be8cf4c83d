"""What the lab's own masked diffusion LMs share: a small bidirectional transformer, save and load."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from labkit import checks
from labkit.paths import write_atomic
from labkit.soar.models.keys_values import Past

FLOATS = {"F64", "F32", "F16", "BF16"}  # safetensors' names


class Block(nn.Module):
    """Pre-norm attention and ReLU² MLP; every position sees every position."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor, past: Past | None = None, layer: int = 0) -> torch.Tensor:
        batch, cells, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, cells, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = past.update(k, v, layer)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.mix(seen.reshape(batch, cells, width))
        return x + self.down(F.relu(self.up(self.mlp_norm(x))).square())


def check_shape(config: Any) -> None:
    """ValueError unless ``config`` has heads, layers, and a ``width`` that is a multiple of the heads."""
    checks.integer("heads", config.heads, 1)
    checks.integer("layers", config.layers, 1)
    if checks.integer("width", config.width, 1) % config.heads:
        checks.fail("width", config.width, f"a multiple of heads={config.heads}")


class MaskedLM(nn.Module):
    """Tokens (B, L) of one fixed length L, 0 = mask -> logits (B, L, V) in fp32.

    A subclass has a ``Config`` dataclass with ``width``, ``layers`` and ``heads``, takes one, calls
    ``_body`` when it has made its embeddings, and gives ``embed(tokens)``.
    """

    mask_id: int = 0
    eos_id: int | None = None
    fixed_length: bool = True  # rows of max_length, and no others
    shift: bool = False
    block_causal: int | None = None
    tokenizer: Any = None  # what ``generate`` reads and writes by; None: no text
    Config: type

    def __init__(self, config: Any):
        super().__init__()
        self.config = config

    def _body(self, vocab_size: int, length: int) -> None:
        self.vocab_size, self.max_length = vocab_size, length
        width = self.config.width
        self.blocks = nn.ModuleList(Block(width, self.config.heads) for _ in range(self.config.layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, self.vocab_size, bias=False)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L, width) of token and place."""
        raise NotImplementedError

    @property
    def kv_shape(self) -> tuple[int, int, int]:
        """(layers, heads, width of a head)."""
        return self.config.layers, self.config.heads, self.config.width // self.config.heads

    def hidden(
        self,
        tokens: torch.Tensor,
        lengths: torch.Tensor | None = None,
        where: torch.Tensor | None = None,
        past: Past | None = None,
    ) -> torch.Tensor:
        """(B, n, width) before the head, at the positions ``where`` (B, n) alone; None: at all L.

        lengths  not needed: all rows have one length
        past     its ``update(key, value, layer)`` turns the keys and values (B, heads, n, head) of a
                 layer into those to attend to, (B, heads, L, head); None: as they are

        ValueError if the rows have another length.
        """
        if tokens.ndim != 2 or tokens.shape[1] != self.max_length:
            checks.fail("tokens", tuple(tokens.shape), f"of shape (B, {self.max_length})")
        x = self.embed(tokens)
        if where is not None:
            x = torch.take_along_dim(x, where[..., None], 1)
        for layer, block in enumerate(self.blocks):
            x = block(x) if past is None else block(x, past, layer)
        return self.norm(x)

    def logits_of(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of hidden states (..., width)."""
        # In bf16 logits, confidences near 1 come in steps of several per cent of their distance to 1.
        return F.linear(hidden.float(), self.head.weight.float())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.logits_of(self.hidden(tokens))

    def logits_at(
        self, tokens: torch.Tensor, positions: torch.Tensor, lengths: list[int] | None = None
    ) -> torch.Tensor:
        """Logits (B, W, V) at ``positions`` (B, W) alone: the head runs on those only."""
        hidden = self.hidden(tokens)
        return self.logits_of(torch.take_along_dim(hidden, positions[..., None], 1))

    def save(self, path: str | Path, **card: object) -> Path:
        """Weights as safetensors, the configuration and ``card`` (seed, metrics) in its metadata."""
        about = {"config": json.dumps(asdict(self.config)), "card": json.dumps(card)}
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        return write_atomic(path, lambda temporary: save_file(weights, temporary, about))

    @classmethod
    def load(cls, path: str | Path) -> tuple[Self, dict]:
        """(model in eval mode, card) that ``save`` wrote; weights in the dtype they were saved in.

        ValueError if the file is of another kind, or its weights are not those that its card tells of.
        """
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            found = {key: tuple(one.get_shape()) for key, one in slices.items()}
            dtypes = {one.get_dtype() for one in slices.values()}
        if "config" not in about:
            checks.fail("path", str(path), f"a {cls.__name__} safetensors file")
        config = cls.Config(**json.loads(about["config"]))
        # A card may ask for any size: nothing is made that the file does not hold.
        layers = {key.split(".")[1] for key in found if key.startswith("blocks.")}
        held = len(layers) == config.layers and found.get("norm.weight") == (config.width,)
        with torch.device("meta"):
            wanted = (
                {key: tuple(one.shape) for key, one in cls(config).state_dict().items()} if held else {}
            )
        if found != wanted or not dtypes <= FLOATS:
            checks.fail(
                "path",
                str(path),
                f"a {cls.__name__} whose weights have the shapes of {config}, and are floats",
            )
        model = cls(config)
        model.load_state_dict(load_file(path), assign=True)
        return model.eval().requires_grad_(False), json.loads(about["card"])
