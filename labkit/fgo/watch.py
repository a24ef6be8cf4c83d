"""What makes a run worthless and is easily overlooked: one line each, once a run."""

import logging
from typing import Any

from torch import Tensor

SHOWN = 80  # signs of an example


def warn(message: str) -> None:
    """One line on stderr, or wherever the program logs to."""
    logging.getLogger("labkit.fgo").warning("FGOTrainer: %s", message)


class Watch:
    """Reads every training batch of a trainer and warns where

    the reward that says correct is not binary: FGO asks only whether it is above 0
    the first batch holds no correct response
    every response of a batch was cut at the length limit
    """

    def __init__(self, reward: str):
        self.reward = reward
        self.values: set[float] = set()  # seen so far, three are enough
        self.batches = 0
        self._told: set[str] = set()

    def __call__(self, judged: Tensor, truncated: float, limit: int, example: tuple[Any, Any]) -> None:
        """Look at one batch.

        Args:
            judged: (rows,) what the reward gave, NaN where it gave nothing.
            truncated: share of responses that were cut, in [0, 1].
            limit: tokens at which they were.
            example: (answer, completion) of one row.
        """
        found = judged[~judged.isnan()]
        if len(self.values) < 3:
            self.values |= set(found.unique()[:3].tolist())
        low, high = min(self.values, default=0.0), max(self.values, default=0.0)
        if len(self.values) > 2 or (low < high and (low > 0) == (high > 0)):
            some = ", ".join(f"{value:g}" for value in sorted(self.values))
            self._warn(
                "binary", f"{self.reward} is not binary ({some}): above 0 counts as correct, all the same"
            )
        if self.batches == 0 and len(found) and not (found > 0).any():
            answer, text = example
            self._warn(
                "wrong",
                f"none of the first {len(found)} responses is correct by {self.reward}: does it read them? "
                f"answer {str(answer)[-SHOWN:]!r}, response ends {text[-SHOWN:]!r}",
            )
        if truncated == 1:
            self._warn(
                "cut",
                f"every response of a batch was cut at max_completion_length={limit}: none could end",
            )
        self.batches += 1

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            warn(message)
