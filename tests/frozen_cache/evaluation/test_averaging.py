"""Masks averaged over heads, RoI sizes and views."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from frozen_cache.boxes import enlarged
from frozen_cache.cache.view import CachedView
from frozen_cache.data.view import ViewTransform
from frozen_cache.detectors.output import FeatureSpec
from frozen_cache.errors import UserError
from frozen_cache.evaluation.averaging import MeanSegmenter, ViewsSegmenter, head_segmenter
from frozen_cache.evaluation.segmenters import FeatureSegmenter, Segmentation
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.masks.paste import paste_masks

INPUTS = HeadInputs(query_dim=8, c1=None, levels=(FeatureSpec(channels=8, stride=8),), num_classes=2)
CPU = torch.device("cpu")
PLAIN = {"image_encoder": "none", "width": 16, "box_encoder": "unet", "box_layers": 1, "mask_scoring": False}


def head_of(seed: int = 0, **options: object) -> MaskHead:
    torch.manual_seed(seed)
    return MaskHead(config=HeadConfig(**{"roi_size": 8} | PLAIN | options), inputs=INPUTS).eval()


@pytest.fixture
def pair(view: CachedView) -> CachedView:
    """Two detections on features that differ from place to place."""
    generator = torch.Generator().manual_seed(3)
    return replace(
        view,
        selected=2,
        queries=torch.randn(2, 8, generator=generator),
        boxes=torch.tensor([[0.5, 0.5, 0.25, 0.25], [0.4, 0.5, 0.5, 0.25]]),
        scores=torch.tensor([0.5, 0.25]),
        labels=torch.tensor([1, 0]),
        encoder={1: [torch.randn(8, 8, 10, generator=generator)]},
    )


def alone(head: MaskHead, view: CachedView) -> Segmentation:
    return FeatureSegmenter(head, encoder_layer=1, device=CPU)(view)


def test_probabilities_and_scores_of_heads_are_averaged(pair):
    heads = [head_of(0), head_of(1), head_of(2)]
    parts = [alone(head, pair) for head in heads]
    found = head_segmenter(heads, encoder_layer=1, device=CPU)(pair)
    torch.testing.assert_close(found.masks, sum(part.masks for part in parts) / 3)
    torch.testing.assert_close(found.scores, sum(part.scores for part in parts) / 3)
    assert torch.equal(found.boxes, pair.boxes)
    assert not torch.allclose(parts[0].masks, parts[1].masks)


def test_roi_sizes_are_averaged_on_the_finest_cells(pair):
    head = head_of()
    found = head_segmenter([head], encoder_layer=1, device=CPU, roi_sizes=(6, 8, 12))(pair)
    parts = [alone(MaskHeadOf(head, size), pair).masks[:, None] for size in (6, 8, 12)]
    expected = sum(F.interpolate(part, size=(12, 12), mode="bilinear", align_corners=False)[:, 0] for part in parts) / 3
    torch.testing.assert_close(found.masks, expected)


def MaskHeadOf(head: MaskHead, size: int) -> MaskHead:  # noqa: N802
    """The head built anew for another side, with the same weights."""
    other = MaskHead(config=head.config.model_copy(update={"roi_size": size}), inputs=INPUTS)
    other.load_state_dict(head.state_dict())
    return other


def test_a_head_of_another_side_shares_the_weights_and_leaves_the_first_as_it_was(pair):
    head = head_of()
    before = alone(head, pair).masks
    other = head.at_roi_size(16)
    assert other.config.roi_size == 16 and head.config.roi_size == 8
    assert {id(each) for each in other.parameters()} == {id(each) for each in head.parameters()}
    assert alone(other, pair).masks.shape == (2, 16, 16)
    torch.testing.assert_close(alone(head, pair).masks, before)
    assert head.at_roi_size(8) is head


@pytest.mark.parametrize(
    ("options", "said"),
    [({"mask_scoring": True}, "mask scoring"), ({"box_encoder": "deformable"}, "learned positions")],
)
def test_a_head_bound_to_its_side_says_why(options, said):
    with pytest.raises(UserError, match=rf"RoI size 16: .*{said}.* own 8 cells"):
        head_of(**options).at_roi_size(16)
    with pytest.raises(UserError, match="RoI size 3: give 4 to 128"):
        head_of().at_roi_size(3)


def test_heads_that_cover_more_and_less_than_the_box_meet_on_the_larger_one(pair):
    heads = [head_of(0), head_of(1, roi_scale=1.5, roi_size=12)]
    found = head_segmenter(heads, encoder_layer=1, device=CPU)(pair)
    torch.testing.assert_close(found.boxes, enlarged(pair.boxes, 1.5))
    assert found.masks.shape == (2, 12, 12)
    size = (640, 800)
    scale = torch.tensor([800, 640, 800, 640])
    pasted = [
        paste_masks(part.masks.numpy(), (box_pixels(part.boxes) * scale).numpy(), size, threshold=None)
        for part in (*(alone(head, pair) for head in heads), found)
    ]
    # Bilinear interpolation of a sampled mask: near, not equal.
    assert abs(pasted[2] - (pasted[0] + pasted[1]) / 2).mean() < 0.003
    # The narrower head says nothing beyond its box.
    outside = torch.ones(12, 12, dtype=torch.bool)
    outside[2:-2, 2:-2] = False
    wide = alone(heads[1], pair).masks
    torch.testing.assert_close(found.masks[:, outside], wide[:, outside] / 2)


def box_pixels(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)


def test_heads_are_asked_about_equal_queries_once_only_if_all_allow_it():
    independent, together = head_of(), head_of(query_blocks=("o2o",))
    for heads, expected in (([independent] * 2, True), ([independent, together], False)):
        assert head_segmenter(heads, encoder_layer=1, device=CPU).mask_depends_on_query_alone is expected


HEIGHT, WIDTH = 64, 80


@dataclass
class KnowsTheImage:
    """A segmenter whose mask at a place depends on nothing but the place in the image, however the view lies."""

    encoder_layer: int | None = 1
    device: torch.device | None = None
    scale: float = 1.0
    zooms: bool = False

    def __post_init__(self) -> None:
        self.asked: list[CachedView] = []

    def __call__(self, view: CachedView) -> Segmentation:
        self.asked.append(view)
        x0, y0, x1, y1 = view.transform.crop
        masks = []
        for cx, cy, w, h in view.boxes[: view.selected].double().tolist():
            steps = ((np.arange(6) + 0.5) / 6 - 0.5) * self.scale
            x, y = np.meshgrid(cx + steps * w, cy + steps * h)
            outside = (x < 0) | (x > 1) | (y < 0) | (y > 1)
            x = 1 - x if view.transform.flip else x
            across, down = (x0 + x * (x1 - x0)) / WIDTH, (y0 + y * (y1 - y0)) / HEIGHT
            masks.append(np.where(outside & (view.view > 0), 0.123, 0.2 + 0.5 * across + 0.3 * down**2))
        boxes = enlarged(view.boxes[: view.selected], self.scale)
        return Segmentation(
            masks=torch.tensor(np.array(masks)).float().reshape(-1, 6, 6),
            boxes=boxes,
            scores=view.scores[: view.selected] * view.queries[: view.selected, 0],
        )


@dataclass
class Views:
    """A reader of views in memory."""

    contents: list[CachedView]
    path: str = "memory.zarr"

    @property
    def views(self) -> list[tuple[int, int]]:
        return [(each.image_id, each.view) for each in self.contents]

    def read(self, index: int, **_: object) -> CachedView:
        return self.contents[index]


def another(plain: CachedView, number: int, crop: tuple[int, int, int, int], *, flip: bool, order: list[int]):
    """A view in which the detector found the same boxes, in another order; its queries begin with 0.5."""
    x0, y0, x1, y1 = crop
    boxes = plain.boxes[order].double()
    x, y = (boxes[:, 0] * WIDTH - x0) / (x1 - x0), (boxes[:, 1] * HEIGHT - y0) / (y1 - y0)
    w, h = boxes[:, 2] * WIDTH / (x1 - x0), boxes[:, 3] * HEIGHT / (y1 - y0)
    return replace(
        plain,
        view=number,
        transform=ViewTransform(original_size=(HEIGHT, WIDTH), crop=crop, flip=flip, resized_size=(64, 64)),
        selected=len(order),
        boxes=torch.stack([1 - x if flip else x, y, w, h], dim=1).float(),
        queries=torch.full((len(order), 8), 0.5),
        scores=torch.full((len(order),), 0.9),
        labels=plain.labels[order],
    )


CROP = (20, 8, 70, 60)
VIEWS = [
    ((0, 0, 80, 64), False),
    ((0, 0, 80, 64), True),
    (CROP, False),
    (CROP, True),
    ((42, 0, 80, 40), True),  # cuts through the first box
]


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize(("crop", "flip"), VIEWS)
def test_a_mask_that_is_the_same_in_all_views_is_its_own_mean(pair, crop, flip, scale):
    pair = replace(pair, queries=torch.ones(2, 8))
    inner = KnowsTheImage(scale=scale)
    expected = inner(pair)
    other = another(pair, 1, crop, flip=flip, order=[1, 0])
    found = ViewsSegmenter(inner, Views([pair, other]), views=2)(pair)  # type: ignore[arg-type]
    torch.testing.assert_close(found.masks, expected.masks, atol=1e-5, rtol=0)
    assert torch.equal(found.boxes, expected.boxes)
    [asked] = inner.asked[2:]
    assert asked.view == 1 and asked.selected == 2
    assert asked.labels.tolist() == pair.labels.tolist()
    # 1 in the plain view, 0.5 in the other, both times the plain view's own class score.
    torch.testing.assert_close(found.scores, pair.scores * 0.75)


def test_only_detections_of_one_label_and_place_meet(pair):
    apart = another(pair, 1, (0, 0, 80, 64), flip=False, order=[0, 1])
    cases = {
        "moved away": replace(apart, boxes=apart.boxes + torch.tensor([[0.2, 0.0, 0.0, 0.0], [0, 0, 0, 0]])),
        "another label": replace(apart, labels=torch.tensor([0, 0])),
        "not selected": replace(apart, selected=1, boxes=apart.boxes[[1, 0]], labels=apart.labels[[1, 0]]),
    }
    for what, other in cases.items():
        inner = KnowsTheImage()
        found = ViewsSegmenter(inner, Views([pair, other]), views=2)(pair)  # type: ignore[arg-type]
        [asked] = inner.asked[1:]
        assert asked.labels.tolist() == [0], what
        torch.testing.assert_close(asked.boxes, pair.boxes[1:])
        torch.testing.assert_close(found.scores[0], inner(pair).scores[0])


def test_views_of_other_images_and_later_ones_play_no_part(pair):
    views = [replace(pair, view=number, image_id=image) for image in (1, 2) for number in range(3)]
    inner = KnowsTheImage()
    ViewsSegmenter(inner, Views(views), views=2)(views[3])  # type: ignore[arg-type]
    assert [(each.image_id, each.view) for each in inner.asked] == [(2, 0), (2, 1)]


def test_a_view_without_detections_adds_nothing(pair):
    empty = replace(pair, view=1, selected=0)
    for plain, other in ((pair, empty), (replace(pair, selected=0), replace(pair, view=1))):
        found = ViewsSegmenter(KnowsTheImage(), Views([plain, other]), views=2)(plain)  # type: ignore[arg-type]
        torch.testing.assert_close(found.masks, KnowsTheImage()(plain).masks)


def test_views_that_are_not_cached_are_named(pair):
    with pytest.raises(UserError, match=r"--views 3.*an image with 2 alone.*--views 3"):
        ViewsSegmenter(KnowsTheImage(), Views([pair, replace(pair, view=1)]), views=3)  # type: ignore[arg-type]


def test_heads_and_views_go_together(pair):
    heads = [head_of(0), head_of(1, roi_size=12)]
    inner = head_segmenter(heads, encoder_layer=1, device=CPU)
    assert isinstance(inner, MeanSegmenter)
    same = replace(pair, view=1)
    found = ViewsSegmenter(inner, Views([pair, same]), views=2)(pair)  # type: ignore[arg-type]
    torch.testing.assert_close(found.masks, inner(pair).masks)
