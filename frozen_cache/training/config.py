"""The typed configuration of a training run. A key that does not exist is an error."""

from __future__ import annotations

import json
import tomllib
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from frozen_cache.errors import UserError
from frozen_cache.head.config import HeadConfig

_STRICT = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


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

    @model_validator(mode="after")
    def _something(self) -> RoiConfig:
        if not (self.matched or self.ground_truth or self.jitter > 0 or self.overlapping_iou is not None):
            raise ValueError("asks for no boxes at all: set matched, ground_truth, jitter or overlapping_iou")
        return self


class LossConfig(BaseModel):
    """Mask loss and mask scoring loss (the paper gives no weights; the lineage's are the defaults)."""

    model_config = _STRICT

    supervision: Literal["points", "dense"] = "points"
    """Where the mask loss looks: at sampled points, or at every cell of the RoI."""
    points: int = Field(default=256, ge=1)
    """N sampled points per RoI, of R x R: 75 % fewer than 32 x 32 (Table 6)."""
    oversample: float = Field(default=3.0, ge=1)
    """k: k N random points are drawn, the most uncertain kept."""
    importance: float = Field(default=0.75, ge=0, le=1)
    """beta: the share of the points that are the most uncertain ones."""
    bce: float = Field(default=5.0, ge=0)
    """Weight of the binary cross-entropy."""
    dice: float = Field(default=5.0, ge=0)
    """Weight of the dice loss."""
    scoring: float = Field(default=1.0, ge=0)
    """Weight of the squared error of the predicted mask IoU (Eq. 12, 13)."""
    refine: float = Field(default=5.0, ge=0)
    """Weight of the binary cross-entropy at the points of the boundary stage (`head.refine`)."""
    guess: float = Field(default=5.0, ge=0)
    """Weight of the binary cross-entropy and of the dice against a guess at the mask, of objects without masks: by the
    colours in the box and around it, and by the points in and outside of the object."""
    projection: float = Field(default=5.0, ge=0)
    """Weight of the projection loss, of objects without masks: dice of the mask's and the box's projections."""
    pairwise: float = Field(default=5.0, ge=0)
    """Weight of the pairwise loss, of objects without masks: cells of like colours are of one thing."""
    pairwise_warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of all steps over which the pairwise loss grows to its weight."""
    annotated: float = Field(default=5.0, ge=0)
    """Weight of the binary cross-entropy at annotated points in and outside of objects without masks."""
    soft_targets: bool = False
    """Targets as covered fractions of each cell instead of 0 / 1."""


class OptimConfig(BaseModel):
    """AdamW and its schedule."""

    model_config = _STRICT

    lr: float = Field(default=1.5e-4, gt=0)
    """Learning rate, after the warm-up and before the schedule lowers it."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay of the mean gradient and of the mean squared gradient."""
    weight_decay: float = Field(default=5e-5, ge=0)
    """Each step takes lr times this share off each weight."""
    epochs: float = Field(default=6.0, gt=0)
    """Passes over all cached views."""
    min_steps: int = Field(default=0, ge=0)
    """At least so many steps: a recipe's `epochs` are few where views are many, and too few where they are not."""
    batch_size: int = Field(default=8, ge=1)
    """Views per step, over all processes."""
    schedule: Literal["step", "cosine"] = "step"
    """The learning rate falls at milestones, or along half a cosine to 0."""
    milestones: tuple[float, ...] = (0.9, 0.95)
    """Step schedule: the learning rate is multiplied by `gamma` at these fractions of all steps."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Step schedule: what the learning rate is multiplied by."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises to `lr` in a straight line."""
    clip_grad_norm: float | None = Field(default=None, gt=0)
    """Gradients of a larger norm, over all weights, are scaled down to it."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Exponential moving average of the weights, which is then what is evaluated and saved as the head."""


class LiveConfig(BaseModel):
    """What only a training with the detector in the loop (`train-head --live`) can do."""

    model_config = _STRICT

    lsj: bool = False
    """Large scale jitter (Table 11): whenever an image is seen it is scaled anew, cut or padded to the one size of all
    inputs, and mirrored or not."""
    lsj_scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.1, 2.0)
    """Least and greatest scale, in units of that which makes the image fit into the input."""

    unfreeze: tuple[Literal["backbone", "encoder", "decoder"], ...] = ()
    """Parts of the detector that train along with the head (Table 16)."""
    detector_lr: float = Field(default=0.1, gt=0)
    """Their learning rate, in units of the head's."""
    detector_loss: float = Field(default=0.0, ge=0)
    """Weight of the detector's own losses, as transformers has them for its families; the paper says nothing of them,
    and 0 leaves them out."""

    @model_validator(mode="after")
    def _rising(self) -> LiveConfig:
        if self.lsj_scale[0] > self.lsj_scale[1]:
            raise ValueError("lsj_scale is [least, greatest]")
        return self


class TrainConfig(BaseModel):
    """Everything that decides the result of a training run, besides the cache."""

    model_config = _STRICT

    head: HeadConfig = HeadConfig()
    """What the mask head is made of."""
    rois: RoiConfig = RoiConfig()
    """Which boxes it trains on."""
    loss: LossConfig = LossConfig()
    """What it is trained for."""
    optim: OptimConfig = OptimConfig()
    """How it is trained."""
    live: LiveConfig = LiveConfig()
    """With the detector in the loop, and never from a cache."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the first weights, the order of the views, and all that is drawn."""
    mixed_precision: Literal["no", "bf16", "fp16", "auto"] = "no"
    """Number type of the head's matrix products: float32, bfloat16, or float16 with a gradient scaler (a GPU); `auto`
    takes bfloat16 where the hardware has it, else float16 on a GPU and float32 on a CPU."""
    recompute: bool = False
    """Compute the layers of image and box encoder again in the backward pass instead of keeping what they made: less
    memory, a longer step, the same result."""
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
        file = PRESETS_FOLDER / f"{preset}.toml"
    elif preset.endswith(".toml") and Path(preset).is_file():
        file = Path(preset)
    else:
        raise UserError(
            f"no preset `{preset}`: known are {', '.join(preset_names())}, or give the path of a .toml file"
        )
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # of TOML, or of bytes that are no text
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
        if first["type"] == "extra_forbidden":
            raise UserError(f"configuration key `{where}` does not exist: {_meant(where)}") from error
        raise UserError(f"configuration key `{where}`: {first['msg']}, got {first['input']!r}") from error


def all_keys(model: type[BaseModel] = TrainConfig, prefix: str = "") -> dict[str, FieldInfo]:
    """Every dotted key of the configuration that holds a value, with its field."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found |= all_keys(section, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def value_of(config: BaseModel, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def non_defaults(config: TrainConfig) -> dict[str, Any]:
    """Dotted keys whose value is not the default, with it."""
    default = TrainConfig()
    return {key: value_of(config, key) for key in all_keys() if value_of(config, key) != value_of(default, key)}


def _meant(key: str) -> str:
    """Which keys somebody may have meant who wrote one that does not exist."""
    section, _, last = key.rpartition(".")
    keys = list(all_keys())
    same = [known for known in keys if known.rpartition(".")[2] == last]
    beside = [known for known in keys if known.rpartition(".")[0] == section]
    near = get_close_matches(key, keys, n=3, cutoff=0.8) or [
        known
        for name in get_close_matches(last, [k.rpartition(".")[2] for k in keys], n=2)
        for known in keys
        if known.rpartition(".")[2] == name
    ]
    if same or near:
        return f"did you mean {' or '.join(dict.fromkeys(same or near))}? `train-head --show-config` lists all keys"
    names = ", ".join(beside) if section and beside else ", ".join(TrainConfig.model_fields)
    return f"known are {names}; `train-head --show-config` lists all keys"


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
        except (ValueError, RecursionError):  # more digits than Python reads are no JSONDecodeError
            overrides[key.strip()] = value
    return overrides


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(f"configuration key `{dotted}`: `{part}` is a value, not a section")
    values[last] = value
