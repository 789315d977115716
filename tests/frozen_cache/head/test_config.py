"""The head's configuration: strict, and clear about what does not go together."""

import pytest
from pydantic import ValidationError

from frozen_cache.errors import UserError
from frozen_cache.head.config import HeadConfig, resolve_encoder_layer
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.config import load_config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 64}, "Extra inputs are not permitted"),
        ({"image_layers": 5}, "less than or equal to 4"),
        ({"box_encoder": "resnet"}, "'none', 'deformable'"),
        ({"query_blocks": ("ffn", "ffn")}, "names a block twice"),
        ({"mask_head": "fcn"}, "set query_blocks="),
        ({"class_masks": True}, "class_masks needs mask_head=fcn"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(options, message):
    with pytest.raises(ValidationError, match=message):
        HeadConfig(**options)


def test_masks_have_the_side_of_the_rois_or_twice_that_from_a_deconvolution():
    assert HeadConfig(roi_size=16).mask_side == 16
    assert HeadConfig(roi_size=14, mask_head="fcn", query_blocks=()).mask_side == 28


def test_there_is_one_query_block_per_box_layer_unless_told_otherwise():
    assert HeadConfig(box_layers=3).query_depth == 3
    assert HeadConfig(box_layers=3, query_layers=1).query_depth == 1
    assert HeadConfig(query_blocks=(), query_layers=2).query_depth == 0


def test_the_paper_layer_is_read_where_it_is_kept_else_the_last():
    assert resolve_encoder_layer(HeadConfig(), (2, 4, 6)) == 4
    assert resolve_encoder_layer(HeadConfig(), (1,)) == 1
    assert resolve_encoder_layer(HeadConfig(encoder_layer=6), (2, 4, 6)) == 6


def test_a_layer_that_was_not_kept_is_an_error_that_says_how_to_get_it():
    with pytest.raises(UserError, match="--encoder-layers 6"):
        resolve_encoder_layer(HeadConfig(encoder_layer=6), (4,))
    with pytest.raises(UserError, match="keeps no encoder layer"):
        resolve_encoder_layer(HeadConfig(), ())


def test_more_fused_levels_than_the_detector_has_is_an_error(inputs):
    with pytest.raises(UserError, match="at most 2"):
        MaskHead(config=HeadConfig(fused_levels=3), inputs=inputs["deimv2_atto"])


@pytest.mark.parametrize("detector", ["one_level", "deimv2_atto", "deimv2_atto_added", "hdetr_r50"])
def test_the_small_data_preset_fits_any_cache(inputs, detector):
    head = MaskHead(config=load_config(preset="small-data").head, inputs=inputs[detector])
    assert head.feature_map.fused == len(inputs[detector].levels)


def test_c1_of_other_channels_needs_the_neck(inputs):
    assert MaskHead(config=HeadConfig(), inputs=inputs["small"]).uses_c1
    assert not MaskHead(config=HeadConfig(neck=False), inputs=inputs["small"]).uses_c1
    assert MaskHead(config=HeadConfig(neck=False), inputs=inputs["hdetr_r50"]).uses_c1
    assert not MaskHead(config=HeadConfig(), inputs=inputs["dino"]).uses_c1
