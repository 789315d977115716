"""Look at an installation: versions, device, kernels, extras, and a check that they compute what they should."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from packaging.requirements import Requirement

from frozen_cache.attention.backends import GRID_SAMPLE, SWITCH, choose
from frozen_cache.attention.ms_deform_attn import deformable_sampling
from frozen_cache.attention.samples import weighted_samples
from frozen_cache.device import pick_device
from frozen_cache.errors import FrozenCacheError, one_line
from frozen_cache.freed_memory import reason_against
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.detector_shapes import DETECTOR_SHAPES
from frozen_cache.head.inputs import ImageGroup, Rois
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.precision import chosen_precision

PACKAGES = ("frozen-cache", "torch", "torchvision", "transformers", "accelerate", "numpy", "zarr")
EXTRAS_OF_USERS = ("gpu", "fast-cpu", "fast-eval", "onnx", "remote", "supervision", "video")
TOLERANCE = 1e-3
"""Largest difference of a kernel from float64, as a share of the largest number."""


@dataclass
class Diagnosis:
    """What was found."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What does not work; none in a sound installation."""

    @property
    def exit_code(self) -> int:
        """0 where all that is used works, else 1."""
        return 1 if self.faults else 0

    def text(self) -> str:
        """What the command prints."""
        end = "all that is used here works" if not self.faults else "\n".join(f"FAULT {fault}" for fault in self.faults)
        return "\n".join([*self.lines, end])


def doctor(*, device: str = "auto") -> Diagnosis:
    """Look, and try what would be used on `device`.

    Raises:
        UserError: no such device.
    """
    chosen = pick_device(device)
    found = Diagnosis()
    versions = ", ".join([f"Python {platform.python_version()}", *map(_version, PACKAGES)])
    found.lines += textwrap.wrap(versions, width=80, subsequent_indent="  ", break_on_hyphens=False)
    found.lines.append(f"device: {_device(chosen)}")
    found.lines.append(f"mixed_precision=auto: {chosen_precision('auto', chosen)}")
    against = reason_against()
    found.lines.append("freed memory: " + ("kept" if against is None else f"given back ({against})"))
    try:
        backend = choose(device=chosen.type, dtype=torch.float32)
    except FrozenCacheError as error:
        found.faults.append(str(error))
    else:
        found.lines.append(f"deformable attention: {backend.name} ({backend.why})")
    found.lines += [line for extra in EXTRAS_OF_USERS if (line := _missing(extra))]
    if not found.faults:
        _try(found, "deformable attention", lambda: _check_attention(chosen))
        _try(found, "a step of the head", lambda: _check_head(chosen))
    return found


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} unknown"


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return f"{found.name}, SM {found.major}.{found.minor}, {found.total_memory / 2**30:.0f} GiB"
    return f"{device.type}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _missing(extra: str) -> str | None:
    """A line for an extra that is not installed as a whole."""
    absent = []
    for text in requires("frozen-cache") or []:
        wanted = Requirement(text)
        if (
            wanted.marker is None
            or wanted.marker.evaluate({"extra": ""})
            or f'extra == "{extra}"' not in str(wanted.marker)
        ):
            continue
        if not wanted.marker.evaluate({"extra": extra}):
            absent.append(f"{wanted.name} (not for Python {platform.python_version()})")
        elif _version(wanted.name).endswith("unknown"):
            absent.append(wanted.name)
    return f"extra {extra} not installed: {', '.join(absent)}" if absent else None


def _try(found: Diagnosis, what: str, check: Callable[[], str]) -> None:
    """Whatever goes wrong in a check is a finding, not an end."""
    try:
        found.lines.append(f"{what}: {check()}")
    except Exception as error:
        found.faults.append(f"{what}: {one_line(error)}")


def _check_attention(device: torch.device) -> str:
    """Result and gradients beside those of `grid_sample` in float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 9), (4, 5)]
    given = [
        torch.randn(2, 83, 4, 8, generator=generator),
        torch.rand(2, 11, 4, 2, 4, 2, generator=generator) * 1.4 - 0.2,
        torch.rand(2, 11, 4, 2, 4, generator=generator),
    ]
    value, locations, weights = (each.double().requires_grad_() for each in given)
    grid = (2 * locations - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)
    plain = weighted_samples(value, shapes, grid, weights.permute(0, 2, 3, 4, 1).flatten(0, 1))
    expected = plain.view(2, 32, 11).transpose(1, 2)
    expected.square().sum().backward()
    mine = [each.to(device).requires_grad_() for each in given]
    trained = deformable_sampling(mine[0], shapes, mine[1], mine[2])
    trained.square().sum().backward()
    with torch.no_grad():
        inferred = deformable_sampling(mine[0], shapes, mine[1], mine[2])
    pairs = [(trained, expected), (inferred, expected)]
    pairs += [(one.grad, other.grad) for one, other in zip(mine, (value, locations, weights), strict=True)]  # type: ignore[misc]
    worst = max(
        float((one.detach().cpu() - other.detach()).abs().max() / other.detach().abs().max()) for one, other in pairs
    )
    if not worst <= TOLERANCE:
        raise ArithmeticError(f"{worst:.1e} from float64, more than {TOLERANCE}: set {SWITCH}={GRID_SAMPLE}")
    return f"{worst:.0e} from float64, gradients included"


def _check_head(device: torch.device) -> str:
    """A small head forward and backward, in the precision that the device computes fast."""
    torch.manual_seed(0)
    inputs = DETECTOR_SHAPES["hdetr-r50"]
    head = MaskHead(config=HeadConfig(width=16, roi_size=8, image_width=16), inputs=inputs).to(device)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(device)

    group = ImageGroup(
        c1=noise(1, 256, 32, 32), levels=[noise(1, 256, side, side) for side in (16, 8, 4, 2)], sizes=[None], counts=[2]
    )
    zeros = torch.zeros(2, dtype=torch.int64, device=device)
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.6, 0.2, 0.5]], device=device)
    rois = Rois(image_index=zeros, boxes=boxes, queries=noise(2, 256), labels=zeros)
    precision = chosen_precision("auto", device)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.autocast(device.type, dtype=half, enabled=half is not None):
        output = head([group], rois)
    output.mask_logits.square().mean().backward()
    gradients = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    if not all(torch.isfinite(each).all() for each in [output.mask_logits, *gradients]):
        raise ArithmeticError(f"not finite in {precision}")
    return f"finite in {'float32' if precision == 'no' else precision}"
