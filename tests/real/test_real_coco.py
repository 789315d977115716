"""The cache loses nothing: box AP of a real detector, and the box baseline, from the cache of real images."""

from __future__ import annotations

from pathlib import Path

import pytest

from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features


@pytest.fixture(scope="module")
def val_cache(shared, tmp_path_factory) -> Path:
    """coco_mini val with DEIMv2-Atto."""
    real = shared / "real"
    out = tmp_path_factory.mktemp("real") / "val.zarr"
    extract_features(
        detector=f"{real / 'deimv2_atto' / 'load.py'}:detector",
        images=real / "coco_mini" / "val2017",
        annotations=real / "coco_mini" / "annotations" / "instances_val2017.json",
        out=out,
    )
    return out


def test_box_ap_from_the_cache_is_the_detector_s_and_filled_boxes_score_as_measured_outside(val_cache, tmp_path):
    metrics = evaluate(cache=val_cache, baseline="box", out=tmp_path / "box", workers=0).metrics
    assert metrics["bbox"]["AP"] == pytest.approx(0.256, abs=0.002)
    assert metrics["segm"]["AP"] == pytest.approx(0.094, abs=0.002)
    pytest.importorskip("hotcoco")
    other = evaluate(cache=val_cache, baseline="box", out=tmp_path / "hot", coco_api="hotcoco", workers=1)
    for kind, found in other.metrics.items():
        assert found == pytest.approx(metrics[kind], abs=1e-6)
    for name in ("segm_results.json", "bbox_results.json"):
        assert (tmp_path / "hot" / name).read_bytes() == (tmp_path / "box" / name).read_bytes()
