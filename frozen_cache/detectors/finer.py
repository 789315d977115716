"""C1 and the added maps from the image at several times the input size: `--backbone-scale`, and `head.c1_scale`.

What a detector of scale 1 and its stem say becomes what they say at another scale: C1 is finer, and there is a second
set of the added maps. Queries, boxes and the encoder's own levels stay those of the detector's input.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from frozen_cache.detectors.output import ADDED, DetectorOutput, DetectorSpec, FeatureSpec, FrozenDetector
from frozen_cache.detectors.stem import TRIAL_SIZE, Stem, StemConfig, StemMap, offered_stem
from frozen_cache.errors import UserError

SCALES = (1, 2, 4)


def finer_spec(spec: DetectorSpec, stem: StemConfig, scale: int) -> tuple[DetectorSpec, StemConfig]:
    """A detector's spec and its stem's configuration at another scale, where theirs is 1."""
    of_scale = f" of {scale} x"
    levels = [(level, stem.levels.get(index)) for index, level in enumerate(spec.encoder_levels)]
    made = [(level, source) for level, source in levels if source is not None]
    second = [
        (_finer(level, scale, level.source.removesuffix(ADDED) + of_scale + ADDED), _at(source, scale))
        for level, source in made
    ]
    own = [(level, source) for level, source in levels if source is None]
    ordered: list[tuple[FeatureSpec, StemMap | None]] = sorted(
        [*own, *made, *second], key=lambda level: level[0].stride
    )
    c1 = None if spec.c1 is None else _finer(spec.c1, scale, spec.c1.source + of_scale)
    return (
        spec.model_copy(
            update={"backbone_scale": scale, "c1": c1, "encoder_levels": tuple(level for level, _ in ordered)}
        ),
        stem.model_copy(
            update={
                "c1": None if stem.c1 is None else _at(stem.c1, scale),
                "levels": {index: source for index, (_, source) in enumerate(ordered) if source is not None},
            }
        ),
    )


class FinerDetector:
    """A detector whose C1 and added maps its stem gives, from the image at `scale` times the input size."""

    def __init__(self, detector: FrozenDetector, stem: Stem, *, scale: int) -> None:
        self.spec, config = finer_spec(detector.spec, stem.config, scale)
        self.detector = detector
        self._stem = Stem(config, stem.tensors)
        self.parts = nn.ModuleList(
            [self._stem.backbone, *(p for p in vars(detector).values() if isinstance(p, nn.Module))]
        )
        """All weights, for whoever has to find them."""
        self._own = [index for index in range(len(detector.spec.encoder_levels)) if index not in stem.config.levels]

    @torch.no_grad()
    def __call__(self, images: Tensor, enlarged: Tensor | None = None) -> DetectorOutput:
        """As `ScaledDetector`."""
        if enlarged is None:
            raise ValueError(f"backbone_scale is {self.spec.backbone_scale}: give `enlarged` images")
        output = self.detector(images)
        c1, made = self._stem({1: images, self.spec.backbone_scale: enlarged})
        encoder = {}
        for layer, levels in output.encoder.items():
            encoder[layer] = [levels[index] for index in self._own]
            for index in sorted(made):
                encoder[layer].insert(index, made[index])
        return replace(output, c1=c1, encoder=encoder)

    def stem(self) -> Stem:
        """What gives C1 and the added maps again, on the CPU."""
        return Stem(self._stem.config, self._stem.tensors)

    def to(self, device: torch.device | str) -> FinerDetector:
        """Move to a device and return itself."""
        self.detector, self._stem = self.detector.to(device), self._stem.to(device)
        return self


def at_scale(detector: FrozenDetector, scale: int) -> FrozenDetector:
    """The detector with C1 and the added maps from the image at `scale` times the input size.

    Raises:
        UserError: a scale that is not known, or a detector of another scale, or one that offers no stem.
    """
    spec = detector.spec
    if spec.backbone_scale == scale:
        return detector
    if scale not in SCALES:
        raise UserError(f"a backbone scale of {scale} is not supported: choose 1, 2 or 4")
    if spec.backbone_scale > 1:
        raise UserError(
            f"{spec.name} takes C1 from the image at {spec.backbone_scale} times the input size, not {scale}"
        )
    device = torch.device("cpu")
    stem = offered_stem(detector.to(device), trial_size=spec.input.size or TRIAL_SIZE, device=device)
    if stem is None:
        raise UserError(
            f"{spec.name} offers no stem, the part of it that gives C1, so a backbone scale of {scale} cannot be had: "
            "leave it out"
        )
    return FinerDetector(detector, stem, scale=scale)


def _finer(feature: FeatureSpec, scale: int, source: str) -> FeatureSpec:
    return FeatureSpec(channels=feature.channels, stride=feature.stride // scale, source=source)


def _at(source: StemMap, scale: int) -> StemMap:
    return StemMap(module=source.module, scale=scale)
