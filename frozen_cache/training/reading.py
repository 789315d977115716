"""Batches made ahead of their use in threads, and copied to the device while it still works on the one before."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from frozen_cache.training.batches import TrainingBatch, ViewStore, make_batch
from frozen_cache.training.config import TrainConfig
from frozen_cache.training.tuning import ShownBatch

FIRST_WORKERS, MOST_WORKERS = 2, 16
LONGEST_WAIT = 0.05
"""Share of the time that training may wait for batches before another thread makes them."""
LOOK_EVERY = 10
"""Steps between looks at the wait."""

Made = tuple[int, list[int], TrainingBatch | ShownBatch]
"""(step, views of all processes, this process's batch)."""
Awaited = tuple[int, list[int], Future[TrainingBatch | ShownBatch]]


class ReadAhead:
    """Iterates over the batches of steps in order, made by threads.

    Args:
        store: where views come from.
        steps: (step, the views of all processes).
        config: of the run.
        roi_side: R of the targets.
        workers: threads; None starts with two and adds one as often as the training waits, up to the cores.
        share: (this process, processes): it reads every so many-th view of each step.
        pinned: in memory that a GPU copies from while the program goes on.
        make: what makes a batch, called as `make_batch` is; None for that.

    Attributes:
        workers: threads at present.
        waited: seconds that the caller has waited for batches.
    """

    def __init__(
        self,
        store: ViewStore,
        steps: Iterator[tuple[int, list[int]]],
        config: TrainConfig,
        *,
        roi_side: int,
        workers: int | None = None,
        share: tuple[int, int] = (0, 1),
        pinned: bool = False,
        make: Callable[..., Any] | None = None,
    ) -> None:
        self._make = make or make_batch
        self._store, self._steps, self._config, self._roi_side = store, steps, config, roi_side
        self._share, self._pinned = share, pinned
        self.most = workers or max(1, min(MOST_WORKERS, (os.cpu_count() or 1) // share[1]))
        self.workers = workers or min(FIRST_WORKERS, self.most)
        self.waited = 0.0

    def __iter__(self) -> Generator[Made, None, None]:
        waiting: deque[Awaited] = deque()
        with ThreadPoolExecutor(self.most) as pool:
            self._fill(pool, waiting)
            looked, waited_then, taken = time.perf_counter(), 0.0, 0
            try:
                while waiting:
                    step, indices, future = waiting.popleft()
                    started = time.perf_counter()
                    batch = future.result()
                    self.waited += time.perf_counter() - started
                    yield step, indices, batch
                    taken += 1
                    if taken % LOOK_EVERY == 0:
                        now = time.perf_counter()
                        self._grow((self.waited - waited_then) / (now - looked))
                        looked, waited_then = now, self.waited
                    self._fill(pool, waiting)
            finally:
                for *_, future in waiting:
                    future.cancel()

    def _grow(self, wait: float) -> None:
        """One thread more where the share `wait` of the time was spent waiting."""
        if wait > LONGEST_WAIT and self.workers < self.most:
            self.workers += 1

    def _fill(self, pool: ThreadPoolExecutor, waiting: deque[Awaited]) -> None:
        """Ask for batches until one more is on its way than there are threads: what is made waits in memory."""
        rank, world = self._share
        while len(waiting) <= self.workers and (following := next(self._steps, None)) is not None:
            step, indices = following
            made = pool.submit(
                self._make,
                self._store,
                indices[rank::world],
                self._config,
                roi_side=self._roi_side,
                seed=self._config.seed * 10_000_019 + step,
                pinned=self._pinned,
            )
            waiting.append((step, indices, made))


def on_device(batches: Iterable[Made], device: torch.device) -> Iterator[Made]:
    """The batches on a device. With a GPU they are copied beside its work, one step ahead and no further."""
    if device.type != "cuda":
        for step, indices, batch in batches:
            yield step, indices, batch.to(device)
        return
    copies, ends = torch.cuda.Stream(device), deque[torch.cuda.Event]()
    for step, indices, batch in batches:
        if len(ends) > 1:  # the step before the one that is running: so no more than two batches are on the device
            ends.popleft().synchronize()
        with torch.cuda.stream(copies):
            moved = batch.to(device)
        working = torch.cuda.current_stream(device)
        working.wait_stream(copies)
        for tensor in moved.tensors():
            tensor.record_stream(working)
        yield step, indices, moved
        ends.append(working.record_event())
