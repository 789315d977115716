"""Images of an evaluation dealt out to the processes of a run; the first process gets what became of them, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from torch import distributed

from frozen_cache.errors import FrozenCacheError, one_line

Done = TypeVar("Done")

CHUNK = 16
"""Images that a process works off between two meetings."""


def dealt(
    work: Callable[[list[int]], Iterator[Done]], places: Sequence[int], *, share: tuple[int, int]
) -> Iterator[Done]:
    """`work(places)`, a part by each process; the first yields everything, in order, the others nothing.

    Every process must iterate to the end.

    Args:
        work: yields one result a place, in order.
        share: (this process, processes), of torch's default process group where there are several.

    Raises:
        FrozenCacheError: in every process, where the work of one failed.
    """
    rank, world = share
    if world == 1:
        yield from work(list(places))
        return
    chunks = [list(places[start : start + CHUNK]) for start in range(0, len(places), CHUNK)]
    results = work([place for chunk in chunks[rank::world] for place in chunk])
    for start in range(0, len(chunks), world):
        mine = chunks[start + rank] if start + rank < len(chunks) else []
        part, error = _part(results, len(mine))
        errors: list[Any] = [None] * world
        distributed.all_gather_object(errors, error)
        for each in errors:
            if each is not None:
                raise each
        gathered: list[Any] | None = [None] * world if rank == 0 else None
        distributed.gather_object(part, gathered, dst=0)
        for other in gathered or []:
            yield from other


def _part(results: Iterator[Done], count: int) -> tuple[list[Done], FrozenCacheError | None]:
    """So many results, or why there are none: an error must not leave the other processes waiting."""
    try:
        return list(islice(results, count)), None
    except FrozenCacheError as error:
        return [], error
    except Exception as error:
        return [], FrozenCacheError(f"the evaluation failed in one of the processes: {one_line(error)}")
