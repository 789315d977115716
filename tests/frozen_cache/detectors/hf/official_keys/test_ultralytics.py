"""Ultralytics' `.pt` holds modules, not weights: it is read without their classes, and nothing in it runs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from frozen_cache.detectors.load import load_detector
from frozen_cache.errors import UserError

NAME = "ultralytics-rtdetr-l"


def test_names_size_and_weights_come_from_the_file(tmp_path: Path, kit: Any) -> None:
    names = {0: "gear", 1: "bolt", 2: "nut"}
    state = {name: each.half() for name, each in kit.state("ultralytics").items()}
    state["model.28.denoising_class_embed.weight"] = torch.zeros(4, 32)
    state["model.0.stem1.bn.num_batches_tracked"] = torch.tensor(7)
    file = kit.save_as_ultralytics(tmp_path / "best.pt", state, imgsz=160, names=names, place="model")
    detector: Any = load_detector(NAME, weights=file)
    assert detector.spec.label_names == names and detector.spec.input.size == (160, 160)
    assert detector.spec.input.resample == "torchvision_float", "OpenCV resizes without antialiasing"
    assert "ultralytics" not in sys.modules
    norm = detector.model.model.backbone.model.embedder.stem1.normalization
    assert torch.allclose(norm.running_var, state["model.0.stem1.bn.running_var"].float() + 1e-3 - 1e-5)


def test_the_names_of_both_layouts_are_those_of_ultralytics(kit: Any) -> None:
    """How many weights each place of the sequence holds there, from its own modules; the extra large adds blocks."""
    places: dict[int, int] = {}
    for name in kit.state("ultralytics"):
        place = int(name.split(".")[1])
        places[place] = places.get(place, 0) + 1
    convolution, block, light_block, fusion = 5, 4 * 5, 2 * (2 * 5) + 2 * 5, 2 * 5 + 3 * 2 * 5
    expected = {0: 5 * convolution, 1: block, 3: block, **dict.fromkeys((5, 6, 7, 9), light_block), 11: 12}
    expected |= dict.fromkeys((2, 4, 8, 10, 12, 14, 17, 19, 22, 25), convolution)
    expected |= dict.fromkeys((16, 21, 24, 27), fusion)
    # projections, layers, the head on positions, on encoder tokens, on each layer
    expected[28] = 3 * convolution + 2 * 22 + 4 + (4 + 2 + 6) + 2 * (2 + 6)
    assert places == expected


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


class _RunsPython:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("open('executed', 'w')",)


@pytest.mark.parametrize("evil", [_RunsCode(), _RunsPython()])
def test_nothing_in_the_file_runs(tmp_path: Path, kit: Any, monkeypatch: pytest.MonkeyPatch, evil: Any) -> None:
    monkeypatch.chdir(tmp_path)
    file = kit.save_as_ultralytics(tmp_path / "best.pt", kit.state("ultralytics"), names=evil)
    try:
        load_detector(NAME, weights=file)
    except UserError as error:
        assert "would call `posix.system`" in str(error)
    assert not (tmp_path / "executed").exists()


def _refusal(name: str, file: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_detector(name, weights=file)
    message = str(caught.value)
    assert message.startswith(f"weights {file}: ") and "\n" not in message
    return message


def test_other_models_are_refused_by_name(tmp_path: Path, kit: Any) -> None:
    state = kit.state("ultralytics")
    file = kit.save_as_ultralytics(tmp_path / "best.pt", state)
    assert f"this is a checkpoint of ultralytics: write --detector {NAME}" in _refusal("rtdetr-r50", file)
    assert f"it looks like {NAME}: write --detector {NAME}" in _refusal("ultralytics-rtdetr-x", file)
    yolo = kit.save_as_ultralytics(tmp_path / "yolo.pt", state, kind="DetectionModel")
    assert "holds ultralytics' DetectionModel, expected its RT-DETR" in _refusal(NAME, yolo)
    resnet = kit.save_as_ultralytics(tmp_path / "resnet.pt", state, part="ResNetLayer")
    assert "RT-DETR on ResNet is not converted" in _refusal(NAME, resnet)
    official = kit.save(tmp_path, kit.state("rtdetr"))
    assert "is it a checkpoint of ultralytics?" in _refusal(NAME, official)


def test_missing_and_unexpected_weights_are_named(tmp_path: Path, kit: Any) -> None:
    state = kit.state("ultralytics")
    del state["model.16.cv1.conv.weight"]
    assert "lacks model.16.cv1.conv.weight" in _refusal(NAME, kit.save_as_ultralytics(tmp_path / "a.pt", state))
    state = kit.state("ultralytics")
    del state["model.11.ma.out_proj.bias"]
    state["model.12.conv.bias"] = torch.zeros(32)
    message = _refusal(NAME, kit.save_as_ultralytics(tmp_path / "b.pt", state))
    assert re.search(r"lacks 1 of \d+ weights \(model\.11\.ma\.out_proj\.bias\)", message)
    assert "has 1 unexpected (model.12.conv.bias)" in message
