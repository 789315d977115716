"""Images predicted in several threads of this process, in order, a few at a time.

Two threads that each predict an image on one core get further than one image on two: only what is large is divided
well, and of what one image takes much is small.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Place = TypeVar("Place")
Done = TypeVar("Done")

MOST_THREADS = 8
"""Each has the maps of an image in memory."""


def chosen_threads(device: torch.device | None) -> int:
    """Threads for a model on a device: on CPUs as many as PyTorch would use for one image; one for other devices, and
    where there is no model."""
    return min(MOST_THREADS, torch.get_num_threads()) if device is not None and device.type == "cpu" else 1


def ahead(work: Callable[[Place], Done], places: Iterable[Place], *, threads: int) -> Generator[Done, None, None]:
    """`map(work, places)` in so many threads, which share PyTorch's own among them; 1 for this one.

    One result for each thread, and one more, are being made or wait. An error is raised where its result would be.
    """
    if threads == 1:
        yield from map(work, places)
        return
    rest, own = iter(places), torch.get_num_threads()
    waiting: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(max(1, own // threads),)) as pool:
        try:
            waiting.extend(pool.submit(work, place) for place in islice(rest, threads + 1))
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(work, place) for place in islice(rest, 1))
                yield done
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(own)
