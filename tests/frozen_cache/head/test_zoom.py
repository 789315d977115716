"""What zoom costs, and that the head reads the crop that lies on its RoI."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from frozen_cache.errors import UserError
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.describe import describe_head
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.head.zoom import ZoomNeck
from frozen_cache.training.config import load_config, preset_names

SMALL = {"width": 16, "roi_size": 8, "image_encoder": "none", "image_layers": 0, "box_encoder": "none"}
SMALL |= {"query_blocks": (), "mask_scoring": False, "neck": False, "image_width": 16}


def test_parameters_and_multiply_adds_are_exact_and_no_recipe_has_it(inputs):
    plain, zoomed = (describe_head(config=HeadConfig(zoom=zoom), inputs=inputs["hdetr_r50"]) for zoom in (None, 128))
    assert plain.parameters == 3_261_712 and zoomed.parameters == 3_261_712 + 259 * 128
    assert zoomed.macs - plain.macs == 100 * 32 * 32 * 256 * 128
    [part] = [part for part in zoomed.modules if part.name == "zoom"]
    assert part.parameters == 259 * 128 and part.output == (100, 128, 32, 32)
    assert all(load_config(preset=name).head.zoom is None for name in preset_names())


def test_the_crop_s_c1_is_projected_and_added_on_the_roi_s_cells():
    neck = ZoomNeck(channels=5, dim=32)
    rois, zoomed = torch.randn(2, 32, 12, 12), torch.randn(2, 5, 8, 8)
    convolution, norm = neck.projection
    projected = F.group_norm(F.conv2d(zoomed, convolution.weight, convolution.bias), norm.num_groups)
    wanted = rois + F.interpolate(projected, size=(12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(neck(rois, zoomed), wanted)


def test_each_roi_reads_its_own_crop(inputs, make_batch):
    torch.manual_seed(0)
    head = MaskHead(config=HeadConfig(**SMALL, zoom=32), inputs=inputs["small"]).eval()
    images, rois = make_batch(inputs["small"], [(48, 60), (48, 60), (50, 33)], [2, 2, 1])
    crops = torch.randn(5, 12, 8, 8)
    with torch.no_grad():
        found = head(images, replace(rois, zoomed=crops)).mask_logits
        other = head(images, replace(rois, zoomed=torch.cat([crops[:3], crops[3:] + torch.randn(2, 12, 8, 8)])))
    assert torch.equal(found[:3], other.mask_logits[:3])
    assert all(not torch.allclose(found[row], other.mask_logits[row]) for row in (3, 4))
    with pytest.raises(ValueError, match=r"give `Rois\.zoomed`"):
        head(images, rois)


def test_a_detector_without_c1_is_refused_in_one_line(inputs):
    with pytest.raises(UserError, match=r"head\.zoom=32 needs a C1.*leave it out"):
        MaskHead(config=HeadConfig(zoom=32, **{key: SMALL[key] for key in ("width",)}), inputs=inputs["small_no_c1"])
