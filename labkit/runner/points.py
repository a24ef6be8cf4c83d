"""A sweep's points on the workers of a dask scheduler, as many at a time as they have threads."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator

from distributed import Client, as_completed


def completed(client: Client, function: Callable[..., dict], calls: dict[int, tuple]) -> Iterator:
    """(index, ``function(*calls[index])``) as they finish; ends early if the scheduler goes away.

    No more are handed out than the workers have threads: a point that kills its worker then takes none with
    it that waited there, and results are released at once, so memory stays flat.
    """
    running: dict[object, int] = {}
    rest, results = iter(calls), as_completed()

    def start() -> None:
        for i in itertools.islice(rest, max(_threads(client) - len(running), 0)):
            key = f"point-{i}-{time.time_ns()}"
            future = client.submit(function, *calls[i], key=key, pure=False)
            running[future.key] = i
            results.add(future)

    start()
    for future in results:
        if future.cancelled():  # by the client, which lost its scheduler
            logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # it would add a traceback
            return
        i = running.pop(future.key)
        if future.status == "error":
            problem = future.exception()  # for instance KilledWorker
            error = " ".join(f"{type(problem).__name__}: {problem}".split())
            result = {"seconds": 0.0, "metrics": {}, "error": error, "notebook": ""}
        else:
            result = future.result()
        future.release()
        start()
        yield i, result


def _threads(client: Client) -> int:
    """How many points the workers can take at a time; 1 while there is none, for another may come."""
    try:
        return sum(client.nthreads().values()) or 1
    except OSError:  # the scheduler went away: its futures tell
        return 1
