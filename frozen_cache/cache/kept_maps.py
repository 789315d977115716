"""Maps as a cache gives them back, for who has no cache: a head on new pictures sees what it was trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.quantise import coded, dequantised, quantised
from frozen_cache.cache.view import CachedView


class KeptMaps(BaseModel):
    """How a cache of `int8` or `coded` maps rounds them. Half precision is no matter: it moves no mask that one could
    see, and maps beyond its range would end as infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["int8", "coded"]
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """S of `coded` maps, in standard deviations of a channel."""
    c1: bool
    """Whether C1 is kept, so that it is rounded too; what is made from the image is exact."""
    exact_levels: tuple[int, ...] = ()
    """Indices of the encoder levels that are made from the image."""

    def rounded(self, view: CachedView) -> CachedView:
        """A view whose maps, (C, H, W) floats on any device, are float32 and worth whole steps: those that the reader
        would give back if the cache held the view."""
        return replace(
            view,
            c1=self._back(view.c1) if self.c1 and view.c1 is not None else view.c1,
            encoder={
                layer: [
                    level if index in self.exact_levels else self._back(level) for index, level in enumerate(levels)
                ]
                for layer, levels in view.encoder.items()
            },
        )

    def _back(self, a_map: Tensor) -> Tensor:
        return dequantised(*(quantised(a_map) if self.step is None else coded(a_map, step=self.step)))

    def __str__(self) -> str:
        return self.precision if self.step is None else f"{self.precision}, step {self.step:g}"


def kept_maps(attributes: CacheAttributes) -> KeptMaps | None:
    """How a cache rounds its maps; None for floats."""
    if attributes.precision not in ("int8", "coded"):
        return None
    return KeptMaps(
        precision=attributes.precision,
        step=attributes.step,
        c1=attributes.stores_c1,
        exact_levels=tuple(sorted(attributes.recomputed_levels)),
    )
