"""What the variants of an ablation are measured on: a cache, or images of which caches are made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from frozen_cache.cache.reader import CacheReader
from frozen_cache.errors import UserError
from frozen_cache.inference.model import load_run
from frozen_cache.remote import CachePath
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.live import LiveData, LiveReader
from frozen_cache.training.run_directory import load_record


class Measured:
    """The validation data of an ablation.

    Attributes:
        reader: of its views.
        fingerprint: of the cache; None where caches are made of images.
    """

    def __init__(self, live: LiveData | None, val_cache: CachePath | None, *, out: Path, device: str) -> None:
        """Open the cache, or the images that `live` names where there is none.

        Raises:
            UserError: neither is there.
        """
        self._live, self._cache, self._out, self._device = live, val_cache, out, device
        self.reader: CacheReader | LiveReader
        self.fingerprint: str | None = None
        if val_cache is not None:
            self.reader = CacheReader(val_cache)
            self.fingerprint = self.reader.attributes.fingerprint
        elif live is not None and live.val_images is not None and live.val_annotations is not None:
            shown = replace(live, images=live.val_images, annotations=live.val_annotations, views=1)
            self.reader = LiveReader(shown, out=out, device=device)
        else:
            raise UserError("ablate evaluates every variant: give --val-images and --val-annotations, or --val-cache")

    @contextmanager
    def cache_for(self, variant: Path) -> Iterator[CachePath]:
        """A cache by the very detector of a variant's run; that of one that trained along is gone afterwards."""
        if self._cache is not None:
            yield self._cache
            return
        tuned = bool(load_record(variant / "run").config.live.unfreeze)
        made = (variant if tuned else self._out) / "val.zarr"
        self._extract(variant / "run", made)
        yield made
        if tuned:
            shutil.rmtree(made)

    def _extract(self, run: Path, cache: Path) -> None:
        """Make the cache of the validation images, or go on with it."""
        live = self._live
        assert live is not None and live.val_images is not None and live.val_annotations is not None
        extract_features(
            detector=load_run(run, detector=live.detector, weights=live.weights)[0].detector,
            images=live.val_images,
            annotations=live.val_annotations,
            out=cache,
            device=self._device,
            only=live.only,
            labels=live.labels,
            label_map=live.label_map,
        )
