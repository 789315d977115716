"""A detector that trains along with the head: what changes, what stays, and that everything finds it again."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from frozen_cache.cache.reader import CacheReader
from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.detectors.load import load_detector
from frozen_cache.errors import UserError
from frozen_cache.inference.model import load_run
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.stages.ablate import ablate
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.export import export_model
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.live import LiveData
from frozen_cache.stages.train import TrainResult, train_head
from frozen_cache.training.config import all_keys
from frozen_cache.training.run_directory import load_record

SMALL = {
    "head.width": 16,
    "head.roi_size": 16,
    "head.image_layers": 0,
    "head.box_layers": 1,
    "optim.epochs": 3,
    "optim.batch_size": 2,
    "optim.lr": 1e-3,
    "optim.weight_decay": 0.0,
    "loss.points": 16,
    "checkpoint_every": 1,
    "eval_every": 3,
}
"""Six steps over three images."""
PARTS = ["encoder", "decoder"]


def data_of(scenes: Path, *, validated: bool = False) -> LiveData:
    images, annotations = scenes / "images", scenes / "annotations.json"
    data = LiveData(detector=f"hf:{DETECTOR_DIR}", images=images, annotations=annotations)
    return replace(data, val_images=images, val_annotations=annotations) if validated else data


def train(scenes: Path, out: Path, *, validated: bool = False, **settings: Any) -> TrainResult:
    overrides = SMALL | {"live.unfreeze": PARTS} | {key.replace("__", "."): value for key, value in settings.items()}
    return train_head(live=data_of(scenes, validated=validated), out=out, overrides=overrides, device="cpu")


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A run whose encoder and decoder trained along, validated in the loop."""
    run = tmp_path_factory.mktemp("tuned") / "run"
    return run, train(scenes, run, validated=True)


def test_the_named_parts_change_and_nothing_else(trained, scenes):
    run, _ = trained
    before: Any = load_detector(f"hf:{DETECTOR_DIR}")
    after: Any = load_run(run)[0].detector
    old, new = before.model.state_dict(), after.model.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed, "something trains"
    assert {before.part_of(name) for name in changed} == set(PARTS)
    assert any("self_attn" in name for name in changed)
    saved = {name.removeprefix("detector.") for name in load_file(run / "best.safetensors") if "detector." in name}
    assert changed <= saved, "what changed is in the checkpoint"
    assert not {name for name in saved if "class_embed" in name}, "no gradient of a mask leads there"
    assert after.spec.weights_sha256 != before.spec.weights_sha256
    head = sum("optimizer." in name and name.endswith(".exp_avg") for name in load_file(run / "last.safetensors"))
    assert head >= len(saved), "moments of the detector's weights are kept"


def test_every_key_of_the_live_section_changes_the_weights(scenes, tmp_path):
    jitter = {"live.lsj": True}
    changes: dict[str, tuple[Any, dict[str, Any]]] = {
        "live.lsj": (True, {}),
        "live.lsj_scale": ([0.5, 0.6], jitter),
        "live.unfreeze": (["decoder"], {}),
        "live.detector_lr": (0.5, {}),
        "live.detector_loss": (1.0, {}),
    }
    assert set(changes) == {key for key in all_keys() if key.startswith("live.")}

    def weights(name: str, overrides: dict[str, Any]) -> dict[str, torch.Tensor]:
        once = SMALL | {"optim.epochs": 0.01, "live.unfreeze": PARTS}
        train_head(live=data_of(scenes), out=tmp_path / name, overrides=once | overrides, device="cpu")
        saved = load_file(tmp_path / name / "last.safetensors")
        return {key: value for key, value in saved.items() if key.startswith(("head.", "detector."))}

    bases = {str(besides): weights(f"base{len(besides)}", besides) for besides in ({}, jitter)}
    for key, (value, besides) in changes.items():
        base, changed = bases[str(besides)], weights(key, besides | {key: value})
        assert base.keys() != changed.keys() or any(not torch.equal(base[name], changed[name]) for name in base), key


def test_the_result_says_what_became_of_the_boxes(trained):
    run, result = trained
    assert result.box_ap_before is not None and result.box_ap is not None
    assert f"(before: {result.box_ap_before:.4f})" in result.text()
    assert f"--detector hf:{run / 'detector'}" in result.text()


def test_its_rate_is_a_tenth_of_the_head_s(scenes, tmp_path, monkeypatch):
    rates: list[list[float]] = []
    step = torch.optim.AdamW.step

    def watched(optimizer: torch.optim.AdamW, *args: Any, **options: Any) -> Any:
        rates.append([group["lr"] for group in optimizer.param_groups])
        return step(optimizer, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(scenes, tmp_path / "run", optim__epochs=1)
    assert rates and all(own == pytest.approx(0.1 * head) for head, own in rates)


class DiedError(RuntimeError):
    """In the fourth step."""


def test_a_run_that_died_ends_with_the_same_head_and_detector(trained, scenes, tmp_path, monkeypatch):
    run, _ = trained
    died, calls = tmp_path / "died", []
    step = torch.optim.AdamW.step

    def dying(optimizer: torch.optim.AdamW, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise DiedError
        return step(optimizer, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(DiedError):
        patch.setattr(torch.optim.AdamW, "step", dying)
        train(scenes, died, validated=True)
    result = train(scenes, died, validated=True)
    assert len(calls) == 4 and result.box_ap_before == trained[1].box_ap_before
    expected, found = load_file(run / "last.safetensors"), load_file(died / "last.safetensors")
    assert expected.keys() == found.keys() and any(name.startswith("detector.") for name in found)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_the_tuned_detector_is_read_by_extraction_and_the_head_fits_its_cache(trained, scenes, tmp_path):
    run, result = trained
    tuned, cache = load_run(run)[0].detector, tmp_path / "tuned.zarr"
    data: dict[str, Any] = {"images": scenes / "images", "annotations": scenes / "annotations.json", "device": "cpu"}
    first, then = (shlex.split(line.removeprefix("next: "))[1:] for line in result.text().splitlines()[-2:])
    assert first == ["extract-features", *shlex.split(result.detector), "--images", str(data["images"]),
                     "--annotations", str(data["annotations"]), "--out", f"{run}-val.zarr"]  # fmt: skip
    assert then[:3] == ["evaluate", "--cache", f"{run}-val.zarr"]
    told = (run / "README.md").read_text()
    assert "validation: the detector in the loop" in told and "a cache made by the tuned detector, `detector`" in told
    extract_features(detector=f"hf:{run / 'detector'}", out=cache, precision="float32", **data)
    attributes = CacheReader(cache).attributes
    assert attributes.detector.weights_sha256 == tuned.spec.weights_sha256
    found = evaluate(cache=cache, head=run, out=tmp_path / "results", device="cpu")
    assert found.metrics["bbox"]["AP"] == pytest.approx(result.box_ap, abs=1e-6), "the boxes of the tuned detector"
    assert found.metrics["segm"]["AP"] == pytest.approx(result.best_ap, abs=1e-6)
    extract_features(detector=f"hf:{DETECTOR_DIR}", out=tmp_path / "before.zarr", **data)
    with pytest.raises(UserError, match="evaluate on a cache of the head's own detector"):
        evaluate(cache=tmp_path / "before.zarr", head=run, out=tmp_path / "other", device="cpu")


def test_prediction_and_export_use_the_tuned_weights(trained, scenes, tmp_path):
    run, _ = trained
    picture = next((scenes / "images").iterdir())
    segmenter, given = InstanceSegmenter.load(run, device="cpu"), load_detector(f"hf:{DETECTOR_DIR}")
    found = segmenter(picture, threshold=0)
    again = InstanceSegmenter.load(run, detector=given, device="cpu")(picture, threshold=0)
    assert (again.scores == found.scores).all() and (again.boxes == found.boxes).all()
    assert load_record(run).detector_fingerprint != load_run(run)[1].detector_fingerprint
    own: Any = load_detector(f"hf:{run / 'detector'}")
    assert (InstanceSegmenter.load(run, detector=own, device="cpu")(picture, threshold=0).boxes == found.boxes).all()
    before = load_detector(f"hf:{DETECTOR_DIR}")
    assert given.spec == before.spec, "the caller's detector stays as it is"
    export_model(run=run, out=tmp_path / "model")
    exported = InstanceSegmenter.load(tmp_path / "model", device="cpu")(picture, threshold=0)
    assert (exported.boxes == found.boxes).all() and (exported.scores == found.scores).all()
    frozen = InstanceSegmenter(replace(load_run(run)[0], detector=before), device="cpu")(picture, threshold=0)
    assert (frozen.boxes != found.boxes).any(), "those before were others"


def test_the_first_step_s_losses_are_those_of_the_frozen_detector(scenes, tmp_path):
    first = {"optim.epochs": 0.01}
    train(scenes, tmp_path / "tuned", **{"optim__epochs": 0.01})
    train_head(live=data_of(scenes), out=tmp_path / "frozen", overrides=SMALL | first, device="cpu")
    tuned, frozen = (json.loads((tmp_path / name / "metrics.jsonl").read_text()) for name in ("tuned", "frozen"))
    assert tuned == pytest.approx(frozen, abs=1e-4) and tuned["loss"] > 0


def test_what_cannot_be_tuned_is_one_line(scenes, scene_cache, fake, folder, tmp_path):
    settings = SMALL | {"live.unfreeze": ["decoder"]}
    own = LiveData(detector=fake.uneven(), images=folder[0], annotations=folder[1])
    with pytest.raises(UserError, match="is code of your own"):
        train_head(live=own, out=tmp_path / "a", overrides=settings, device="cpu")
    with pytest.raises(UserError, match="validate with --val-images and --val-annotations"):
        train_head(live=data_of(scenes), val_cache=scene_cache, out=tmp_path / "b", overrides=settings, device="cpu")
    with pytest.raises(UserError, match=r"live\.unfreeze"):
        train_head(live=data_of(scenes), out=tmp_path / "c", overrides=SMALL | {"live.unfreeze": ["neck"]})


def test_an_ablation_trains_the_detector_along_in_some_rows(scenes, tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text(
        'title = "t"\n[[rows]]\nname = "frozen"\n[[rows]]\nname = "decoder"\nset = { "live.unfreeze" = ["decoder"] }\n'
    )
    overrides = SMALL | {"optim.epochs": 1}
    with pytest.raises(UserError, match="`live` section needs --live"):
        ablate(cache=tmp_path, val_cache=tmp_path, grid=str(grid), out=tmp_path / "no", overrides=overrides)
    data, out = data_of(scenes, validated=True), tmp_path / "out"
    found = ablate(live=data, grid=str(grid), out=out, overrides=overrides, device="cpu")
    assert [row["variant"] for row in found.rows] == ["frozen", "decoder"]
    boxes = [json.loads(file.read_text())["bbox"]["AP"] for file in sorted(out.glob("variants/*/results/metrics.json"))]
    assert len(boxes) == 2 and boxes[0] > 0 and (out / "val.zarr").is_dir()
    assert not list(out.glob("variants/*/val.zarr")), "the cache of a tuned detector serves one evaluation"
    again = ablate(live=data, grid=str(grid), out=out, overrides=overrides, device="cpu")
    assert again.rows == found.rows


def test_the_detector_s_own_loss_is_transformers_and_moves_its_heads(scenes, tmp_path):
    settings: dict[str, Any] = {"optim__epochs": 0.01, "live__detector_loss": 0.5, "optim__batch_size": 3}
    train(scenes, tmp_path / "run", **settings)
    [line] = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    before: Any = load_detector(f"hf:{DETECTOR_DIR}")
    content = json.loads((scenes / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    label_of = {name: label for label, name in before.spec.label_names.items()}
    labels, pixels = [], []
    for image in content["images"]:
        objects = [each for each in content["annotations"] if (each["image_id"], each["iscrowd"]) == (image["id"], 0)]
        x, y, w, h = torch.tensor([each["bbox"] for each in objects]).T
        boxes = torch.stack([x + w / 2, y + h / 2, w, h], -1)
        size = torch.tensor([image["width"], image["height"]] * 2)
        classes = torch.tensor([label_of[names[each["category_id"]]] for each in objects])
        labels.append({"class_labels": classes, "boxes": boxes / size})
        picture, rule = Image.open(scenes / "images" / image["file_name"]).convert("RGB"), before.spec.input
        pixels.append(
            rule.normalise(rule.resize_image(picture, rule.resized_size(height=picture.height, width=picture.width)))
        )
    with torch.no_grad():
        wanted = before.model(pixel_values=torch.stack(pixels), labels=labels).loss
    assert line["detector"] == pytest.approx(0.5 * float(wanted), rel=1e-3)
    assert line["loss"] == pytest.approx(sum(line[name] for name in ("bce", "dice", "scoring", "detector")), rel=1e-4)
    after: Any = load_run(tmp_path / "run")[0].detector
    old, new = before.model.state_dict(), after.model.state_dict()
    assert any("class_embed" in name for name in old if not torch.equal(old[name], new[name]))
    with pytest.raises(UserError, match="needs parts of the detector that train along"):
        overrides = SMALL | {"live.detector_loss": 1.0}
        train_head(live=data_of(scenes), out=tmp_path / "none", overrides=overrides, device="cpu")
