"""Sizes: parameter counts and key counts of the released models; declared shapes are true."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from frozen_cache.detectors.official import NAMED, OfficialDetector
from frozen_cache.detectors.official.layout import IGNORED, build_model, official_layout, parameter_count
from frozen_cache.errors import UserError


@pytest.mark.parametrize(
    ("name", "parameters", "keys"),
    [("hdetr-r50", 47_946_073, 631), ("dino-focalnet-l", 228_122_422, 869)],
)
def test_released_models_have_the_official_counts(name: str, parameters: int, keys: int) -> None:
    with torch.device("meta"):
        model = build_model(NAMED[name].config)
    assert parameter_count(model) == parameters
    assert len(official_layout(model)) == keys


@pytest.mark.parametrize("name", list(NAMED))
def test_every_weight_has_an_official_name_of_its_own(name: str) -> None:
    with torch.device("meta"):
        model = build_model(NAMED[name].config)
    layout = official_layout(model)
    assert {entry.own_name for entry in layout.values()} == set(model.state_dict())
    assert not [key for key in layout if IGNORED.search(key)]


def test_official_names_are_those_of_the_official_code() -> None:
    expected = {
        "hdetr-r50": [
            "backbone.0.body.layer1.0.downsample.1.running_var",
            "transformer.decoder.bbox_embed.6.layers.2.bias",
        ],
        "hdetr-swin-t": [
            "backbone.0.body.patch_embed.proj.weight",
            "backbone.0.body.patch_embed.norm.bias",
            "backbone.0.body.layers.2.blocks.5.attn.relative_position_bias_table",
            "backbone.0.body.layers.2.blocks.5.mlp.fc2.weight",
            "backbone.0.body.layers.2.downsample.reduction.weight",
            "backbone.0.body.norm3.weight",
        ],
        "dino-focalnet-l": [
            "backbone.0.patch_embed.proj.weight",
            "backbone.0.layers.0.downsample.norm.weight",
            "backbone.0.layers.2.blocks.17.modulation.focal_layers.3.0.weight",
            "backbone.0.layers.3.blocks.1.gamma_2",
            "backbone.0.norm0.weight",
            "label_enc.weight",
            "transformer.decoder.ref_point_head.layers.1.weight",
            "transformer.enc_out_bbox_embed.layers.0.weight",
        ],
    }  # fmt: skip
    for name, keys in expected.items():
        with torch.device("meta"):
            layout = official_layout(build_model(NAMED[name].config))
        assert set(keys) <= layout.keys(), name
        if name == "dino-focalnet-l":
            assert layout["backbone.0.layers.0.blocks.0.modulation.f.weight"].shape == (2 * 192 + 5, 192)
            assert layout["backbone.0.layers.0.blocks.0.modulation.h.weight"].shape == (192, 192, 1, 1)
        if name == "hdetr-swin-t":
            assert "backbone.0.body.norm0.weight" not in layout


@pytest.mark.parametrize("name", ["hdetr_r50_small", "hdetr_swin_small", "dino_r50_small", "dino_focal_small"])
def test_declared_shapes_are_true(kit: Any, name: str) -> None:
    detector = OfficialDetector(model=kit.model(name), name=name, encoder_layers=(2, 5), top_k=10)
    images = torch.randn(2, 3, 95, 130, generator=torch.Generator().manual_seed(0))
    output, spec = detector(images), detector.spec
    assert output.queries.shape == (2, spec.num_queries, spec.query_dim)
    assert output.boxes.shape == (2, spec.num_queries, 4)
    assert output.scores.shape == (2, spec.num_queries, spec.num_labels)
    assert output.scores.dtype == torch.float32
    assert output.labels.tolist() == list(range(91))
    assert spec.label_is_category_id and spec.label_names is None
    assert list(output.encoder) == [2, 5]
    for levels in output.encoder.values():
        assert len(levels) == len(spec.encoder_levels)
        for level, declared in zip(levels, spec.encoder_levels, strict=True):
            expected = (-(-95 // declared.stride), -(-130 // declared.stride))
            assert level.shape == (2, declared.channels, *expected)
    if name == "dino_focal_small":
        assert spec.c1 is None and output.c1 is None
        assert spec.encoder_levels[0].stride == 4
    else:
        assert spec.c1 is not None and output.c1 is not None
        assert output.c1.shape == (2, spec.c1.channels, 24, 33)
    tensors = [
        output.queries,
        output.boxes,
        output.scores,
        *(each for maps in output.encoder.values() for each in maps),
    ]
    assert all(each.isfinite().all() and not each.requires_grad for each in tensors)
    assert not any(each.requires_grad for each in detector.model.parameters())


def test_a_batch_gives_what_its_images_give_alone(kit: Any) -> None:
    detector = OfficialDetector(model=kit.model("hdetr_swin_small"), name="small")
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    both = detector(images)
    for index in range(2):
        alone = detector(images[index : index + 1])
        assert torch.allclose(both.queries[index], alone.queries[0], atol=1e-4)
        assert torch.allclose(both.encoder[4][0][index], alone.encoder[4][0][0], atol=1e-4)


@pytest.mark.parametrize("layers", [(0,), (7,), (4, 2), (4, 4)])
def test_impossible_encoder_layers_are_refused(kit: Any, layers: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="from 1 to 6"):
        OfficialDetector(model=kit.model("hdetr_swin_small"), name="small", encoder_layers=layers)


def test_an_image_with_fewer_tokens_than_queries_gives_fewer_queries(kit: Any) -> None:
    output = OfficialDetector(model=kit.model("hdetr_swin_small"), name="small")(torch.zeros(1, 3, 24, 24))
    assert 0 < output.queries.shape[1] < 20
