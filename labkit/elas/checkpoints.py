"""Small trained models: what the lab ships, and what a run saves for transformers to open.

load_checkpoint(name)  (model, tokenizer) of a trained model in labkit/checkpoints
save_model             a folder for AutoModelForCausalLM
"""

from pathlib import Path
from typing import TYPE_CHECKING

from labkit.checks import choice
from labkit.device import of_torch
from labkit.paths import CHECKPOINTS
from labkit.progress import no_bar

if TYPE_CHECKING:
    from labkit.elas.model import ElasForCausalLM


def load_checkpoint(name: str, *, device: str = "cpu") -> tuple["ElasForCausalLM", object]:
    """(model in float32 and eval mode, ``tokenizers.Tokenizer``) of the lab's own trained models.

    name   "lab/elas-3m"; README.md beside the weights says how it was trained
    """
    known = {f"lab/{path.name}": path for path in CHECKPOINTS.glob("elas*") if path.is_dir()}
    folder = known[choice("name", name, tuple(sorted(known)))]
    where = of_torch(device)
    import torch
    from tokenizers import Tokenizer

    from labkit.elas.model import ElasForCausalLM

    with no_bar():  # of a hundredth of a second
        model = ElasForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    torch.nn.Module.to(model, where)
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def save_model(folder: Path, model: "ElasForCausalLM", tokenizer) -> None:
    """What transformers opens by path: weights, config, generation config and the tokenizer.

    tokenizer   a ``tokenizers.Tokenizer`` of data.py; its END is where generation begins, ends and pads
    """
    from transformers import PreTrainedTokenizerFast

    from labkit.elas.data import END

    end = tokenizer.token_to_id(END)
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = settings.eos_token_id = end
    # not in model.config, where it would keep END's embedding from being trained
    model.generation_config.pad_token_id = end
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, padding_side="left",
        model_max_length=model.config.max_position_embeddings, clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)  # fmt: skip
