"""SOAR (arXiv 2602.10953): beam search for diffusion language models, fast where they are confident."""

from labkit.soar.load import load_model
from labkit.soar.search import decode

__all__ = ["decode", "load_model"]
