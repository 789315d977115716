"""Where a training's views come from: a cache, or a detector in the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.stored_map import StoredView
from frozen_cache.head.inputs import HeadInputs


class ViewSource(Protocol):
    """Numbered views, in the order of a cache. Any number of threads may read."""

    @property
    def attributes(self) -> CacheAttributes:
        """The cache's; in the loop, of the cache that would be."""
        ...

    @property
    def views(self) -> Sequence[tuple[int, int]]:
        """(image id, view index) of each view."""
        ...

    def resized_size(self, index: int) -> tuple[int, int]:
        """(height, width) of the detector's input, in pixels."""
        ...

    def check_zoom(self) -> None:
        """UserError where no `close_up` can be had."""
        ...

    def matched(self, index: int) -> int:
        """Objects of a view to train on; in the loop, where matches are not known before, those that are no crowds."""
        ...

    def read_stored(
        self, index: int, *, encoder_layers: Sequence[int] | None = None, c1: bool = True, close_up: bool = False
    ) -> StoredView:
        """A view with its maps; `None` for all encoder layers; with its own pixels where a `close_up` is asked for."""
        ...

    @property
    def has_pictures(self) -> bool:
        """Whether `pixels` gives any."""
        ...

    def pixels(self, index: int, view: StoredView) -> Tensor | None:
        """(3, H, W) RGB of a view that was read, in 0..255, at the detector's input size or a multiple of it; None
        without pictures."""
        ...

    def head_inputs(self, encoder_layer: int | None = None) -> HeadInputs:
        """The shapes that a mask head is sized by."""
        ...
