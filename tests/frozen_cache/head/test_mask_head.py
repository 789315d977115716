"""How the parts of the head are put together; each part has a test of its own."""

import pytest
import torch

from frozen_cache.boxes import enlarged
from frozen_cache.head import mask_head
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.mask_head import MaskHead

SMALL = {"width": 16, "image_width": 16, "roi_size": 8, "image_layers": 1}


def build(inputs, options):
    return MaskHead(config=HeadConfig(**SMALL | options), inputs=inputs)


def cut(head, images, boxes):
    """RoI features of the boxes of one image."""
    c1 = None if images[0].c1 is None else images[0].c1[None]
    feature = head.feature_map(c1, [level[None] for level in images[0].levels])
    return head.roi_align(feature, torch.zeros(len(boxes), dtype=torch.int64), boxes, [images[0].size])


@pytest.mark.parametrize("options", [
    {},
    {"box_layers": 1, "query_layers": 3},
    {"box_layers": 3, "query_layers": 1, "query_blocks": ("o2o", "b2o", "ffn")},
    {"mask_head": "segmenter"},
    {"query_in_roi": True},
])  # fmt: skip
def test_box_layers_and_query_blocks_take_turns_and_then_the_masks_are_scored(inputs, make_batch, settled, options):
    shapes = inputs["small"]
    head = settled(build(shapes, options))
    images, rois = make_batch(shapes, [(48, 61)], [3], dtype=torch.float64)
    features = cut(head, images, rois.boxes)
    if head.config.query_in_roi:
        features = features + head.roi_query(rois.queries)[..., None, None]
    queries = rois.queries @ head.query_projection.weight.T + head.query_projection.bias
    boxes, blocks = options.get("box_layers", 2), options.get("query_layers", options.get("box_layers", 2))
    for depth in range(max(boxes, blocks)):
        if depth < boxes:
            features = head.box_encoder(features, stage=depth)
        if depth < blocks:
            queries = head.query_encoder(queries, features, rois.boxes, rois.image_index, block=depth)
    logits = head.predictor(queries, features, rois.image_index)
    found = head(images, rois)
    torch.testing.assert_close(found.mask_logits, logits)
    torch.testing.assert_close(found.iou, head.scoring(logits, features))
    assert found.mask_logits.dtype == torch.float64


@pytest.mark.parametrize("options", [{}, {"class_masks": True}])
def test_mask_r_cnn_s_head_reads_the_roi_s_label_and_no_query(inputs, make_batch, settled, options):
    shapes = inputs["small"]
    head = settled(build(shapes, {"mask_head": "fcn", "query_blocks": (), "box_encoder": "fcn"} | options))
    images, rois = make_batch(shapes, [(48, 61)], [3], dtype=torch.float64)
    features = head.box_encoder(cut(head, images, rois.boxes), stage=0)
    assert head.predictor.classes == (3 if options else 1)
    torch.testing.assert_close(head(images, rois).mask_logits, head.predictor(features, rois.labels))


def test_roi_features_are_cut_from_the_enlarged_box_and_the_query_s_place_is_the_box(inputs, make_batch, settled):
    shapes = inputs["small"]
    images, rois = make_batch(shapes, [(48, 61)], [3], dtype=torch.float64)
    head = settled(build(shapes, {"roi_scale": 1.5, "box_layers": 0, "query_layers": 1, "query_blocks": ("o2o",)}))
    assert torch.equal(head.boxes(rois), enlarged(rois.boxes, 1.5))
    features = cut(head, images, enlarged(rois.boxes, 1.5))
    queries = head.query_encoder(head.query_projection(rois.queries), features, rois.boxes, rois.image_index, block=0)
    torch.testing.assert_close(head(images, rois).mask_logits, head.predictor(queries, features, rois.image_index))


def test_roi_align_is_set_up_as_configured(inputs):
    align = build(inputs["small"], {"roi_sampling": 0, "roi_size": 12}).roi_align
    assert (align.size, align.sampling, align.stride) == (12, 0, 4)
    assert build(inputs["small_no_c1"], {}).roi_align.stride == 8


def test_whole_channels_are_dropped_in_training_alone(inputs, make_batch, settled):
    shapes = inputs["small"]
    head = settled(build(shapes, {"feature_dropout": 0.5, "box_encoder": "none", "query_layers": 0}))
    images, rois = make_batch(shapes, [(48, 61)], [40], dtype=torch.float64)
    seen = []
    head.predictor.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    head(images, rois)
    full = cut(head, images, rois.boxes)
    torch.testing.assert_close(seen[0], full)
    torch.manual_seed(0)
    head.train()(images, rois)
    dropped = (seen[1] == 0).flatten(2).all(2)
    assert dropped.double().mean().item() == pytest.approx(0.5, abs=0.1)
    torch.testing.assert_close(seen[1][~dropped], 2 * full[~dropped])


@pytest.mark.parametrize("options", [{}, {"query_blocks": ()}, {"query_blocks": ("o2o",)}, {"width": 64}])
def test_logits_start_with_about_unit_variance(inputs, make_batch, options):
    torch.manual_seed(0)
    head = MaskHead(config=HeadConfig(**{"roi_size": 8} | options), inputs=inputs["hdetr_r50"])
    images, rois = make_batch(inputs["hdetr_r50"], [(64, 97)], [20])
    with torch.no_grad():
        spread = head(images, rois).mask_logits.std().item()
    assert 0.2 < spread < 2


@pytest.mark.parametrize(
    ("options", "alone"),
    [
        ({}, True),
        ({"query_blocks": ("o2o",)}, False),
        ({"query_blocks": ("o2o",), "query_layers": 0}, True),
        ({"mask_head": "segmenter"}, False),
        ({"mask_head": "fcn", "query_blocks": (), "class_masks": True}, False),
        ({"mask_head": "fcn", "query_blocks": ()}, True),
    ],
)
def test_it_knows_whether_a_mask_depends_on_its_query_alone(inputs, options, alone):
    assert build(inputs["small"], options).mask_depends_on_query_alone == alone


def sizes_of(head, images, rois):
    """How many RoIs are refined at once, and the output."""
    seen = []
    handle = head.box_encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    output = head(images, rois)
    handle.remove()
    return seen, output


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        ({}, [2, 2, 1, 1, 2, 1]),
        ({"class_masks": True, "mask_head": "fcn", "query_blocks": ()}, [2, 2, 1, 1, 2, 1]),
        ({"query_blocks": ("o2o", "ffn")}, [9]),
        ({"mask_head": "segmenter"}, [9]),
        ({"refine": 32}, [9]),
    ],
)
def test_inference_on_a_cpu_refines_a_few_rois_at_a_time_where_they_are_alone(
    inputs, make_batch, settled, monkeypatch, options, blocks
):
    head = settled(build(inputs["small"], {"box_encoder": "unet", "box_layers": 1, "roi_scale": 1.5} | options))
    images, rois = make_batch(inputs["small"], [(48, 61), (48, 61), (32, 40)], [5, 1, 3], dtype=torch.float64)
    whole, expected = sizes_of(head, images, rois)
    assert whole == [9]
    monkeypatch.setattr(mask_head, "BLOCK_BYTES", 2 * 16 * 8 * 8 * 8)  # two RoIs of 16 x 8 x 8 float64
    assert sizes_of(head, images, rois)[0] == [9]  # gradients may be wanted
    with torch.inference_mode():
        seen, found = sizes_of(head, images, rois)
    assert seen == blocks
    torch.testing.assert_close(found.mask_logits, expected.mask_logits)
    torch.testing.assert_close(found.iou, expected.iou)
