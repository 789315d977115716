"""The library: frozen detectors, the zarr cache of their outputs, and the mask head that trains from it.

Shape letters, used everywhere:
    B  images in a batch          K  (query, label) pairs selected per image
    N  instances (rows, RoIs)     Q  all queries of the detector
    D  query width                C  channels or classes
    L  encoder levels             H, W  size of a map or image
    R  side of a RoI              G  ground-truth objects

The public names are those of `__all__`, explained in docs/python.md; everything else may change. They are imported
when first used: `import frozen_cache` alone is light.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

from frozen_cache.errors import FrozenCacheError

__version__: str

__all__ = [
    "CachedBatch",
    "CachedView",
    "CachedViews",
    "FrozenCacheError",
    "InstanceSegmenter",
    "Instances",
    "__version__",
    "collate_views",
    "evaluate",
    "extract",
    "train",
]

_HOME = {
    "CachedBatch": "cache.dataset",
    "CachedView": "cache.view",
    "CachedViews": "cache.dataset",
    "InstanceSegmenter": "inference.segmenter",
    "Instances": "inference.instances",
    "collate_views": "cache.dataset",
    "evaluate": "stages.python",
    "extract": "stages.python",
    "train": "stages.python",
}
"""Public name -> the module that it is imported from."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("frozen-cache")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
