"""Texts and conversations to tokens for the harness, by the checkpoint's own tokenizer and template."""

from abc import ABC
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.model import TemplateLM

from labkit import checks


class TextLM(TemplateLM, ABC):
    """The part of a TemplateLM that asks ``tokenizer`` alone, and ``model`` for the ends of a text."""

    tokenizer: Any
    model: Any
    add_bos_token: bool

    @property
    def eot_token_id(self) -> Any:
        """The first token id that ends a text; None for a model without one."""
        return self.model.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: BOS, else the end of a text."""
        bos = self.tokenizer.bos_token_id
        found = self.model.eos_id if bos is None else bos
        if found is None:
            checks.fail("context", "", "a text: the tokenizer has no BOS token, the model no end of text")
        return int(found)

    @property
    def tokenizer_name(self) -> str:
        """What lm_eval tells cached requests of different tokenizers apart by."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; None: with the tokenizer's special tokens, but never a second BOS."""
        bos = self.tokenizer.bos_token
        add = not (bos and string.startswith(bos)) if add_special_tokens is None else add_special_tokens
        ids = list(self.tokenizer(string, add_special_tokens=add)["input_ids"])
        wanted = self.add_bos_token and add_special_tokens is not False
        first = [self.tokenizer.bos_token_id] if wanted else []
        return ids if ids[:1] == first else [*first, *ids]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt of a conversation by the checkpoint's own template, special tokens as text."""
        if not self.tokenizer.chat_template:
            raise ValueError(
                "apply_chat_template must be left out: labkit found no chat template with the tokenizer"
            )
        try:
            return self.tokenizer.apply_chat_template(
                chat_history, tokenize=False, add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )  # fmt: skip
        except TemplateError as error:
            raise ValueError(
                f"messages must suit the model's chat template, which says: {error}"
            ) from error
