"""Views with the detector in the loop: what a float32 cache would hold, made when it is asked for and kept nowhere."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frozen_cache.cache.collect import LabelTable, collect_view
from frozen_cache.cache.hints import Hints
from frozen_cache.cache.stored_map import StoredMap, StoredView
from frozen_cache.data.images import ImageReader, file_content, image_path
from frozen_cache.data.truth import view_truth
from frozen_cache.data.views import apply_view
from frozen_cache.detectors.output import DetectorOutput, FrozenDetector
from frozen_cache.detectors.run import run_detector
from frozen_cache.errors import UserError
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.stages.extract_plan import ExtractPlan, plan_extraction


@dataclass(frozen=True, kw_only=True)
class LiveData:
    """What a live training reads; the fields are options of `extract_features`."""

    detector: str | FrozenDetector
    images: Path
    annotations: Path
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
            if name in ("images", "annotations", "weights") and value is not None:
                given[name] = Path(value)
            elif isinstance(value, list):
                given[name] = tuple(value)
        return cls(**given)


class LiveReader:
    """The views of a data set in the order of a cache; each reading runs the detector, in float32, on one view.

    Threads decode images side by side and take turns at the detector.
    """

    def __init__(self, data: LiveData, *, out: Path, device: str) -> None:
        """Read annotations and detector.

        Args:
            out: the run directory, in which no cache is ever made.

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
            autocast=None,
            limit=None,
            bit_depth=None,
            skip_missing=False,
            segment_views=None,
            only=data.only,
            labels=data.labels,
            label_map=data.label_map,
        )
        self.attributes = self._plan.attributes
        self._planned = [view for views in self._plan.dealt for view in views]
        self.views = [(view.image.id, view.view) for view in self._planned]
        self._images = ImageReader(bit_depth=None, max_pixels=None)
        self._index = {category: place for place, category in enumerate(self._plan.dataset.categories)}
        self._lock = threading.Lock()

    @property
    def hints(self) -> Hints | None:
        """Where the detector lies; None for one that was given as an object."""
        return self._plan.hints

    def resized_size(self, index: int) -> tuple[int, int]:
        """(height, width) of the detector's input, in pixels."""
        return self._planned[index].transform.resized_size

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

    def read_stored(self, index: int, *, encoder_layers: Sequence[int] | None = None, c1: bool = True) -> StoredView:
        """Read the image, run the detector on its view, select and match.

        Raises:
            UserError: an image that cannot be read, or outputs that are not finite.
        """
        planned = self._planned[index]
        path = image_path(self._plan.images, planned.image)
        size = {"height": planned.image.height, "width": planned.image.width}
        image = self._images.decode(file_content(path), path, **size)
        pixels = apply_view(image, planned.transform, self.attributes.detector.input)[None]
        layers = self.attributes.detector.encoder_layers if encoder_layers is None else encoder_layers
        output = self._run(pixels, layers, c1=c1)
        labels = self.attributes.label_to_category
        view = collect_view(
            output,
            0,
            image_id=planned.image.id,
            view=planned.view,
            transform=planned.transform,
            truth=view_truth(planned.image, planned.transform, self._index),
            table=LabelTable.build(output.labels, labels, list(self._index)),
            top_k=self.attributes.top_k,
            one_label_per_query=self.attributes.detector.one_label_per_query,
        )
        return StoredView(
            rows=replace(view, c1=None, encoder={}),
            c1=None if view.c1 is None else StoredMap(view.c1),
            encoder={layer: [StoredMap(level) for level in levels] for layer, levels in view.encoder.items()},
        )

    def _run(self, pixels: Tensor, layers: Sequence[int], *, c1: bool) -> DetectorOutput:
        """The output for one view, on the CPU, as tensors that autograd may keep."""
        with self._lock:
            output = run_detector(self._plan.detector, pixels, device=self._plan.device)
            return DetectorOutput(
                queries=_kept(output.queries),
                boxes=_kept(output.boxes),
                scores=_kept(output.scores),
                labels=output.labels.cpu().clone(),
                c1=_kept(output.c1) if c1 and output.c1 is not None else None,
                encoder={layer: [_kept(level) for level in output.encoder[layer]] for layer in layers},
            )


def _kept(values: Tensor) -> Tensor:
    """A copy outside inference mode: what is made in it cannot be saved for a backward pass."""
    return torch.empty(values.shape, dtype=torch.float32).copy_(values)
