"""A detector of every family survives being exported."""

from __future__ import annotations

from pathlib import Path

from frozen_cache.export.read import load_folder
from frozen_cache.export.write import check_same, write_folder
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.inference.model import Model


def test_an_exported_detector_gives_the_same_outputs(small, small_detector, tmp_path: Path) -> None:
    name, _ = small
    detector = small_detector(name)
    spec = detector.spec
    inputs = HeadInputs(query_dim=spec.query_dim, c1=spec.c1, levels=spec.encoder_levels, num_classes=5)
    model = Model(
        detector=detector,
        head=MaskHead(config=HeadConfig(width=16, roi_size=8, image_layers=0, box_layers=1), inputs=inputs).eval(),
        encoder_layer=spec.encoder_layers[-1],
        categories=[{"id": label, "name": each} for label, each in (spec.label_names or {}).items()],
        label_to_category={label: label for label in spec.label_names or {}},
        top_k=10,
        autocast=None,
    )
    write_folder(tmp_path / "model", model, cache_fingerprint="none", license="none")
    check_same(model, load_folder(tmp_path / "model"), tmp_path)
