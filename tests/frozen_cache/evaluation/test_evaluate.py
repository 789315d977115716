"""What becomes COCO results and COCO ground truth of a cached view."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from frozen_cache.cache.view import CachedView
from frozen_cache.data.view import ViewTransform
from frozen_cache.evaluation.evaluate import evaluate_cache
from frozen_cache.evaluation.nameless import view_instances
from frozen_cache.evaluation.segmenters import BoxSegmenter, Segmentation
from frozen_cache.evaluation.truth import truth_annotations
from frozen_cache.progress import showing

CATEGORIES = [7, 9, 30]
"""Category ids; labels are places in this list."""


def rle(top: int, bottom: int, left: int, right: int) -> dict:
    mask = np.zeros((64, 80), dtype=np.uint8)
    mask[top:bottom, left:right] = 1
    return coco_mask.encode(np.asfortranarray(mask))


@pytest.fixture
def scene(view: CachedView) -> CachedView:
    """Two detections and a matched row that was not selected; an object and a crowd."""
    return replace(
        view,
        image_id=42,
        selected=2,
        queries=torch.ones(3, 8),
        boxes=torch.tensor([[0.5, 0.5, 0.25, 0.25], [0.25, 0.75, 0.1, 0.5], [0.1, 0.1, 0.1, 0.1]]),
        scores=torch.tensor([0.75, 0.5, 0.25]),
        labels=torch.tensor([2, 0, 1]),
        truth=replace(
            view.truth,
            boxes=np.array([[30, 24, 50, 40], [10, 0, 20, 64]], dtype=np.float32),
            categories=np.array([2, 0]),
            crowd=np.array([False, True]),
            areas=np.array([320, 600], dtype=np.float32),
            masks=[rle(24, 40, 30, 50), rle(0, 64, 10, 20)],
            annotation_ids=np.array([5, 6]),
            match=np.array([0, -1]),
        ),
    )


def view_results(view: CachedView, found: Segmentation) -> dict:
    instances = view_instances(view, found, CATEGORIES)
    return {kind: instances.to_coco(view.image_id, kind=kind) for kind in ("segm", "bbox")}


def test_boxes_are_ranked_by_their_class_scores_and_masks_by_theirs(scene: CachedView) -> None:
    found = Segmentation(masks=torch.ones(2, 4, 4), boxes=scene.boxes[:2], scores=torch.tensor([0.125, 0.25]))
    results = view_results(scene, found)
    assert [result["score"] for result in results["bbox"]] == [0.75, 0.5]
    assert [result["score"] for result in results["segm"]] == [0.125, 0.25]
    for kind in ("bbox", "segm"):
        assert [(each["image_id"], each["category_id"]) for each in results[kind]] == [(42, 30), (42, 7)]


def test_results_are_in_pixels_of_the_original_image(scene: CachedView) -> None:
    # The view was shown to the detector at twice the size.
    scene = replace(scene, transform=replace_size(scene.transform, (128, 160)))
    results = view_results(scene, BoxSegmenter()(scene))
    assert [result["bbox"] for result in results["bbox"]] == [pytest.approx([30, 24, 20, 16]),
                                                              pytest.approx([16, 32, 8, 32])]  # fmt: skip
    masks = [coco_mask.decode(result["segmentation"]) for result in results["segm"]]
    assert np.array_equal(masks[0], coco_mask.decode(rle(24, 40, 30, 50)))
    assert np.array_equal(masks[1], coco_mask.decode(rle(32, 64, 16, 24)))


def replace_size(transform: ViewTransform, size: tuple[int, int]) -> ViewTransform:
    return transform.model_copy(update={"resized_size": size})


def test_masks_are_pasted_into_what_they_cover(scene: CachedView) -> None:
    covered = torch.tensor([[0.5, 0.5, 1.0, 1.0]]).expand(2, 4)
    found = Segmentation(masks=torch.ones(2, 64, 80), boxes=covered, scores=torch.ones(2))
    [first, _] = view_results(scene, found)["segm"]
    assert coco_mask.area(first["segmentation"]) == 64 * 80


def test_the_truth_is_what_the_cache_holds(scene: CachedView) -> None:
    first, second = truth_annotations(scene, CATEGORIES)
    assert first["bbox"] == [30, 24, 20, 16] and second["bbox"] == [10, 0, 10, 64]
    assert [each["category_id"] for each in (first, second)] == [30, 7]
    assert [each["area"] for each in (first, second)] == [320, 600]
    assert [each["iscrowd"] for each in (first, second)] == [0, 1]
    assert first["image_id"] == 42 and first["segmentation"] == scene.truth.masks[0]


class Cache:
    """A reader of views; it remembers what it was asked for."""

    def __init__(self, *views: CachedView) -> None:
        self.contents, self.asked = views, []
        self.views = [(view.image_id, view.view) for view in views]
        categories = [{"id": number, "name": str(number)} for number in CATEGORIES]
        self.attributes = SimpleNamespace(categories=categories)

    def read(self, index: int, **options: object) -> CachedView:
        self.asked.append((index, options))
        return self.contents[index]


def test_plain_views_alone_are_evaluated(scene: CachedView) -> None:
    other = replace(scene, view=1)
    truth = replace(scene.truth, annotation_ids=np.array([7, 8]))
    cache = Cache(scene, other, replace(scene, image_id=43, truth=truth))
    evaluation = evaluate_cache(cache, BoxSegmenter())  # type: ignore[arg-type]
    assert [index for index, _ in cache.asked] == [0, 2]
    assert {result["image_id"] for result in evaluation.results.all()} == {42, 43}
    # Both detections of an image: the object itself, and one of the crowd's category beside the crowd.
    assert evaluation.metrics["bbox"]["AP"] == pytest.approx(1.0)
    assert evaluation.metrics["segm"]["AP"] == pytest.approx(1.0)


def test_a_bar_is_taken_back_where_ctrl_c_ends_the_work(scene: CachedView, capsys: pytest.CaptureFixture[str]) -> None:
    class Stopped(BoxSegmenter):
        def __call__(self, view: CachedView) -> Segmentation:
            raise KeyboardInterrupt

    with showing("bar"), pytest.raises(KeyboardInterrupt) as caught:
        evaluate_cache(Cache(scene), Stopped())  # type: ignore[arg-type]
    shown = capsys.readouterr().err
    assert caught.tb is not None  # and holds the bar, as where the command says how it ended
    assert "evaluate" in shown and not shown.rpartition("\r")[2].strip()


def test_a_segmenter_s_own_encoder_layer_is_read_and_no_maps_for_one_without(scene: CachedView) -> None:
    class Reads(BoxSegmenter):
        encoder_layer = 4

    for segmenter, wanted in ((BoxSegmenter(), ((), False)), (Reads(), ((4,), True))):
        cache = Cache(scene)
        evaluate_cache(cache, segmenter)  # type: ignore[arg-type]
        [(_, options)] = cache.asked
        assert (options["encoder_layers"], options["c1"]) == wanted


def test_a_mask_that_misses_half_of_its_object_counts_at_a_low_threshold_only(scene: CachedView) -> None:
    class Half:
        encoder_layer = device = None
        zooms = False

        def __call__(self, view: CachedView) -> Segmentation:
            masks = torch.zeros(2, 64, 64)
            masks[:, :, :40] = 1  # IoU 40 / 64 with a filled box
            return Segmentation(masks=masks, boxes=view.boxes[:2], scores=view.scores[:2])

    metrics = evaluate_cache(Cache(scene), Half()).metrics  # type: ignore[arg-type]
    assert metrics["segm"]["AP50"] == pytest.approx(1.0) and metrics["segm"]["AP75"] == 0.0
    assert metrics["bbox"]["AP75"] == pytest.approx(1.0)
