"""Images worked off in other processes, in order, a few at a time, while this one predicts the next."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from frozen_cache.errors import FrozenCacheError

Task = TypeVar("Task")
Done = TypeVar("Done")

MOST_WORKERS = 8
WORTH_IT = 100
"""Images from which processes pay: each takes a second to start."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def chosen_workers(images: int, *, processes: int = 1) -> int:
    """Worker processes for so many images: a core each beside this process's own; none for few images.

    Args:
        processes: that share the machine's cores.
    """
    cores = (os.cpu_count() or 1) // processes
    return 0 if images < WORTH_IT else max(0, min(MOST_WORKERS, cores - 1))


def spread(work: Callable[[Task], Done], tasks: Iterable[Task], *, workers: int) -> Iterator[Done]:
    """`map(work, tasks)`, in so many other processes; 0 for this one. Few tasks wait at any time.

    Raises:
        FrozenCacheError: a worker process died.
    """
    if workers == 0:
        yield from map(work, tasks)
        return
    from loky import ProcessPoolExecutor  # no need of `if __name__ == "__main__"` in the user's program
    from loky.process_executor import BrokenProcessPool

    executor = ProcessPoolExecutor(workers, env=_ONE_THREAD, initializer=_ignore_ctrl_c)
    waiting: deque = deque()
    try:
        for task in tasks:
            waiting.append(executor.submit(work, task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise FrozenCacheError(
            "a worker process of the evaluation died, probably for want of memory: give it more, or --workers 0"
        ) from error
    finally:
        executor.shutdown(wait=True, kill_workers=bool(waiting))


def _ignore_ctrl_c() -> None:
    """The process that waits for us hears it too, and ends us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
