"""Views with the detector in the loop: what a float32 cache would hold, made when it is asked for and kept nowhere."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frozen_cache.cache.hints import Hints
from frozen_cache.cache.stored_map import StoredMap, StoredView
from frozen_cache.cache.view import CachedView
from frozen_cache.data.batches import PlannedView
from frozen_cache.data.images import ImageReader, file_content, image_path
from frozen_cache.data.lsj import LargeScaleJitter, lsj_size
from frozen_cache.data.truth import truth_of_masks, view_truth
from frozen_cache.data.views import apply_view
from frozen_cache.detectors.output import DetectorOutput, FrozenDetector
from frozen_cache.detectors.run import run_detector
from frozen_cache.errors import UserError
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.report.photographs import Photographs
from frozen_cache.stages.extract_plan import BATCH_PIXELS, ExtractPlan, plan_extraction
from frozen_cache.training.batches import ViewStore
from frozen_cache.training.config import LiveConfig
from frozen_cache.training.shown import ShownView, collected, same_sized, without_maps

PATHS = ("images", "annotations", "val_images", "val_annotations", "weights")


@dataclass(frozen=True, kw_only=True)
class LiveData:
    """What a live training reads; all fields but the validation's are options of `extract_features`."""

    detector: str | FrozenDetector
    images: Path
    annotations: Path
    val_images: Path | None = None
    """With `val_annotations`: validate with the detector in the loop too."""
    val_annotations: Path | None = None
    weights: Path | None = None
    backbone_strides: tuple[int, ...] = ()
    views: int = 1
    only: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    label_map: tuple[str, ...] = ()

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> LiveData:
        """From options by name, as Python's users write them.

        Raises:
            UserError: one is missing, or is none of ours.
        """
        names = [field.name for field in fields(cls)]
        for name in ("detector", "images", "annotations"):
            if name not in options:
                raise UserError(f"live needs `{name}`")
        for name in options:
            if name not in names:
                raise UserError(f"live knows no `{name}`: give {', '.join(names)}")
        given: dict[str, Any] = dict(options)
        for name, value in options.items():
            if name in PATHS and value is not None:
                given[name] = Path(value)
            elif isinstance(value, list):
                given[name] = tuple(value)
        return cls(**given)


class LiveReader:
    """The views of a data set in the order of a cache; each reading runs the detector.

    Threads decode images side by side and take turns at the detector.
    """

    def __init__(
        self,
        data: LiveData,
        *,
        out: Path,
        device: str,
        config: LiveConfig | None = None,
        autocast: str | None = None,
        lock: threading.Lock | None = None,
    ) -> None:
        """Read annotations and detector.

        Args:
            out: the run directory, in which no cache is ever made.
            config: how views are drawn anew in each step; None for those of a cache.
            autocast: `bfloat16` or `float16` for the detector; None computes in float32.
            lock: held while the detector runs, by all that share it.

        Raises:
            UserError: as `extract_features`.
        """
        if data.views < 1:
            raise UserError(f"--views {data.views}: give 1 or more")
        self._plan: ExtractPlan = plan_extraction(
            detector=data.detector,
            images=data.images,
            annotations=data.annotations,
            out=out / "live.zarr",
            weights=data.weights,
            encoder_layers=None,
            backbone_strides=data.backbone_strides,
            backbone_scale=1,
            views=data.views,
            top_k=None,
            precision="float32",
            step=None,
            c1="stored",
            batch_size=1,
            device=device,
            autocast=autocast,
            limit=None,
            bit_depth=None,
            skip_missing=False,
            segment_views=None,
            only=data.only,
            labels=data.labels,
            label_map=data.label_map,
        )
        self._data, self._config, self._out = data, config or LiveConfig(), out
        self.attributes = self._plan.attributes
        self._planned = [view for views in self._plan.dealt for view in views]
        self.views = [(view.image.id, view.view) for view in self._planned]
        self._images = ImageReader(bit_depth=None, max_pixels=None)
        self._index = {category: place for place, category in enumerate(self._plan.dataset.categories)}
        self._lock = lock or threading.Lock()

    @property
    def path(self) -> Path:
        """The annotation file: the name of this, for people."""
        return self._data.annotations

    @property
    def hints(self) -> Hints | None:
        """Where the detector lies; None for one that was given as an object."""
        return self._plan.hints

    @property
    def detector(self) -> FrozenDetector:
        """On its device."""
        return self._plan.detector

    @property
    def most_pixels(self) -> int:
        """That go through the detector together."""
        return BATCH_PIXELS.get(self._plan.device.type, BATCH_PIXELS["cpu"])

    def photographs(self) -> Photographs:
        """The pictures themselves, for reports."""
        names = {image.id: image.file_name for image in self._plan.dataset.images}
        return Photographs(self._plan.images, names)

    def validation(self) -> LiveReader | None:
        """The plain views to validate on, by the same detector; None where none were named."""
        data = self._data
        if data.val_images is None or data.val_annotations is None:
            return None
        shown = replace(
            data,
            detector=self.detector,
            weights=None,
            images=data.val_images,
            annotations=data.val_annotations,
            views=1,
        )
        return LiveReader(
            shown, out=self._out, device=str(self._plan.device), autocast=self.attributes.autocast, lock=self._lock
        )

    def resized_size(self, index: int) -> tuple[int, int]:
        """(height, width) of the detector's input, in pixels."""
        if self._config.lsj:
            return lsj_size(self.attributes.detector.input)
        return self._planned[index].transform.resized_size

    def check_zoom(self) -> None:
        """UserError: crops of the original pixels lie in caches alone."""
        raise UserError(
            "head.zoom reads crops of the images, which a live training does not keep: train from a cache made with "
            "--c1 recomputed, or leave head.zoom out"
        )

    def matched(self, index: int) -> int:
        """Objects of a view's image that are no crowds: which of them get a query is known only underway."""
        return sum(not annotation.crowd for annotation in self._planned[index].image.annotations)

    def head_inputs(self, encoder_layer: int | None = None) -> HeadInputs:
        """The shapes that a mask head is sized by."""
        spec = self.attributes.detector
        return HeadInputs(
            query_dim=spec.query_dim,
            c1=spec.c1,
            levels=spec.encoder_levels,
            num_classes=len(self.attributes.categories),
        )

    @property
    def has_pictures(self) -> bool:
        """Always."""
        return True

    def pixels(self, index: int, view: StoredView) -> Tensor | None:
        """(3, H, W) RGB of a view in 0..255, as the detector saw it."""
        return view.pixels

    def read_stored(
        self, index: int, *, encoder_layers: Sequence[int] | None = None, c1: bool = True, close_up: bool = False
    ) -> StoredView:
        """One view alone, as `read_together`."""
        if close_up:
            self.check_zoom()
        return self.read_together([index], encoder_layers=encoder_layers, c1=c1)[0]

    def read(
        self,
        index: int,
        *,
        encoder_layers: Sequence[int] | None = None,
        c1: bool = True,
        device: torch.device | None = None,
        close_up: bool = False,
    ) -> CachedView:
        """One view alone with its maps on a device, as an evaluation takes it."""
        stored = self.read_stored(index, encoder_layers=encoder_layers, c1=c1, close_up=close_up)
        return stored.to(device or "cpu").decoded()

    def read_together(
        self, indices: Sequence[int], *, encoder_layers: Sequence[int] | None = None, c1: bool = True, seed: int = 0
    ) -> list[StoredView]:
        """Read the images, run the detector on neighbours of equal size together, select and match.

        Raises:
            UserError: an image that cannot be read, or outputs that are not finite.
        """
        layers = self.attributes.detector.encoder_layers if encoder_layers is None else encoder_layers
        found, shown = [], self.shown(indices, seed=seed)
        for batch in same_sized(shown, most=self.most_pixels):
            output = self._run(torch.stack([view.pixels for view in batch]), layers, c1=c1)
            found += collected(output, batch, self.attributes)
        return [
            StoredView(
                rows=without_maps(view),
                c1=None if view.c1 is None else StoredMap(view.c1),
                encoder={layer: [StoredMap(level) for level in levels] for layer, levels in view.encoder.items()},
                pixels=seen.pixels,
            )
            for seen, view in zip(shown, found, strict=True)
        ]

    def shown(self, indices: Sequence[int], *, seed: int) -> list[ShownView]:
        """The views as the detector is to see them, with their ground truth; `seed` is that of the step."""
        return [self._shown(self._planned[index], seed) for index in indices]

    def _shown(self, planned: PlannedView, seed: int) -> ShownView:
        path = image_path(self._plan.images, planned.image)
        size = (planned.image.height, planned.image.width)
        image = self._images.decode(file_content(path), path, height=size[0], width=size[1])
        rule, transform = self.attributes.detector.input, planned.transform
        if self._config.lsj:
            jitter = LargeScaleJitter.draw(
                size,
                size=lsj_size(rule),
                scale=self._config.lsj_scale,
                seed=f"{seed}/{planned.image.id}/{planned.view}",
            )
            masks = [jitter.of_mask(annotation.rle) for annotation in planned.image.annotations]
            transform, pixels = jitter.transform, jitter.of_image(image, rule)
            move = partial(jitter.of_point, original=size)
            truth = truth_of_masks(planned.image, masks, self._index, move=move)
        else:
            pixels = apply_view(image, transform, rule)
            truth = view_truth(planned.image, transform, self._index)
        return ShownView(planned.image.id, planned.view, transform=transform, truth=truth, pixels=pixels)

    def _run(self, pixels: Tensor, layers: Sequence[int], *, c1: bool) -> DetectorOutput:
        """The output for views of one size, on the CPU, as tensors that autograd may keep."""
        with self._lock:
            output = run_detector(self.detector, pixels, device=self._plan.device, autocast=self.attributes.autocast)
            return DetectorOutput(
                queries=_kept(output.queries),
                boxes=_kept(output.boxes),
                scores=_kept(output.scores),
                labels=output.labels.cpu().clone(),
                c1=_kept(output.c1) if c1 and output.c1 is not None else None,
                encoder={layer: [_kept(level) for level in output.encoder[layer]] for layer in layers},
            )


class LiveStore(ViewStore):
    """Views of a `LiveReader`, those of a step made together and none kept."""

    def __init__(self, reader: LiveReader, *, encoder_layer: int, c1: bool) -> None:
        super().__init__(reader, encoder_layer=encoder_layer, c1=c1, memory_bytes=0)
        self._live = reader

    def read_together(self, indices: list[int], *, seed: int) -> list[StoredView]:
        """The views of a step, in order."""
        return self._live.read_together(indices, encoder_layers=(self.encoder_layer,), c1=self.c1, seed=seed)


def _kept(values: Tensor) -> Tensor:
    """A copy outside inference mode: what is made in it cannot be saved for a backward pass."""
    return torch.empty(values.shape, dtype=torch.float32).copy_(values)
