"""`head.c1_scale`: of a cache with recomputed C1 each training chooses the scale of the image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from frozen_cache.cache.reader import CacheReader
from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.errors import UserError
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head

from .recomputed_cache import SMALL, close


def test_the_scale_is_a_choice_of_training(recomputed, stored, extract_scenes, scenes, tmp_path) -> None:
    finer = extract_scenes("finer", backbone_scale=2)
    one, other = CacheReader(recomputed, c1_scale=2), CacheReader(finer)
    assert one.attributes.detector == other.attributes.detector
    assert one.attributes.fingerprint == CacheReader(recomputed).attributes.fingerprint
    assert one.head_inputs() == other.head_inputs()
    found, wanted = one.read(1), other.read(1)
    close(found.c1, wanted.c1)
    [levels], [wanted_levels] = found.encoder.values(), wanted.encoder.values()
    for level, wanted_level in zip(levels, wanted_levels, strict=True):
        close(level, wanted_level)
    run = tmp_path / "run"
    settings = SMALL | {"optim.epochs": 1, "head.c1_scale": 2, "head.fused_levels": "all"}
    train_head(cache=recomputed, val_cache=finer, out=run, overrides=settings, device="cpu")
    results = [
        evaluate(cache=cache, out=tmp_path / cache.stem, head=run, device="cpu").metrics["segm"]["AP"]
        for cache in (recomputed, finer)
    ]
    assert results[0] == pytest.approx(results[1], abs=1e-3)
    moved = shutil.copytree(DETECTOR_DIR, tmp_path / "detector")
    segmenter = InstanceSegmenter.load(run, detector=f"hf:{moved}", device="cpu")
    assert len(segmenter(sorted((scenes / "images").iterdir())[0], threshold=0)) > 0
    with pytest.raises(UserError, match=r"at 1 times the input size, not 2: .*--c1 recomputed"):
        train_head(cache=stored, out=tmp_path / "no", overrides=settings, device="cpu")
    with pytest.raises(UserError, match="at 1 times the input size, not 2"):
        evaluate(cache=stored, out=tmp_path / "no", head=run, device="cpu")
    with pytest.raises(UserError, match=r"choice of training \(train-head --set head.c1_scale=2\)"):
        extract_scenes("no", out=tmp_path / "no.zarr", backbone_scale=2, c1="recomputed")


def test_a_detector_of_code_may_be_scaled_by_its_stem(folder, tmp_path) -> None:
    images, annotations = folder
    here = Path(__file__).parent / "fake_detector.py"
    for name, options in (("recomputed", {"c1": "recomputed"}), ("finer", {"backbone_scale": 2})):
        extract_features(
            detector=f"{here}:with_stem", images=images, annotations=annotations, out=tmp_path / f"{name}.zarr",
            precision="float32", device="cpu", **options,
        )  # fmt: skip
    one, other = CacheReader(tmp_path / "recomputed.zarr", c1_scale=2), CacheReader(tmp_path / "finer.zarr")
    assert one.attributes.detector == other.attributes.detector
    assert one.attributes.detector.c1.stride == 2
    for index in range(len(one)):
        close(one.read(index).c1, other.read(index).c1)
