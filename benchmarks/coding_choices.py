"""Ways to code a map that the cache does not take, against the one it takes, on real maps: bits and squared errors.

    python benchmarks/coding_choices.py --work FOLDER [--views 16]

FOLDER is that of real_coco.py (its `val-2x.zarr`). The first `BASIS_VIEWS` views give the basis, the next ones are
measured. Error: squared, as a part of each channel's variance in its view, mean over channels. "saved" compares bytes
at equal error: the bits of `coded` at the error that the other way has at each step, between the measured steps.
Three minutes of a core. Results: benchmarks/coding_choices.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import conditions
from numcodecs import Zstd
from torch import Tensor

from frozen_cache.cache.layout import CHUNK_BYTES, ZSTD_LEVEL
from frozen_cache.cache.nibbles import packed
from frozen_cache.cache.quantise import coded, dequantised
from frozen_cache.cache.reader import CacheReader

RESULT = Path(__file__).with_suffix(".json")
STEPS = (0.5, 0.7, 1.0, 1.5, 2.2, 3.0)
BASIS_VIEWS = 16
DEAD_ZONE = 0.6
"""Steps to either side of 0 that become 0, where rounding has 0.5."""

Coding = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""(C, H, W) map, (C, C) basis and S to (C, H, W) int8 and the (C, H, W) map that they stand for."""


def as_taken(a_map: Tensor, basis: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """What `--precision coded` does."""
    integers, scales, shifts = coded(a_map, step=step)
    return integers, dequantised(integers, scales, shifts)


def middles(a_map: Tensor, basis: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Without the shift's mean error: each integer stands for the middle of its bin."""
    integers, scales, _ = coded(a_map, step=step)
    base = (a_map.mean((1, 2)) / scales.clamp(min=1e-30)).round() * scales
    return integers, dequantised(integers, scales, base)


def bin_means(a_map: Tensor, basis: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Each integer of -3 to 3 stands for the mean of its bin, in steps, over all channels of the map; without a shift
    for each channel."""
    integers, middle = middles(a_map, basis, step)
    _, scales, _ = coded(a_map, step=step)
    off = (a_map - middle) / scales.clamp(min=1e-30)[:, None, None]
    for value in range(-3, 4):
        mine = integers == value
        if mine.any():
            middle = torch.where(mine, middle + off[mine].mean() * scales[:, None, None], middle)
    return integers, middle


def dead_zone(a_map: Tensor, basis: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """As taken, but more becomes 0."""
    integers, scales, _ = coded(a_map, step=step)
    base = (a_map.mean((1, 2)) / scales.clamp(min=1e-30)).round() * scales
    at = (a_map - base[:, None, None]) / scales.clamp(min=1e-30)[:, None, None]
    integers = torch.where(at.abs() < DEAD_ZONE, 0, integers)
    shifts = (a_map - dequantised(integers, scales)).mean((1, 2))
    return integers, dequantised(integers, scales, shifts)


def in_basis(a_map: Tensor, basis: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Channels of variance 1 turned into the basis, where all components have the same step; the shift of each is the
    mean error of its rounding."""
    mean, deviation = a_map.mean((1, 2), keepdim=True), a_map.std((1, 2), keepdim=True, correction=0)
    turned = torch.tensordot(basis, (a_map - mean) / deviation.clamp(min=1e-30), dims=1)
    scale = max(step, float(turned.abs().max()) / 126)
    integers = (turned / scale).round().to(torch.int8)
    found = integers * scale
    found = found + (turned - found).mean((1, 2), keepdim=True)
    return integers, torch.tensordot(basis.T.contiguous(), found, dims=1) * deviation + mean


WAYS: dict[str, Coding] = {
    "coded": as_taken,
    "middle of the bin": middles,
    "means of the bins": bin_means,
    f"0 up to {DEAD_ZONE:g} steps": dead_zone,
    "orthonormal basis": in_basis,
}


def maps_of(reader: CacheReader, at: int) -> dict[str, Tensor]:
    """Name -> (C, H, W) float32 map of one view."""
    view = reader.read(at)
    assert view.c1 is not None
    [levels] = view.encoder.values()
    return {"C1": view.c1.float()} | {
        f"{len(level)} x {level.shape[1]} x {level.shape[2]}": level.float() for level in levels
    }


def principal(maps: list[Tensor]) -> Tensor:
    """(C, C) orthonormal basis, a component a row: eigenvectors of the correlations of the channels within views."""
    total = torch.zeros(len(maps[0]), len(maps[0]), dtype=torch.float64)
    for a_map in maps:
        flat = a_map.flatten(1).double()
        flat = flat - flat.mean(1, keepdim=True)
        flat = flat / flat.square().mean(1, keepdim=True).sqrt().clamp(min=1e-30)
        total += flat @ flat.T / flat.shape[1]
    return torch.linalg.eigh(total).eigenvectors.T.float().contiguous()


def zstd_bits(integers: Tensor) -> float:
    """Bits a value as the cache packs them."""
    content = packed(integers.numpy().reshape(-1)).tobytes()
    packer = Zstd(level=ZSTD_LEVEL)
    parts = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
    return 8 * sum(len(packer.encode(part)) for part in parts) / len(content)


def relative_error(exact: Tensor, found: Tensor) -> float:
    """Squared error as a part of each channel's variance."""
    varies = exact.var((1, 2), correction=0)
    part = (found - exact).square().mean((1, 2)) / varies
    return float(part[varies > 0].mean())


def saved(rows: list[dict[str, Any]], plain: list[dict[str, Any]]) -> dict[str, float | None]:
    """Step -> the part of `coded`'s bytes that are saved at the same error; None where `coded` has no such error."""
    errors, bits = [row["error"] for row in plain], [row["bits"] for row in plain]
    found: dict[str, float | None] = {}
    for row in rows:
        inside = errors[0] <= row["error"] <= errors[-1]
        same = float(np.interp(np.log(row["error"]), np.log(errors), bits))
        found[f"{row['step']:g}"] = round(1 - row["bits"] / same, 3) if inside else None
    return found


def measured(reader: CacheReader, *, views: int) -> list[dict[str, Any]]:
    """For each map: for each way, bits and error at each step, and what is saved."""
    first = [maps_of(reader, at) for at in range(BASIS_VIEWS)]
    bases = {name: principal([maps[name] for maps in first]) for name in first[0]}
    others = [maps_of(reader, at) for at in range(BASIS_VIEWS, BASIS_VIEWS + views)]
    found = []
    for name, basis in bases.items():
        ways: dict[str, list[dict[str, Any]]] = {}
        for way, code in WAYS.items():
            ways[way] = []
            for step in STEPS:
                pairs = [(maps[name], *code(maps[name], basis, step)) for maps in others]
                ways[way].append(
                    {
                        "step": step,
                        "bits": round(statistics.mean(zstd_bits(integers) for _, integers, _ in pairs), 4),
                        "error": round(statistics.mean(relative_error(exact, values) for exact, _, values in pairs), 5),
                    }
                )
        found.append(
            {
                "map": name,
                "ways": ways,
                "saved": {way: saved(rows, ways["coded"]) for way, rows in ways.items() if way != "coded"},
            }
        )
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--views", type=int, default=16)
    given = parser.parse_args()
    rows = measured(CacheReader(given.work / "val-2x.zarr", allow_incomplete=True), views=given.views)
    told = {
        "detector": "DEIMv2-Atto, backbone maps of stride 8 and 16 and C1 from the image at twice the input size",
        "data": f"coco_mini val: basis from {BASIS_VIEWS} views, measured on the next {given.views}",
    }
    RESULT.write_text(json.dumps({"conditions": told | conditions(), "maps": rows}, indent=2) + "\n")
    for row in rows:
        print(row["map"])
        for way, found in row["ways"].items():
            print(f"  {way}: " + ", ".join(f"{at['bits']:.2f} bits {at['error']:.3f}" for at in found))
        for way, parts in row["saved"].items():
            print(f"  {way} saves {parts}")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
