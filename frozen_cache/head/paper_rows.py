"""The rows of the paper's tables that fix a head's size: configuration, exact parameter count, printed numbers.

Counts that reproduce the printed ones to the last digit were deduced from the tables; the paper itself prints millions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from frozen_cache.head.config import HeadConfig
from frozen_cache.head.detector_shapes import DETECTOR_SHAPES
from frozen_cache.head.inputs import HeadInputs

HDETR, DINO = "hdetr-r50", "dino-focalnet-l"
BOXES = {HDETR: 100, DINO: 300}
IMAGE_SIZES = {HDETR: (800, 1128), DINO: (800, 1120)}

_TABLE_4: dict[str, Any] = {"query_blocks": (), "neck": False, "mask_scoring": False}
_TABLE_3: dict[str, Any] = _TABLE_4 | {"width": 256}
_TABLE_2: dict[str, Any] = _TABLE_3 | {"box_encoder": "none"}
_TABLE_5: dict[str, Any] = {"neck": False, "mask_scoring": False}


@dataclass(frozen=True)
class PaperRow:
    """One row of a table."""

    table: str
    name: str
    detector: str
    options: dict[str, Any]
    """What differs from the final form."""
    millions: float
    """Parameters as printed, in millions."""
    parameters: int
    """The exact count behind it."""
    gmacs: float
    """FLOPs as printed, in G: multiply-adds."""
    exact: bool = True
    """False where the paper does not say enough, and the count is a guess."""

    @property
    def config(self) -> HeadConfig:
        """The configuration of the row."""
        return HeadConfig(**self.options)

    @property
    def inputs(self) -> HeadInputs:
        """The shapes of its detector."""
        return DETECTOR_SHAPES[self.detector]

    @property
    def boxes(self) -> int:
        """RoIs per image."""
        return BOXES[self.detector]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of an image with as many tokens as the paper's images have on average: 14,100 at stride 8 and
        18,784 in four levels; 74,609 in five levels where the paper has 74,697."""
        return IMAGE_SIZES[self.detector]

    @property
    def uncounted_gmacs(self) -> float:
        """What the paper's counting adds to multiply-adds of matrices and norms, in G: four for each element of the
        bilinear upsampling to stride 4, and a term that nobody could explain, 0.446 at width 256, the same for every
        number and size of RoIs."""
        height, width = self.image_size
        upsampling = 4 * (height // 4) * (width // 4) * 256 / 1e9 if self.detector == HDETR else 0.0
        return upsampling + 0.446 * self.config.width / 256


def _layers(
    table: str, base: dict[str, Any], part: str, kind: str, counts: list[tuple[float, int, float]]
) -> list[PaperRow]:
    return [
        PaperRow(
            table,
            f"{kind} {part} x{layers}",
            HDETR,
            base | {f"{part}_encoder": kind, f"{part}_layers": layers},
            millions,
            parameters,
            gmacs,
        )
        for layers, (millions, parameters, gmacs) in enumerate(counts, start=1)
    ]


PAPER_ROWS: tuple[PaperRow, ...] = (
    *_layers(
        "2",
        _TABLE_2,
        "image",
        "deformable",
        [(0.76, 756_864, 14.71), (1.51, 1_513_728, 28.88), (2.27, 2_270_592, 43.04)],
    ),
    *_layers(
        "2", _TABLE_2, "image", "swin", [(0.80, 795_592, 14.20), (1.59, 1_591_184, 27.86), (2.39, 2_386_776, 41.51)]
    ),
    *_layers(
        "2", _TABLE_2, "image", "convnext", [(0.54, 539_136, 8.12), (1.08, 1_078_272, 15.70), (1.62, 1_617_408, 23.27)]
    ),
    PaperRow("3", "no box encoder", HDETR, _TABLE_2, 1.51, 1_513_728, 28.88),
    *_layers(
        "3",
        _TABLE_3,
        "box",
        "deformable",
        [(2.46, 2_458_720, 98.55), (3.14, 3_141_568, 168.23), (3.82, 3_824_416, 237.91)],
    ),
    *_layers(
        "3", _TABLE_3, "box", "swin", [(2.31, 2_305_288, 112.84), (3.10, 3_096_848, 196.81), (3.89, 3_888_408, 280.77)]
    ),
    *_layers(
        "3",
        _TABLE_3,
        "box",
        "convnext",
        [(2.05, 2_052_864, 83.90), (2.59, 2_592_000, 138.92), (3.13, 3_131_136, 193.95)],
    ),
    PaperRow("4", "width 256", HDETR, _TABLE_4 | {"width": 256}, 3.14, 3_141_568, 168.23),
    PaperRow("4", "width 128", HDETR, _TABLE_4 | {"width": 128}, 2.07, 2_065_856, 66.60),
    PaperRow("4", "width 96", HDETR, _TABLE_4 | {"width": 96}, 1.87, 1_866_432, 50.76),
    PaperRow("4", "width 64", HDETR, _TABLE_4 | {"width": 64}, 1.71, 1_707_968, 39.11),
    PaperRow("5", "none", HDETR, _TABLE_4, 2.07, 2_065_856, 66.60),
    PaperRow("5", "FFN", HDETR, _TABLE_5 | {"query_blocks": ("ffn",)}, 2.33, 2_329_792, 66.63),
    PaperRow("5", "FFN + O2O", HDETR, _TABLE_5 | {"query_blocks": ("ffn", "o2o")}, 2.53, 2_528_064, 66.65, exact=False),
    PaperRow("5", "FFN + B2O", HDETR, _TABLE_5 | {"query_blocks": ("ffn", "b2o")}, 2.46, 2_462_400, 73.40),
    PaperRow("6", "without neck and mask scoring", HDETR, _TABLE_5, 2.46, 2_462_400, 73.40),
    PaperRow("6", "+ neck", HDETR, {"mask_scoring": False}, 2.53, 2_528_704, 77.07),
    PaperRow("6", "+ mask scoring", HDETR, {}, 3.26, 3_261_712, 82.09),
    PaperRow("9", "RoI 16", HDETR, {"roi_size": 16}, 2.97, 2_966_800, 46.09),
    PaperRow("9", "RoI 32", HDETR, {"roi_size": 32}, 3.26, 3_261_712, 82.09),
    PaperRow("9", "RoI 64", HDETR, {"roi_size": 64}, 4.44, 4_441_360, 225.86),
    PaperRow("12", "dot product", HDETR, {}, 3.26, 3_261_712, 82.09),
    PaperRow("12", "segmenter", HDETR, {"mask_head": "segmenter"}, 3.29, 3_294_680, 83.77),
    PaperRow("15", "image / box layers 2 / 2", DINO, {"image_layers": 2, "box_layers": 2}, 3.24, 3_244_752, 262.27),
    PaperRow("15", "image / box layers 2 / 3", DINO, {"image_layers": 2, "box_layers": 3}, 3.62, 3_620_656, 326.65),
    PaperRow("15", "image / box layers 3 / 2", DINO, {"image_layers": 3, "box_layers": 2}, 4.03, 4_026_288, 320.44),
    PaperRow("15", "image / box layers 3 / 3", DINO, {"image_layers": 3, "box_layers": 3}, 4.40, 4_402_192, 384.82),
    PaperRow("15", "image / box layers 4 / 4", DINO, {"image_layers": 4, "box_layers": 4}, 5.56, 5_559_632, 507.38),
)
