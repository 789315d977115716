"""The image encoders: which maps they see, and where their cells lie."""

import pytest
import torch

from frozen_cache.head.config import HeadConfig
from frozen_cache.head.convnext import ConvNeXtLayer
from frozen_cache.head.deformable import DeformableLayer
from frozen_cache.head.image_encoder import DeformableImageEncoder, build_image_encoder
from frozen_cache.head.position import grid_sine
from frozen_cache.head.swin import SwinLayer


def test_deformable_layers_see_all_levels_with_their_places(settled, noise):
    ours = settled(DeformableImageEncoder(dim=16, levels=2, layers=2))
    fine, coarse = noise(2, 16, 3, 4), noise(2, 16, 2, 2, seed=1)
    # Cell by cell, row by row: the fine level first, each cell asking around its own centre in either level.
    tokens = torch.stack([fine[:, :, y, x] for y in range(3) for x in range(4)]
                         + [coarse[:, :, y, x] for y in range(2) for x in range(2)], 1)  # fmt: skip
    centres = [[(x + 0.5) / 4, (y + 0.5) / 3] for y in range(3) for x in range(4)]
    centres += [[(x + 0.5) / 2, (y + 0.5) / 2] for y in range(2) for x in range(2)]
    reference = torch.tensor(centres).double()[None, :, None].expand(2, -1, 2, -1)
    position = torch.cat([grid_sine(3, 4, 16, tokens), grid_sine(2, 2, 16, tokens)])
    for layer in ours.layers:
        tokens = layer(tokens, position, reference, [(3, 4), (2, 2)])
    found = ours([fine, coarse])
    assert [level.shape for level in found] == [fine.shape, coarse.shape]
    for at, (level, width) in enumerate([(found[0], 4), (found[1], 2)]):
        cells = tokens[:, 12 * at : 12 + 4 * at].transpose(1, 2)
        torch.testing.assert_close(level, cells.unflatten(2, (-1, width)))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kept", [1, 2])
def test_levels_that_nobody_reads_are_looked_at_and_not_refined_by_the_last_layer(
    settled, noise, monkeypatch, kept, layers
):
    ours = settled(DeformableImageEncoder(dim=16, levels=3, layers=layers))
    levels = [noise(2, 16, 3, 4), noise(2, 16, 2, 2, seed=1), noise(2, 16, 1, 1, seed=2)]
    for tensor in [*levels, *ours.parameters()]:
        tensor.requires_grad_()

    def gradients(maps):
        loss = sum((found * noise(*found.shape, seed=9)).sum() for found in maps)
        return torch.autograd.grad(loss, [*ours.parameters(), *levels])

    every = ours(levels)
    expected = gradients(every[:kept])
    asked = []
    for layer in ours.layers:
        layer.feed_forward.register_forward_hook(lambda _, __, output: asked.append(output.shape[1]))
    ours.kept = kept
    found = ours(levels)
    assert asked == [17] * (layers - 1) + [{1: 12, 2: 16}[kept]]
    assert len(found) == kept
    for one, other in zip([*found, *gradients(found)], [*every[:kept], *expected], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("kind", "layer"), [("swin", SwinLayer), ("convnext", ConvNeXtLayer)])
def test_swin_and_convnext_refine_the_finest_level_alone(settled, noise, kind, layer):
    config = HeadConfig(image_encoder=kind, image_layers=2)
    ours = settled(build_image_encoder(config, dim=16, levels=2))
    assert [type(part) for part in ours.layers] == [layer, layer]
    fine, coarse = noise(1, 16, 3, 4), noise(1, 16, 2, 2)
    found = ours([fine, coarse])
    torch.testing.assert_close(found[0], ours.layers[1](ours.layers[0](fine)))
    assert torch.equal(found[1], coarse)


def test_every_second_swin_layer_is_shifted_by_half_a_window_of_14():
    ours = build_image_encoder(HeadConfig(image_encoder="swin", image_layers=3), dim=16, levels=1)
    assert [(layer.window, layer.shift) for layer in ours.layers] == [(14, 0), (14, 7), (14, 0)]


@pytest.mark.parametrize("count", [1, 3])
def test_there_are_as_many_deformable_layers_as_asked(count):
    ours = build_image_encoder(HeadConfig(image_layers=count), dim=16, levels=3)
    assert [type(layer) for layer in ours.layers] == [DeformableLayer] * count
    assert all(layer.attention.levels == 3 for layer in ours.layers)


@pytest.mark.parametrize("options", [{"image_encoder": "none"}, {"image_layers": 0}])
def test_none_changes_nothing(noise, options):
    levels = [noise(1, 16, 3, 4)]
    assert build_image_encoder(HeadConfig(**options), dim=16, levels=1)(levels) is levels
