"""A run as one ONNX graph: the results of torch, with and without GridSample; what differs is found out."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from torch import Tensor, nn

from frozen_cache.boxes import to_pixels
from frozen_cache.cache.kept_maps import KeptMaps
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.output import DetectorOutput, DetectorSpec, FeatureSpec
from frozen_cache.errors import UserError
from frozen_cache.export import onnx_check, onnx_checked, onnx_file
from frozen_cache.export.onnx_check import OnnxDiffersError, check_onnx, differences
from frozen_cache.export.onnx_checked import export_checked, usual_size
from frozen_cache.export.onnx_file import GraphRecord, NoGraphError, rule_of_size, write_record
from frozen_cache.export.onnx_graph import SegmenterGraph, _paste
from frozen_cache.export.symbols import free_linspace, sizes_stay_free
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.inference.model import Model
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.masks.paste import paste_masks
from frozen_cache.stages import export as stage

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "onnx_predict.py"


class TinyDetector:
    """A convolution per map, which takes any size; queries, boxes and scores from the coarsest map's mean."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.maps = nn.ModuleList([nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 2, stride=2), nn.Conv2d(8, 8, 2, 2)])
        self.heads = nn.ModuleList([nn.Embedding(12, 8), nn.Linear(8, 4), nn.Linear(8, 3)]).requires_grad_(False)
        self.heads[2].weight.mul_(3)
        self.spec = DetectorSpec(
            name="tiny",
            family="tiny",
            weights_sha256="0" * 64,
            input=InputRule(resize="shortest_edge", shortest_edge=64, longest_edge=90, mean=(0.4,) * 3, std=(0.2,) * 3),
            query_dim=8,
            num_queries=12,
            num_labels=3,
            label_names={0: "disc", 1: "square", 2: "star"},
            top_k=6,
            c1=FeatureSpec(channels=8, stride=4),
            encoder_levels=(FeatureSpec(channels=8, stride=8), FeatureSpec(channels=8, stride=16)),
            encoder_layers=(1,),
        )

    def to(self, device: torch.device | str) -> TinyDetector:
        return self

    def __call__(self, images: Tensor) -> DetectorOutput:
        c1 = self.maps[0](images).relu()
        levels = [self.maps[1](c1)]
        levels.append(self.maps[2](levels[0].relu()))
        queries = self.heads[0].weight[None] + 3 * levels[1].mean((2, 3))[:, None]
        boxes, scores = self.heads[1](queries).sigmoid(), self.heads[2](queries).sigmoid()
        return DetectorOutput(
            queries=queries, boxes=boxes, scores=scores, labels=torch.arange(3), c1=c1, encoder={1: levels}
        )


@pytest.fixture(scope="module")
def model() -> Model:
    """The tiny detector and a random head of the paper's parts, its masks decided."""
    detector = TinyDetector()
    spec = detector.spec
    config = HeadConfig(width=16, roi_size=8, roi_scale=1.2, image_width=16, image_layers=0, box_layers=1)
    inputs = HeadInputs(query_dim=8, c1=spec.c1, levels=spec.encoder_levels, num_classes=3)
    head = MaskHead(config=config, inputs=inputs).eval().requires_grad_(False)
    head.scoring.out.bias.fill_(0.6)
    return Model(
        detector=detector,
        head=head,
        encoder_layer=1,
        categories=[{"id": each, "name": name} for each, name in ((7, "star"), (2, "disc"), (5, "square"))],
        label_to_category={0: 2, 1: 5, 2: 7},
        top_k=6,
        autocast=None,
    )


@pytest.fixture(scope="module")
def graph(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its graph, checked."""
    folder = tmp_path_factory.mktemp("plain")
    export_checked(model=model, folder=folder)
    return folder


@pytest.fixture(scope="module")
def picture(scenes: Path) -> Path:
    """One of the demo's scenes."""
    return sorted((scenes / "images").iterdir())[0]


def read_record(folder: Path) -> GraphRecord:
    return GraphRecord.model_validate_json((folder / "onnx.json").read_text())


def test_the_graph_gives_the_results_of_torch_at_other_sizes_and_in_a_batch(graph):
    record = read_record(graph)
    assert record.any_size
    assert record.differences is not None
    assert max(record.differences.values()) < 1e-4
    assert record.samplers["GridSample"] > 0
    assert record.samplers["RoiAlign"] == 1
    assert [entry.version for entry in onnx.load(graph / "model.onnx").opset_import if entry.domain == ""] == [18]


def test_a_graph_reads_maps_as_they_are_and_says_that_predict_rounds_them(model, graph, tmp_path):
    rounding = replace(model, kept=KeptMaps(precision="coded", step=1.0, c1=True))
    record = export_checked(model=rounding, folder=tmp_path)
    assert record.differences is not None and max(record.differences.values()) < 1e-4
    assert record.predict_rounds == read_record(tmp_path).predict_rounds == "coded, step 1"
    assert (
        "predict rounds them as the training cache did (coded, step 1)"
        in stage.OnnxExportResult(tmp_path, record).text()
    )
    assert "predict_rounds" not in (graph / "onnx.json").read_text()
    assert "rounds" not in stage.OnnxExportResult(graph, read_record(graph)).text()


def test_by_gather_no_sampler_remains_and_masks_may_be_pasted_in_a_graph_of_one_size(model, tmp_path):
    record = export_checked(model=model, folder=tmp_path, gather=True, pasted=True, size=(48, 80))
    assert record.samplers == {"GridSample": 0, "RoiAlign": 0}
    assert not record.any_size
    assert (record.input.resize, record.input.size, record.fixed_because) == ("stretch", (48, 80), "--size")
    assert record.differences is not None
    assert max(record.differences.values()) < 1e-4


@pytest.mark.parametrize("failure", [NoGraphError, OnnxDiffersError])
def test_where_no_size_can_be_free_the_graph_has_the_usual_one_and_says_why(model, tmp_path, monkeypatch, failure):
    def fails(*, size: tuple[int, int] | None, because: str | None, **options: Any) -> GraphRecord:
        if size is None:
            raise failure("sizes are branched on")
        kept = {"family": "tiny", "backbone_scale": 1, "any_size": False, "mask_scale": 1, "pasted": False, "nodes": 1}
        return GraphRecord(**kept, input=rule_of_size(model.detector.spec.input, size), fixed_because=because,
                           gather=False, categories=[], samplers={}, differences={})  # fmt: skip

    monkeypatch.setattr(onnx_checked, "export_onnx", fails)
    monkeypatch.setattr(onnx_checked, "check_onnx", lambda *, record, **options: record)
    record = export_checked(model=model, folder=tmp_path)
    assert (record.input.size, record.fixed_because) == ((64, 64), "sizes are branched on")
    shown = stage.OnnxExportResult(out=tmp_path, record=record).text()
    assert "height 64, width 64; pictures are stretched" in shown
    assert "sizes are branched on" in shown
    with pytest.raises(failure):
        monkeypatch.setattr(model.detector, "spec", spec_of_size(model, (64, 64)))
        fails_always = dict.fromkeys(("size", "because"))
        monkeypatch.setattr(onnx_checked, "export_onnx", lambda **options: fails(**options | fails_always))
        export_checked(model=model, folder=tmp_path)


def spec_of_size(model: Model, size: tuple[int, int]) -> DetectorSpec:
    rule = InputRule(resize="stretch", size=size)
    return model.detector.spec.model_copy(update={"input": rule})


def test_a_detector_of_one_size_takes_no_other(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model.detector, "spec", spec_of_size(model, (64, 96)))
    with pytest.raises(UserError, match="input is 64x96 anyway: leave --size out"):
        export_checked(model=model, folder=tmp_path, size=(32, 32))


@pytest.mark.parametrize(
    ("edges", "size"), [((800, 1333), (800, 1056)), ((64, None), (64, 64)), ((16, None), (32, 32))]
)
def test_the_usual_size_is_that_of_a_landscape_picture(edges, size):
    assert usual_size(InputRule(resize="shortest_edge", shortest_edge=edges[0], longest_edge=edges[1])) == size


def sabotage(graph: Path, folder: Path, output: str, by: float) -> GraphRecord:
    """A copy of the graph that adds a number to one output of the first detection."""
    content = onnx.load(graph / "model.onnx")
    for node in content.graph.node:
        node.output[:] = [f"right {name}" if name == output else name for name in node.output]
        node.input[:] = [f"right {name}" if name == output else name for name in node.input]
    shape = {"boxes": (1, 6, 1), "labels": (1, 6), "scores": (1, 6), "masks": (1, 6, 1, 1)}[output]
    added = np.zeros(shape, dtype=np.int64 if output == "labels" else np.float32)
    added[0, 0] = by
    content.graph.initializer.append(numpy_helper.from_array(added, "sabotage"))
    content.graph.node.append(helper.make_node("Add", [f"right {output}", "sabotage"], [output]))
    onnx.save(content, folder / "model.onnx")
    return read_record(graph)


@pytest.mark.parametrize(
    ("output", "by", "named"),
    [("boxes", 1.5e-3, "boxes"), ("scores", -1.5e-3, "scores"), ("masks", 1.5e-3, "masks"), ("labels", 1, "boxes")],
)
def test_a_wrong_graph_fails_the_check_and_leaves_its_differences(model, graph, tmp_path, output, by, named):
    record = sabotage(graph, tmp_path, output, by)
    with pytest.raises(OnnxDiffersError, match=rf"{named} by .*at most 0.001"):
        check_onnx(model=model, folder=tmp_path, record=record)
    assert read_record(tmp_path).differences[named] > 1e-3


def test_what_lies_within_the_bounds_passes(model, graph, tmp_path):
    checked = check_onnx(model=model, folder=tmp_path, record=sabotage(graph, tmp_path, "masks", 5e-4))
    assert checked.differences["masks"] == pytest.approx(5e-4, abs=1e-4)


@pytest.fixture
def staged(model: Model, graph: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The stage with the tiny model for its run, and with the graph that is there; the options of its exports."""
    asked = []

    def copied(*, folder: Path, **options: Any) -> GraphRecord:
        asked.append(options)
        shutil.copy(graph / "model.onnx", folder)
        return read_record(graph)

    monkeypatch.setattr(stage, "load_model", lambda *args, **options: model)
    monkeypatch.setattr(onnx_checked, "export_onnx", copied)
    return asked


def test_the_stage_writes_graph_record_and_differences(staged, picture, tmp_path):
    result = stage.export_onnx_model(run=tmp_path, out=tmp_path / "out", gather=True, check=[picture])
    assert [(call["gather"], call["pasted"], call["size"]) for call in staged] == [(True, False, None)]
    assert sorted(entry.name for entry in result.out.iterdir()) == ["model.onnx", "onnx.json"]
    assert read_record(result.out) == result.record
    assert "height free, width free" in result.text()
    with pytest.raises(UserError, match="add --overwrite"):
        stage.export_onnx_model(run=tmp_path, out=result.out)
    (result.out / "onnx.json").write_text("an earlier one")
    stage.export_onnx_model(run=tmp_path, out=result.out, overwrite=True)
    assert read_record(result.out) == result.record


def test_what_cannot_become_a_graph_leaves_no_folder(staged, tmp_path, monkeypatch):
    def fails(*, folder: Path, **options: Any) -> GraphRecord:
        (folder / "model.onnx").write_bytes(b"half")
        raise NoGraphError("no graph")

    monkeypatch.setattr(onnx_checked, "export_onnx", fails)
    with pytest.raises(NoGraphError):
        stage.export_onnx_model(run=tmp_path, out=tmp_path / "out", size=(32, 32))
    assert not (tmp_path / "out").exists()


def test_a_difference_on_a_given_picture_fails_too(staged, picture, tmp_path, monkeypatch):
    """The demo's scenes agree; a wide picture does not."""
    Image.open(picture).resize((300, 100)).save(tmp_path / "wide.png")
    run_graph = onnx_check.run_graph

    def wrong_when_wide(session: Any, batch: Any) -> Any:
        wide = batch[0].pixels[0].shape[2] > 80
        return [(boxes + 2e-3 * wide, *others) for boxes, *others in run_graph(session, batch)]

    monkeypatch.setattr(onnx_check, "run_graph", wrong_when_wide)
    stage.export_onnx_model(run=tmp_path, out=tmp_path / "right", check=[picture])
    with pytest.raises(OnnxDiffersError, match=r"boxes by 0\.002"):
        stage.export_onnx_model(run=tmp_path, out=tmp_path / "wrong", check=[tmp_path / "wide.png"])
    assert read_record(tmp_path / "wrong").differences["boxes"] > 1e-3


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"longest_edge": 70, "exact_longest_edge": True, "resample": "torchvision"},
        {"resize": "fit", "shortest_edge": None, "longest_edge": None, "max_size": (60, 99)},
        {
            "resize": "stretch",
            "shortest_edge": None,
            "longest_edge": None,
            "size": (64, 96),
            "resample": "torchvision_float",
        },
    ],
)
def test_the_example_finds_what_torch_finds(model, graph, picture, tmp_path, monkeypatch, rule):
    spec, record = model.detector.spec, read_record(graph)
    own = InputRule(**spec.input.model_dump() | rule)
    monkeypatch.setattr(model.detector, "spec", spec.model_copy(update={"input": own}))
    shutil.copy(graph / "model.onnx", tmp_path)
    write_record(tmp_path, record.model_copy(update={"input": own}))
    compare_example(model, tmp_path, picture, iou=0.98)


def test_masks_alone_may_be_pasted_at_free_sizes_and_the_example_takes_them(model, picture, tmp_path):
    record = export_checked(model=model, folder=tmp_path, pasted=True)
    assert (record.any_size, record.pasted, record.samplers["RoiAlign"]) == (True, True, 1)
    assert record.differences is not None
    assert max(record.differences.values()) < 1e-4
    [masks] = [output for output in onnx.load(tmp_path / "model.onnx").graph.output if output.name == "masks"]
    assert len({each.dim_param for each in masks.type.tensor_type.shape.dim[2:]} - {""}) == 2
    compare_example(model, tmp_path, picture, iou=0.9)  # of masks at the input's size, which is smaller


def compare_example(model: Model, folder: Path, picture: Path, *, iou: float) -> None:
    """The example's boxes, scores, names and masks beside torch's, those of the two lowest scores left out."""
    segmenter = InstanceSegmenter(model, device="cpu")
    scores = np.sort(segmenter(str(picture), threshold=0).scores)
    threshold = float(scores[1:3].mean())
    code = [sys.executable, str(EXAMPLE), str(folder), str(picture), str(folder / "masks"), str(threshold)]
    printed = subprocess.run(code, check=True, capture_output=True, text=True).stdout
    expected = segmenter(str(picture), threshold=threshold)
    lines = [line.split() for line in printed.splitlines()]
    assert len(lines) == len(expected.scores) == len(scores) - 2
    files = sorted((folder / "masks").iterdir(), key=lambda file: int(file.stem))
    for line, file, name, score, box, mask in zip(
        lines, files, expected.names, expected.scores, expected.boxes, expected.masks, strict=True
    ):
        assert line[0] == name
        assert float(line[1]) == pytest.approx(float(score), abs=5e-3)
        assert [float(side) for side in line[2:]] == pytest.approx(box.tolist(), abs=0.5)
        found = np.asarray(Image.open(file))
        assert (found & mask).sum() / (found | mask).sum() > iou


def test_the_example_is_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_sizes_stay_free_while_a_graph_is_recorded():
    for start, end, steps in ((0.5, 7.5, 8), (0, 6, 7), (2.0, 2.0, 1), (-1, 1, 4)):
        torch.testing.assert_close(
            free_linspace(start, end, steps, dtype=torch.float32), torch.linspace(start, end, steps)
        )

    class Grid(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            height = images.shape[2]
            half = torch.as_tensor([(height, 1)], dtype=torch.long)[0, 0] / 2
            return torch.linspace(0, height - 1, height) - half + images.mean()

    with sizes_stay_free([]):
        program = torch.export.export(
            Grid(), (torch.rand(1, 1, 6),), dynamic_shapes=({2: torch.export.Dim.DYNAMIC},), strict=False
        )
    assert program.module()(torch.zeros(1, 1, 9)).tolist() == [each - 4.5 for each in range(9)]


def test_masks_are_pasted_as_in_torch():
    """Boxes in the image, across its border and outside; their corners fall on no pixel's border."""
    boxes = torch.tensor(
        [[0.52, 0.41, 0.33, 0.57], [0.07, 0.91, 0.31, 0.43], [0.5, 0.5, 1.13, 1.21], [1.6, 0.5, 0.2, 0.2]]
    )
    masks, size = torch.rand(4, 8, 8), (37, 53)
    pasted = _paste(masks, boxes, torch.zeros(1, 3, *size))
    expected = paste_masks(masks.numpy(), to_pixels(boxes, size).numpy(), size, threshold=None)
    torch.testing.assert_close(pasted, torch.from_numpy(expected))


def test_pairs_are_found_whatever_their_order_and_a_lost_one_is_infinite():
    boxes, labels = torch.rand(4, 4), torch.tensor([1, 1, 2, 3])
    scores, masks = torch.tensor([0.9, 0.8, 0.8, 0.1]), torch.rand(4, 2, 2)
    order = torch.tensor([0, 2, 1, 3])
    all_count = torch.zeros(4, dtype=torch.bool)
    right = (boxes, labels, scores, masks)
    same = differences(right, (boxes[order], labels[order], scores[order], masks[order]), all_count)
    assert same == {"boxes": 0, "scores": 0, "masks": 0}
    other = labels.clone()
    other[0] = 3
    assert differences(right, (boxes, other, scores, masks), all_count)["boxes"] == float("inf")
    moved = boxes.clone()
    moved[0] += 0.01
    assert differences(right, (moved, labels, scores, masks), all_count)["boxes"] == pytest.approx(0.01)
    edge = torch.tensor([True, False, False, False])
    assert differences(right, (moved, labels, scores, masks), edge)["boxes"] == 0
    assert differences(right, (boxes + 0.01, labels, scores, masks), ~all_count)["boxes"] == pytest.approx(0.01)
    holes = masks.clone()
    holes[1, 0, 0] = torch.nan
    assert differences(right, (boxes, labels, scores, holes), all_count)["masks"] == float("inf")


def test_without_the_extra_the_message_names_it(monkeypatch, scene_run, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else real(name))
    with pytest.raises(UserError, match=r"needs onnxscript: install it with pip install .frozen-cache\[onnx\]"):
        stage.export_onnx_model(run=scene_run, out=tmp_path / "onnx")


@pytest.mark.parametrize(
    ("options", "said"), [({"refine": 16}, "head.refine cannot become ONNX"), ({"mask_head": "segmenter"}, "its norm")]
)
def test_a_head_that_no_graph_can_hold_is_named(model, options, said):
    config = model.head.config.model_copy(update=options)
    head = MaskHead(config=config, inputs=model.head.inputs)
    with pytest.raises(UserError, match=said):
        SegmenterGraph(replace(model, head=head), gather=False, pasted=False)
