"""No key of the configuration is ignored: each one, changed alone, changes the weights that a training ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from frozen_cache.stages.train import train_head
from frozen_cache.training.config import all_keys

pytestmark = pytest.mark.usefixtures("unplotted")
BASE: dict[str, Any] = {
    "head.width": 16,
    "head.roi_size": 8,
    "head.image_width": 16,
    "head.image_layers": 1,
    "head.box_layers": 1,
    "rois.ground_truth": True,
    "rois.overlapping_iou": 0.3,
    "loss.points": 16,
    "optim.lr": 0.01,
    "optim.epochs": 0.6,
    "optim.batch_size": 2,
}
"""Four steps on fourteen views."""
FCN = {"head.mask_head": "fcn", "head.query_blocks": []}
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "head.encoder_layer": (1, {}),
    "head.image_encoder": ("convnext", {}),
    "head.image_layers": (2, {}),
    "head.image_width": (8, {}),
    "head.fused_levels": (2, {}),
    "head.neck": (False, {}),
    "head.width": (8, {}),
    "head.roi_size": (12, {}),
    "head.roi_scale": (1.5, {}),
    "head.roi_sampling": (1, {}),
    "head.box_encoder": ("unet", {}),
    "head.box_layers": (2, {}),
    "head.query_in_roi": (True, {}),
    "head.feature_dropout": (0.5, {}),
    "head.query_blocks": (["ffn"], {}),
    "head.query_layers": (2, {}),
    "head.mask_head": ("segmenter", {}),
    "head.class_masks": (True, FCN),
    "head.mask_scoring": (False, {}),
    "head.refine": (16, {}),
    "rois.matched": (False, {}),
    "rois.overlapping_iou": (0.01, {}),
    "rois.ground_truth": (False, {}),
    "rois.jitter": (0.2, {}),
    "rois.max_per_image": (1, {}),
    "loss.supervision": ("dense", {}),
    "loss.points": (8, {}),
    "loss.oversample": (1.5, {}),
    "loss.importance": (0.1, {}),
    "loss.bce": (1.0, {}),
    "loss.dice": (1.0, {}),
    "loss.scoring": (5.0, {}),
    "loss.soft_targets": (True, {}),
    "loss.refine": (1.0, {"head.refine": 16}),
    "optim.lr": (0.02, {}),
    "optim.betas": ([0.5, 0.9], {}),
    "optim.weight_decay": (0.5, {}),
    "optim.epochs": (0.4, {}),
    "optim.min_steps": (6, {}),
    "optim.batch_size": (3, {}),
    "optim.schedule": ("cosine", {}),
    "optim.milestones": ([0.2], {}),
    "optim.gamma": (0.5, {"optim.milestones": [0.2]}),
    "optim.warmup_steps": (2, {}),
    "optim.clip_grad_norm": (0.01, {}),
    "optim.ema_decay": (0.5, {}),
    "seed": (1, {}),
    "mixed_precision": ("bf16", {}),
    "views": (1, {}),
}
"""Key -> another value than in `BASE`, and what is set besides in both trainings."""
WITHOUT_MASKS = {
    "loss.guess": 1.0,
    "loss.projection": 1.0,
    "loss.pairwise": 1.0,
    "loss.pairwise_warmup": 0.9,
    "loss.annotated": 1.0,
}
"""Keys that need objects without masks, in a cache that holds its images, and another value than in `BASE`."""
NO_RESULT = {"eval_every", "checkpoint_every", "recompute"}
"""Keys that decide when or how often something is done, not what comes out: `test_trainer.py` and `test_step.py` have
them."""
RECOMPUTED = {"head.c1_scale": 2, "head.zoom": 32}
"""Keys that need a cache with image files and stem, and another value than in `BASE`."""

LIVE = {key for key in all_keys() if key.startswith("live.")}
"""Keys that a training from a cache refuses: `tests/stages/test_tuning.py` has them."""


def trained(cache: Path, out: Path, overrides: dict[str, Any]) -> dict[str, torch.Tensor]:
    train_head(cache=cache, out=out, overrides=BASE | overrides, device="cpu", memory_bytes=0)
    saved = load_file(out / "last.safetensors")
    return {name: value for name, value in saved.items() if name.startswith("head.")}


@pytest.fixture(scope="module")
def base(cache: Path, tmp_path_factory: pytest.TempPathFactory, unplotted: None) -> dict[str, dict[str, torch.Tensor]]:
    """What is set besides, as text -> the weights of the training that the changed ones are compared with."""
    folder = tmp_path_factory.mktemp("base")
    more = {str(besides): besides for _, besides in CHANGES.values()}
    return {text: trained(cache, folder / str(at), besides) for at, (text, besides) in enumerate(more.items())}


def test_every_key_is_tried() -> None:
    assert set(CHANGES) | NO_RESULT | LIVE | set(RECOMPUTED) | set(WITHOUT_MASKS) == set(all_keys())


def test_the_same_configuration_gives_the_same_weights(cache: Path, tmp_path: Path, base: Any) -> None:
    assert same(trained(cache, tmp_path / "run", {}), base["{}"])


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_changed_alone_changes_the_weights(cache: Path, tmp_path: Path, base: Any, key: str) -> None:
    value, besides = CHANGES[key]
    assert not same(trained(cache, tmp_path / "run", besides | {key: value}), base[str(besides)])


def test_a_key_of_recomputed_maps_changes_the_weights(recomputed_cache: Path, tmp_path: Path) -> None:
    plain = trained(recomputed_cache, tmp_path / "plain", {})
    for key, value in RECOMPUTED.items():
        assert not same(trained(recomputed_cache, tmp_path / key, {key: value}), plain)


def test_a_key_of_objects_without_masks_changes_the_weights(weak_cache: Path, tmp_path: Path) -> None:
    plain = trained(weak_cache, tmp_path / "plain", {})
    for key, value in WITHOUT_MASKS.items():
        assert not same(trained(weak_cache, tmp_path / key, {key: value}), plain), key


def test_a_head_that_zooms_trains_on_objects_without_masks(weak_cache: Path, tmp_path: Path) -> None:
    zoomed = trained(weak_cache, tmp_path / "plain", {"head.zoom": 32})
    assert not same(trained(weak_cache, tmp_path / "none", {}), zoomed)
    for key, value in WITHOUT_MASKS.items():
        assert not same(trained(weak_cache, tmp_path / key, {"head.zoom": 32, key: value}), zoomed), key


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].shape == other[name].shape and torch.equal(one[name], other[name]) for name in one
    )
