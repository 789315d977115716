"""The small parts of the transformers adapter: taps, stages and strides, weights that did not arrive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from frozen_cache.detectors.hf.restore import restore_weights, weight_files
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.stages import map_stride, stage_modules
from frozen_cache.detectors.taps import Taps
from frozen_cache.errors import UserError


def test_taps_keep_the_last_call_and_leave_nothing_behind() -> None:
    layer = nn.Linear(2, 3)
    with Taps({"layer": layer}, with_inputs=["layer"]) as taps:
        layer(torch.zeros(1, 2))
        last = layer(torch.ones(1, 2))
    assert taps.outputs["layer"] is last
    assert torch.equal(taps.inputs["layer"][0], torch.ones(1, 2))
    assert not layer._forward_hooks


def test_taps_are_removed_when_the_pass_fails() -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(RuntimeError), Taps({"layer": layer}):
        layer(torch.zeros(1, 5))
    assert not layer._forward_hooks


def test_inputs_are_kept_only_where_asked() -> None:
    layer = nn.Linear(2, 3)
    with Taps({"layer": layer}) as taps:
        layer(torch.zeros(1, 2))
    assert taps.inputs == {}


@pytest.mark.parametrize(
    ("image", "found", "stride"),
    [
        ((256, 320), (64, 80), 4),
        ((101, 133), (26, 34), 4),
        ((101, 133), (25, 33), 4),
        ((300, 300), (10, 10), 32),
        ((560, 560), (40, 40), 14),
        ((256, 320), (64, 40), None),
        ((256, 320), (60, 80), None),
    ],
)
def test_a_stride_fits_both_sides(image: tuple[int, int], found: tuple[int, int], stride: int | None) -> None:
    assert map_stride(image, found) == stride


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_timm_backbones_name_their_stages_themselves(name: str) -> None:
    import timm

    backbone = timm.create_model(name, pretrained=False, features_only=True).eval()
    images = torch.zeros(1, 3, 64, 96)
    modules = stage_modules(backbone)
    with torch.no_grad(), Taps(modules) as taps:
        backbone(images)
    strides = {map_stride(images.shape[-2:], found.shape[-2:]) for found in taps.outputs.values()}
    assert {4, 8, 16, 32} <= strides


def test_a_saved_shared_box_head_comes_back(small_folder: Callable[[str], Path]) -> None:
    """transformers 5.23 loses it in silence: see `restore_weights`."""
    detector: Any = load_detector(f"hf:{small_folder('deimv2_lite')}")
    stored = load_file(small_folder("deimv2_lite") / "model.safetensors")
    state = detector.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in stored.items())
    heads = [head.layers[0].weight for head in detector.model.model.decoder.bbox_embed]
    assert all(torch.equal(head, heads[0]) for head in heads)


def test_restoring_names_what_had_not_arrived(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    stored["1.weight"] += 1
    save_file(stored | {"renamed": torch.zeros(1)}, tmp_path / "model.safetensors")
    files = weight_files(str(tmp_path), local=True)
    assert restore_weights(model, files) == ["1.weight"]
    assert torch.equal(model[1].weight, stored["1.weight"])
    assert restore_weights(model, files) == []


def test_one_tensor_with_two_stored_values_is_an_error(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    save_file({"0.weight": torch.zeros(2, 2), "1.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"transformers ties 0\.weight to another weight"):
        restore_weights(model, weight_files(str(tmp_path), local=True))


def test_sharded_weights_are_all_read(small_folder: Callable[[str], Path], tmp_path: Path) -> None:
    detector: Any = load_detector(f"hf:{small_folder('detr')}")
    detector.model.save_pretrained(tmp_path, max_shard_size="30KB")
    (tmp_path / "preprocessor_config.json").write_text((small_folder("detr") / "preprocessor_config.json").read_text())
    assert len(weight_files(str(tmp_path), local=True)) > 1
    assert load_detector(f"hf:{tmp_path}").spec.weights_sha256 == detector.spec.weights_sha256
