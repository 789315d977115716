"""Training with the detector in the loop: it is the training from a float32 cache, without the cache."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import frozen_cache
from frozen_cache.cli.train import train_head as command
from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.errors import UserError
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.live import LiveData
from frozen_cache.stages.predict import predict
from frozen_cache.stages.train import train_head
from frozen_cache.training.run_directory import load_record

from .fake_detector import __file__ as FAKE

SMALL = {
    "head.width": 16,
    "head.roi_size": 16,
    "head.image_width": 16,
    "head.image_layers": 1,
    "head.box_layers": 1,
    "optim.epochs": 2,
    "optim.batch_size": 2,
    "loss.points": 16,
    "checkpoint_every": 2,
}
FIRST_STEP = SMALL | {"optim.epochs": 0.01}


def live(fake: Any, folder: tuple[Path, Path], **more: Any) -> LiveData:
    return LiveData(detector=fake.uneven(), images=folder[0], annotations=folder[1], views=2, **more)


def losses(run: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {key: value for key, value in lines[-1].items() if key not in ("step", "epoch", "lr")}


@pytest.fixture
def cache(fake, folder, tmp_path) -> Path:
    images, annotations = folder
    out = tmp_path / "float32.zarr"
    extract_features(
        detector=fake.uneven(), images=images, annotations=annotations, out=out, views=2, precision="float32"
    )
    return out


def test_the_first_step_s_losses_are_those_from_a_float32_cache(fake, folder, cache, tmp_path):
    train_head(cache=cache, out=tmp_path / "cached", overrides=FIRST_STEP, device="cpu")
    train_head(live=live(fake, folder), out=tmp_path / "live", overrides=FIRST_STEP, device="cpu")
    expected = losses(tmp_path / "cached")
    assert expected["loss"] > 0
    assert losses(tmp_path / "live") == pytest.approx(expected, abs=1e-4)


def test_they_are_with_a_detector_of_transformers(scenes, tmp_path):
    data = {"images": scenes / "images", "annotations": scenes / "annotations.json", "views": 2}
    detector = f"hf:{DETECTOR_DIR}"
    extract_features(detector=detector, out=tmp_path / "c.zarr", precision="float32", device="cpu", **data)
    train_head(cache=tmp_path / "c.zarr", out=tmp_path / "cached", overrides=FIRST_STEP, device="cpu")
    train_head(live=LiveData(detector=detector, **data), out=tmp_path / "live", overrides=FIRST_STEP, device="cpu")
    assert losses(tmp_path / "live") == pytest.approx(losses(tmp_path / "cached"), abs=1e-4)
    record = load_record(tmp_path / "live")
    assert record.cache is None and record.source is not None
    picture = next((scenes / "images").iterdir())
    results = predict(model=tmp_path / "live", inputs=[str(picture)], out=tmp_path / "masks", device="cpu")
    assert results.images == 1, "the run knows its detector"


class DiedError(RuntimeError):
    """The twentieth call."""


def dying(detector: Any) -> Any:
    """The detector, for nineteen calls."""
    calls: list[int] = []

    class Dying(type(detector)):
        def __call__(self, images: torch.Tensor) -> Any:
            calls.append(1)
            if len(calls) == 20:
                raise DiedError
            return super().__call__(images)

    return Dying(detector.spec.input)


def test_a_live_run_that_died_ends_like_one_never_stopped(fake, folder, cache, tmp_path):
    data = live(fake, folder)
    whole, died = tmp_path / "whole", tmp_path / "died"
    result = train_head(live=data, val_cache=cache, out=whole, overrides=SMALL, device="cpu")
    assert result.best_ap is not None
    broken = replace(data, detector=dying(fake.uneven()))
    with pytest.raises(DiedError):
        train_head(live=broken, val_cache=cache, out=died, overrides=SMALL, device="cpu")
    stood = load_file(died / "last.safetensors")
    train_head(live=data, val_cache=cache, out=died, overrides=SMALL, device="cpu")
    expected, found = load_file(whole / "last.safetensors"), load_file(died / "last.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not all(torch.equal(expected[name], stood[name]) for name in expected)
    assert "no cache: the detector in the loop on 7 images of `instances.json`" in (whole / "README.md").read_text()
    evaluate(cache=cache, head=whole, out=tmp_path / "results", device="cpu")
    assert (tmp_path / "results" / "metrics.json").is_file()


def test_what_does_not_fit_is_one_line(fake, folder, cache, tmp_path):
    data = live(fake, folder)
    for options in ({}, {"cache": cache, "live": data}):
        with pytest.raises(UserError, match="train from a cache or live, one of the two"):
            train_head(out=tmp_path / "run", overrides=SMALL, **options)
    with pytest.raises(UserError, match=r"head\.c1_scale=2 needs a cache"):
        train_head(out=tmp_path / "run", overrides=SMALL | {"head.c1_scale": 2}, live=data)
    name = folder[0] / "000.png"
    Image.new("RGB", (3, 3)).save(name)
    with pytest.raises(UserError, match=r"000\.png"):
        train_head(out=tmp_path / "run", overrides=SMALL, live=data, device="cpu")


def test_python_takes_extraction_s_options_by_name(fake, folder, tmp_path):
    images, annotations = map(str, folder)
    options = {"detector": fake.uneven(), "images": images, "annotations": annotations, "only": ["3"]}
    data = LiveData.of_options(options)
    assert (data.images, data.only, data.views) == (folder[0], ("3",), 1)
    with pytest.raises(UserError, match="live needs `annotations`"):
        frozen_cache.train(out=tmp_path / "run", live={"detector": "hf:x", "images": images})
    with pytest.raises(UserError, match="live knows no `view`: give detector, images"):
        frozen_cache.train(out=tmp_path / "run", live=options | {"view": 2})


def test_nothing_of_a_view_is_an_inference_tensor(fake, folder, tmp_path):
    from frozen_cache.stages.live import LiveReader

    reader = LiveReader(live(fake, folder), out=tmp_path, device="cpu")
    view = reader.read_stored(0, encoder_layers=(2,))
    assert view.c1 is not None and list(view.encoder) == [2]
    maps = [view.c1, *view.encoder[2]]
    assert not any(torch.is_inference(each) for each in [view.rows.queries, *(stored.values for stored in maps)])


def test_the_command_needs_what_a_live_training_reads(folder, tmp_path):
    app = typer.Typer()
    app.command()(command)

    def refused(*options: str) -> str:
        result = CliRunner().invoke(app, ["--out", str(tmp_path / "run"), *options])
        assert result.exit_code != 0
        return str(result.exception)

    assert "--live needs --detector, --images and --annotations" in refused("--live", "--detector", "hf:x")
    assert "train-head needs --cache, or --live" in refused()
    images, annotations = map(str, folder)
    given = ("--live", "--detector", f"{FAKE}:uneven", "--images", images, "--annotations", annotations)
    assert "train from a cache or live" in refused(*given, "--cache", str(tmp_path))
    settings = [option for key, value in FIRST_STEP.items() for option in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "run"), *given, *settings])
    assert result.exit_code == 0, result.exception
    source = load_record(tmp_path / "run").source
    assert source is not None and source.detector == f"{FAKE}:uneven"
