"""A run as one ONNX graph: the results of torch, with and without GridSample; what differs is found out."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

from frozen_cache.boxes import to_pixels
from frozen_cache.errors import UserError
from frozen_cache.export import onnx_file
from frozen_cache.export.onnx_check import OnnxDiffersError, check_onnx, differences
from frozen_cache.export.onnx_file import GraphRecord
from frozen_cache.export.onnx_graph import _paste
from frozen_cache.inference.load import load_model
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.masks.paste import paste_masks
from frozen_cache.stages.export import export_onnx_model

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "onnx_predict.py"


@pytest.fixture(scope="module")
def graph(scene_run: Path, scenes: Path) -> Path:
    """The graph of the demo's detector (D-FINE) and a head, checked."""
    picture = sorted((scenes / "images").iterdir())[0]
    return export_onnx_model(run=scene_run, out=scene_run.parent / "onnx", check=[picture]).out


def test_the_graph_gives_the_results_of_torch(graph):
    found = json.loads((graph / "onnx.json").read_text())
    assert max(found["differences"].values()) < 1e-4
    assert [entry.version for entry in onnx.load(graph / "model.onnx").opset_import if entry.domain == ""] == [18]


def test_a_graph_of_another_head_fails_the_check_and_leaves_its_differences(scene_run, graph, tmp_path):
    model = load_model(scene_run, detector=None, weights=None)
    (tmp_path / "model.onnx").write_bytes((graph / "model.onnx").read_bytes())
    record = GraphRecord.model_validate_json((graph / "onnx.json").read_text())
    with torch.no_grad():
        model.head.scoring.out.bias.add_(0.1)
    with pytest.raises(OnnxDiffersError, match=r"scores by .*at most 0.001"):
        check_onnx(model=model, folder=tmp_path, record=record)
    assert json.loads((tmp_path / "onnx.json").read_text())["differences"]["scores"] > 1e-3


def test_the_example_finds_what_torch_finds(scene_run, graph, scenes, tmp_path):
    picture = sorted((scenes / "images").iterdir())[0]
    code = [sys.executable, str(EXAMPLE), str(graph), str(picture), str(tmp_path / "masks"), "0.05"]
    lines = subprocess.run(code, check=True, capture_output=True, text=True).stdout.splitlines()
    expected = InstanceSegmenter.load(scene_run, device="cpu")(str(picture), threshold=0.05)
    assert len(lines) == len(expected.scores) > 0
    found = sorted(lines, key=lambda line: -float(line.split()[-5]))
    places = sorted(range(len(lines)), key=lambda at: -float(expected.scores[at]))
    for line, at in zip(found, places, strict=True):
        assert float(line.split()[-5]) == pytest.approx(float(expected.scores[at]), abs=2e-2)
    assert len(list((tmp_path / "masks").iterdir())) == len(lines)


def test_masks_are_pasted_as_in_torch():
    """Boxes in the image, across its border and outside; their corners fall on no pixel's border."""
    boxes = torch.tensor(
        [[0.52, 0.41, 0.33, 0.57], [0.07, 0.91, 0.31, 0.43], [0.5, 0.5, 1.13, 1.21], [1.6, 0.5, 0.2, 0.2]]
    )
    masks, size = torch.rand(4, 8, 8), (37, 53)
    pasted = _paste(masks, boxes, torch.zeros(1, 3, *size))
    torch.testing.assert_close(pasted, paste_masks(masks, to_pixels(boxes, size), size, threshold=None))


def test_pairs_are_found_whatever_their_order_and_a_lost_one_is_infinite():
    boxes, labels = torch.rand(4, 4), torch.tensor([1, 1, 2, 3])
    scores, masks = torch.tensor([0.9, 0.8, 0.8, 0.1]), torch.rand(4, 2, 2)
    order = torch.tensor([0, 2, 1, 3])
    same = differences((boxes, labels, scores, masks), (boxes[order], labels[order], scores[order], masks[order]))
    assert same == {"boxes": 0, "scores": 0, "masks": 0}
    other = labels.clone()
    other[0] = 3
    assert differences((boxes, labels, scores, masks), (boxes, other, scores, masks))["boxes"] == float("inf")
    moved = boxes.clone()
    moved[0] += 0.01
    assert differences((boxes, labels, scores, masks), (moved, labels, scores, masks))["boxes"] == pytest.approx(0.01)


def test_without_the_extra_the_message_names_it(monkeypatch, scene_run, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else real(name))
    with pytest.raises(UserError, match=r"needs onnxscript: install it with pip install .frozen-cache\[onnx\]"):
        export_onnx_model(run=scene_run, out=tmp_path / "onnx")
