"""LLaDA and Dream, decoded by this lab, as a model of lm-evaluation-harness (``pip install labkit[eval]``).

labkit lm-eval --tasks gsm8k --model_args pretrained=GSAI-ML/LLaDA-8B-Base,strategy=soar --batch_size auto

That is lm_eval's own command line with the model "labkit" known to it. In code:
``lm_eval.simple_evaluate(model=LabkitLM("..."), tasks=["gsm8k"])``. docs/evaluation.md has recipes.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from labkit import checks
from labkit.soar.generate import read
from labkit.soar.harness_options import Asked, ModelArgs, asked, in_blocks
from labkit.soar.harness_text import TextLM
from labkit.soar.harness_work import Work
from labkit.soar.likelihood import Likelihood, Pair, log_likelihoods, summary
from labkit.soar.load import load_model
from labkit.soar.models.diffusion_lm import eos_ids
from labkit.soar.models.loaders import folder_of
from labkit.soar.models.tokenizer import load_tokenizer
from labkit.soar.search import decode


@register_model("labkit")
class LabkitLM(TextLM):
    """Generation by ``decode``; multiple choice and perplexity by ``log_likelihoods``.

    pretrained  a folder or name that ``load_model`` takes; the folder must hold the tokenizer, too
    model_args  the fields of ModelArgs, and strategy, beam, threshold, ... of ``decode``
    """

    def __init__(self, pretrained: str | Path | None = None, **model_args: Any):
        super().__init__()
        given = ModelArgs.of(model_args)
        if pretrained is None:
            checks.fail("pretrained", pretrained, "a folder or a checkpoint on the hub")
        folder = folder_of(pretrained, "pretrained")
        self.tokenizer = load_tokenizer(folder)  # seconds before the weights, which may take minutes
        self.add_bos_token = given.add_bos_token
        if self.add_bos_token and self.tokenizer.bos_token is None:
            checks.fail("add_bos_token", True, "False: the tokenizer has no BOS token")
        self._device = given.device
        self.model = load_model(folder, device=given.device, dtype=getattr(torch, given.dtype))
        self.max_length: int = self.model.max_length
        own = self.model.block_causal
        self.block_length = given.block_length or own or 32
        if own is not None and own % self.block_length:
            checks.fail("block_length", self.block_length, f"a divisor of {own}, the model's own block")
        self.given = replace(given, block_length=self.block_length)
        if in_blocks(given.gen_length, self.block_length) >= self.max_length:
            allowed = f"less than max_length={self.max_length}, with its last block whole"
            checks.fail("gen_length", given.gen_length, allowed)
        self.work = Work(self.model.net.get_output_embeddings(), *given.rows)
        self.truncated, self.likelihoods = 0, list[Likelihood]()

    # 1) Generation.

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text generated behind each context, cut before the first stop string."""
        prompts: list[list[int]] = []
        groups: dict[tuple[Asked, int], list[int]] = defaultdict(list)
        copies: Counter[tuple] = Counter()
        for number, (context, given) in enumerate(request.args for request in requests):
            one = asked(given, self.given.gen_length, self.given.options)
            ids = self.tok_encode(context) or [self.prefix_token_id]
            prompts.append(self._fitting(ids, in_blocks(one.length, self.block_length)))
            seen = one, tuple(prompts[-1])
            groups[one, copies[seen]].append(number)  # a prompt that comes again is sampled anew
            copies[seen] += one.samples
        answers = [""] * len(requests)
        with self.work.bar(len(requests), "generation", disable_tqdm) as bar:
            for (one, copy), members in groups.items():
                order = sorted(members, key=lambda n: -len(prompts[n]))
                write = partial(self._texts, prompts, one, self.given.seed + (copy << 32))
                for some, texts in self.work.batches(order, write):
                    for number, text in zip(some, texts, strict=True):
                        answers[number] = text
                        self.cache_hook.add_partial("generate_until", requests[number].args, text)
                    bar.update(len(some))
        return answers

    def _texts(
        self, prompts: list[list[int]], one: Asked, seed: int, some: list[int], rows: int
    ) -> list[str]:
        """What ``decode`` writes behind ``some`` of ``prompts``."""
        ends, keywords = eos_ids(self.model), one.keywords(self.given.gen_length, self.block_length)
        if self.model.block_causal is not None:  # blocks stand where its attention has them
            size = self.block_length
            keywords |= {"gen_length": -(-one.length // size) * size, "block_length": size}

        @lru_cache(maxsize=4096)  # a beam's text is often what it was a step before
        def ended(tokens: tuple[int, ...]) -> bool:
            return len(tokens) >= one.length or read(self.tokenizer, tokens, ends, one.stops)[1] == "stop"

        trace = decode(
            self.model, [prompts[n] for n in some], **keywords, batch_size=rows, seed=seed, record=False,
            stop=ended if one.stops or keywords["gen_length"] > one.length else None,
        )  # fmt: skip
        texts = []
        for row, start in zip(trace.sequences, trace.prompt_length, strict=True):
            tokens = row[start : start + one.length].tolist()
            texts.append(read(self.tokenizer, tokens, ends, one.stops)[0])
        return texts

    def _fitting(self, prompt: list[int], length: int) -> list[int]:
        """The end of a prompt that is too long: few-shot examples at its start matter least."""
        room = self.max_length - length
        self.truncated += len(prompt) > room
        return prompt[-room:]

    # 2) Likelihood.

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """(estimate of log p, whether greedy decoding writes it) of each continuation."""
        pairs = [(self._before(context, answer), answer) for _, context, answer in requests]
        found = [(0.0, False)] * len(pairs)
        with self.work.bar(len(pairs), "likelihoods of answers", disable_tqdm) as bar:
            order = sorted(range(len(pairs)), key=lambda n: -sum(map(len, pairs[n])))
            for some, judged in self.work.batches(order, partial(self._judged, pairs)):
                for number, (one, same) in zip(some, judged, strict=True):
                    found[number] = one.value, same
                    self.cache_hook.add_partial("loglikelihood", requests[number][0], found[number])
                    self.likelihoods.append(one)
                bar.update(len(some))
        return found

    def _judged(self, pairs: Sequence[Pair], some: list[int], rows: int) -> list[tuple[Likelihood, bool]]:
        scored = self._scored(pairs, some, rows)
        return list(zip(scored, self._greedy([pairs[n] for n in some], rows), strict=True))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Estimate of log p of each whole text, in windows of max_length, the prefix token in front."""
        found = []
        with self.work.bar(len(requests), "likelihoods of texts", disable_tqdm) as bar:
            for request in requests:
                tokens = self.tok_encode(request.args[0], add_special_tokens=False)
                windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length - 1, 1)
                pairs = [make_disjoint_window(window) for window in windows]
                runs = self.work.batches(range(len(pairs)), partial(self._scored, pairs))
                scored = [one for _, some in runs for one in some]
                found.append(sum(one.value for one in scored))
                self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
                self.likelihoods += scored
                bar.update()
        return found

    def _scored(self, pairs: Sequence[Pair], some: list[int], rows: int) -> list[Likelihood]:
        return log_likelihoods(
            self.model, [pairs[n] for n in some], mc_num=self.given.mc_num, seed=self.given.seed,
            batch_size=rows, cfg_scale=self.given.options.get("cfg_scale", 0.0),
        )  # fmt: skip

    def _before(self, context: list[int], answer: list[int]) -> list[int]:
        """The context of ``answer``, its start left out where both are too long."""
        if len(answer) >= self.max_length:
            allowed = f"shorter than the model's {self.max_length} positions"
            checks.fail("continuation", f"{len(answer)} tokens", allowed)
        return self._fitting(context, len(answer))

    def _greedy(self, pairs: Sequence[Pair], rows: int) -> list[bool]:
        """Whether greedy decoding, the most confident token first, writes each answer."""
        if not self.given.check_greedy:
            return [False] * len(pairs)
        # As masks of the prompt, which need not fill the blocks of a block-causal model.
        trace = decode(
            self.model, [[*context, *[self.model.mask_id] * len(answer)] for context, answer in pairs],
            "greedy", batch_size=rows, record=False, cfg_scale=self.given.options.get("cfg_scale", 0.0),
        )  # fmt: skip
        return [
            row[len(context) :][: len(answer)].tolist() == list(answer)
            for row, (context, answer) in zip(trace.sequences, pairs, strict=True)
        ]

    # 3) The results file.

    @property
    def batch_sizes(self) -> dict[int, int]:
        """What "auto" found, for lm_eval's results."""
        return dict(enumerate(self.work.batch_sizes))

    def get_model_info(self) -> dict[str, Any]:
        """What lm_eval writes into ``config`` of the results: settings, costs, Monte Carlo errors."""
        costs = {
            "forward_calls": self.work.forward_calls, "forward_rows": self.work.forward_rows,
            "seconds": round(self.work.seconds, 3), "truncated_prompts": self.truncated,
        }  # fmt: skip
        return self.given.settings | costs | summary(self.likelihoods)


if __name__ == "__main__":
    from labkit.soar.cli import evaluate

    try:
        sys.exit(evaluate(sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"labkit lm-eval: {error}")
