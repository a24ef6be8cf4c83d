"""load_checkpoint: diffusion language models in transformers' own classes, without remote code or pickle.

LLaDA            LlamaForCausalLM under other names; attends in both directions
Dream            Qwen2ForCausalLM; attends in both directions; logits one position to the left
SDAR             Qwen3ForCausalLM; attention causal over blocks of ``block_size``, 4 for SDAR-1.7B-Chat
                 (arXiv 2510.06303)
Fast-dLLM v2     Qwen2ForCausalLM; causal over blocks of ``bd_size`` = 32; logits one position to the left
                 (arXiv 2509.26328)
A2D Qwen3        Qwen3ForCausalLM, of dllm (arXiv 2602.22661); its MDLM checkpoints attend in both
                 directions, its BD3LM ones causally over blocks of 32. Their files do not say which they
                 are: ``block_causal=32`` does
labkit           Llama-, Qwen2- or Qwen3ForCausalLM, made by ``labkit train dlm`` or the stage gsm of
                 soar-models; config.json says the rest (labkit.soar.models.adapted)

What was read, November 2026: SDAR's generate.py and modeling_sdar.py; Fast-dLLM v2's modeling.py, in copies
of the checkpoint's file; dllm's modeling_qwen3.py, its trainers and samplers. In all of them blocks are
counted from the first token of the prompt, and the tail of a prompt shares its block with what follows
(dllm trains so; its sampler for several prompts pads them to whole blocks on the left instead).

Not seen: the published checkpoints, their config.json and tokenizer files included. Their layout is taken
from the code that reads it, and nothing here was compared with their weights. Fast-dLLM v2's own sampler
fills the first position of a block before all others; ``decode`` lets it compete. dllm asks Qwen3's chat
template for ``enable_thinking=False``; ``generate`` takes the template as it is.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from labkit import checks
from labkit.paths import CHECKPOINTS
from labkit.soar.models.adapted import adapted, is_adapted
from labkit.soar.models.diffusion_lm import DiffusionLM
from labkit.soar.models.families import FAMILIES, Family
from labkit.soar.models.rope import rotate_in_fp32
from labkit.soar.models.token_ids import mask_and_ends, read_object

FOLDERS = ("lab/gsm", "lab/gsm-early")  # shipped checkpoints
MOST_LAYERS = 1000  # a network has them before it has weights
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"  # one weight where they are tied


def load_checkpoint(
    name: str | Path, *, device: str | torch.device, dtype: torch.dtype, block_causal: int | None
) -> DiffusionLM:
    """A diffusion LM in eval mode and without gradients; arguments and errors are ``load_model``'s."""
    folder = folder_of(name)
    about = folder / "config.json"
    if not about.exists():
        checks.fail("name", str(name), "a folder with config.json and *.safetensors")
    raw = read_object(about)
    for key in ("n_layers", "num_hidden_layers"):
        if raw.get(key) is not None:
            checks.integer(f"{key} in config.json", raw[key], 1, MOST_LAYERS)
    kind = raw.get("model_type")
    if is_adapted(raw):
        family = adapted(raw)
    elif isinstance(kind, str) and kind in FAMILIES:
        family = FAMILIES[kind]
    else:
        checks.fail(
            "name", f"{name} with model_type {kind!r}",
            f"a checkpoint of model_type {', '.join(map(repr, FAMILIES))}, or one that labkit train dlm "
            "made (others would need remote code)",
        )  # fmt: skip
    settings = family.config(raw)
    block_causal = _block(family, raw, block_causal)
    mask_id, eos_ids = mask_and_ends(folder, raw, settings.vocab_size, family.mask_token)
    settings.is_causal = False  # holds with and without a padding mask; self_attn.is_causal does not
    with torch.device("meta"):
        net = family.net(settings)
    _fill(net, folder, family.rename, torch.device(device), dtype)
    # Its buffers are computed, not stored; on the meta device they were not.
    net.model.rotary_emb = type(net.model.rotary_emb)(settings).to(device)
    if family.fp32_rope:
        rotate_in_fp32(net)
    length = settings.max_position_embeddings
    model = DiffusionLM(net, mask_id, eos_ids, length, family.shift, block_causal, folder)
    return model.eval().requires_grad_(False)


def _block(family: Family, raw: dict, given: int | None) -> int | None:
    """Positions of a block that attention is causal over; None: it is not."""
    key, own = family.block_key, family.block_causal
    if key is not None and raw.get(key) is not None:
        own = checks.integer(f"{key} in config.json", raw[key], 1)
    elif key is not None and given is None:
        checks.fail("block_causal", None, f"given, the positions of a block: config.json has no {key}")
    if own is not None and given not in (None, own):
        named = key or "diffusion.block_causal"
        checks.fail("block_causal", given, f"None or {own}, the {named} in config.json")
    return given if own is None else own


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
            continue
        if tuple(tensor.shape) != wanted[target]:
            shapes.append(f"{key} {tuple(tensor.shape)} instead of {wanted[target]}")
        found[target] = tensor.to(device, dtype)
    tied = net.config.tie_word_embeddings
    one = found.get(EMBEDDING) if tied else None
    if one is not None and not torch.equal(found.setdefault(HEAD, one), one):
        allowed = f"a folder whose {HEAD} is its {EMBEDDING}, for config.json ties them"
        checks.fail("name", str(folder), allowed)
    missing = [key for key in wanted if key not in found]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        diff = "; ".join(
            f"{len(keys)} {problem}: {', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''}"
            for problem, keys in problems.items()
            if keys
        )
        raise ValueError(f"name must hold exactly the weights of {type(net).__name__}; {folder} has {diff}")
    net.load_state_dict(found, assign=True)
    if tied:
        net.tie_weights()


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        checks.fail("name", str(folder), "a folder with *.safetensors (pickled weights are not read)")
    for file in files:
        with safe_open(file, "pt") as shard:
            for key in shard.keys():  # noqa: SIM118 (no mapping)
                tensor = shard.get_tensor(key)
                if not tensor.is_floating_point():
                    checks.fail("name", f"{key} of {tensor.dtype}", f"{folder} with floating-point weights")
                yield key, tensor


def folder_of(name: str | Path, argument: str = "name") -> Path:
    """``name`` if it is a folder, else the lab's or the hub's checkpoint, without code; else ValueError."""
    if str(name).startswith("lab/"):  # the hub is not asked
        return CHECKPOINTS / checks.choice(argument, str(name), FOLDERS).removeprefix("lab/")
    if Path(name).is_dir():
        return Path(name)
    name = str(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        allowed = "a folder that exists or a checkpoint that can be downloaded"
        raise ValueError(f"{argument} must be {allowed}; got {name!r} ({type(error).__name__})") from error
