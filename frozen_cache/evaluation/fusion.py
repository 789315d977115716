"""Detections of several views of an image fused into one list: weighted boxes fusion (Solovyev, Wang, Gabruseva 2021).

The published packages of the method give the fused boxes alone; here each also knows whose they are, since the queries
behind them are what makes the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert

from frozen_cache.boxes import carried_back
from frozen_cache.cache.view import CachedView
from frozen_cache.data.view import ViewTransform

SAME_IOU = 0.55
"""From which IoU on with a fused box a box of its label joins it: the paper's."""
CUT_OFF = 0.01
"""A box that comes so close to a side at which its view cuts the image, of the view's own side, may be a part only."""


@dataclass(frozen=True, kw_only=True)
class FusedView(CachedView):
    """An image's plain view, its detections being those of several views fused. Its maps are the plain view's; masks
    come of `sources` (`fused.FusedSegmenter`)."""

    sources: tuple[CachedView, ...] = field(repr=False)
    """The V views, the plain one first."""
    members: Tensor
    """(N, V) int64: the row of each source that a detection is made of; -1 for none."""

    def take(self, rows: Tensor) -> FusedView:
        """The view with these rows only, (K,) int64, all of them selected."""
        taken = super().take(rows)
        assert isinstance(taken, FusedView)
        return replace(taken, members=self.members[rows])


def fuse(plain: CachedView, others: Sequence[CachedView]) -> FusedView:
    """The selected pairs of an image's views as one list.

    From the best down, each joins the fused box of its label that it overlaps the most, if by SAME_IOU or more and if
    that has none of its view yet; else it begins one. A fused box is the mean of its members, by their scores. Its
    score is the mean over the views that show it whole: one that does not have it counts with the least score of what
    it has, as what it left out has no more. What a view cuts off is left out.

    As many of the best are selected as the fullest view has. Behind them lie, as in every view, rows that an object is
    matched to and that are not selected.
    """
    sources = (plain, *others)
    found = [_Detections.of(view, number) for number, view in enumerate(sources)]
    boxes, labels, scores, members = _fused(found)
    kept = torch.from_numpy(np.argsort(-scores, kind="stable")[: max(view.selected for view in sources)])
    rows = members[kept]
    behind, match = _matched(plain, members, kept)
    all_rows = torch.cat([rows, behind])
    own = all_rows.new_tensor([_best(sources, row) for row in all_rows.tolist()]).reshape(-1, 2)
    lead = [sources[number] for number in own[:, 0].tolist()]
    at = own[:, 1].tolist()
    unselected = behind[:, 0]
    return FusedView(
        image_id=plain.image_id,
        view=plain.view,
        transform=plain.transform,
        selected=len(kept),
        queries=torch.stack([view.queries[row] for view, row in zip(lead, at, strict=True)])
        if lead
        else plain.queries[:0],
        boxes=torch.cat([boxes[kept], plain.boxes[unselected]]),
        scores=torch.cat([torch.from_numpy(scores).float()[kept], plain.scores[unselected]]),
        labels=torch.cat([labels[kept], plain.labels[unselected]]),
        c1=plain.c1,
        encoder=plain.encoder,
        truth=replace(plain.truth, match=match),
        close_up=plain.close_up,
        sources=sources,
        members=all_rows,
    )


@dataclass(frozen=True)
class _Detections:
    """What of a view's selected pairs may be fused."""

    number: int
    """Of the view."""
    transform: ViewTransform
    rows: np.ndarray
    """(M,) int64 of the view."""
    boxes: np.ndarray
    """(M, 4) float64 xyxy in 0..1 of the plain view."""
    scores: np.ndarray
    labels: np.ndarray
    least: float
    """Of the scores of all selected pairs; 0 without any."""

    @classmethod
    def of(cls, view: CachedView, number: int) -> _Detections:
        """The pairs that the view does not cut off."""
        scores = view.scores[: view.selected].double().numpy()
        boxes = carried_back(view.boxes[: view.selected], view.transform).double()
        corners = box_convert(boxes, "cxcywh", "xyxy").numpy()
        rows = np.flatnonzero(_whole(corners, view.transform))
        return cls(
            number=number,
            transform=view.transform,
            rows=rows,
            boxes=corners[rows],
            scores=scores[rows],
            labels=view.labels[: view.selected].numpy()[rows],
            least=float(scores.min(initial=1.0)) if len(scores) else 0.0,
        )


def _whole(corners: np.ndarray, view: ViewTransform) -> np.ndarray:
    """(M,) bool: which boxes, xyxy in 0..1 of the plain view, a view does not cut."""
    height, width = view.original_size
    x0, y0, x1, y1 = view.crop
    left, top, right, bottom = x0 / width, y0 / height, x1 / width, y1 / height
    across, down = CUT_OFF * (right - left), CUT_OFF * (bottom - top)
    whole = np.ones(len(corners), dtype=bool)
    if x0 > 0:
        whole &= corners[:, 0] > left + across
    if y0 > 0:
        whole &= corners[:, 1] > top + down
    if x1 < width:
        whole &= corners[:, 2] < right - across
    if y1 < height:
        whole &= corners[:, 3] < bottom - down
    return whole


def _fused(found: Sequence[_Detections]) -> tuple[Tensor, Tensor, np.ndarray, Tensor]:
    """(F, 4) float32 boxes cxcywh, (F,) int64 labels, (F,) float64 scores and (F, V) int64 members, in no order."""
    entries = sorted(
        ((each.scores[at], each, at) for each in found for at in range(len(each.rows))), key=lambda entry: -entry[0]
    )
    count = len(entries)
    boxes, labels = np.zeros((count, 4)), np.full(count, -1)
    members, weights = np.full((count, len(found)), -1), np.zeros((count, len(found)))
    made = 0
    for score, each, at in entries:
        box, label, number = each.boxes[at], each.labels[at], each.number
        free = np.flatnonzero((labels[:made] == label) & (members[:made, number] < 0))
        overlap = _iou(box, boxes[free])
        if len(free) and overlap.max() >= SAME_IOU:
            place = int(free[overlap.argmax()])
            total = weights[place].sum()
            boxes[place] = (boxes[place] * total + box * score) / (total + score) if total + score > 0 else box
        else:
            place, made = made, made + 1
            boxes[place], labels[place] = box, label
        members[place, number], weights[place, number] = each.rows[at], score
    boxes, labels, members, weights = boxes[:made], labels[:made], members[:made], weights[:made]
    showing = np.stack([_whole(boxes, each.transform) for each in found], axis=1) | (members >= 0)
    least = np.array([each.least for each in found])
    scores = np.where(members >= 0, weights, least * showing).sum(1) / showing.sum(1)
    centred = box_convert(torch.from_numpy(boxes).float(), "xyxy", "cxcywh")
    return centred, torch.from_numpy(labels), scores, torch.from_numpy(members)


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(F,) IoU of one box, xyxy, with F."""
    corner, end = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(end - corner, 0, None).prod(-1)
    both = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(-1) - shared
    return shared / np.maximum(both, np.finfo(np.float64).tiny)


def _matched(plain: CachedView, members: Tensor, kept: Tensor) -> tuple[Tensor, np.ndarray]:
    """(B, V) members of rows to put behind the kept ones, and (G,) int64 the row of each object among all of them."""
    place_of = {row: place for place, row in enumerate(members[kept, 0].tolist()) if row >= 0}
    behind: list[int] = []
    match = np.full_like(plain.truth.match, -1)
    for at, row in enumerate(plain.truth.match.tolist()):
        if row < 0:
            continue
        if row not in place_of:
            place_of[row] = len(kept) + len(behind)
            behind.append(row)
        match[at] = place_of[row]
    alone = torch.full((len(behind), members.shape[1]), -1, dtype=torch.int64)
    alone[:, 0] = torch.tensor(behind, dtype=torch.int64)
    return alone, match


def _best(sources: Sequence[CachedView], row: list[int]) -> tuple[int, int]:
    """The source whose member has the highest score, and its row there."""
    return max(
        ((number, at) for number, at in enumerate(row) if at >= 0),
        key=lambda member: float(sources[member[0]].scores[member[1]]),
    )
