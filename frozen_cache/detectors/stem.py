"""`Stem`: the part of a frozen detector that gives C1 and the added backbone maps, small enough to lie in a cache.

A stem is a backbone of a known kind, run up to its last stage that is needed: a configuration of plain values and the
weights that this run touches. Nothing of it is code, so that a cache from a stranger executes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.detectors.stages import stage_map
from frozen_cache.detectors.stem_kinds import build_backbone
from frozen_cache.detectors.taps import Taps
from frozen_cache.errors import UserError

NOT_NEEDED = "num_batches_tracked"
TRIAL_SIZE = (256, 320)
"""(height, width) in pixels of the image on which a stem is compared, where the input rule leaves the size open."""


class StemMap(BaseModel):
    """One map that a stem gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    """Dotted path of the stage below the backbone, whose output is the map."""
    scale: int = 1
    """The map comes from the image at so many times the input size."""


class StemConfig(BaseModel):
    """What a stem is, in plain values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    """A key of `stem_kinds.KINDS`."""
    config: dict[str, Any]
    """The backbone's sizes, as its kind names them."""
    c1: StemMap | None = None
    levels: dict[int, StemMap] = {}
    """Index in the detector's `encoder_levels` -> the map that is this level, in every kept layer."""

    @property
    def maps(self) -> list[StemMap]:
        """All maps."""
        return [*([] if self.c1 is None else [self.c1]), *self.levels.values()]

    @property
    def scales(self) -> tuple[int, ...]:
        """Scales at which the image is needed, ascending."""
        return tuple(sorted({each.scale for each in self.maps}))


class Stem:
    """A frozen part of a backbone.

    Args:
        config: what it is.
        tensors: its weights and buffers by their names below the backbone.

    Raises:
        UserError: a kind or a value that is not known, or tensors that do not fit.
    """

    def __init__(self, config: StemConfig, tensors: Mapping[str, Tensor]) -> None:
        self.config = config
        self.tensors = dict(tensors)
        with torch.inference_mode(False):
            self.backbone = _filled(build_backbone(config.kind, config.config), self.tensors)
        modules = dict(self.backbone.named_modules())
        missing = [each.module for each in config.maps if not each.module or each.module not in modules]
        if missing or not config.maps:
            raise UserError(f"a stem of kind {config.kind} has no stage {missing[0] if missing else 'that it runs'}")

    @classmethod
    def take(cls, backbone: nn.Module, config: StemConfig, *, trial: Tensor) -> Stem:
        """The stem of a live backbone: the weights that are used up to its last needed stage.

        Args:
            trial: (1, 3, H, W) images on the backbone's device.
        """
        used: list[str] = []
        modules = dict(backbone.named_modules())
        handles = [
            module.register_forward_pre_hook(lambda *call, name=name: used.append(name))
            for name, module in modules.items()
        ]
        try:
            run_stages(backbone, {each.module for each in config.maps}, trial)
        finally:
            for handle in handles:
                handle.remove()
        tensors = {
            f"{name}.{own}" if name else own: tensor.detach().cpu().contiguous().clone()
            for name in dict.fromkeys(used)
            for own, tensor in [*modules[name]._parameters.items(), *modules[name]._buffers.items()]
            if tensor is not None and own != NOT_NEEDED
        }
        return cls(config, tensors)

    def to(self, device: torch.device | str) -> Stem:
        """Move to a device and return itself."""
        self.backbone.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Mapping[int, Tensor]) -> tuple[Tensor | None, dict[int, Tensor]]:
        """C1 (B, C, H / 4, W / 4), None where the stem gives none, and the levels (B, C, h, w) by their index.

        Args:
            images: scale -> (B, 3, s H, s W) float32, prepared by the detector's input rule; no padding.
        """
        found: dict[StemMap, Tensor] = {}
        for scale in self.config.scales:
            mine = [each for each in self.config.maps if each.scale == scale]
            outputs = self._run({each.module for each in mine}, images[scale])
            found |= {each: outputs[each.module] for each in mine}
        c1 = None if self.config.c1 is None else found[self.config.c1]
        return c1, {index: found[each] for index, each in self.config.levels.items()}

    @torch.no_grad()
    def of_crops(self, images: Tensor, levels: Sequence[int] = ()) -> Tensor:
        """C1 of prepared images (B, 3, H, W), and behind its channels those of further maps, upsampled to its size:
        (B, C, H / 4, W / 4), whatever the scales that the maps have otherwise.

        Args:
            levels: of the maps beside C1, in the detector's `encoder_levels`.

        Raises:
            UserError: a stem that gives no C1, or not these levels.
        """
        if self.config.c1 is None or not set(levels) <= self.config.levels.keys():
            raise UserError("the stem does not give C1 and all maps that were added from the backbone")
        stages = [self.config.c1.module, *(self.config.levels[index].module for index in levels)]
        found = self._run(set(stages), images)
        first, *further = (found[stage] for stage in stages)
        size = (first.shape[2], first.shape[3])
        raised = [F.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in further]
        return torch.cat([first, *raised], dim=1)

    def _run(self, stages: set[str], images: Tensor) -> dict[str, Tensor]:
        try:
            return run_stages(self.backbone, stages, images)
        except (AttributeError, TypeError) as error:  # a weight is None
            raise UserError(f"the stem lacks weights that its stages {', '.join(sorted(stages))} need") from error


def run_stages(backbone: nn.Module, names: set[str], images: Tensor) -> dict[str, Tensor]:
    """The maps (B, C, H, W) of the named stages; the backbone runs no further than the last of them."""
    stages = {name: backbone.get_submodule(name) for name in names}
    with Taps(stages) as taps, _stopping_when(stages, lambda: len(taps.outputs) == len(stages)):
        backbone(images)
    maps = {name: stage_map(output, backbone) for name, output in taps.outputs.items()}
    if len(maps) < len(stages) or any(found is None for found in maps.values()):
        raise UserError(f"the stem's stages {', '.join(sorted(names))} give no maps")
    return {name: found for name, found in maps.items() if found is not None}


class _ReachedError(Exception):
    """All stages are done."""


@contextmanager
def _stopping_when(stages: dict[str, nn.Module], done: Callable[[], bool]) -> Iterator[None]:
    def stop(*call: Any) -> None:
        if done():
            raise _ReachedError

    handles = [module.register_forward_hook(stop) for module in stages.values()]
    try:
        yield
    except _ReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()


def _filled(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A backbone on the meta device with these weights, and nothing where there are none."""
    modules = dict(backbone.named_modules())
    for name, tensor in tensors.items():
        path, _, own = name.rpartition(".")
        module = modules.get(path)
        places = [] if module is None else [module._parameters, module._buffers]
        place: dict[str, Any] | None = next((each for each in places if each.get(own) is not None), None)
        if place is None:
            raise UserError(f"the stem's weights have `{name[:100]}`, which its configuration does not know")
        if place[own].shape != tensor.shape or place[own].dtype != tensor.dtype:
            raise UserError(
                f"the stem's weight `{name[:100]}` is {_kind(tensor)}, its configuration asks for {_kind(place[own])}"
            )
        is_parameter = isinstance(place[own], nn.Parameter)
        place[own] = nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
    for module in modules.values():
        for place in (module._parameters, module._buffers):
            place |= {own: None for own, tensor in place.items() if tensor is not None and tensor.is_meta}
    return backbone.eval()


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def offered_stem(detector: object, *, trial_size: tuple[int, int], device: torch.device, scale: int = 1) -> Stem | None:
    """The stem that a detector offers by its method `stem`, None where it offers none, compared with its own maps.

    Args:
        trial_size: (height, width) of an image that the detector takes.
        device: the detector's; the stem comes back on the CPU.
        scale: the detector's `backbone_scale`.

    Raises:
        UserError: it gives other maps than the detector.
    """
    make = getattr(detector, "stem", None)
    stem: Stem | None = make() if callable(make) else None
    if stem is None:
        return None
    generator = torch.Generator().manual_seed(0)
    images = {
        each: torch.rand(1, 3, each * trial_size[0], each * trial_size[1], generator=generator).to(device)
        for each in {1, scale, *stem.config.scales}
    }
    with torch.no_grad():
        output = detector(images[1], images[scale]) if scale > 1 else detector(images[1])  # type: ignore[operator]
    c1, levels = stem.to(device)(images)
    pairs = [("C1", c1, output.c1)] if c1 is not None else []
    for layer in output.encoder.values():
        pairs += [(f"level {index}", found, layer[index]) for index, found in levels.items()]
    for name, found, own in pairs:
        if own is None or found is None or not _same(found, own):
            raise UserError(f"the stem that this detector offers gives another {name} than the detector")
    return stem.to("cpu")


def _same(found: Tensor, own: Tensor) -> bool:
    """Whether two maps are equal but for rounding."""
    if found.shape != own.shape:
        return False
    largest = own.float().abs().max().item()
    return math.isfinite(largest) and (found.float() - own.float()).abs().max().item() <= 1e-3 * largest
