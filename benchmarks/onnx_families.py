"""Which detectors become ONNX: a small random model of every family is exported and checked against torch.

    python -m benchmarks.onnx_families [NAME...]

Keeps benchmarks/onnx_families.json; benchmarks/fill_pages.py makes the table of docs/onnx.md from it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from frozen_cache.errors import FrozenCacheError
from frozen_cache.export.onnx_check import check_onnx
from frozen_cache.export.onnx_file import export_onnx
from frozen_cache.head.config import HeadConfig, resolve_encoder_layer
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.inference.model import Model

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_suffix(".json")
TESTS = ROOT / "tests" / "frozen_cache" / "detectors"


def main(names: list[str]) -> None:
    """Export and check the named models, or all."""
    rows: dict[str, dict[str, Any]] = json.loads(RESULT.read_text())["rows"] if RESULT.is_file() else {}
    for name, detector in detectors(names):
        for gather in (False, True):
            key = f"{name}, gather" if gather else name
            rows[key] = row = measure(detector, gather=gather)
            print(key, row, flush=True)
            RESULT.write_text(json.dumps({"rows": dict(sorted(rows.items()))}, indent=2) + "\n")


def detectors(names: list[str]) -> Iterator[tuple[str, Any]]:
    """Each small detector of the tests' fixtures, one at a time."""
    from frozen_cache.detectors.hf import TransformersDetector
    from frozen_cache.detectors.official.detector import OfficialDetector

    families, official = _module(TESTS / "hf" / "conftest.py"), _module(TESTS / "official" / "conftest.py")
    for name, small in families.SMALL.items():
        if not names or name in names:
            torch.manual_seed(0)
            model, processor = small.make()
            yield name, TransformersDetector(without_ties(families.shaken(model)), processor, name=name)
    for name in official.CASES:
        if not names or name in names:
            yield name, OfficialDetector(model=official.make_model(name), name=name)


def measure(detector: Any, *, gather: bool) -> dict[str, Any]:
    """What became of one detector."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        model = with_head(detector)
        try:
            record = export_onnx(model=model, folder=Path(place), gather=gather)
            exported = time.process_time() - started
            checked = check_onnx(model=model, folder=Path(place), record=record)
        except FrozenCacheError as error:
            return {"family": detector.spec.family, "error": str(error).replace(place, "")}
    return {
        "family": detector.spec.family,
        "opset": record.opset,
        "nodes": record.nodes,
        "any_size": record.any_size,
        "differences": checked.differences,
        "export_cpu_s": round(exported, 1),
    }


def with_head(detector: Any) -> Model:
    """A detector with a small random head of the paper's parts."""
    spec = detector.spec
    torch.manual_seed(0)
    layer = resolve_encoder_layer(HeadConfig(), spec.encoder_layers)
    inputs = HeadInputs(query_dim=spec.query_dim, c1=spec.c1, levels=spec.encoder_levels, num_classes=spec.num_labels)
    config = HeadConfig(width=16, roi_size=8, image_width=16, image_layers=1, box_layers=1)
    ids = list(range(1, spec.num_labels + 1))
    return Model(
        detector=detector,
        head=MaskHead(config=config, inputs=inputs).eval().requires_grad_(False),
        encoder_layer=layer,
        categories=[{"id": each, "name": f"class {each}"} for each in ids],
        label_to_category=dict(enumerate(ids)),
        top_k=10,
        autocast=None,
    )


@torch.no_grad()
def without_ties(model: nn.Module) -> nn.Module:
    """Tokens at the image's border all have one score in these families; with random weights it may be the best."""
    for name, parameter in model.named_parameters():
        if "enc_score_head" in name:
            parameter.neg_()
    return model


def _module(file: Path) -> ModuleType:
    """A conftest, whose fixtures pytest alone would find."""
    spec = importlib.util.spec_from_file_location(f"small_{file.parent.name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1:])
