"""Which of the detections are kept: those of a score, of some classes, the best ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from frozen_cache.cache.attributes import Category
from frozen_cache.cache.view import CachedView
from frozen_cache.errors import UserError
from frozen_cache.inference.instances import Instances
from frozen_cache.near_names import perhaps_meant

THRESHOLD = 0.3
"""Of scores, where none is given."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which instances a call keeps, and where their masks end."""

    threshold: float
    classes: Tensor | None
    """Indices into the categories; None for all."""
    max_detections: int | None
    mask_threshold: float

    def __post_init__(self) -> None:
        for name in ("threshold", "mask_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)}: give a number from 0 to 1")
        if self.max_detections is not None and self.max_detections < 1:
            raise UserError(f"max_detections {self.max_detections}: give 1 or more")

    def of_view(self, view: CachedView) -> CachedView:
        """The view with those selected pairs only that may still be kept once they have masks."""
        keep = view.scores[: view.selected] >= self.threshold
        if self.classes is not None:
            keep &= torch.isin(view.labels[: view.selected], self.classes)
        rows = keep.nonzero()[:, 0]
        return view.take(rows)

    def of_instances(self, found: Instances, labels: Tensor) -> Instances:
        """Those of the wanted classes and scores; the best of them, in the detector's order.

        Args:
            labels: (N,) int64, their indices into the categories.
        """
        keep = torch.from_numpy(found.scores) >= self.threshold
        if self.classes is not None:
            keep &= torch.isin(labels, self.classes)
        rows = keep.nonzero()[:, 0]
        if self.max_detections is not None and len(rows) > self.max_detections:
            best = torch.from_numpy(found.scores)[rows].argsort(descending=True, stable=True)[: self.max_detections]
            rows = rows[best.sort().values]
        return found if len(rows) == len(found) else found[rows.numpy()]


def places_of(classes: Sequence[str | int] | str, categories: Sequence[Category]) -> Tensor:
    """(C,) int64 indices into `categories` of the classes of these names or ids; UserError naming an unknown one."""
    places: list[int] = []
    for wanted in [classes] if isinstance(classes, str) else classes:
        found = [at for at, category in enumerate(categories) if wanted in (category["name"], category["id"])]
        if not found:
            names = [category["name"] for category in categories]
            more = " ..." if len(names) > 10 else ""
            meant = perhaps_meant(str(wanted), names)
            raise UserError(f"no class `{wanted}`{meant}: known are {', '.join(names[:10])}{more}")
        places += found
    return torch.tensor(places, dtype=torch.int64)
