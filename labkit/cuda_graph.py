"""One way to record work on a GPU as a CUDA graph."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def capture(work: Callable[[], T], warmups: int = 3) -> tuple[torch.cuda.CUDAGraph, T]:
    """(graph of one call of ``work``, what that call returned: each replay fills the same tensors).

    warmups  calls before, on a stream of their own: libraries allocate and tune on first use, which a
             capture forbids
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warmups):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph, result
