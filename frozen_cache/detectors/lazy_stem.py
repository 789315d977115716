"""A stem that is built where and when it is first used, with the detector's normalisation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert, roi_align

from frozen_cache.detectors.output import DetectorSpec, FrozenDetector, added_maps
from frozen_cache.detectors.stem import Stem
from frozen_cache.errors import UserError


@dataclass(frozen=True)
class _Built:
    """A stem on a device, with what it normalises by: to bring that over each time would be to wait for the device."""

    stem: Stem
    mean: Tensor
    std: Tensor


class LazyStem:
    """The stem of a detector. Any number of threads may use it.

    Args:
        load: gives the stem.
        spec: of the detector.
        autocast: `bfloat16` or `float16`, in which the detector computes; None for float32.
        owner: whose stem it is, for errors.
    """

    def __init__(self, load: Callable[[], Stem], *, spec: DetectorSpec, autocast: str | None, owner: str) -> None:
        self._added = added_maps(spec.encoder_levels)
        self._load, self._spec, self._autocast, self._owner = load, spec, autocast, owner
        self._start()

    @torch.no_grad()
    def __call__(self, pixels: Mapping[int, Tensor]) -> tuple[Tensor | None, dict[int, Tensor]]:
        """C1 and the levels, by index, of views of one size, on the device of their pixels.

        It computes as the detector did, in its autocast; inside another autocast context, in that.
        """
        device = next(iter(pixels.values())).device
        built = self._on(device)
        images = {scale: self._prepared(each, built) for scale, each in pixels.items()}
        with self._context(device):
            c1, levels = built.stem(images)
        self._check(c1, levels)
        return c1, levels

    @torch.no_grad()
    def zoomed(self, pictures: Sequence[Tensor], boxes: Sequence[Tensor], *, side: int) -> Tensor:
        """C1 of crops and the maps added from the backbone, as `Stem.of_crops` puts them together. Crops are cut as
        RoIAlign cuts: each pixel is the mean over what it covers, so that large boxes do not alias; beyond a picture
        lies the detector's mean colour.

        Args:
            pictures: (3, h, w) in 0..255 each.
            boxes: (n, 4) cxcywh in 0..1 of each picture.
            side: of the crops, in pixels.

        Returns:
            (N, C, side / 4, side / 4), N over all pictures in their order, float32.

        Raises:
            UserError: the stem does not give these maps.
        """
        device = pictures[0].device
        built = self._on(device)
        crops = []
        for picture, mine in zip(pictures, boxes, strict=True):
            image = self._prepared(picture, built)[None]
            x0, y0, x1, y1 = box_convert(mine.to(image.dtype), "cxcywh", "xyxy").unbind(1)
            height, width = image.shape[2:]
            corners = torch.stack([x0 * width, y0 * height, x1 * width, y1 * height], dim=1)
            crops.append(roi_align(image, [corners], side, sampling_ratio=0, aligned=True))
        with self._context(device):
            maps = built.stem.of_crops(torch.cat(crops), self._added)
        return maps.float()

    def _prepared(self, pixels: Tensor, built: _Built) -> Tensor:
        return (pixels.float() * self._spec.input.rescale_factor).sub_(built.mean).div_(built.std)

    def _context(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, getattr(torch, self._autocast)) if self._autocast else nullcontext()

    def _check(self, c1: Tensor | None, levels: dict[int, Tensor]) -> None:
        pairs = [(self._spec.encoder_levels[index], level) for index, level in levels.items()]
        pairs += [(self._spec.c1, c1)] if self._spec.c1 is not None and c1 is not None else []
        for feature, found in pairs:
            if found.shape[1] != feature.channels:
                raise UserError(
                    f"{self._owner}: its stem gives {found.shape[1]} channels, its detector has "
                    f"{feature.channels} at stride {feature.stride}"
                )

    def _on(self, device: torch.device) -> _Built:
        with self._lock:
            if device not in self._built:
                self._built[device] = self._build(device)
            return self._built[device]

    @torch.inference_mode(False)
    def _build(self, device: torch.device) -> _Built:
        rule = self._spec.input
        columns = (rule.mean or (0, 0, 0), rule.std or (1, 1, 1))
        mean, std = (torch.tensor(each, dtype=torch.float32, device=device)[:, None, None] for each in columns)
        return _Built(self._load().to(device), mean, std)

    def _start(self) -> None:
        self._built: dict[torch.device, _Built] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_built", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def stem_of(detector: FrozenDetector, *, autocast: str | None = None) -> LazyStem:
    """The stem of a live detector, for a head that zooms.

    Raises:
        UserError: the detector offers none that gives C1.
    """
    make = getattr(detector, "stem", None)
    stem: Stem | None = make() if callable(make) else None
    name = detector.spec.name
    if stem is None or stem.config.c1 is None:
        raise UserError(
            f"head.zoom: {name} offers no stem, the part of it that gives C1, to run on crops: leave head.zoom out"
        )
    return LazyStem(lambda: stem, spec=detector.spec, autocast=autocast, owner=name)
