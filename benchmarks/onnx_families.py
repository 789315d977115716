"""Which detectors become ONNX: a small random model of every family is exported and checked against torch.

    python benchmarks/onnx_families.py [--gather] [NAME...]
    python benchmarks/onnx_families.py [--gather] --detector hf:DIR|FILE.py:FACTORY|NAME [--weights FILE]

The second form takes a detector with trained weights. Adds to benchmarks/onnx_families.json, of which
benchmarks/fill_pages.py makes the table of docs/onnx.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from conditions import commit, conditions
from torch import nn

from frozen_cache.detectors.load import load_detector
from frozen_cache.errors import FrozenCacheError
from frozen_cache.export.onnx_check import GraphComparison, demo_picture, worst
from frozen_cache.export.onnx_checked import export_checked
from frozen_cache.export.onnx_file import OPSET, TRIAL_SIZE, rule_of_size
from frozen_cache.head.config import HeadConfig, resolve_encoder_layer
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.inference.model import Model

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_suffix(".json")
TESTS = ROOT / "tests" / "frozen_cache" / "detectors"


def main() -> None:
    """Export and check the named models, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models; all where none is named")
    parser.add_argument(
        "--gather", action="store_true", help="with gather arithmetic; else as the export does by itself"
    )
    parser.add_argument("--detector", help="a trained detector, as extract-features takes it, in place of small ones")
    parser.add_argument("--weights", type=Path, help="checkpoint of a detector that goes by name")
    given = parser.parse_args()
    rows: dict[str, dict[str, Any]] = json.loads(RESULT.read_text())["rows"] if RESULT.is_file() else {}
    for name, detector in trained(given.detector, given.weights) if given.detector else detectors(given.names):
        row = measure(detector, gather=given.gather)
        print(name, row, flush=True)
        rows.setdefault(name, {"family": detector.spec.family, "opset": OPSET})[
            "gather" if given.gather else "plain"
        ] = row
        machine = conditions() | {"onnxruntime": version("onnxruntime"), "transformers": version("transformers")}
        RESULT.write_text(json.dumps({"conditions": machine, "rows": dict(sorted(rows.items()))}, indent=2) + "\n")


def detectors(names: list[str]) -> Iterator[tuple[str, Any]]:
    """Each small detector of the tests' fixtures, one at a time."""
    from frozen_cache.detectors.hf.detector import TransformersDetector
    from frozen_cache.detectors.official.detector import OfficialDetector

    families, official = _module(TESTS / "hf" / "conftest.py"), _module(TESTS / "official" / "conftest.py")
    for name, small in families.SMALL.items():
        if not names or name in names:
            torch.manual_seed(0)
            model, processor = small.make()
            yield name, TransformersDetector(without_ties(families.shaken(model)), processor, name=name)
    for name in official.CASES:
        if not names or name in names:
            yield name, on_small_pictures(OfficialDetector(model=official.make_model(name), name=name))
    yield from by_name(names)


def by_name(names: list[str]) -> Iterator[tuple[str, Any]]:
    """Small checkpoints under official names, of those that transformers' classes alone compute otherwise."""
    keys = _module(TESTS / "hf" / "official_keys" / "conftest.py")
    for case in ("deim-dfine", "deimv2", "deimv2-lite"):
        small, kit = keys.SMALL[case], keys.Kit()
        name = f"{small.name}-small"
        if not names or name in names:
            state = kit.state(case) | {"decoder.anchors": torch.zeros(1, small.anchors, 4)}
            with tempfile.TemporaryDirectory() as folder:
                yield name, load_detector(small.name, weights=kit.save(Path(folder), state))


def trained(detector: str, weights: Path | None) -> Iterator[tuple[str, Any]]:
    """One detector with weights of its own."""
    loaded = load_detector(detector, weights=weights)
    yield loaded.spec.name, loaded


def measure(detector: Any, *, gather: bool) -> dict[str, Any]:
    """What became of one detector: `differences` at the size of the graph, or that it was recorded with; `elsewhere` at
    two other sizes, where height and width are free. Both are for batches of one and two. `exchanged` are the choices
    between scores equal but for rounding that torch took over from the graph."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        model, folder, scene = with_head(detector), Path(place), demo_picture()
        try:
            record = export_checked(model=model, folder=folder, gather=gather)
            recorded = rule_of_size(record.input, TRIAL_SIZE) if record.any_size else record.input
            compare = GraphComparison(model=model, folder=folder, record=record)
            here = worst([compare([scene] * count, rule=recorded) for count in (1, 2)])
        except FrozenCacheError as error:
            return {"error": str(error).replace(f"{place}/", ""), "commit": commit()}
    return {
        "nodes": record.nodes,
        "samplers": record.samplers,
        "size": "free" if record.any_size else "x".join(map(str, record.input.size or ())),
        "fixed_because": record.fixed_because,
        "batch": "free",
        "exchanged": record.exchanged,
        "differences": here,
        "elsewhere": record.differences if record.any_size else None,
        "cpu_s": round(time.process_time() - started, 1),
        "commit": commit(),
    }


def on_small_pictures(detector: Any) -> Any:
    """An official detector, whose pictures have 192 pixels at the shorter side in place of 800: a graph is the same."""
    small = detector.spec.input.model_copy(update={"shortest_edge": 192, "longest_edge": 320})
    detector.spec = detector.spec.model_copy(update={"input": small})
    return detector


def with_head(detector: Any) -> Model:
    """A detector with a small random head: deformable attention over each RoI, none over the image, to save time; its
    mask scores lie near 0.6, where a new head's ReLU lets some through as 0."""
    spec = detector.spec
    torch.manual_seed(0)
    layer = resolve_encoder_layer(HeadConfig(), spec.encoder_layers)
    inputs = HeadInputs(query_dim=spec.query_dim, c1=spec.c1, levels=spec.encoder_levels, num_classes=spec.num_labels)
    config = HeadConfig(width=16, roi_size=8, image_width=16, image_layers=0, box_layers=1)
    ids = list(range(1, spec.num_labels + 1))
    head = MaskHead(config=config, inputs=inputs).eval().requires_grad_(False)
    assert head.scoring is not None
    nn.init.constant_(head.scoring.out.bias, 0.6)
    return Model(
        detector=detector,
        head=head,
        encoder_layer=layer,
        categories=[{"id": each, "name": f"class {each}"} for each in ids],
        label_to_category=dict(enumerate(ids)),
        top_k=10,
        autocast=None,
    )


@torch.no_grad()
def without_ties(model: nn.Module) -> nn.Module:
    """A random model whose tokens and queries differ by more than rounding, so that the best of them are the same ones
    in every program: layers that keep the variance of their input, learned queries far apart, and in RT-DETR and its
    heirs a low score for the tokens at the image's border, which are all alike."""
    for name, parameter in model.named_parameters():
        if parameter.ndim in (2, 4) and "embed" not in name.rpartition(".")[0]:
            parameter.mul_((2 / parameter[0].numel()) ** 0.5 / parameter.std())
        if "enc_score_head" in name:
            parameter.neg_()
        if "query_position_embeddings" in name:
            parameter.mul_(20)
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
    main()
