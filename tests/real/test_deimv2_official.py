"""DEIMv2-Atto's real weights under their official names: `--detector deimv2-atto` detects what the real model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from frozen_cache.detectors.hf.official_keys import BY_NAME
from frozen_cache.detectors.hf.official_keys.names import layout
from frozen_cache.detectors.hf.pretrained import load_pretrained
from frozen_cache.detectors.load import load_detector
from frozen_cache.export.write import save_transformers

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "real"
FACTORY = REAL / "deimv2_atto" / "load.py"

pytestmark = pytest.mark.skipif(not FACTORY.is_file(), reason="the real data (../shared/real) is not here")


def official(model: Any) -> dict[str, torch.Tensor]:
    """The weights of a transformers model, under the names and in the stacks of the official repository."""
    state = {name.replace("query_pos_head.mlp.", "query_pos_head."): each for name, each in model.state_dict().items()}
    state = {name: each for name, each in state.items() if "denoising" not in name}
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for name, piece in layout(state, BY_NAME["deimv2-atto"].family.rules).items():
        parts.setdefault(piece.official, {})[piece.part] = state[name]
    return {name: torch.cat([pieces[part] for part in sorted(pieces)]) for name, pieces in parts.items()}


def test_official_names_give_the_real_models_detections(tmp_path: Path) -> None:
    real: Any = load_detector(f"{FACTORY}:detector", backbone_strides=(8,))
    weights = official(real.model)
    torch.save({"ema": {"module": weights}}, tmp_path / "deimv2_hgnetv2_atto_coco.pth")
    named: Any = load_detector("deimv2-atto", weights=tmp_path / "deimv2_hgnetv2_atto_coco.pth", backbone_strides=(8,))
    assert named.spec.input.size == (320, 320) and named.spec.num_queries == 100
    assert named.spec.label_names == real.spec.label_names
    save_transformers(named, tmp_path / "saved")
    again: Any = load_pretrained(str(tmp_path / "saved"), backbone_strides=(8,))
    assert again.spec.weights_sha256 == named.spec.weights_sha256
    for file in sorted((REAL / "coco_mini").rglob("*.jpg"))[:3]:
        pixels = named.spec.input.normalise(named.spec.input.resize_image(Image.open(file).convert("RGB"), (320, 320)))
        expected = real(pixels[None])
        for detector in (named, again):
            output = detector(pixels[None])
            torch.testing.assert_close(output.boxes, expected.boxes, rtol=0, atol=1e-5)
            torch.testing.assert_close(output.scores, expected.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(output.queries, expected.queries, rtol=1e-4, atol=1e-4)
