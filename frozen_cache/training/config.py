"""The typed configuration of a training run. A key that does not exist is an error."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frozen_cache.errors import UserError
from frozen_cache.head.config import HeadConfig

_STRICT = ConfigDict(frozen=True, extra="forbid")


class RoiConfig(BaseModel):
    """Which boxes the head trains on. The paper: the boxes of the matched queries, nothing else."""

    model_config = _STRICT

    matched: bool = True
    """The predicted box of each object's matched query."""
    overlapping_iou: float | None = Field(default=None, ge=0, le=1)
    """Also every selected prediction whose box has at least this IoU with an object, whatever its label."""
    ground_truth: bool = False
    """Also each object's own box, with its matched query."""
    jitter: float = Field(default=0.0, ge=0, lt=1)
    """Also one box a ground-truth or matched box moved and scaled by up to this fraction of its size; 0 for none."""
    max_per_image: int | None = Field(default=None, ge=1)
    """Draw at most this many of them, at random."""


class LossConfig(BaseModel):
    """Mask loss and mask scoring loss (the paper gives no weights; the lineage's are the defaults)."""

    model_config = _STRICT

    supervision: Literal["points", "dense"] = "points"
    points: int = Field(default=256, ge=1)
    """N sampled points per RoI, of R x R: 75 % fewer than 32 x 32 (Table 6)."""
    oversample: float = Field(default=3.0, ge=1)
    """k: k N random points are drawn, the most uncertain kept."""
    importance: float = Field(default=0.75, ge=0, le=1)
    """beta: the share of the points that are the most uncertain ones."""
    bce: float = Field(default=5.0, ge=0)
    dice: float = Field(default=5.0, ge=0)
    scoring: float = Field(default=1.0, ge=0)
    soft_targets: bool = False
    """Targets as covered fractions of each cell instead of 0 / 1."""


class OptimConfig(BaseModel):
    """AdamW and its schedule."""

    model_config = _STRICT

    lr: float = Field(default=1.5e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=5e-5, ge=0)
    epochs: float = Field(default=6.0, gt=0)
    """Passes over all cached views."""
    min_steps: int = Field(default=0, ge=0)
    """At least so many steps: a recipe's `epochs` are few where views are many, and too few where they are not."""
    batch_size: int = Field(default=8, ge=1)
    """Views per step, over all processes."""
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[float, ...] = (0.9, 0.95)
    """Step schedule: the learning rate is multiplied by `gamma` at these fractions of all steps."""
    gamma: float = 0.1
    warmup_steps: int = Field(default=0, ge=0)
    clip_grad_norm: float | None = Field(default=None, gt=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Exponential moving average of the weights, which is then what is evaluated and saved as the head."""


class TrainConfig(BaseModel):
    """Everything that decides the result of a training run, besides the cache."""

    model_config = _STRICT

    head: HeadConfig = HeadConfig()
    rois: RoiConfig = RoiConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    seed: int = 0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    views: int | None = Field(default=None, ge=1)
    """Train on the first so many views of each image; None for all that are cached."""
    eval_every: float = Field(default=1.0, gt=0)
    """Epochs between evaluations on the validation cache."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between `last` checkpoints."""


PRESETS_FOLDER = resources.files("frozen_cache") / "presets"


def preset_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in PRESETS_FOLDER.iterdir() if entry.name.endswith(".toml")
    )


def load_config(*, preset: str = "paper", overrides: dict[str, Any] | None = None) -> TrainConfig:
    """A preset (a shipped name or a TOML file), then overrides by dotted key (`{"optim.lr": 1e-4}`).

    Raises:
        UserError: no such preset, no such key, or a value that does not fit; one line.
    """
    if preset in preset_names():
        text = (PRESETS_FOLDER / f"{preset}.toml").read_text()
    elif preset.endswith(".toml") and Path(preset).is_file():
        text = Path(preset).read_text()
    else:
        raise UserError(
            f"no preset `{preset}`: known are {', '.join(preset_names())}, or give the path of a .toml file"
        )
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"preset {preset} is not valid TOML: {error}") from error
    return with_overrides(values, overrides or {})


def with_overrides(values: dict[str, Any], overrides: dict[str, Any]) -> TrainConfig:
    """Plain nested values with overrides by dotted key put in, validated."""
    for key, value in overrides.items():
        _put(values, key, value)
    return validated(values)


def validated(values: dict[str, Any]) -> TrainConfig:
    """The configuration of plain values; a UserError of one line where they do not fit."""
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        known = f" (known keys: {', '.join(_keys_beside(first['loc']))})" if first["type"] == "extra_forbidden" else ""
        raise UserError(f"configuration key `{where}`: {first['msg']}, got {first['input']!r}{known}") from error


def exact_epochs(epochs: float) -> dict[str, Any]:
    """Overrides for so many passes, no more even where a preset wants more steps."""
    return {"optim.epochs": epochs, "optim.min_steps": 0}


def parse_set(items: list[str]) -> dict[str, Any]:
    """`["head.width=96", "optim.lr=1e-4"]` as `{"head.width": 96, "optim.lr": 1e-4}`; values are JSON, else text."""
    overrides: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes key=value, got `{item}`")
        try:
            overrides[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            overrides[key.strip()] = value
    return overrides


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(f"configuration key `{dotted}`: `{part}` is a value, not a section")
    values[last] = value


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = TrainConfig
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return sorted(model.model_fields)
