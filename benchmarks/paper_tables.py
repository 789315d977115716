"""Paper against ours, parameters and multiply-adds, every row: `python benchmarks/paper_tables.py`.

Ours is counted on the modules as they run, on one image of 800 x 1120. The paper averages over val; only two numbers
of its FLOPs column are known here. For the other rows stands what the paper's counting gives by hand at its own
averages (14,100 tokens at stride 8, 18,784 in four levels, 55,950 positions at stride 4, 74,697 tokens in five levels),
which reproduces its tables within about 0.1 G. By hand includes a term that nobody could explain, 0.446 G at width 256
and 0.223 at 128; ours does not, and the rows of few multiply-adds are off by it.
"""

from __future__ import annotations

import json
from pathlib import Path

from frozen_cache.head.describe import describe_head
from frozen_cache.head.paper_rows import DINO, PAPER_ROWS, PaperRow

RESULT = Path(__file__).with_suffix(".json")
STRIDE_8, FOUR_LEVELS, STRIDE_4, FIVE_LEVELS = 14_100, 18_784, 55_950, 74_697


def by_hand(row: PaperRow) -> float | None:
    """GMACs of a row by formula at the paper's averages; None for Swin, whose windows the paper's count leaves open."""
    config = row.config
    if (config.image_encoder == "swin" and config.image_layers) or (config.box_encoder == "swin" and config.box_layers):
        return None
    levels, tokens = (5, FIVE_LEVELS) if row.detector == DINO else (4, FOUR_LEVELS)
    width, cells = config.width, row.boxes * config.roi_size**2
    image_layer = (
        tokens * (2 * 256**2 + 256 * 96 * levels + 8 * 256**2 + 512)
        if config.image_encoder == "deformable"
        else STRIDE_8 * (49 * 256 + 8 * 256**2 + 256)
    )
    total = config.image_layers * image_layer
    if row.detector != DINO and config.neck:
        total += STRIDE_4 * 256**2
    if width != 256:
        total += (STRIDE_4 + row.boxes) * 256 * width
    if config.box_encoder == "deformable":
        total += config.box_layers * cells * (10 * width**2 + 96 * width + 2 * width)
    elif config.box_encoder == "convnext":
        total += config.box_layers * cells * (49 * width + 8 * width**2 + width)
    block = 0
    if "ffn" in config.query_blocks:
        block += row.boxes * (8 * width**2 + width)
    if "b2o" in config.query_blocks:
        block += cells * (2 * width**2 + 2 * width) + row.boxes * (2 * width**2 + width)
    if "o2o" in config.query_blocks:
        block += row.boxes * (4 * width**2 + width + 2 * row.boxes * width + 512 * width)
    total += config.query_depth * block
    total += cells * width
    if config.mask_head == "segmenter":
        total += cells * (width**2 + 1) + row.boxes * width**2
    if config.mask_scoring:
        side = config.roi_size
        convs = 9 * width * ((width + 1) * (side // 2) ** 2 + width * ((side // 4) ** 2 + (side // 8) ** 2))
        total += row.boxes * (convs + width**2 * (side // 8) ** 2 + width**2 + 80 * width)
    return total / 1e9 + 0.446 * width / 256


def main() -> None:
    """Print the table and write it beside this file."""
    rows = []
    print(
        f"{'table':6}{'row':28}{'params (M)':>11}{'ours':>12}{'  ':4}{'paper G':>9}{'by hand':>9}{'ours':>9}{'off':>8}"
    )
    for row in PAPER_ROWS:
        found = describe_head(config=row.config, inputs=row.inputs, image_size=(800, 1120), boxes=row.boxes)
        gmacs, hand = found.macs / 1e9, by_hand(row)
        known = row.gmacs if row.gmacs is not None else hand
        off = None if known is None else gmacs - known
        within = None if off is None or known is None else abs(off) <= max(0.015 * known, 0.6)
        rows.append(
            {
                "table": row.table,
                "row": row.name,
                "detector": row.detector,
                "paper_millions": row.millions,
                "expected_parameters": row.parameters,
                "parameters": found.parameters,
                "equal": found.parameters == row.parameters,
                "expected_is_a_guess": not row.exact,
                "paper_gmacs": row.gmacs,
                "by_hand_gmacs": None if hand is None else round(hand, 3),
                "gmacs": round(gmacs, 3),
                "off_gmacs": None if off is None else round(off, 3),
                "within_tolerance": within,
            }
        )
        mark = "=" if found.parameters == row.parameters else "!"
        print(
            f"{row.table:6}{row.name:28}{row.millions:11.2f}{found.parameters:12,}{mark:>4}"
            f"{_number(row.gmacs):>9}{_number(hand):>9}{gmacs:9.2f}{_number(off):>8}"
        )
    equal = sum(bool(row["equal"]) for row in rows)
    judged = [bool(row["within_tolerance"]) for row in rows if row["within_tolerance"] is not None]
    print(f"parameters equal in {equal} of {len(rows)} rows")
    print(f"GMACs within 1.5 % or 0.6 G of the paper, or of the count by hand, in {sum(judged)} of {len(judged)} rows")
    RESULT.write_text(json.dumps({"image_size": [800, 1120], "rows": rows}, indent=2) + "\n")
    print(f"written to {RESULT.name}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
