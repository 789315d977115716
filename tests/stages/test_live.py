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
from frozen_cache.stages.live import LiveData, LiveReader
from frozen_cache.stages.predict import predict
from frozen_cache.stages.predict_request import check_request
from frozen_cache.stages.train import train_head
from frozen_cache.training.config import LiveConfig
from frozen_cache.training.run_directory import load_record
from frozen_cache.training.shown import same_sized

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
    request = check_request(inputs=[str(picture)], out=tmp_path / "masks")
    results = predict(request, model=tmp_path / "live", device="cpu")
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


def test_neighbours_of_equal_size_go_through_the_detector_together(scenes, tmp_path):
    data = LiveData(
        detector=f"hf:{DETECTOR_DIR}", images=scenes / "images", annotations=scenes / "annotations.json", views=2
    )
    reader = LiveReader(data, out=tmp_path, device="cpu")
    seen: list[int] = []
    model: Any = reader.detector
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    indices = [4, 0, 5, 2]
    together = reader.read_together(indices)
    assert seen == [4], "one call"
    for index, found in zip(indices, together, strict=True):
        alone = reader.read_stored(index)
        assert (found.rows.image_id, found.rows.view) == reader.views[index] == (alone.rows.image_id, alone.rows.view)
        for name in ("queries", "boxes", "scores"):
            torch.testing.assert_close(getattr(found.rows, name), getattr(alone.rows, name), atol=1e-4, rtol=0)
        assert found.rows.truth.match.tolist() == alone.rows.truth.match.tolist()
        assert found.c1 is not None and alone.c1 is not None
        maps = zip([found.c1, *found.encoder[1]], [alone.c1, *alone.encoder[1]], strict=True)
        for one, other in maps:
            torch.testing.assert_close(one.values, other.values, atol=1e-4, rtol=0)


def test_views_of_other_sizes_go_apart_and_few_pixels_make_small_batches(fake, folder, tmp_path):
    reader = LiveReader(live(fake, folder), out=tmp_path, device="cpu")
    shown = reader.shown(range(14), seed=0)
    batches = same_sized(shown, most=10**9)
    assert [view for batch in batches for view in batch] == shown
    assert 1 < len(batches) < 14 and all(len({view.pixels.shape for view in batch}) == 1 for batch in batches)
    assert all(len(batch) == 1 for batch in same_sized(shown, most=1))
    most = 2 * shown[0].pixels[0].numel()
    assert all(
        batch[0].pixels[0].numel() * len(batch) <= max(most, batch[0].pixels[0].numel())
        for batch in same_sized(shown, most=most)
    )
    for index, found in enumerate(reader.read_together(range(14))):
        assert torch.equal(found.rows.queries, reader.read_stored(index).rows.queries)


def test_large_scale_jitter_shows_each_step_another_view_and_ends_the_same_again(fake, folder, tmp_path):
    settings = SMALL | {"live.lsj": True, "optim.epochs": 1}
    jittered = LiveReader(live(fake, folder), out=tmp_path, device="cpu", config=LiveConfig(lsj=True))
    assert {jittered.resized_size(index) for index in range(14)} == {(32, 32)}
    first, same, other = (jittered.shown([0], seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.pixels, same.pixels) and not torch.equal(first.pixels, other.pixels)
    runs = [tmp_path / "one", tmp_path / "two"]
    for run in runs:
        train_head(live=live(fake, folder), out=run, overrides=settings, device="cpu", workers=2)
    assert losses(runs[0]) == losses(runs[1])
    train_head(live=live(fake, folder), out=tmp_path / "plain", overrides=settings | {"live.lsj": False}, device="cpu")
    assert losses(tmp_path / "plain") != losses(runs[0])


def test_a_cache_knows_no_jitter(cache, tmp_path):
    with pytest.raises(UserError, match="`live` section needs --live"):
        train_head(cache=cache, out=tmp_path / "run", overrides=SMALL | {"live.lsj": True}, device="cpu")


def test_validation_may_be_live_too_and_gives_what_a_cache_gives(fake, folder, cache, tmp_path):
    images, annotations = folder
    data = live(fake, folder)
    beside = replace(data, val_images=images, val_annotations=annotations)
    one = train_head(live=data, val_cache=cache, out=tmp_path / "cached", overrides=SMALL, device="cpu")
    other = train_head(live=beside, out=tmp_path / "live", overrides=SMALL, device="cpu")
    assert other.best_ap is not None and other.box_ap is not None
    assert (other.best_ap, other.box_ap) == pytest.approx((one.best_ap, one.box_ap), abs=1e-6)
    with pytest.raises(UserError, match="one of the two: leave out --val-cache or --val-images"):
        train_head(live=beside, val_cache=cache, out=tmp_path / "both", overrides=SMALL, device="cpu")
