"""An official detector whose C1 comes from a larger image is handed on as such."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from frozen_cache.detectors.finer import FinerDetector, at_scale
from frozen_cache.detectors.official import NAMED, OfficialDetector
from frozen_cache.detectors.official.config import OfficialConfig, SwinConfig
from frozen_cache.detectors.official.layout import build_model
from frozen_cache.detectors.official.named import NamedDetector
from frozen_cache.export.read import load_folder
from frozen_cache.export.write import write_folder
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.inference.model import Model

CONFIG = OfficialConfig(
    family="dino",
    backbone=SwinConfig(embed=24, depths=(1, 1, 1, 1), heads=(2, 2, 4, 4), window=7),
    levels=4,
    queries=5,
    encoder_layers=4,
    decoder_layers=1,
    ffn=16,
    dim=32,
)


def test_the_scale_goes_with_an_exported_official_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NAMED, "small", NamedDetector(title="small", config=CONFIG, top_k=5, weights="none"))
    torch.manual_seed(0)
    detector = at_scale(OfficialDetector(model=build_model(CONFIG), name="small", top_k=5), 2)
    spec = detector.spec
    inputs = HeadInputs(query_dim=spec.query_dim, c1=spec.c1, levels=spec.encoder_levels, num_classes=1)
    head = MaskHead(config=HeadConfig(width=8, image_layers=0, box_layers=1, c1_scale=2), inputs=inputs)
    model = Model(
        detector=detector,
        head=head.eval(),
        encoder_layer=4,
        categories=[{"id": 1, "name": "a"}],
        label_to_category={1: 1},
        top_k=5,
        autocast=None,
    )
    write_folder(tmp_path / "model", model, cache_fingerprint="0" * 64, license="CC0-1.0")
    again = load_folder(tmp_path / "model").detector
    assert isinstance(detector, FinerDetector)
    assert isinstance(again, FinerDetector)
    assert again.spec == spec
    images = torch.rand(1, 3, 75, 101), torch.rand(1, 3, 150, 202)
    found, wanted = again(*images), detector(*images)
    assert found.c1 is not None and wanted.c1 is not None
    assert torch.equal(found.c1, wanted.c1)
    assert torch.equal(found.queries, wanted.queries)
