"""SOAR (arXiv 2602.10953): beam search for diffusion language models that speeds up when it is sure."""

from labkit.soar.search import decode

__all__ = ["decode"]
