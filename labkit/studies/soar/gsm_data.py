"""Make what lab/gsm is trained on: its tokenizer, millions of problems as tokens, the held-out problems.

python -m labkit.studies.soar.gsm_data DIR [--each 33000] [--workers 2] [--text 0]

Needs reasoning-gym (extra ``tasks``). Writes DIR/tokenizer.json (kept if it is there), DIR/train.npz and
DIR/gsm_problems.jsonl.gz, the last two without problems that do not fit PROMPT and ANSWER tokens; with
--text DIR/train.jsonl, training problems of each template as ``labkit train dlm`` reads them. Numbers
are split into digits, a word keeps its blank, and a word before a number takes the blank behind it too.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from labkit import checks
from labkit.paths import write_atomic
from labkit.studies.soar import gsm_problems as gsm
from labkit.studies.soar.gsm_problems import HELD_OUT_TEMPLATES, PARTS, Problem, part_of, problems

PROMPT, ANSWER = 112, 128  # most tokens: of a question with <answer>, of a solution with <eos>
SPECIAL = ("<pad>", "<mask>", "<eos>", "<answer>")
VOCABULARY = 3072
HELD_OUT_EACH = {"validation": 16, "test": 64, "templates-validation": 32, "templates-test": 128}
_WORDS = r"\d| ?\p{L}+(?: (?=\d))?| ?[^\s\p{L}\d]+(?: (?=\d))?|\s+"
_SEEDS = 10**9  # of each template, so that no two share one


def distinct(template: int, tries: int) -> Iterator[Problem]:
    """The first ``tries`` problems of a template, each question once."""
    seen: set[str] = set()
    for problem in problems(template, range(template * _SEEDS, template * _SEEDS + tries)):
        if problem.question not in seen:
            seen.add(problem.question)
            yield problem


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Byte-level BPE that never joins two digits; a text it reads as a prompt ends on <answer>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <answer>", special_tokens=[("<answer>", SPECIAL.index("<answer>"))]
    )
    return tokenizer


def tokens(tokenizer: Tokenizer, problem: Problem) -> tuple[list[int], list[int]] | None:
    """(prompt, solution without <eos>) of a problem; None if it does not fit PROMPT and ANSWER."""
    prompt = tokenizer.encode(problem.question).ids
    solution = tokenizer.encode(problem.solution, add_special_tokens=False).ids
    return (prompt, solution) if len(prompt) <= PROMPT and len(solution) < ANSWER else None


def make_template(
    template: int, each: int, tokenizer: str, text: int = 0
) -> tuple[dict[str, list[Problem]], dict[str, Any], list[str]]:
    """Of one template: its held-out problems by part, up to ``each`` training problems packed, and the
    first ``text`` of these as lines of JSON.
    """
    reader = Tokenizer.from_str(tokenizer)
    held: dict[str, list[Problem]] = {part: [] for part in PARTS[1:]}
    flat: list[np.ndarray] = []
    lengths: list[tuple[int, int]] = []
    lines: list[str] = []
    for problem in distinct(template, 4 * each):
        part = part_of(problem)
        if part != "train" and len(held[part]) >= HELD_OUT_EACH[part]:
            continue
        if (found := tokens(reader, problem)) is None:
            continue
        if part != "train":
            held[part].append(problem)
            continue
        flat.append(np.array(found[0] + found[1], np.uint16))
        lengths.append((len(found[0]), len(found[1])))
        if len(lines) < text:
            lines.append(json.dumps({"prompt": problem.question, "answer": problem.solution}) + "\n")
        if len(lengths) == each:
            break
    packed = {
        "tokens": np.concatenate([np.zeros(0, np.uint16), *flat]),
        "lengths": np.array(lengths, np.uint8).reshape(-1, 2),
        "template": np.full(len(lengths), template, np.uint8),
    }
    return held, packed, lines


def make(folder: Path, each: int, workers: int, text: int = 0) -> None:
    """Write the files and print what they hold."""
    began = time.perf_counter()
    numbers, kept = gsm.templates(), folder / "tokenizer.json"
    if not kept.exists():
        shown = (islice(distinct(k, 2000), 1500) for k in numbers if k not in HELD_OUT_TEMPLATES)
        sample = [p for some in shown for p in some if part_of(p) == "train"]
        tokenizer = train_tokenizer(text for p in sample for text in (p.question, p.solution))
        write_atomic(kept, lambda path: tokenizer.save(str(path)))
    job = partial(make_template, each=each, tokenizer=kept.read_text(), text=text)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        made = pool.map(job, numbers, chunksize=1)
    packed: dict[str, Any] = {
        name: np.concatenate([one[name] for _, one, _ in made]) for name in made[0][1]
    }
    write_atomic(folder / "train.npz", lambda path: np.savez_compressed(path, **packed))
    lines = [line for *_, some in made for line in some]
    if lines:
        Random(0).shuffle(lines)
        write_atomic(folder / "train.jsonl", lambda path: path.write_text("".join(lines)))
    held = {part: [p for one, *_ in made for p in one[part]] for part in PARTS[1:]}
    for part in held.values():
        Random(0).shuffle(part)
    write_atomic(folder / gsm.SHIPPED.name, lambda path: path.write_bytes(gsm.write_problems(held)))
    count, size = len(packed["lengths"]), (folder / "train.npz").stat().st_size
    print(
        f"{count} training problems of {len(np.unique(packed['template']))} templates, "
        f"{packed['lengths'].sum(1).mean():.1f} tokens and {size / count:.1f} bytes each, "
        f"{time.perf_counter() - began:.0f} s; "
        f"held out: { {part: len(rows) for part, rows in held.items()} }"
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m labkit.studies.soar.gsm_data", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=33_000, help="most training problems of a template")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--text", type=int, default=0, help="problems of a template in train.jsonl")
    given = parser.parse_args(words)
    checks.integer("each", given.each, 1)
    workers, text = checks.integer("workers", given.workers, 1), checks.integer("text", given.text, 0)
    make(given.folder, given.each, workers, text)


if __name__ == "__main__":
    main()
