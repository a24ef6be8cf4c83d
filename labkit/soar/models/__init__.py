"""Masked diffusion language models: loaders, forward passes, caches."""
