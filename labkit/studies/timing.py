"""Wall seconds of calls on this machine, all device work done, and of rivals that take turns."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """(result, wall seconds) of ``call`` with all device work done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def take_turns(
    calls: Mapping[Name, Callable[[], Any]],
    rounds: int | Mapping[Name, int],
    deadline: float = float("inf"),
) -> dict[Name, list[tuple[Any, float]]]:
    """Call all in turn, again and again: {name: (result, wall seconds) of each of its rounds}.

    Args:
        calls: What is timed; each has been warmed up by the caller.
        rounds: How often, for all or each by its name: a slow one may take fewer turns.
        deadline: A ``time.time()`` after which no further call is made; the first round is always whole.
    """
    often = rounds if isinstance(rounds, Mapping) else dict.fromkeys(calls, rounds)
    found: dict[Name, list[tuple[Any, float]]] = {name: [] for name in calls}
    for number in range(max(often.values())):
        for name, call in calls.items():
            if number and time.time() > deadline:
                return found
            if number < often[name]:
                found[name].append(timed(call))
    return found


def seconds(turns: Mapping[Name, list[tuple[Any, float]]]) -> dict[Name, list[float]]:
    """The seconds alone of what ``take_turns`` found."""
    return {name: [spent for _, spent in own] for name, own in turns.items()}
