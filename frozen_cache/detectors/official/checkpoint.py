"""Reading a checkpoint file without running anything that it contains."""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from frozen_cache.errors import UserError

PLACES = ("model", "ema_model", "state_dict")
"""Where training code puts the state dict, in order of preference; `ema.module` is `module` inside `ema`."""


@dataclass(frozen=True)
class Checkpoint:
    """The part of a checkpoint that matters here."""

    path: Path
    weights: dict[str, Tensor]
    """Official name, without `module.`, to tensor on the CPU."""
    arguments: dict[str, Any]
    """The training run's command line, where the file holds it."""


def read_checkpoint(path: Path, *, places: tuple[str, ...] = PLACES) -> Checkpoint:
    """Read a `.safetensors` file or a PyTorch one: a state dict in one of `places`, or a bare one.

    Raises:
        UserError: no such file, a damaged or foreign one, one that holds more than plain data, one without weights.
    """
    if not path.is_file():
        raise UserError(f"weights {path}: no such file")
    if path.suffix == ".safetensors":
        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"weights {path}: not a readable safetensors file, truncated perhaps ({error})") from None
    else:
        content = opened(path)
    arguments = content.get("args") if isinstance(content, dict) else None
    return Checkpoint(
        path=path,
        weights=_state_dict(content, path, places),
        arguments=vars(arguments) if isinstance(arguments, argparse.Namespace) else {},
    )


def _load_plain(path: Path) -> Any:
    """Plain data, tensors and `argparse.Namespace` only."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def opened(path: Path, load: Callable[[Path], Any] = _load_plain) -> Any:
    """What a PyTorch file holds.

    Raises:
        UserError: a damaged or foreign file, or one that `load` refuses.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK" and not zipfile.is_zipfile(path):
            raise UserError(f"weights {path}: the file is truncated ({path.stat().st_size} bytes); fetch it again")
    try:
        return load(path)
    except pickle.UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL|global|function|class) `?([\w.]+\.[\w.]+)", str(error))
        if refused is not None and "Weights only load failed" in str(error):
            raise UserError(
                f"weights {path}: refused, opening the file would call `{refused[1]}`; if you trust it, save its state "
                "dict alone: torch.save({'model': ...}, FILE)"
            ) from None
        raise UserError(f"weights {path}: not a PyTorch checkpoint, or a damaged one") from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"weights {path}: not a readable checkpoint, truncated perhaps ({detail})") from None


def _state_dict(content: Any, path: Path, places: tuple[str, ...]) -> dict[str, Tensor]:
    """The weights in whatever the file holds, `module.` and profilers' scalars removed."""
    outer = content
    content = next((inner for place in places if (inner := _inside(outer, place)) is not None), outer)
    if not isinstance(content, Mapping):
        raise UserError(f"weights {path}: holds a {type(content).__name__}, expected {{'model': state dict}}")
    weights = {str(name).removeprefix("module."): each for name, each in content.items() if isinstance(each, Tensor)}
    if not weights:
        found = ", ".join(sorted(map(str, content))[:5]) or "nothing"
        raise UserError(f"weights {path}: holds no state dict under {', '.join(places)} (found: {found})")
    return weights


def _inside(content: Any, place: str) -> Mapping[Any, Any] | None:
    """The mapping at a dotted place, if there is one that holds tensors."""
    for name in place.split("."):
        content = content.get(name) if isinstance(content, Mapping) else None
    holds = isinstance(content, Mapping) and any(isinstance(each, Tensor) for each in content.values())
    return content if holds else None
