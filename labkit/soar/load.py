"""load_model: the lab's own models, and checkpoints of LLaDA, Dream, SDAR, ... (models/loaders.py)."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from labkit import checks
from labkit.device import of_torch
from labkit.paths import CHECKPOINTS
from labkit.soar.models.block_cache import with_cache
from labkit.soar.models.caches import CACHE_BYTES, CACHES, Cached
from labkit.soar.models.diffusion_lm import DiffusionLM
from labkit.soar.models.fixed_batch import FixedBatch
from labkit.soar.models.loaders import FOLDERS, load_checkpoint
from labkit.soar.models.transformer import MaskedLM
from labkit.soar.tasks.sudoku_model import SudokuLM
from labkit.soar.tasks.sums import SumsLM

# What is shipped: models of the lab's own classes, and FOLDERS of a network of transformers.
OWN: dict[str, type[MaskedLM]] = {
    "lab/sudoku9": SudokuLM, "lab/sudoku9-early": SudokuLM, "lab/sums": SumsLM
}  # fmt: skip
LAB = (*OWN, *FOLDERS)


def load_model(
    name: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    fixed_rows: int | None = None,
    cache: str | None = None,
    cache_bytes: int = CACHE_BYTES,
    block_causal: int | None = None,
) -> DiffusionLM | MaskedLM | FixedBatch | Cached:
    """A model for ``decode``, in eval mode.

    Args:
        name: "lab/sudoku9": the lab's 9x9 Sudoku model, "lab/sudoku9-early": the same half taught,
            "lab/gsm", "lab/gsm-early", "lab/sums": word problems, sums (all in labkit/checkpoints);
            a .safetensors file that ``python -m labkit.studies soar-models`` wrote;
            a folder with config.json and *.safetensors of LLaDA, Dream, SDAR, Fast-dLLM v2, dllm's A2D
            Qwen3 (see labkit.soar.models.loaders), ``labkit train dlm`` or the stage gsm of soar-models;
            or their name on the Hugging Face hub ("GSAI-ML/LLaDA-8B-Base", "JetLM/SDAR-1.7B-Chat"),
            which is then downloaded: JSON and safetensors only.
        device: Where the weights go.
        dtype: Of the weights; LLaDA's rotary embeddings are in fp32 whatever it is, as in its own code.
        fixed_rows: Lab models: always run exactly so many rows at a time (FixedBatch), so that an
            answer does not depend on the batch to the last bit; on CUDA as one graph. 256 suits an H100.
        cache: Keep keys and values of positions outside the block at hand (labkit.soar.models.caches):
            "approximate-prefix", "approximate-dual": other logits, and other answers, than without;
            "exact-block": the same ones, for attention that is causal over blocks, as SDAR's and
            Fast-dLLM v2's. None: no cache.
        cache_bytes: Most memory the cache may take.
        block_causal: Make attention causal over blocks of so many positions. None: as the checkpoint
            has it. dllm's BD3LM checkpoints need it (32), for their files don't tell them from its MDLM
            ones; LLaDA and Dream are other models then; where the checkpoint has a number, only that one.

    Raises:
        ValueError: if the checkpoint is another model, would need another architecture, holds no
            safetensors, or lacks a weight, has one too many or one of another shape; if a key of its
            configuration lacks or disagrees with another; if ``cache`` does not fit.
    """
    checks.choice("cache", cache, (None, *CACHES))
    checks.integer("cache_bytes", cache_bytes, 1)
    device = of_torch(device)
    for option, value in {"block_causal": block_causal, "fixed_rows": fixed_rows}.items():
        if value is not None:
            checks.integer(option, value, 1)
    if cache is not None and fixed_rows is not None:
        checks.fail("cache", cache, "None with fixed_rows, whose graph computes all positions of a row")
    model: DiffusionLM | MaskedLM
    own = str(name).startswith("lab/") and str(name) not in FOLDERS
    if own or str(name).endswith(".safetensors"):
        if block_causal is not None:
            checks.fail("block_causal", block_causal, "None for the lab's own models: they see all")
        model = _own(str(name)).to(device, dtype)
        if fixed_rows is not None:
            return FixedBatch(model, fixed_rows)
    else:
        if fixed_rows is not None:
            checks.fail("fixed_rows", fixed_rows, "None for a model that is not the lab's own")
        model = _whole(name, device=device, dtype=dtype, block_causal=block_causal)
    return model if cache is None else with_cache(model, cache, cache_bytes)


def _whole(name: str | Path, **how: Any) -> DiffusionLM:
    """``load_checkpoint``, with ValueError for a name that is none and for a damaged file."""
    if not isinstance(name, (str, Path)):
        checks.fail("name", name, f"one of {', '.join(LAB)}, a folder, or a checkpoint on the hub")
    try:
        return load_checkpoint(name, **how)
    except SafetensorError as error:
        checks.fail("name", str(name), f"a folder whose *.safetensors are whole ({error})")


def _own(name: str) -> MaskedLM:
    """A model of the lab's own classes: shipped, or in a file."""
    if name in OWN:
        return OWN[name].load(CHECKPOINTS / f"{name.removeprefix('lab/')}.safetensors")[0]
    if not name.endswith(".safetensors"):
        checks.choice("name", name, LAB)
    try:
        with safe_open(name, "pt") as file:
            config = json.loads(file.metadata()["config"])
        kind: type[MaskedLM] = SudokuLM if "side" in config else SumsLM
        return kind.load(name)[0]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        checks.fail("name", name, f"a file that labkit.studies soar-models wrote ({type(error).__name__})")
