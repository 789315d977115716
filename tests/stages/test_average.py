"""Averages without training, from the commands on: heads, RoI sizes and cached views."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frozen_cache import InstanceSegmenter
from frozen_cache import evaluate as evaluate_in_python
from frozen_cache.cli.main import exit_code
from frozen_cache.errors import UserError
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.predict import predict
from frozen_cache.stages.predict_request import check_request
from frozen_cache.stages.train import train_head

SMALL: dict[str, Any] = {
    "head.width": 16, "head.roi_size": 8, "head.image_width": 16, "head.image_layers": 0, "head.box_layers": 0,
    "head.mask_scoring": False, "optim.epochs": 1, "optim.batch_size": 4, "loss.supervision": "dense",
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """Images, a cache of three views of each, two heads."""

    images: Path
    cache: Path
    runs: list[Path]


@pytest.fixture(scope="module")
def made(fake: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("average")
    images, annotations = fake.write_folder(folder / "data")
    cache, runs = folder / "train.zarr", [folder / "a", folder / "b"]
    detector = f"{Path(fake.__file__)}:uneven"
    extract_features(
        detector=detector, images=images, annotations=annotations, out=cache, views=3, precision="float32", batch_size=1
    )
    for seed, run in enumerate(runs):
        train_head(cache=cache, out=run, overrides=SMALL | {"seed": seed}, device="cpu")
    return Made(images, cache, runs)


def results(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "segm_results.json").read_text())


def test_what_is_averaged_stands_in_the_results(made, tmp_path):
    names = []
    for place, options in enumerate(
        [
            {"head": made.runs},
            {"head": made.runs, "roi_sizes": (8, 12)},
            {"head": made.runs[0], "views": 3, "guided": True},
        ]
    ):
        out = tmp_path / str(place)
        evaluate(cache=made.cache, out=out, device="cpu", **options)
        of = json.loads((out / "metrics.json").read_text())["of"]
        assert len(of["sha256"].split(", ")) == (2 if place < 2 else 1)
        names.append(of["name"])
    a, b = (run / "last.safetensors" for run in made.runs)
    assert names == [
        f"mean of 2 heads: {a}, {b}",
        f"mean of 2 heads: {a}, {b}, at RoI sizes 8, 12",
        f"head {a}, mean of 3 views, guided",
    ]
    with pytest.raises(UserError, match="holds the results of something else"):
        evaluate(cache=made.cache, out=tmp_path / "0", head=made.runs[0], device="cpu")


def test_a_head_twice_is_the_head_once_and_two_are_neither(made, tmp_path):
    a, b = made.runs
    found = {}
    for name, heads in {"a": a, "aa": [a, a], "b": [b], "ab": [a, b]}.items():
        evaluate(cache=made.cache, out=tmp_path / name, head=heads, device="cpu")
        found[name] = [(entry["score"], entry["segmentation"]["counts"]) for entry in results(tmp_path / name)]
    assert found["a"] == found["aa"]
    scores = {name: np.array([score for score, _ in entries]) for name, entries in found.items()}
    np.testing.assert_allclose(scores["ab"], (scores["a"] + scores["b"]) / 2, rtol=1e-6)
    assert not np.allclose(scores["a"], scores["b"])


def test_the_same_averages_on_pictures(made, tmp_path):
    options = {"roi_sizes": (8, 12), "guided": True}
    evaluate(cache=made.cache, out=tmp_path / "eval", head=made.runs, device="cpu", images=made.images, **options)
    first = sorted(made.images.iterdir())[0]
    expected = [entry for entry in results(tmp_path / "eval") if entry["image_id"] == 0]
    segmenter = InstanceSegmenter.load([str(made.runs[0]), made.runs[1]], device="cpu", **options)
    assert segmenter(first, threshold=0).to_coco(0) == expected
    assert sum(coco_mask.area(entry["segmentation"]) for entry in expected) > 0
    request = check_request(inputs=[str(first)], out=tmp_path / "p", save=())
    predict(request, model=made.runs, threshold=0, device="cpu", **options)
    assert [entry | {"image_id": 0} for entry in results(tmp_path / "p")] == expected


def test_python_takes_one_head_or_several(made, tmp_path):
    one = evaluate_in_python(made.cache, head=str(made.runs[0]), out=tmp_path / "1", device="cpu")
    two = evaluate_in_python(
        made.cache, head=[str(run) for run in made.runs], out=tmp_path / "2", views=2, device="cpu"
    )
    assert one.what.startswith("head ") and two.what.endswith("mean of 2 views")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--views", "4"], "--views 4"),
        (["--views", "0"], "give 1 or more"),
        (["--roi-sizes", "8,x"], "whole numbers with commas"),
        (["--roi-sizes", "8,200"], "RoI size 200: give 4 to 128"),
        (["--baseline", "box"], "either --head RUN or --baseline"),
    ],
)
def test_refusals_are_one_line(made, tmp_path, capsys, arguments, said):
    line = ["evaluate", "--cache", str(made.cache), "--head", str(made.runs[0]), "--out", str(tmp_path / "x")]
    assert exit_code([*line, *arguments]) == 2
    assert said in capsys.readouterr().err
    assert (
        exit_code(["evaluate", "--cache", str(made.cache), "--baseline", "box", "--roi-sizes", "8", "--out", "x"]) == 2
    )
    assert "leave it out with --baseline" in capsys.readouterr().err


def test_the_commands_take_what_the_functions_take(made, tmp_path, capsys):
    heads = [word for run in made.runs for word in ("--head", str(run))]
    line = ["evaluate", "--cache", str(made.cache), *heads, "--views", "2", "--roi-sizes", "8,12", "--guided"]
    assert exit_code([*line, "--out", str(tmp_path / "x"), "--device", "cpu"]) == 0
    assert "mean of 2 heads" in capsys.readouterr().out
    models = [word for run in made.runs for word in ("--model", str(run))]
    line = ["predict", *models, str(made.images), "--out", str(tmp_path / "y"), "--roi-sizes", "8,12", "--guided"]
    assert exit_code([*line, "--device", "cpu"]) == 0


def test_heads_that_do_not_belong_together_are_refused(made, tmp_path):
    shutil.copytree(made.runs[1], tmp_path / "other")
    record = json.loads((tmp_path / "other" / "run.json").read_text())
    record["categories"][0]["name"] = "quince"
    (tmp_path / "other" / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"other and .*a differ in their categories"):
        InstanceSegmenter.load([made.runs[0], tmp_path / "other"], device="cpu")
    with pytest.raises(UserError, match="no model is given"):
        InstanceSegmenter.load([], device="cpu")
    layers = train_head(cache=made.cache, out=tmp_path / "layer", overrides=SMALL | {"head.encoder_layer": 1}).out
    with pytest.raises(UserError, match=r"layer 1: average heads that read the same one"):
        evaluate(cache=made.cache, out=tmp_path / "x", head=[made.runs[0], layers], device="cpu")
    with pytest.raises(UserError, match="differ in their encoder layer"):
        InstanceSegmenter.load([made.runs[0], layers], device="cpu")
