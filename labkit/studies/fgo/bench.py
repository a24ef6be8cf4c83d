"""Tokens per second of the fast sampler, of transformers' generate and of TRL, one model, one run.

    python -m labkit.studies fgo-bench [--out DIR] [--device cuda] [--model NAME] [--tiny]

All draw at temperature 1 for the same prompts, up to the same length. Only tokens of responses count: not
prompts, not padding after the end. Rounds are interleaved after one warm-up each; medians and ranges.
"""

import statistics
import sys
import warnings
from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel

from labkit import checks
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.reasoner import NAME, load_reasoner
from labkit.fgo.lab.sampler import Sampler
from labkit.fgo.tasks import char_tokenizer, sum_reward, verbose_sums
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.studies.timing import take_turns

SIZES = ("group", "max_tokens", "rounds")
ROW = dict.fromkeys(("tokens_per_second", "lowest", "highest", "seconds", "tokens"), float)
Draw = Callable[[], int]  # draws once and says how many tokens of responses that were


def bench(
    model: PreTrainedModel,
    rows: list[dict[str, Any]],
    tokenizer: Any,
    reward: Callable[..., Any],
    *,
    group: int = 8,
    max_tokens: int = 128,
    rounds: int = 5,
    device: str = "cuda",
) -> dict[str, Any]:
    """{way: median, lowest and highest tokens per second and seconds} for ``group`` responses to each row.

    rows    dicts with ``prompt`` and ``answer``; reward: TRL's signature

    TRL's rows are missing where TRL is not installed: "TRL, generation" is its ``_generate`` alone,
    "TRL, one step" a whole step of FGOTrainer (generation, scoring, update) per generated token.
    """
    checks.integer("rounds", rounds, 1)
    texts = [row["prompt"] for row in rows for _ in range(group)]
    ways = {
        "labkit sampler": _sampler(model, tokenizer, texts, max_tokens, device),
        "transformers generate": _generate(model.float(), tokenizer, texts, max_tokens, device),
    }
    if device == "cuda":
        half: Any = type(model)(model.config)  # transformers wraps .to() so that its type is lost
        half.to(device, torch.bfloat16)
        half.load_state_dict(model.state_dict())
        ways["transformers generate, bfloat16"] = _generate(half, tokenizer, texts, max_tokens, device)
    with TemporaryDirectory() as folder:
        try:
            ways |= _trl(model, tokenizer, rows, reward, group, max_tokens, folder)
        except ImportError as error:
            print(f"without TRL: {error}", file=sys.stderr)
        take_turns(ways, 1)  # warm
        turns = take_turns(ways, rounds)
    return {
        "ways": {way: _row(values) for way, values in turns.items()},
        "provenance": {
            "rows": len(texts), "max_tokens": max_tokens, "rounds": rounds,
            "parameters": sum(p.numel() for p in model.parameters()),
        },
    }  # fmt: skip


def _row(values: list[tuple[int, float]]) -> dict[str, float]:
    speeds = [tokens / seconds for tokens, seconds in values]
    return {
        "tokens_per_second": statistics.median(speeds), "lowest": min(speeds), "highest": max(speeds),
        "seconds": statistics.median(seconds for _, seconds in values),
        "tokens": statistics.median(tokens for tokens, _ in values),
    }  # fmt: skip


def _sampler(model, tokenizer, texts, max_tokens, device) -> Draw:
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right").to(device)
    ids, length = batch.input_ids[None], batch.attention_mask.sum(1)[None]
    sampler = Sampler(Fleet(model, 1, device), len(texts), ids.shape[2], max_tokens)
    return lambda: int(sampler(ids, length).length.sum())


@torch.no_grad()
def _generate(model, tokenizer, texts, max_tokens, device) -> Draw:
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left").to(device)

    def draw() -> int:
        whole = model.generate(
            **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        ended = (whole[:, batch.input_ids.shape[1] :] == tokenizer.eos_token_id).int().cumsum(1)
        return int((ended == 0).sum() + (ended[:, -1] > 0).sum())

    return draw


def _trl(model, tokenizer, rows, reward, group, max_tokens, folder) -> dict[str, Draw]:
    from datasets import Dataset

    from labkit.fgo import FGOConfig, FGOTrainer

    device = model.device.type
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        config = FGOConfig(
            output_dir=folder, per_device_train_batch_size=len(rows) * group, num_generations=group,
            max_completion_length=max_tokens, max_steps=1, bf16=device == "cuda",
            use_cpu=device == "cpu", gradient_checkpointing=False, report_to="none", save_strategy="no",
            disable_tqdm=True, learning_rate=1e-6, lr_scheduler_type="constant", logging_strategy="no",
        )  # fmt: skip
        copy = type(model)(model.config).to(device)
        copy.load_state_dict(model.state_dict())
        trainer = FGOTrainer(
            model=copy, reward_funcs=reward, args=config, processing_class=tokenizer,
            train_dataset=Dataset.from_list([{k: row[k] for k in ("prompt", "answer")} for row in rows]),
        )  # fmt: skip
    trainer.train()  # sets up what a step needs
    optimizer = trainer.optimizer
    assert optimizer is not None
    batch = [{k: row[k] for k in ("prompt", "answer")} for row in rows for _ in range(group)]

    def generation() -> int:
        ids = trainer._generate([row["prompt"] for row in batch])[1]
        return sum(map(len, ids))

    def step() -> int:
        inputs = trainer._generate_and_score_completions(batch)
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, inputs)
        trainer.accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        return int(inputs["completion_mask"].sum())

    trainer.model.train()
    return {"TRL, generation": generation, "TRL, one step": step}


def _run(context: Context) -> dict:
    model, about = context.prepared
    rows = verbose_sums(context.options.questions, seed=5, **about["task"])
    return bench(model, rows, char_tokenizer(), sum_reward, device=context.device, **context.pick(*SIZES))


def show(found: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{way:32} {row['tokens_per_second']:12,.0f} tokens/s  {row['seconds']:.3f} s"
        for way, row in found["ways"].items()
    )


STUDY = Study(
    "fgo-bench",
    "Tokens per second of the fast sampler, of transformers' generate and of TRL.",
    {"sampling": Stage(_run, "all ways, interleaved", "bench.json", show=show,
                       shape={"ways": {str: ROW}, "provenance": {"rows": int, "parameters": int}},
                       inputs=lambda c: dict(vars(c.options)))},
    {
        "model": Option(NAME, "the lab's model, or a file of labkit.fgo.lab.reasoner"),
        "questions": Option(64, "different prompts", tiny=2),
        "group": Option(8, "responses to each", tiny=4, least=2),
        "max_tokens": Option(128, "of a response", tiny=16),
        "rounds": Option(5, "timed rounds of each way", tiny=1),
    },
    prepare=lambda context: load_reasoner(context.options.model, device=context.device),
)  # fmt: skip
