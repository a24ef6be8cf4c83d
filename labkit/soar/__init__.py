"""SOAR (arXiv 2602.10953): beam search for diffusion language models, fast where they are confident."""

from labkit.soar.generate import Generation, generate, generate_batch
from labkit.soar.load import load_model
from labkit.soar.search import decode

__all__ = ["Generation", "decode", "generate", "generate_batch", "load_model"]
