"""Replay: a function of tensors that becomes one CUDA graph, so that its kernels cost one launch."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

WORTH = 3  # the time a shape comes when it is captured: searches whose rows come and go never pay for it
MOST = 4  # graphs kept


class Replay:
    """``function`` of tensors (or None), called again and again with few shapes; on a CPU just that.

    What the function reads besides its arguments must stay where it is in memory; call ``forget`` when it
    moved. The function must not wait for the device, and its results are overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self.forget()

    def forget(self) -> None:
        """Drop all graphs."""
        self._seen, self._graphs, self._pool = Counter(), {}, None

    def __call__(self, *given: torch.Tensor | None) -> Any:
        shape = tuple(None if one is None else (one.shape, one.dtype) for one in given)
        if not given[0].is_cuda:
            return self._function(*given)
        if shape not in self._graphs:
            self._seen[shape] += 1
            if self._seen[shape] < WORTH:
                return self._function(*given)
            if len(self._graphs) == MOST:
                del self._graphs[next(iter(self._graphs))]
            self._graphs[shape] = self._capture(given)
        graph, buffers, result = self._graphs[shape]
        for buffer, one in zip(buffers, given, strict=True):
            if buffer is not None:
                buffer.copy_(one)
        graph.replay()
        return result

    @torch.no_grad()
    def _capture(self, given: tuple) -> tuple:
        buffers = [None if one is None else one.clone() for one in given]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries allocate on first use; a capture must not
            self._function(*buffers)
            torch.cuda.synchronize()
            self._pool = self._pool or torch.cuda.graph_pool_handle()  # never two at once: they share it
            graph = torch.cuda.CUDAGraph()
            # torch.cuda.graph would empty the allocator's cache first.
            graph.capture_begin(pool=self._pool)
            result = self._function(*buffers)
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(side)
        return graph, buffers, result
