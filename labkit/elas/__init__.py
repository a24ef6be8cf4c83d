"""ELAS: low-rank pre-training with 2:4 sparse ReLU² activations (arXiv 2605.03667), on LORO's optimiser."""

from importlib import import_module

# Loaded on first use: transformers' model code takes seconds to import.
_HOME = {
    "LowRankLinear": "layers",
    "Sparse24ReLU2": "layers",
    "ElasConfig": "model",
    "ElasForCausalLM": "model",
    "Loro": "loro",
    "trace_masks": "instruments",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
