"""Sizes, read from the shapes of official weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from frozen_cache.errors import UserError

HEADS = 8
"""Of attention in every official configuration; the weights' shapes do not tell it."""


class OfficialWeights:
    """The official weights by name, asked for sizes.

    Args:
        weights: by official name.
        place: for messages: the file.
        arguments: of the training run, where the file holds them.
    """

    def __init__(self, weights: Mapping[str, Tensor], place: str, arguments: Mapping[str, Any] | None = None) -> None:
        self.weights = weights
        self.place = place
        self.arguments = arguments or {}

    def __contains__(self, name: str) -> bool:
        return name in self.weights

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight that every model of the family has.

        Raises:
            UserError: it is not there.
        """
        if name not in self.weights:
            raise UserError(f"{self.place}: lacks {name}, which tells one of the model's sizes")
        return tuple(self.weights[name].shape)

    def rows(self, name: str) -> int:
        """The first axis of a weight (output channels, classes)."""
        return self.shape(name)[0]

    def count(self, prefix: str) -> int:
        """How many numbers, 0 and up, follow a prefix: layers, blocks, levels."""
        number = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
        return max((int(found[1]) for name in self.weights if (found := number.match(name))), default=-1) + 1

    def per_level(self, name: str) -> list[int]:
        """Points that deformable attention samples in each level, from its scales 1 / points."""
        scales = [round(1 / float(scale)) for scale in self.weights[name]] if name in self.weights else []
        points = []
        while scales:
            points.append(scales[0])
            scales = scales[scales[0] :]
        return points

    def input_size(self, strides: tuple[int, ...], default: int = 640) -> int:
        """Height and width in pixels of the square input, from the number of the stored anchors.

        Raises:
            UserError: the model was made for an input that is no square.
        """
        if "decoder.anchors" not in self.weights:
            return default
        anchors = self.shape("decoder.anchors")[1]
        size = round((anchors / sum(stride**-2 for stride in strides)) ** 0.5)
        if sum((size // stride) ** 2 for stride in strides) != anchors:
            raise UserError(
                f"{self.place}: its {anchors} anchors are those of no square input; load the model in a factory of "
                "your own instead: --detector FILE.py:FACTORY"
            )
        return size
