"""LLaDA and Dream, decoded by this lab, as a model of lm-evaluation-harness (``pip install labkit[eval]``).

python -m labkit.soar.harness --tasks gsm8k --model_args pretrained=GSAI-ML/LLaDA-8B-Base,strategy=soar

That is lm_eval's own command line with the model "labkit" known to it; it needs the weights, and network
for the tasks. In code: ``lm_eval.simple_evaluate(model=LabkitLM("..."), tasks=["gsm8k"])``.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from labkit import checks
from labkit.soar.load import load_model
from labkit.soar.models.diffusion_lm import eos_ids
from labkit.soar.models.loaders import folder_of
from labkit.soar.search import decode


@register_model("labkit")
class LabkitLM(LM):
    """Generation tasks (GSM8K, MBPP, HumanEval, ...) by ``decode``.

    pretrained    what ``load_model`` takes; the folder must hold the tokenizer, too
    gen_length    tokens generated, unless the task asks for fewer; a multiple of ``block_length``
    batch_size    prompts decoded at a time
    options       strategy, beam, threshold, ... of ``decode``
    """

    def __init__(
        self,
        pretrained: str | Path,
        *,
        gen_length: int = 256,
        block_length: int = 32,
        batch_size: int = 8,
        device: str = "cuda" if torch.cuda.is_available() else "cpu",
        dtype: str = "bfloat16",
        max_batch_size: int | None = None,
        **options: Any,
    ):
        super().__init__()
        self.block_length = checks.integer("block_length", block_length, 1)
        self.gen_length = checks.integer("gen_length", gen_length, 1)
        if self.gen_length % self.block_length:
            checks.fail("gen_length", gen_length, f"a multiple of block_length={block_length}")
        self.batch_size, self.options = checks.integer("batch_size", int(batch_size), 1), options
        folder = folder_of(pretrained)
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(folder, device=device, dtype=getattr(torch, dtype))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text generated behind each context, cut before the first stop string."""
        wanted = [self._wanted(request.args) for request in requests]
        ends = eos_ids(self.model)
        prompts = [self.tokenizer(context)["input_ids"] or [*ends[:1]] for context, *_ in wanted]
        answers = [""] * len(requests)
        # Prompts that generate equally much share a batch; decode lets the next in when one is done.
        for length in sorted({length for _, length, _ in wanted}):
            chosen = [i for i, (_, own, _) in enumerate(wanted) if own == length]
            trace = decode(
                self.model, [self._fitting(prompts[i], length) for i in chosen], gen_length=length,
                block_length=self.block_length, batch_size=self.batch_size, record=False, **self.options,
            )  # fmt: skip
            for row, start, i in zip(trace.sequences, trace.prompt_length, chosen, strict=True):
                tokens = row[start : start + length].tolist()
                tokens = list(itertools.takewhile(lambda token: token not in ends, tokens))
                answers[i] = cut(str(self.tokenizer.decode(tokens, skip_special_tokens=True)), wanted[i][2])
        return answers

    def _wanted(self, args: tuple[str, dict]) -> tuple[str, int, list[str]]:
        """(context, tokens to generate, stop strings) of one request."""
        context, options = args
        stops = options.get("until") or []
        most = options.get("max_gen_toks", self.gen_length)
        length = -(-min(most, self.gen_length) // self.block_length) * self.block_length
        return context, length, [stops] if isinstance(stops, str) else list(stops)

    def _fitting(self, prompt: list[int], length: int) -> list[int]:
        """The end of a prompt that is too long: few-shot examples at its start matter least."""
        return prompt[-(self.model.max_length - length) :]

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        raise NotImplementedError(
            "labkit decodes; a masked diffusion model has no exact likelihood. Ask for generation tasks"
        )

    def loglikelihood_rolling(self, requests: list[Instance]) -> NoReturn:
        self.loglikelihood(requests)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in ``folder`` in transformers' own classes; a checkpoint's remote code is not run."""
    if (folder / "tokenizer.json").exists():
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    files = folder / "vocab.json", folder / "merges.txt"
    if all(file.exists() for file in files):
        return Qwen2Tokenizer(vocab=str(files[0]), merges=str(files[1]))
    return checks.fail(
        "pretrained", str(folder), "a folder with tokenizer.json, or vocab.json and merges.txt"
    )


def cut(text: str, stops: Sequence[str]) -> str:
    """``text`` before the first of ``stops``."""
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends, default=len(text))]


if __name__ == "__main__":
    import sys

    from lm_eval.__main__ import cli_evaluate

    sys.argv[1:1] = ["--model", "labkit"]
    cli_evaluate()
