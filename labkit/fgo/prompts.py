"""Questions as a model is asked them, in training (labkit train fgo) as in evaluation (labkit eval)."""

from typing import Any

from labkit import checks

Rows = list[dict[str, Any]]


def as_prompts(rows: Rows, *, instruction: str | None = None, chat: bool = False) -> Rows:
    """``rows`` with ``instruction`` on a line behind each prompt and, for ``chat``, as a user's message.

    ValueError if a prompt is a conversation already and either is asked for.
    """
    if not instruction and not chat:
        return rows
    if not all(isinstance(row["prompt"], str) for row in rows):
        checks.fail("--instruction and --chat", "prompts that are conversations", "left out for these")
    made = []
    for row in rows:
        text = f"{row['prompt']}\n{instruction}" if instruction else row["prompt"]
        made.append({**row, "prompt": [{"role": "user", "content": text}] if chat else text})
    return made
