"""Random textures: what fills the objects of a demo scene and what lies behind them."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.float32]


def vivid(rng: np.random.Generator, *, hue: float) -> NDArray[np.float32]:
    """Strong RGB colour `(3,)` in 0..255 near a hue in 0..1."""
    near = (hue + rng.normal(0, 0.03)) % 1
    rgb = colorsys.hsv_to_rgb(near, rng.uniform(0.6, 1.0), rng.uniform(0.5, 1.0))
    return np.array(rgb, dtype=np.float32) * np.float32(255)


def dull(rng: np.random.Generator) -> NDArray[np.float32]:
    """Pale or grey RGB colour `(3,)` in 0..255."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.3), rng.uniform(0.35, 0.9))
    return np.array(rgb, dtype=np.float32) * np.float32(255)


def _smooth_noise(rng: np.random.Generator, *, height: int, width: int, cell: float) -> Picture:
    """Noise `(height, width)` in 0..1 whose grains are about `cell` pixels wide."""
    coarse = rng.integers(0, 256, (max(2, round(height / cell)), max(2, round(width / cell))), dtype=np.uint8)
    fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(fine, dtype=np.float32) / np.float32(255)


def _pattern(rng: np.random.Generator, *, height: int, width: int, period: float) -> Picture:
    """Weight `(height, width)` in 0..1 of the second colour: stripes, checks, dots, noise, a gradient or none."""
    y, x = np.ogrid[:height, :width]
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    along = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period) + phase
    across = (y * np.cos(angle) - x * np.sin(angle)) * (2 * np.pi / period)
    # The factor makes edges sharp but not jagged.
    match rng.choice(["stripes", "checks", "dots", "noise", "gradient", "plain"]):
        case "stripes":
            return np.clip(2 * np.sin(along) + 0.5, 0, 1).astype(np.float32)
        case "checks":
            return np.clip(3 * np.sin(along) * np.sin(across) + 0.5, 0, 1).astype(np.float32)
        case "dots":
            return np.clip(4 * (np.cos(along) + np.cos(across) - 0.9), 0, 1).astype(np.float32)
        case "noise":
            return _smooth_noise(rng, height=height, width=width, cell=period / 2)
        case "gradient":
            ramp = x * np.cos(angle) + y * np.sin(angle)
            return ((ramp - ramp.min()) / max(float(np.ptp(ramp)), 1.0)).astype(np.float32)
        case _:
            return np.zeros((height, width), dtype=np.float32)


def fill(rng: np.random.Generator, *, height: int, width: int, hue: float) -> Picture:
    """Texture `(height, width, 3)` in 0..255 for an object: two shades near a hue in 0..1."""
    first = vivid(rng, hue=hue)
    # The second shade is the first made lighter or darker: two free colours would hide the outline (and look garish).
    second = first * 0.45 if rng.random() < 0.5 else first + (255 - first) * 0.6
    weight = _pattern(rng, height=height, width=width, period=float(rng.uniform(7, 16)))[..., None]
    return first * (1 - weight) + second * weight


def background(rng: np.random.Generator, *, height: int, width: int) -> Picture:
    """Texture `(height, width, 3)` in 0..255 for a whole scene: two dull colours, soft light, grain."""
    first, second = dull(rng), dull(rng)
    weight = 0.7 * _pattern(rng, height=height, width=width, period=float(rng.uniform(10, 40)))[..., None]
    picture = first * (1 - weight) + second * weight
    light = 0.8 + 0.4 * _smooth_noise(rng, height=height, width=width, cell=90)
    return picture * light[..., None]
