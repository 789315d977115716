"""The boundary stage: what it costs, where it looks, which cells it changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn import functional as F
from torchvision.ops import roi_align

from frozen_cache.errors import UserError
from frozen_cache.head import boundary_stage
from frozen_cache.head.boundary_stage import BoundaryStage, at_points, subdivided
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.describe import describe_head
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.config import load_config

SMALL = {"width": 16, "image_width": 16, "roi_size": 8, "image_layers": 0, "box_layers": 1}


def built(inputs, **options) -> MaskHead:
    torch.manual_seed(0)
    head = MaskHead(config=HeadConfig(**SMALL | options), inputs=inputs)
    if head.boundary is not None:
        torch.nn.init.normal_(head.boundary.out.weight)
    return head


def centres(side: int) -> np.ndarray:
    x, y = np.meshgrid(*[(np.arange(side) + 0.5) / side] * 2)
    return np.stack([x, y], -1).reshape(-1, 2)


def test_parameters_and_multiply_adds_are_exact(inputs):
    assert sum(value.numel() for value in BoundaryStage(dim=128).parameters()) == 49_665
    plain, fine = (describe_head(config=HeadConfig(refine=side), inputs=inputs["hdetr_r50"]) for side in (None, 112))
    assert plain.parameters == 3_261_712 and fine.parameters == 3_261_712 + 49_665
    [stage] = [part for part in fine.modules if part.name == "boundary"]
    # Two doublings, to 64 and to 112, of 784 cells each in 100 boxes.
    assert stage.macs == 2 * 784 * 100 * (257 * 128 + 128 * 128 + 128)
    assert fine.macs - plain.macs == stage.macs and stage.parameters == 49_665
    assert load_config(preset="paper").head.refine is None


def test_it_starts_with_the_coarse_logits():
    stage = BoundaryStage(dim=4)
    logits = torch.randn(2, 3)
    assert torch.equal(stage(torch.randn(2, 3, 4), torch.randn(2, 3, 4), logits), logits)


def test_samples_are_scipy_s():
    maps = torch.randn(2, 3, 6, 9, dtype=torch.float64)
    points = torch.rand(2, 7, 2, dtype=torch.float64)
    found = at_points(maps, points)
    for image in range(2):
        x, y = points[image].numpy().T
        for channel in range(3):
            expected = map_coordinates(
                maps[image, channel].numpy(), [y * 6 - 0.5, x * 9 - 0.5], order=1, mode="nearest"
            )
            np.testing.assert_allclose(found[image, :, channel], expected, atol=1e-12)


def test_the_least_certain_cells_are_predicted_and_all_others_interpolated(monkeypatch):
    monkeypatch.setattr(boundary_stage, "REFINED_POINTS", 10)
    logits = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1))
    asked = []

    def predict(points):
        asked.append(points)
        return torch.full(points.shape[:2], 99.0)

    found = subdivided(logits, side=12, predict=predict).flatten(1)
    finer = F.interpolate(logits[:, None], size=(12, 12), mode="bilinear", align_corners=False)[:, 0].flatten(1)
    changed = found == 99
    assert changed.sum(1).tolist() == [10, 10, 10]
    torch.testing.assert_close(found[~changed], finer[~changed])
    for row in range(3):
        assert finer[row][changed[row]].abs().max() <= finer[row][~changed[row]].abs().min()
        places = {tuple(point) for point in centres(12)[changed[row].numpy()].round(5).tolist()}
        assert places == {tuple(point) for point in asked[0][row].double().numpy().round(5).tolist()}


@pytest.mark.parametrize(("side", "sides"), [(6, []), (5, []), (12, [12]), (20, [12, 20]), (24, [12, 24])])
def test_masks_double_until_they_are_fine_enough(side, sides):
    seen = []

    def predict(points):
        seen.append(points.shape[1])
        return torch.zeros(points.shape[:2])

    assert subdivided(torch.randn(1, 6, 6), side=side, predict=predict).shape[-1] == max(side, 6)
    assert seen == [min(784, each**2) for each in sides]


def test_the_fine_features_are_those_that_roi_align_finds_there(inputs, make_batch):
    """One sample a bin of RoIAlign is a sample of F at the cell's centre."""
    head = built(inputs["small"], refine=16, roi_scale=1.5, roi_sampling=1).eval()
    images, rois = make_batch(inputs["small"], [(48, 60), (48, 60), (50, 33)], [2, 2, 1])
    rois = replace(rois, boxes=torch.cat([torch.full((5, 2), 0.5), rois.boxes[:, 2:]], 1))
    given, maps = [], []
    head.boundary.register_forward_pre_hook(lambda _, inputs: given.append(inputs))
    head.feature_map.register_forward_hook(lambda *hooked: maps.append(hooked[2]))
    with torch.no_grad():
        head(images, rois)
    fine, _, logits = given[0]
    assert fine.shape == (5, 256, 16) and logits.shape == (5, 256)
    for row, (group, view, size) in enumerate([(0, 0, (48, 60))] * 2 + [(0, 1, (48, 60))] * 2 + [(1, 0, (50, 33))]):
        cx, cy, w, h = rois.boxes[row].tolist()
        height, width = size[0] / 4, size[1] / 4
        box = [(cx - 0.75 * w) * width, (cy - 0.75 * h) * height, (cx + 0.75 * w) * width, (cy + 0.75 * h) * height]
        cut = roi_align(maps[group][view : view + 1], [torch.tensor([box])], 16, sampling_ratio=1, aligned=True)
        expected = cut[0].flatten(1)
        # The points come by certainty, not in the order of the cells.
        assert (
            torch.cdist(fine[row], expected.T, compute_mode="donot_use_mm_for_euclid_dist").min(1).values.max() < 1e-4
        )


def test_only_training_leaves_masks_coarse(inputs, make_batch):
    head = built(inputs["small"], refine=20)
    images, rois = make_batch(inputs["small"], [(48, 60)], [3])
    trained = head(images, rois)
    assert trained.mask_logits.shape == (3, 8, 8)
    assert trained.boundary.points.shape == (3, 196, 2) and trained.boundary.logits.shape == (3, 196)
    plain = built(inputs["small"]).eval()
    plain.load_state_dict(head.state_dict(), strict=False)
    with torch.no_grad():
        found, coarse = head.eval()(images, rois), plain(images, rois)
    assert found.mask_logits.shape == (3, 20, 20) and found.boundary is None
    torch.testing.assert_close(found.iou, coarse.iou)
    torch.testing.assert_close(trained.mask_logits, coarse.mask_logits)
    torch.nn.init.zeros_(head.boundary.out.weight)
    with torch.no_grad():
        same = head(images, rois).mask_logits
    up = coarse.mask_logits[:, None]
    for side in (16, 20):
        up = F.interpolate(up, size=(side, side), mode="bilinear", align_corners=False)
    assert not torch.allclose(found.mask_logits, same)
    assert (same - up[:, 0]).abs().mean() < 0.2 * up.abs().mean()


def test_another_roi_size_is_refined_to_the_same_side(inputs, make_batch):
    head = built(inputs["small"], refine=20, mask_scoring=False, box_encoder="unet").eval()
    images, rois = make_batch(inputs["small"], [(48, 60)], [3])
    with torch.no_grad():
        assert head.at_roi_size(12)(images, rois).mask_logits.shape == (3, 20, 20)


def test_a_side_that_is_no_finer_is_refused():
    with pytest.raises(UserError, match="refine=32 is no finer than the masks' own 32"):
        load_config(overrides={"head.refine": 32})
