"""ELAS: low-rank pre-training with 2:4 sparse ReLU² activations (arXiv 2605.03667), on LORO's optimiser."""

from importlib import import_module

from labkit.elas.auto import register

# Imported here, not on demand: the function then hides the submodule of the same name.
from labkit.elas.config import ARMS, PretrainConfig, build_model
from labkit.elas.pretrain import pretrain

# Loaded on first use: transformers' model code takes seconds to import.
_HOME = {
    "LowRankLinear": "layers",
    "Sparse24ReLU2": "layers",
    "ElasConfig": "model",
    "ElasForCausalLM": "model",
    "Loro": "loro",
    "mask_cost": "masks",
    "trace_masks": "masks",
    "ffn_saved_bytes": "instruments",
    "gradient_agreement": "instruments",
    "layer_statistics": "instruments",
    "saved_bytes": "instruments",
    "load_text": "data",
    "evaluate": "evaluation",
    "unigram": "evaluation",
    "load_checkpoint": "checkpoints",
}
__all__ = ["ARMS", "PretrainConfig", "build_model", "pretrain", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


register()


def __dir__() -> list[str]:
    return __all__
