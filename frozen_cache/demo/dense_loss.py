"""One-to-many supervision of the encoder's tokens: what makes a DETR learn to detect within an hour on one core.

A DETR trained one-to-one sees one positive query an object. Here several tokens learn each object too, chosen by task
alignment (TOOD, arXiv 2108.07755) as in Co-DETR and H-DETR's one-to-many branches; the decoder stays one-to-one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou, generalized_box_iou_loss

POSITIVES = 5


def dense_loss(logits: Tensor, boxes: Tensor, labels: list[dict[str, Tensor]]) -> Tensor:
    """Cross-entropy with box IoU as its target, focused on the background; L1 and GIoU loss of the positive tokens.

    Args:
        logits: (B, S, classes) of the encoder's tokens.
        boxes: (B, S, 4) cxcywh in 0..1; a token's box is searched around its own place.
        labels: per image `class_labels` (G,) and `boxes` (G, 4) cxcywh in 0..1.
    """
    quality = torch.zeros_like(logits)
    found, wanted = [], []
    for image, target in enumerate(labels):
        tokens, objects, iou = align(logits[image].detach(), boxes[image].detach(), target)
        quality[image, tokens, target["class_labels"][objects]] = iou
        found.append(boxes[image, tokens])
        wanted.append(target["boxes"][objects])
    predicted, truth = torch.cat(found), torch.cat(wanted)
    count = max(1, len(predicted))
    # Varifocal weights for the background only: on an object's tokens they would hardly tell the classes apart.
    on_object = (quality > 0).any(-1, keepdim=True)
    focus = torch.where(on_object, 1.0, 0.75 * logits.detach().sigmoid() ** 2)
    classes = (F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * focus).sum() / count
    corners = [box_convert(part, "cxcywh", "xyxy") for part in (predicted, truth)]
    giou = generalized_box_iou_loss(*corners, reduction="sum") / count
    return classes + 5 * F.l1_loss(predicted, truth, reduction="sum") / count + 2 * giou


def align(logits: Tensor, boxes: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and objects that belong together, (P,) each, and their box IoU (P,), at least a little above zero."""
    truth = target["boxes"]
    if not len(truth):
        nothing = torch.zeros(0, dtype=torch.int64)
        return nothing, nothing, torch.zeros(0)
    iou = box_iou(box_convert(boxes, "cxcywh", "xyxy"), box_convert(truth, "cxcywh", "xyxy")).nan_to_num()
    inside = ((boxes[:, None, :2] - truth[None, :, :2]).abs() < truth[None, :, 2:] / 2).all(-1)
    # Before anything is learnt all tokens inside look alike; then the central ones should learn the object.
    apart = ((boxes[:, None, :2] - truth[None, :, :2]) / truth[None, :, 2:]).square().sum(-1)
    fit = logits.sigmoid()[:, target["class_labels"]].sqrt() * (iou + 1e-3) ** 3 * (-4 * apart).exp() * inside
    best, tokens = fit.topk(POSITIVES, dim=0)  # (POSITIVES, G)
    objects = torch.arange(len(truth)).expand_as(tokens)
    chosen = best > 0
    tokens, objects, best = tokens[chosen], objects[chosen], best[chosen]
    # A token that two objects want goes to the one that it fits better.
    order = best.argsort(descending=True)
    tokens, objects = tokens[order], objects[order]
    first = torch.ones(len(tokens), dtype=torch.bool)
    seen: set[int] = set()
    for at, token in enumerate(tokens.tolist()):
        first[at] = token not in seen
        seen.add(token)
    tokens, objects = tokens[first], objects[first]
    return tokens, objects, iou[tokens, objects].clamp(min=0.05)
