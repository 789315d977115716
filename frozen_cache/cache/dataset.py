"""`CachedViews`: a cache as a `torch.utils.data.Dataset`, for training something of one's own from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView


class CachedViews(Dataset[CachedView]):
    """The views of a finished cache, by index.

    Works in a `DataLoader` with `collate_fn=collate_views`, with workers that are spawned, served or forked: each
    process opens the arrays itself, when it first reads.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        encoder_layers: Sequence[int] | None = None,
        c1: bool = True,
        dtype: torch.dtype = torch.float32,
        plain: bool = False,
        c1_scale: int | None = None,
    ) -> None:
        """Look at the cache's record; no array is opened yet.

        Args:
            path: a cache that `extract` has finished.
            encoder_layers: the kept encoder layers to read; None for all, () for none.
            c1: whether to read C1.
            dtype: of C1 and the encoder's levels.
            plain: only view 0 of each image, the plain resize.
            c1_scale: where C1 is recomputed: C1 and the added maps from the images at 2 or 4 times the input size.

        Raises:
            FrozenCacheError: there is no cache, it is unfinished, damaged, or of another version.
        """
        self._reader = CacheReader(os.fspath(path), c1_scale=c1_scale)
        self._scale = c1_scale
        self._process = os.getpid()
        self._options = {"encoder_layers": encoder_layers, "c1": c1, "dtype": dtype}
        self._indices = [at for at, (_, view) in enumerate(self._reader.views) if view == 0 or not plain]

    @property
    def categories(self) -> list[tuple[int, str]]:
        """(category id, class name) by rising id: `CachedView.labels` are indices into it."""
        return [(category["id"], category["name"]) for category in self._reader.attributes.categories]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> CachedView:
        """One view; DamagedCacheError, a FrozenCacheError, where its data is not what was written."""
        if self._process != os.getpid():
            # A forked worker inherits open arrays, and the locks of threads that it does not have.
            self._reader = CacheReader(self._reader.path, c1_scale=self._scale)
            self._process = os.getpid()
        return self._reader.read(self._indices[index], **self._options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class CachedBatch:
    """Views of several images. Their maps differ in size and stay with the views; rows are put one after the other."""

    views: list[CachedView]
    """B views."""
    image_index: Tensor
    """(N,) int64, ascending: the view that each row belongs to."""
    queries: Tensor
    """(N, D) float32: the selected pairs of all views."""
    boxes: Tensor
    """(N, 4) float32 cxcywh in 0..1 of the view."""
    scores: Tensor
    """(N,) float32."""
    labels: Tensor
    """(N,) int64 index into the cache's categories."""


def collate_views(views: Sequence[CachedView]) -> CachedBatch:
    """A batch of views, for `DataLoader(CachedViews(...), collate_fn=collate_views)`."""
    counts = torch.tensor([view.selected for view in views], dtype=torch.int64)
    return CachedBatch(
        views=list(views),
        image_index=torch.arange(len(views)).repeat_interleave(counts),
        queries=torch.cat([view.queries[: view.selected] for view in views]),
        boxes=torch.cat([view.boxes[: view.selected] for view in views]),
        scores=torch.cat([view.scores[: view.selected] for view in views]),
        labels=torch.cat([view.labels[: view.selected] for view in views]),
    )
