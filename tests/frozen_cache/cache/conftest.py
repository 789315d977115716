"""Small caches without a detector: made of arbitrary views."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.cache.attributes import CacheAttributes, DataAttributes, best_packing, detector_fingerprint
from frozen_cache.cache.quantise import coded, dequantised
from frozen_cache.cache.stem_files import stem_record
from frozen_cache.cache.view import CachedView
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.view import ViewTransform
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.output import DetectorSpec, FeatureSpec
from frozen_cache.detectors.stem import Stem, StemConfig, StemMap
from frozen_cache.detectors.stem_kinds import KINDS

MakeView = Callable[..., CachedView]
MakeCache = Callable[..., Path]


def attributes_for(
    views: int, per_segment: int, *, c1: bool = True, precision: str = "float16", step: float = 1.0
) -> CacheAttributes:
    spec = DetectorSpec(
        name="toy",
        family="toy",
        weights_sha256="ab" * 32,
        input=InputRule(resize="stretch", size=(32, 32)),
        query_dim=4,
        num_queries=10,
        num_labels=2,
        c1=FeatureSpec(channels=3, stride=4) if c1 else None,
        encoder_levels=(FeatureSpec(channels=2, stride=8), FeatureSpec(channels=2, stride=16)),
        encoder_layers=(1, 4),
    )
    return CacheAttributes(
        detector=spec,
        detector_fingerprint=detector_fingerprint(spec),
        label_to_category={0: 1, 1: 2},
        data=DataAttributes(
            fingerprint="cd" * 32,
            annotations="x.json",
            images=views,
            categories=({"id": 1, "name": "a"}, {"id": 2, "name": "b"}),
        ),
        views=1,
        top_k=5,
        precision=precision,  # type: ignore[arg-type]
        step=step if precision == "coded" else None,
        packing=best_packing(step if precision == "coded" else None),
        batch_size=2,
        views_total=views,
        views_per_segment=per_segment,
    )


def toy_view(
    image_id: int, *, size: tuple[int, int] = (8, 8), rows: int = 5, objects: int = 2, c1: bool = True, seed: int = 0
) -> CachedView:
    """Random arrays that float16 holds exactly; C1 is (3, *size), the levels half and a quarter of it."""
    rng = np.random.default_rng((image_id, seed, *size))

    def exact(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(-2000, 2000, shape).astype(np.float32) / 64)

    height, width = size
    halves = [(max(1, height // part), max(1, width // part)) for part in (2, 4)]
    mask = (rng.random((20, 30, objects)) > 0.5).astype(np.uint8)
    return CachedView(
        image_id=image_id,
        view=0,
        transform=ViewTransform(original_size=(20, 30), crop=(0, 0, 30, 20), resized_size=(height * 4, width * 4)),
        selected=max(0, rows - 1),
        queries=torch.from_numpy(rng.standard_normal((rows, 4)).astype(np.float32)),
        boxes=torch.from_numpy(rng.random((rows, 4)).astype(np.float32)),
        scores=torch.from_numpy(rng.random(rows).astype(np.float32)),
        labels=torch.from_numpy(rng.integers(0, 2, rows)),
        c1=exact(3, *size) if c1 else None,
        encoder={layer: [exact(2, *half) for half in halves] for layer in (1, 4)},
        truth=GroundTruth(
            boxes=rng.random((objects, 4)).astype(np.float32) * 20,
            categories=rng.integers(0, 2, objects),
            crowd=rng.random(objects) > 0.5,
            areas=rng.random(objects).astype(np.float32) * 100,
            masks=[coco_mask.encode(np.asfortranarray(mask[..., place])) for place in range(objects)],
            annotation_ids=rng.integers(0, 2**62, objects),
            match=rng.integers(-1, max(rows, 1), objects),
        ),
    )


def as_coded(view: CachedView, *, step: float = 1.0) -> CachedView:
    """The view as a coded cache gives it back."""

    def again(a_map: torch.Tensor) -> torch.Tensor:
        return dequantised(*coded(a_map, step=step))

    return replace(
        view,
        c1=None if view.c1 is None else again(view.c1),
        encoder={layer: [again(level) for level in levels] for layer, levels in view.encoder.items()},
    )


BACKBONE = {
    "embedding_size": 4,
    "hidden_sizes": [4, 6, 8, 10],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "frozen_norms": True,
}


def recomputed(attributes: CacheAttributes) -> tuple[CacheAttributes, bytes]:
    """The same with C1 from a small ResNet, whose weights are the bytes."""
    config = StemConfig(kind="resnet", config=BACKBONE, c1=StemMap(module="encoder.stages.0"))
    torch.manual_seed(0)
    record, content = stem_record(Stem.take(KINDS["resnet"](BACKBONE).eval(), config, trial=torch.zeros(1, 3, 32, 32)))
    spec = attributes.detector.model_copy(update={"c1": FeatureSpec(channels=4, stride=4)})
    return attributes.model_copy(update={"c1": "recomputed", "stem": record, "detector": spec}), content


def picture(view: CachedView) -> bytes:
    """A file of the view's image, of noise."""
    pixels = np.random.default_rng(view.image_id).integers(0, 256, (*view.transform.original_size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write_cache(path: Path, views: list[CachedView], attributes: CacheAttributes, *, stop: int | None = None) -> Path:
    """Write all segments, or the first `stop`."""
    writer = CacheWriter(path, attributes)
    size = attributes.views_per_segment
    for segment in writer.pending()[:stop]:
        assert writer.claim(segment)
        with writer.segment(segment) as out:
            for view in views[segment * size : (segment + 1) * size]:
                out.append(view)
    writer.close()
    return path


@pytest.fixture(scope="session")
def make_view() -> MakeView:
    return toy_view


@pytest.fixture(scope="session")
def coded_view() -> Callable[..., CachedView]:
    return as_coded


@pytest.fixture(scope="session")
def make_cache() -> MakeCache:
    """(path, views, per_segment=3, c1=True, precision="float16", stop=None) -> path."""

    def make(
        path: Path,
        views: list[CachedView],
        *,
        per_segment: int = 3,
        c1: bool = True,
        precision: str = "float16",
        step: float = 1.0,
        stop: int | None = None,
    ) -> Path:
        attributes = attributes_for(len(views), per_segment, c1=c1, precision=precision, step=step)
        return write_cache(path, views, attributes, stop=stop)

    return make
