"""load_model: diffusion language models in transformers' own classes, without remote code or pickle.

LLaDA  -> LlamaForCausalLM under other names; Dream -> Qwen2ForCausalLM under the same names. Both see
the whole sequence (``is_causal`` off), and Dream's logits stand one position to the left.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from labkit import checks
from labkit.paths import CHECKPOINTS
from labkit.soar.caches import CACHE_BYTES, Cached, check_cache
from labkit.soar.diffusion_lm import DiffusionLM
from labkit.soar.families import FAMILIES
from labkit.soar.fixed_batch import FixedBatch
from labkit.soar.rope import rotate_in_fp32
from labkit.soar.sudoku_model import SudokuLM
from labkit.soar.sums import SumsLM
from labkit.soar.token_ids import mask_and_ends, read_json
from labkit.soar.training import train_sudoku
from labkit.soar.transformer import MaskedLM

LAB = {"lab/sudoku9": SudokuLM, "lab/sudoku9-early": SudokuLM, "lab/sums": SumsLM}  # shipped


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

    name   "lab/sudoku9": the lab's 9x9 Sudoku model, "lab/sudoku9-early": the same half taught,
           "lab/sums": chain sums as text (all three shipped, see labkit/checkpoints);
           "lab/sudoku4": the lab's 4x4 Sudoku model, trained on first use (seconds) and kept;
           a .safetensors file that ``python -m labkit.soar.lab_model`` wrote;
           a folder with config.json and *.safetensors of LLaDA or Dream;
           or their name on the Hugging Face hub ("GSAI-ML/LLaDA-8B-Base",
           "Dream-org/Dream-v0-Base-7B"), which is then downloaded: JSON and safetensors only
    dtype  of the weights. LLaDA's rotary embeddings are computed in fp32 whatever it is, as in its own code
    fixed_rows  lab models: always run exactly so many rows at a time (FixedBatch), so that an answer
           does not depend on the batch to the last bit; on CUDA as one graph. 256 suits an H100
    cache  keep keys and values of positions outside the block at hand (labkit.soar.caches):
           "approximate-prefix", "approximate-dual": other logits, and other answers, than without;
           "exact-block": the same ones, for attention that is causal over blocks. None: no cache
    cache_bytes   most memory the cache may take
    block_causal  LLaDA, Dream: make attention causal over blocks of so many positions, as models
           trained for block diffusion have it; those that were not are another model then

    ValueError if the checkpoint is another model, would need another architecture, holds no
    safetensors, or lacks a weight, has one too many or one of another shape; if a key of its
    configuration lacks or disagrees with another; if ``cache`` does not fit.
    """
    check_cache(cache, cache_bytes, block_causal)
    if cache is not None and fixed_rows is not None:
        checks.fail("cache", cache, "None with fixed_rows, whose graph computes all positions of a row")
    if str(name).startswith("lab/") or str(name).endswith(".safetensors"):
        if block_causal is not None:
            checks.fail("block_causal", block_causal, "None for the lab's own models: they see all")
        model = _own(str(name)).to(device, dtype)
        if cache is not None:
            return Cached(model, cache, cache_bytes)
        return model if fixed_rows is None else FixedBatch(model, fixed_rows)
    if fixed_rows is not None:
        checks.fail("fixed_rows", fixed_rows, "None for a model that is not the lab's own")
    if not isinstance(name, (str, Path)):
        checks.fail("name", name, f"one of {', '.join(LAB)}, a folder, or a checkpoint on the hub")
    folder = folder_of(name)
    about = folder / "config.json"
    if not about.exists():
        checks.fail("name", str(name), "a folder with config.json and *.safetensors")
    raw = read_json(about)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        checks.fail(
            "name", f"{name} with model_type {kind!r}",
            "a checkpoint of model_type 'llada' or 'Dream' (others would need remote code)",
        )  # fmt: skip
    build, config, rename, shift = FAMILIES[kind]
    settings = config(raw)
    mask_id, eos_ids = mask_and_ends(folder, raw, settings.vocab_size)
    settings.is_causal = False  # holds with and without a padding mask; self_attn.is_causal does not
    with torch.device("meta"):
        net = build(settings)
    _fill(net, folder, rename, torch.device(device), dtype)
    # Its buffers are computed, not stored; on the meta device they were not.
    net.model.rotary_emb = type(net.model.rotary_emb)(settings).to(device)
    if kind == "llada":
        rotate_in_fp32(net)
    length = settings.max_position_embeddings
    model = DiffusionLM(net, mask_id, eos_ids, length, shift, block_causal)
    model = model.eval().requires_grad_(False)
    return model if cache is None else Cached(model, cache, cache_bytes)


def _own(name: str) -> MaskedLM:
    """A model of the lab's own classes: shipped, trained here, or in a file."""
    if name == "lab/sudoku4":
        return train_sudoku(cache=True)[0]
    if name in LAB:
        return LAB[name].load(CHECKPOINTS / f"{name.removeprefix('lab/')}.safetensors")[0]
    if not name.endswith(".safetensors"):
        checks.choice("name", name, ("lab/sudoku4", *LAB))
    try:
        with safe_open(name, "pt") as file:
            config = json.loads(file.metadata()["config"])
        return (SudokuLM if "side" in config else SumsLM).load(name)[0]
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        checks.fail("name", name, f"a file that labkit.soar.lab_model wrote ({type(error).__name__})")


def _fill(
    net: PreTrainedModel,
    folder: Path,
    rename: Callable[[str], str],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Give ``net`` (on the meta device) the weights in ``folder``; every discrepancy is an error."""
    wanted = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    found, unexpected, shapes = {}, [], []
    for key, tensor in _tensors(folder):
        target = rename(key)
        if target not in wanted or target in found:
            unexpected.append(key)
        elif tuple(tensor.shape) != wanted[target]:
            shapes.append(f"{key} {tuple(tensor.shape)} instead of {wanted[target]}")
        else:
            found[target] = tensor.to(device, dtype)
    wrong_shape = {text.split(" ")[0] for text in shapes}
    missing = [key for key in wanted if key not in found and key not in map(rename, wrong_shape)]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        told = "; ".join(
            f"{len(keys)} {problem}: {', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''}"
            for problem, keys in problems.items()
            if keys
        )
        raise ValueError(f"name must hold exactly the weights of {type(net).__name__}; {folder} has {told}")
    net.load_state_dict(found, assign=True)


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        checks.fail("name", str(folder), "a folder with *.safetensors (pickled weights are not read)")
    for file in files:
        with safe_open(file, "pt") as shard:
            for key in shard.keys():  # noqa: SIM118 (no mapping)
                yield key, shard.get_tensor(key)


def folder_of(name: str | Path) -> Path:
    """``name`` if it is a folder, else the checkpoint of that name on the hub, downloaded without code."""
    if Path(name).is_dir():
        return Path(name)
    name = str(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        allowed = "a folder that exists or a checkpoint that can be downloaded"
        raise ValueError(f"name must be {allowed}; got {name!r} ({type(error).__name__})") from error
