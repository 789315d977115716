"""`predict`: every kind of input and output, names that never collide, broken files, refusals."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from frozen_cache.cli.main import exit_code
from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.errors import UserError
from frozen_cache.inference.contours import outline
from frozen_cache.inference.inputs import InputFile, find_inputs, unique_names
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.stages import predict_request
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.predict import PredictSummary, predict
from tests.frozen_cache.inference.conftest import with_id_0

THRESHOLD = 0.05


def run(model: Path, inputs: list[Any], out: Path, **options: Any) -> PredictSummary:
    asked = {name: options.pop(name) for name in ("save", "overwrite") if name in options}
    request = predict_request.check_request(inputs=[str(each) for each in inputs], out=out, **asked)
    return predict(request, **{"model": model, "threshold": THRESHOLD, "device": "cpu"} | options)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def everything(scenes: Path, scene_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds of output of the scenes."""
    out = tmp_path_factory.mktemp("predict") / "out"
    run(scene_run, [scenes / "images"], out, save=["overlays", "masks", "label-map", "cutouts", "yolo"])
    return out


@pytest.fixture(scope="module")
def expected(scenes: Path, scene_run: Path) -> dict[str, Any]:
    """Name -> what the library finds."""
    segmenter = InstanceSegmenter.load(scene_run, device="cpu")
    return {path.stem: segmenter(path, threshold=THRESHOLD) for path in sorted((scenes / "images").iterdir())}


def test_the_results_are_those_of_the_library(everything, expected):
    images = read(everything / "images.json")["images"]
    assert [image["output_name"] for image in images] == list(expected)
    for kind in ("segm", "bbox"):
        results = read(everything / f"{kind}_results.json")
        assert results == [
            entry for image in images for entry in expected[image["output_name"]].to_coco(image["id"], kind=kind)
        ]
        assert results


def test_the_mean_over_views_is_that_of_evaluate(scenes, scene_run, tmp_path):
    entries = read(scenes / "annotations.json")["images"][:3]
    given = ["--model", str(scene_run), "--views", "3", "--threshold", "0", "--device", "cpu", "--no-overlays"]
    assert exit_code(["predict", *given, "--out", str(tmp_path / "out"), str(scenes / "images")]) == 0
    named = {Path(image["file_name"]).name: image["id"] for image in read(tmp_path / "out" / "images.json")["images"]}
    found = read(tmp_path / "out" / "segm_results.json")
    moved = 0
    for entry in entries:
        cache, results = tmp_path / f"{entry['id']}.zarr", tmp_path / str(entry["id"])
        annotations = with_id_0(scenes / "annotations.json", entry["id"], tmp_path / "one.json")
        extract_features(detector=f"hf:{DETECTOR_DIR}", images=scenes / "images", annotations=annotations, out=cache,
                         views=3, backbone_strides=(8,))  # fmt: skip
        theirs = [
            read(evaluated(cache, scene_run, results / str(views), views) / "segm_results.json") for views in (3, 1)
        ]
        mine = [each for each in found if each["image_id"] == named[entry["file_name"]]]
        assert len(mine) == len(theirs[0]) > 0
        for here, mean, plain in zip(mine, *theirs, strict=True):
            assert here["category_id"] == mean["category_id"]
            assert here["score"] == pytest.approx(mean["score"], abs=1e-3)
            if coco_mask.area(mean["segmentation"]) > 50:
                assert iou(here, mean) >= 0.99
                moved += iou(here, plain) < 0.97
    assert moved > 3
    assert read(tmp_path / "out" / "predict.json")["views"] == 3


def evaluated(cache: Path, head: Path, out: Path, views: int) -> Path:
    evaluate(cache=cache, head=head, out=out, views=views, device="cpu")
    return out


def iou(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(coco_mask.iou([one["segmentation"]], [other["segmentation"]], [0])[0, 0])


def test_a_graph_is_for_other_programs(scenes, tmp_path, capsys):
    (tmp_path / "graph").mkdir()
    for name in ("model.onnx", "onnx.json"):
        (tmp_path / "graph" / name).write_text("{}")
    for model in (tmp_path / "graph", tmp_path / "graph" / "model.onnx"):
        given = ["--model", str(model), "--views", "3", "--out", str(tmp_path / "out"), str(scenes / "images")]
        assert exit_code(["predict", *given]) == 2
        error = capsys.readouterr().err
        assert "is an ONNX graph" in error and error.count("\n") == 1


def test_masks_are_pngs_of_the_image_s_size(everything, expected):
    files = sorted((everything / "masks").iterdir())
    assert len(files) == sum(map(len, expected.values()))
    for name, found in expected.items():
        for number, (mask, label) in enumerate(zip(found.masks, found.names, strict=True), 1):
            stored = np.asarray(Image.open(everything / "masks" / f"{name}.{number:03d}.{label}.png"))
            assert (stored == mask * 255).all()


def test_a_label_map_numbers_the_instances_the_surest_on_top(everything, expected):
    for name, found in expected.items():
        labels = np.asarray(Image.open(everything / "label-map" / f"{name}.png"))
        assert labels.shape == found.size
        assert ((labels > 0) == found.masks.any(0)).all()
        best = int(found.scores.argmax())
        assert (labels[found.masks[best]] == best + 1).all()


def test_cutouts_show_the_instance_and_nothing_else(everything, expected, scenes):
    for name, found in expected.items():
        pixels = np.asarray(Image.open(next((scenes / "images").glob(f"{name}.*"))).convert("RGB"))
        for number, mask in enumerate(found.masks):
            if not mask.any():
                continue
            cut = np.asarray(Image.open(next((everything / "cutouts").glob(f"{name}.{number + 1:03d}.*"))))
            assert (cut[..., 3] > 0).sum() == mask.sum()
            assert (cut[cut[..., 3] > 0][:, :3] == pixels[mask]).all()


def test_yolo_polygons_are_the_masks(everything, expected):
    classes = (everything / "yolo" / "classes.txt").read_text().split()
    for name, found in expected.items():
        lines = (everything / "yolo" / f"{name}.txt").read_text().splitlines()
        kept = [at for at, mask in enumerate(found.masks) if mask.any()]
        assert len(lines) == len(kept)
        height, width = found.size
        for line, at in zip(lines, kept, strict=True):
            place, *numbers = line.split()
            assert classes[int(place)] == found.names[at]
            points = np.array(numbers, dtype=float).reshape(-1, 2) * (width, height)
            area = coco_mask.area(coco_mask.frPyObjects([points.ravel().tolist()], height, width))[0]
            assert area == pytest.approx(found.masks[at].sum(), rel=0.15, abs=12)


def test_overlays_are_pictures_with_something_on_them(everything, expected, scenes):
    for name, found in expected.items():
        drawn = np.asarray(Image.open(everything / "overlays" / f"{name}.jpg")).astype(int)
        plain = np.asarray(Image.open(next((scenes / "images").glob(f"{name}.*"))).convert("RGB")).astype(int)
        assert drawn.shape == plain.shape
        changed = np.abs(drawn - plain).mean(-1)
        covered = found.masks.any(0)
        assert changed[covered].mean() > 3 * changed[~covered].mean()


@pytest.mark.parametrize("shape", ["ring", "parts", "pixel", "edge"])
def test_an_outline_filled_is_the_mask_with_its_parts_and_holes(shape):
    picture = Image.new("1", (60, 50))
    draw = ImageDraw.Draw(picture)
    if shape == "ring":
        draw.ellipse((5, 5, 45, 40), fill=1)
        draw.ellipse((15, 15, 30, 30), fill=0)
    if shape == "parts":
        draw.rectangle((2, 3, 20, 30), fill=1)
        draw.rectangle((40, 10, 55, 45), fill=1)
    if shape == "pixel":
        draw.point((7, 9), fill=1)
    if shape == "edge":
        draw.rectangle((0, 0, 59, 20), fill=1)
    mask = np.asarray(picture)
    points = outline(mask)
    x, y = points.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert area == pytest.approx(mask.sum(), rel=0.02, abs=1)
    low, high = np.argwhere(mask).min(0)[::-1], np.argwhere(mask).max(0)[::-1] + 1
    np.testing.assert_allclose(points.min(0), low, atol=0.5)
    np.testing.assert_allclose(points.max(0), high, atol=0.5)
    assert len(outline(np.zeros((5, 5), bool))) == 0


def test_names_never_collide_whatever_the_file_system():
    paths = ["a/x.jpg", "b/x.jpg", "b/X.png", "x-2.jpg", "../..jpg", "a b:c.jpg", "é.jpg", "x.1.jpg", "-.png"]
    names = unique_names(map(Path, paths))
    assert len({name.lower() for name in names}) == len(paths)
    assert names[0] == "x"
    assert names[3] == "x-2"
    for name in names:
        assert name
        assert not set(name) & set("/\\.: ")


def test_inputs_may_be_files_folders_and_patterns_and_each_file_counts_once(scenes, scene_run, tmp_path):
    pictures = sorted((scenes / "images").iterdir())
    for folder in ("in/a", "in/b/deep"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(pictures[0], tmp_path / folder / "x.png")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    shutil.copy(pictures[1], tmp_path / "unusual.ending")
    given = [tmp_path / "in", tmp_path / "unusual.ending", f"{tmp_path}/in/**/*.png", tmp_path / "in" / "a" / "x.png"]
    out = tmp_path / "in" / "out"
    assert run(scene_run, given, out, save=["masks"]).images == 3
    names = [image["output_name"] for image in read(out / "images.json")["images"]]
    assert names == ["x", "x-2", "unusual"]
    assert {path.name.split(".")[0] for path in (out / "masks").iterdir()} == set(names)
    assert run(scene_run, given, out, save=["masks"], overwrite=True).images == 3, "outputs are no inputs"


def test_broken_files_are_named_and_left_out_and_the_exit_code_tells(scenes, scene_run, tmp_path, capsys):
    good = sorted((scenes / "images").iterdir())[0]
    (tmp_path / "words.jpg").write_text("dear")
    (tmp_path / "half.png").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    given = [tmp_path / "words.jpg", good, tmp_path / "half.png"]
    summary = run(scene_run, given, tmp_path / "out")
    assert summary.images == 1
    assert [path.name for path, _ in summary.skipped] == ["words.jpg", "half.png"]
    command = ["predict", "--model", str(scene_run), *map(str, given), "--device", "cpu", "--no-overlays"]
    assert exit_code([*command, "--out", str(tmp_path / "all")]) == 1
    assert "words.jpg" in capsys.readouterr().out
    assert exit_code(["predict", "--model", str(scene_run), str(good), "--out", str(tmp_path / "one")]) == 0
    assert str(tmp_path / "one") in capsys.readouterr().out


def test_the_frames_of_a_video_are_pictures(scenes, scene_run, tmp_path):
    av = pytest.importorskip("av")
    pictures = [Image.open(path).convert("RGB") for path in sorted((scenes / "images").iterdir())]
    width, height = 192, 144
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
        for picture in [*pictures, pictures[0]]:
            for packet in stream.encode(av.VideoFrame.from_image(picture.resize((width, height)))):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    summary = run(scene_run, [tmp_path / "film.mp4"], tmp_path / "out", frame_step=2)
    assert (summary.images, summary.skipped) == (2, [])
    images = read(tmp_path / "out" / "images.json")["images"]
    assert [image["output_name"] for image in images] == ["film.000000", "film.000002"]
    assert {(image["height"], image["width"]) for image in images} == {(height, width)}
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2
    (tmp_path / "noise.mp4").write_bytes(b"no film" * 99)
    summary = run(scene_run, [tmp_path / "noise.mp4"], tmp_path / "other")
    assert "noise.mp4" in summary.skipped[0][1]


def test_a_video_without_its_reader_is_one_clear_line(scene_run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"frozen-cache\[video\]"):
        run(scene_run, [tmp_path / "film.mp4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_are_replaced_only_when_told_and_foreign_things_never(scenes, scene_run, tmp_path):
    pictures = sorted((scenes / "images").iterdir())
    run(scene_run, pictures, tmp_path / "out", save=["masks"])
    with pytest.raises(UserError, match="--overwrite"):
        run(scene_run, pictures[:1], tmp_path / "out")
    run(scene_run, pictures[:1], tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "masks").exists()
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 1
    (tmp_path / "out" / "thesis.txt").write_text("words")
    (tmp_path / "mine" / "masks").mkdir(parents=True)
    for out in (tmp_path / "out", tmp_path / "mine"):
        with pytest.raises(UserError, match="other things"):
            run(scene_run, pictures[:1], out, overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inputs": ["nowhere.jpg"]}, r"nowhere\.jpg"),
        ({"inputs": ["*.jpg"]}, "no image"),
        ({"save": ["mask"]}, "label-map"),
        ({"classes": ["unicorn"]}, "unicorn"),
        ({"threshold": 2}, "threshold"),
        ({"views": 0}, "--views"),
        ({"batch_size": 0}, "--batch-size"),
        ({"frame_step": 0}, "--frame-step"),
        ({"model": Path("nowhere")}, "nowhere"),
        ({"device": "warp"}, "--device"),
    ],
)
def test_a_mistake_is_said_before_anything_is_written(scenes, scene_run, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    given = {"model": scene_run, "inputs": [scenes / "images"], "out": tmp_path / "out"} | options
    with pytest.raises(UserError, match=said):
        run(**given)
    assert not list(tmp_path.iterdir())


def test_inputs_are_looked_through_once(scenes, scene_run, tmp_path, monkeypatch):
    """Where a folder is large and far away, that alone takes long."""
    looked: list[Any] = []

    def counted(inputs: Any, **options: Any) -> list[InputFile]:
        looked.append(inputs)
        return find_inputs(inputs, **options)

    for name in [name for name in sys.modules if name.startswith("frozen_cache.")]:
        if hasattr(sys.modules[name], "find_inputs"):
            monkeypatch.setattr(sys.modules[name], "find_inputs", counted)
    given = ["--model", str(scene_run), "--out", str(tmp_path / "out"), "--device", "cpu", str(scenes / "images")]
    assert exit_code(["predict", *given]) == 0
    assert looked == [[str(scenes / "images")]]


def test_an_input_is_not_changed(scenes, scene_run, tmp_path):
    copy = Path(shutil.copytree(scenes / "images", tmp_path / "in"))
    run(scene_run, [copy], tmp_path / "out")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in (scenes / "images").iterdir()
    }
