"""Make a causal LM a masked diffusion LM: its mask token, rows of tokens, and the Trainer.

The network keeps its weights. What changes: who sees whom (all see all, or causally over blocks), and the
loss, that of labkit.soar.masking with the weight 1/t. With ``shift``, as in Dream, the logits at i - 1
still predict position i, so that what a causal LM has learnt stays of use.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Trainer

from labkit import checks
from labkit.options import help_field
from labkit.soar.generate import encode
from labkit.soar.masking import draw, mask_answers, masked_loss
from labkit.soar.models.adapted import CLASSES
from labkit.soar.models.diffusion_lm import sees

MASK = "<|mask|>"


@dataclass(frozen=True)
class Adaptation:
    """What the diffusion LM will be, and the states that it is trained on: those that ``decode`` shows."""

    shift: bool = help_field("logits at i - 1 predict position i, as in Dream; else those at i", True)
    block_causal: int | None = help_field("attention causal over blocks of so many; null: none", None)
    answer_length: int | None = help_field(
        "slots for an answer, its end included; null: the longest's, in whole blocks", None
    )
    block_lengths: list[int] = field(
        default_factory=list,
        metadata={"help": "of the blocks in the states of block decoding; none: block_causal, else 32"},
    )
    block_share: float = help_field("rows in states of block decoding; others are masked uniformly", 0.5)
    lora_r: int | None = help_field("train LoRA of this rank (needs peft), not all weights", None)

    def __post_init__(self) -> None:
        for name in ("block_causal", "answer_length", "lora_r"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), 1)
        if not self.block_lengths:
            object.__setattr__(self, "block_lengths", [self.block_causal or 32])
        for length in self.block_lengths:
            checks.integer("block_lengths", length, 1)
            if self.block_causal and self.block_causal % length:
                checks.fail("block_lengths", length, f"divisors of block_causal={self.block_causal}")
        checks.number("block_share", self.block_share, 0, 1)
        if self.answer_length and self.slots(self.answer_length) != self.answer_length:
            allowed = (
                f"a multiple of each of block_lengths={self.block_lengths}, as decode wants gen_length"
            )
            checks.fail("answer_length", self.answer_length, allowed)

    def slots(self, tokens: int) -> int:
        """Fewest slots for answers of so many tokens that ``decode`` takes with any of the block lengths.

        One that is longer than the answer is the whole answer, but where attention has blocks too.
        """
        found = 0
        while found != tokens:
            found = tokens
            size = math.lcm(*(one for one in self.block_lengths if self.block_causal or one < found))
            tokens = -(-found // size) * size
        return found


def add_mask(net: Any, tokenizer: Any) -> int:
    """The id of the mask token. One that the tokenizer lacks is added; it begins as the mean embedding.

    ValueError if the network is none of those that ``load_model`` opens, or texts have no end.
    """
    kind = net.config.model_type
    if kind not in CLASSES or getattr(net.config, "use_sliding_window", False):
        what = f"a network of model_type {kind!r}" + (" with a sliding window" if kind in CLASSES else "")
        checks.fail("--model", what, f"one of {', '.join(CLASSES)}, without a sliding window")
    if tokenizer.eos_token_id is None:
        checks.fail("--model", "a tokenizer without an eos_token", "one whose tokenizer has an end of text")
    if tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": MASK})
        mask, known = tokenizer.mask_token_id, net.get_input_embeddings().weight.shape[0]
        if mask >= known:
            net.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            for table in {net.get_input_embeddings().weight, net.get_output_embeddings().weight}:
                table[mask] = table[: min(mask, known)].mean(0)
    return tokenizer.mask_token_id


class Rows:
    """Prompts as ``generate`` gives them to the model, and answers up to their end of text.

    Rows whose answer takes more than ``answer_length`` tokens, or that are longer than ``longest``, are
    left out: ``left_out`` says how many. ValueError if none is left, or if one holds the mask token.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        adaptation: Adaptation,
        longest: int,
    ):
        self.eos_id: int = tokenizer.eos_token_id
        prompts = [encode(tokenizer, row["prompt"]) for row in rows]
        texts = [tokenizer(row["answer"], add_special_tokens=False)["input_ids"] for row in rows]
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            if tokenizer.mask_token_id in (*prompt, *text):
                checks.fail("--dataset", f"row {number} with it", f"text without {tokenizer.mask_token}")
        # Decode writes nothing behind an end of text, though an answer may hold one.
        answers = [[*takewhile(lambda token: token != self.eos_id, text), self.eos_id] for text in texts]
        self.answer_length = adaptation.answer_length or adaptation.slots(max(map(len, answers)))
        self.rows = [
            (prompt, answer)
            for prompt, answer in zip(prompts, answers, strict=True)
            if len(answer) <= self.answer_length and len(prompt) + self.answer_length <= longest
        ]
        self.left_out = len(rows) - len(self.rows)
        if not self.rows:
            checks.fail(
                "--answer_length", self.answer_length,
                f"at least the tokens of an answer, and with its prompt at most the model's {longest}",
            )  # fmt: skip

    def collate(self, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        """``tokens`` (B, L), padded in front by ``padding`` (B,); ``used`` (B,), see ``mask_answers``."""
        width = max(len(prompt) for prompt, _ in rows)
        end = [self.eos_id]
        padding = [width - len(prompt) for prompt, _ in rows]
        tokens = [
            end * pad + prompt + answer + end * (self.answer_length - len(answer))
            for pad, (prompt, answer) in zip(padding, rows, strict=True)
        ]
        used = [len(answer) for _, answer in rows]
        return {
            "tokens": torch.tensor(tokens),
            "padding": torch.tensor(padding),
            "used": torch.tensor(used),
        }


class DiffusionTrainer(Trainer):
    """transformers' Trainer with the masked diffusion loss.

    States are drawn from the seed, the step and the micro-batch, for all processes together: a resumed run
    sees the same masks, and so do two processes with half a batch each.
    """

    def __init__(self, *, rows: Rows, adaptation: Adaptation, mask_id: int, **given: Any):
        super().__init__(train_dataset=rows.rows, data_collator=rows.collate, **given)
        self.slots, self.adaptation, self.mask_id = rows.answer_length, adaptation, mask_id
        self.block_lengths = [min(length, self.slots) for length in adaptation.block_lengths]
        self.model_accepts_loss_kwargs = False  # the loss is a mean: Trainer divides it by accumulation
        self.drawn = (-1, -1)  # step, micro-batch

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over rows of L (labkit.soar.masking)."""
        tokens, device = inputs["tokens"], inputs["tokens"].device
        step = self.state.global_step
        self.drawn = (step, self.drawn[1] + 1 if self.drawn[0] == step else 0)
        processes = self.accelerator.num_processes
        source = torch.Generator().manual_seed((self.args.seed * 10**7 + step) * 1000 + self.drawn[1])
        about = self.adaptation
        draws = draw(
            len(tokens) * processes, self.slots, source,
            block_lengths=self.block_lengths, block_share=about.block_share,
        ).part(self.accelerator.process_index, processes).to(device)  # fmt: skip
        answers = tokens[:, -self.slots :]
        # Attention's blocks begin with the prompt, and decode fills those; else blocks begin behind it.
        before = tokens.shape[1] - self.slots - inputs["padding"] if about.block_causal else 0
        states = mask_answers(answers, inputs["used"], draws, self.mask_id, before)
        masked = torch.cat([tokens[:, : -self.slots], states.inputs], 1)
        output = model(
            input_ids=masked, use_cache=False, logits_to_keep=self.slots + about.shift,
            **who_sees_whom(tokens.shape[1], inputs["padding"], about.block_causal),
        )  # fmt: skip
        logits = output.logits[:, : self.slots]  # shifted: from the last position of the prompt on
        loss = masked_loss(logits, answers, states.counted, states.weight)
        return (loss, output) if return_outputs else loss


def who_sees_whom(length: int, padding: Tensor, block_causal: int | None) -> dict[str, Tensor]:
    """attention_mask bool (B, 1, L, L) and position_ids (B, L) of rows with so much padding in front."""
    place = torch.arange(length, device=padding.device) - padding[:, None]
    seen = (place >= 0)[:, None, None, :].expand(-1, 1, length, -1)
    place = place.clamp(min=0)
    if block_causal is not None:
        seen = seen & sees(place, place, block_causal)
    return {"attention_mask": seen, "position_ids": place}
