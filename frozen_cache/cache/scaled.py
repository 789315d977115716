"""A cache read as if its C1 and added maps came from the images at several times the input size: `head.c1_scale`."""

from __future__ import annotations

from frozen_cache.cache.attributes import CacheAttributes, detector_fingerprint
from frozen_cache.detectors.finer import SCALES, finer_spec
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath


class ScaledAttributes(CacheAttributes):
    """The attributes that the cache would have, had its detector that scale; all that is stored stays what it is."""

    written_fingerprint: str

    @property
    def fingerprint(self) -> str:
        """Of the cache as it was written: its segments carry this one."""
        return self.written_fingerprint


def scaled(attributes: CacheAttributes, scale: int | None, *, cache: CachePath) -> CacheAttributes:
    """The attributes at a scale; None for that with which the cache was made.

    Raises:
        UserError: a cache that stores its maps, and of another scale.
    """
    spec, record = attributes.detector, attributes.stem
    if scale is None or scale == spec.backbone_scale:
        return attributes
    if scale not in SCALES:
        raise UserError(f"head.c1_scale={scale} is not supported: choose 1, 2 or 4")
    if record is None or spec.backbone_scale > 1:
        raise UserError(
            f"cache {cache} has C1 and added maps at {spec.backbone_scale} times the input size, not {scale}: extract "
            f"with --backbone-scale {scale}, or with --c1 recomputed, where head.c1_scale is free"
        )
    finer, config = finer_spec(spec, record.config, scale)
    changes = {
        "detector": finer,
        "detector_fingerprint": detector_fingerprint(finer),
        "stem": record.model_copy(update={"config": config}),
        "written_fingerprint": attributes.fingerprint,
    }
    return ScaledAttributes(**(dict(attributes) | changes))
