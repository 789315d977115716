"""What every variant of the head must do, whatever it is made of."""

import pytest
import torch

from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import Rois
from frozen_cache.head.mask_head import MaskHead

SMALL = {"width": 16, "image_width": 16, "roi_size": 8, "image_layers": 2, "box_layers": 2}
NO_QUERY = {"query_blocks": (), "mask_head": "fcn"}
VARIANTS = {
    "paper": {},
    "image none": {"image_encoder": "none"},
    "image swin": {"image_encoder": "swin"},
    "image convnext": {"image_encoder": "convnext"},
    "image 0 layers": {"image_layers": 0},
    "two fused levels": {"fused_levels": 2},
    "all levels fused": {"fused_levels": "all"},
    "no neck": {"neck": False},
    "own width": {"image_width": None},
    "box none": {"box_encoder": "none"},
    "box swin": {"box_encoder": "swin", "roi_size": 12},
    "box convnext": {"box_encoder": "convnext"},
    "box unet": {"box_encoder": "unet", "box_layers": 1},
    "box fcn": {"box_encoder": "fcn"},
    "box 0 layers": {"box_layers": 0},
    "query in roi": {"query_in_roi": True},
    "no query blocks": {"query_blocks": ()},
    "ffn": {"query_blocks": ("ffn",)},
    "o2o": {"query_blocks": ("o2o",)},
    "o2o b2o ffn": {"query_blocks": ("o2o", "b2o", "ffn"), "query_layers": 3},
    "segmenter": {"mask_head": "segmenter"},
    "no scoring": {"mask_scoring": False},
    "mask r-cnn": NO_QUERY | {"box_encoder": "fcn", "box_layers": 4, "roi_size": 14},
    "mask r-cnn per class": NO_QUERY | {"box_encoder": "fcn", "class_masks": True, "query_in_roi": True},
    "unet fcn": NO_QUERY | {"box_encoder": "unet", "box_layers": 1, "mask_scoring": False},
    "adaptive sampling": {"roi_sampling": 0},
    "width of the query": {"width": 24},
    "refined": {"refine": 20},
    "mask r-cnn refined": NO_QUERY | {"box_encoder": "fcn", "refine": 40, "mask_scoring": False},
}
DETECTORS = ("small", "small_no_c1", "one_level")


def build(inputs, options, *, seed=0):
    torch.manual_seed(seed)
    return MaskHead(config=HeadConfig(**SMALL | options), inputs=inputs)


def select(rois, index):
    mine = rois.image_index == index
    return Rois(
        image_index=torch.zeros(int(mine.sum()), dtype=torch.int64),
        boxes=rois.boxes[mine],
        queries=rois.queries[mine],
        labels=rois.labels[mine],
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_a_mixed_batch_gives_what_each_image_gives_alone(inputs, make_batch, name):
    shapes = inputs["small"]
    head = build(shapes, VARIANTS[name]).eval()
    images, rois = make_batch(shapes, [(48, 60), (50, 33), (48, 60), (4, 4), (48, 60)], [3, 2, 4, 2, 0])
    # Segmenter's norm over two masks divides by their difference, and rounding with it.
    tolerance = 1e-4 if name == "segmenter" else 1e-5
    with torch.no_grad():
        together = head(images, rois)
        side = head.config.refine or head.config.mask_side
        assert together.mask_logits.shape == (11, side, side)
        assert together.mask_logits.isfinite().all()
        for index in range(4):
            alone = head([images[index]], select(rois, index))
            mine = rois.image_index == index
            torch.testing.assert_close(together.mask_logits[mine], alone.mask_logits, atol=tolerance, rtol=1e-5)
            if head.config.mask_scoring:
                assert together.iou.shape == (11, 3)
                torch.testing.assert_close(together.iou[mine], alone.iou, atol=tolerance, rtol=1e-5)
            else:
                assert together.iou is None


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_gets_a_gradient(inputs, make_batch, name):
    shapes = inputs["small"]
    head = build(shapes, VARIANTS[name])
    with torch.no_grad():
        # Deformable attention starts with zero weights, so that what asks (the position) has no say at first.
        for value in head.parameters():
            value.add_(0.02 * torch.randn_like(value))
    images, rois = make_batch(shapes, [(48, 60), (50, 33)], [3, 4])
    output = head(images, rois)
    loss = output.mask_logits.square().sum() + (0 if output.iou is None else output.iou.square().sum())
    loss = loss + (0 if output.boundary is None else output.boundary.logits.square().sum())
    loss.backward()
    without = [key for key, value in head.named_parameters() if value.grad is None or not value.grad.any()]
    # Masks do not change when all the keys of a softmax move alike.
    assert [key for key in without if not key.endswith("attention.key.bias")] == []


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("detector", DETECTORS)
def test_any_detector_works_down_to_maps_of_one_pixel(inputs, make_batch, name, detector):
    shapes = inputs[detector]
    if VARIANTS[name].get("fused_levels") == 2 and len(shapes.levels) < 2:
        pytest.skip("this detector has one level")
    head = build(shapes, VARIANTS[name])
    images, rois = make_batch(shapes, [(1, 1), (1, 90)], [1, 2])
    output = head(images, rois)
    assert output.mask_logits.isfinite().all()
    assert output.mask_logits.shape[0] == 3


@pytest.mark.parametrize("name", VARIANTS)
def test_no_rois_give_no_masks_and_a_backward_pass(inputs, make_batch, name):
    shapes = inputs["small"]
    head = build(shapes, VARIANTS[name])
    for sizes in ([(48, 60)], []):
        images, rois = make_batch(shapes, sizes, [0] * len(sizes))
        output = head(images, rois)
        side = head.config.mask_side
        assert output.mask_logits.shape == (0, side, side)
        output.mask_logits.sum().backward()
        assert all(not value.grad.any() for value in head.parameters())


@pytest.mark.parametrize("name", ["paper", "image swin", "box unet", "mask r-cnn", "segmenter", "o2o b2o ffn"])
def test_under_autocast_the_output_is_float32(inputs, make_batch, name):
    shapes = inputs["small"]
    head = build(shapes, VARIANTS[name])
    images, rois = make_batch(shapes, [(48, 60), (50, 33)], [3, 4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(images, rois)
    assert output.mask_logits.dtype == torch.float32
    assert output.mask_logits.isfinite().all()
    output.mask_logits.sum().backward()


@pytest.mark.parametrize("name", VARIANTS)
def test_no_two_names_of_the_state_share_memory(inputs, name):
    tensors = build(inputs["small"], VARIANTS[name]).state_dict()
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(tensors)


@pytest.mark.parametrize("detector", ["hdetr_r50", "dino", "deimv2_atto", "deimv2_atto_added"])
def test_the_final_form_runs_at_the_shapes_of_real_detectors(inputs, make_batch, detector):
    shapes = inputs[detector]
    head = MaskHead(config=HeadConfig(), inputs=shapes).eval()
    images, rois = make_batch(shapes, [(64, 97)], [2])
    with torch.no_grad():
        output = head(images, rois)
    assert output.mask_logits.shape == (2, 32, 32)
    assert output.iou.shape == (2, 80)
