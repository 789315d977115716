"""What a training reads, and what it validates on: a cache, or images with the detector in the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from frozen_cache.cache.hints import Hints, read_hints
from frozen_cache.cache.reader import CacheReader
from frozen_cache.detectors.tuning import as_tunable
from frozen_cache.device import pick_device
from frozen_cache.errors import UserError
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.remote import CachePath
from frozen_cache.report.photographs import Photographs, photographs
from frozen_cache.stages.live import LiveData, LiveReader, LiveStore
from frozen_cache.training.batches import ViewStore
from frozen_cache.training.config import LiveConfig, TrainConfig
from frozen_cache.training.tuning import Tuning
from frozen_cache.training.view_source import ViewSource

AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}
"""A training's precision as the detector's autocast."""


def check_live(config: TrainConfig, *, live: bool, val_cache: CachePath | None) -> None:
    """UserError where a configuration wants of the detector in the loop what no cache can give."""
    if not live and config.live != LiveConfig():
        raise UserError("the configuration's `live` section needs --live: a cache holds its views as they are")
    if config.live.detector_loss and not config.live.unfreeze:
        raise UserError("live.detector_loss needs parts of the detector that train along: --unfreeze")
    if config.live.unfreeze and val_cache is not None:
        raise UserError(
            f"--unfreeze changes the detector, and {val_cache} holds what it gave before: validate with --val-images "
            "and --val-annotations"
        )


@dataclass(frozen=True)
class ValidationData:
    """What the best checkpoint is chosen by."""

    reader: CacheReader | LiveReader
    name: str
    """For people."""
    pictures: Callable[[], Photographs]


@dataclass(frozen=True)
class Source:
    """Where the views of a training come from."""

    reader: ViewSource
    hints: Hints | None
    """Where the detector lies."""
    name: str
    """For people."""
    live: LiveReader | None
    """The reader, with the detector in the loop."""

    @classmethod
    def find(
        cls, cache: CachePath | None, live: LiveData | None, config: TrainConfig, *, out: Path, device: str
    ) -> Source:
        """Open it.

        Raises:
            UserError: neither or both of a cache and a live detector, or a choice that only the other one has.
        """
        if live is None and cache is not None:
            check_live(config, live=False, val_cache=None)
            return cls(CacheReader(cache, c1_scale=config.head.c1_scale), read_hints(cache), str(cache), None)
        if live is None or cache is not None:
            raise UserError("train from a cache or live, one of the two")
        if config.head.c1_scale not in (None, 1):
            raise UserError(
                f"head.c1_scale={config.head.c1_scale} needs a cache made with --c1 recomputed: it is 1 live"
            )
        on_gpu = pick_device(device).type == "cuda"
        reader = LiveReader(
            live,
            out=out,
            device=device,
            config=config.live,
            autocast=AUTOCAST.get(config.mixed_precision) if on_gpu else None,
        )
        return cls(reader, reader.hints, f"{live.annotations}, live", reader)

    def store(self, *, encoder_layer: int, c1: bool, memory_bytes: int, close_up: bool = False) -> ViewStore:
        """The views for batches; those of a cache are kept in memory as long as they fit."""
        if self.live is not None:
            return LiveStore(self.live, encoder_layer=encoder_layer, c1=c1)
        return ViewStore(self.reader, encoder_layer=encoder_layer, c1=c1, memory_bytes=memory_bytes, close_up=close_up)

    def tuning(self, head: MaskHead, config: TrainConfig, *, encoder_layer: int) -> Tuning | None:
        """The detector, where parts of it train along."""
        if self.live is None or not config.live.unfreeze:
            return None
        return Tuning(
            as_tunable(self.live.detector),
            show=self.live.shown,
            attributes=self.live.attributes,
            config=config,
            encoder_layer=encoder_layer,
            c1=head.uses_c1,
            roi_side=config.head.mask_side,
            most_pixels=self.live.most_pixels,
        )

    def validation(self, val_cache: CachePath | None, config: TrainConfig) -> ValidationData | None:
        """A cache, or the images that a live training names for it; None for no validation.

        Raises:
            UserError: both, or a cache that does not do.
        """
        check_live(config, live=self.live is not None, val_cache=val_cache)
        beside = None if self.live is None else self.live.validation()
        if beside is not None and val_cache is not None:
            raise UserError("validate on a cache or on images, one of the two: leave out --val-cache or --val-images")
        if beside is not None:
            return ValidationData(beside, f"{beside.path}, live", beside.photographs)
        if val_cache is None:
            return None
        found = CacheReader(val_cache, c1_scale=self.reader.attributes.detector.backbone_scale)
        return ValidationData(found, str(val_cache), partial(photographs, val_cache, reader=found))
