"""load_checkpoint: diffusion language models in transformers' own classes, without remote code or pickle.

LLaDA  -> LlamaForCausalLM under other names; Dream -> Qwen2ForCausalLM under the same names. Both see
the whole sequence (``is_causal`` off), and Dream's logits stand one position to the left. What ``labkit
train dlm`` made of a Llama, Qwen2 or Qwen3 says so itself (adapted).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from labkit import checks
from labkit.soar.models.adapted import adapted, is_adapted
from labkit.soar.models.diffusion_lm import DiffusionLM
from labkit.soar.models.families import FAMILIES
from labkit.soar.models.rope import rotate_in_fp32
from labkit.soar.models.token_ids import mask_and_ends, read_json


def load_checkpoint(
    name: str | Path, *, device: str | torch.device, dtype: torch.dtype, block_causal: int | None
) -> DiffusionLM:
    """A diffusion LM in eval mode and without gradients; arguments and errors are ``load_model``'s."""
    folder = folder_of(name)
    about = folder / "config.json"
    if not about.exists():
        checks.fail("name", str(name), "a folder with config.json and *.safetensors")
    raw = read_json(about)
    kind = raw.get("model_type")
    rename: Callable[[str], str] = str
    if is_adapted(raw):
        build, settings, shift, trained = adapted(raw)
        block_causal = block_causal or trained
    elif not isinstance(kind, str) or kind not in FAMILIES:
        checks.fail(
            "name", f"{name} with model_type {kind!r}",
            "a checkpoint of model_type 'llada' or 'Dream', or one that labkit train dlm made "
            "(others would need remote code)",
        )  # fmt: skip
    else:
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
    model = DiffusionLM(net, mask_id, eos_ids, length, shift, block_causal, folder)
    return model.eval().requires_grad_(False)


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
        diff = "; ".join(
            f"{len(keys)} {problem}: {', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''}"
            for problem, keys in problems.items()
            if keys
        )
        raise ValueError(f"name must hold exactly the weights of {type(net).__name__}; {folder} has {diff}")
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
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        allowed = "a folder that exists or a checkpoint that can be downloaded"
        raise ValueError(f"name must be {allowed}; got {name!r} ({type(error).__name__})") from error
