"""A tiny Qwen2 over the characters of the verbose sums."""

from transformers import Qwen2Config, Qwen2ForCausalLM

from labkit import checks
from labkit.fgo.tasks import CHARACTERS, END, PAD


def build_char_model(*, hidden: int = 64, layers: int = 2, heads: int = 4) -> Qwen2ForCausalLM:
    """A fresh Qwen2 for ``char_tokenizer`` (the default has 108,416 parameters), from torch's seed."""
    checks.integer("layers", layers, 1)
    checks.integer("heads", heads, 1)
    if checks.integer("hidden", hidden, 1) % (2 * heads):  # rotary embeddings need even heads
        checks.fail("hidden", hidden, f"a multiple of 2 * heads = {2 * heads}")
    config = Qwen2Config(
        vocab_size=len(CHARACTERS), hidden_size=hidden, intermediate_size=3 * hidden,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.08,
        pad_token_id=CHARACTERS.index(PAD), eos_token_id=CHARACTERS.index(END), bos_token_id=None,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)
