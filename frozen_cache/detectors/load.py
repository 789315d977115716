"""`load_detector`: from what the user writes after `--detector` to a `FrozenDetector`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from frozen_cache.detectors.finer import at_scale
from frozen_cache.detectors.names import CONVERTED
from frozen_cache.detectors.output import DetectorSpec, FrozenDetector
from frozen_cache.detectors.place import check_place
from frozen_cache.errors import UserError


def load_detector(
    spec: str,
    *,
    weights: Path | None = None,
    encoder_layers: tuple[int, ...] | None = None,
    backbone_strides: tuple[int, ...] = (),
    backbone_scale: int = 1,
) -> FrozenDetector:
    """The frozen detector that `spec` names, on the CPU.

    Args:
        spec: a name (`hdetr-r50`; needs `weights`), `hf:DIR_OR_HUB_ID`, or `FILE.py:FACTORY`. FACTORY() returns a
            `FrozenDetector`, or (transformers model, its image processor).
        weights: the checkpoint of a named detector.
        encoder_layers: encoder layers to keep, counted from 1; None for the detector's default.
        backbone_strides: strides of backbone maps to add to the encoder's levels (transformers models only).
        backbone_scale: C1 and the added maps come from the image at so many times the input size.

    Raises:
        UserError: one line that says what was found and what is expected.
    """
    taps = _Taps(encoder_layers, backbone_strides, backbone_scale)
    check_place(spec, weights)
    if spec.startswith("hf:"):
        _refuse_weights(spec, weights)
        from frozen_cache.detectors.hf.pretrained import load_pretrained

        return load_pretrained(spec[3:], **asdict(taps))
    file, colon, factory = spec.rpartition(":")
    if colon and file.endswith(".py"):
        _refuse_weights(spec, weights)
        return _from_factory(Path(file), factory, taps)
    return _named(spec, weights, taps)


@dataclass(frozen=True)
class _Taps:
    """What is to be kept of a detector, as `load_detector` takes it."""

    encoder_layers: tuple[int, ...] | None
    backbone_strides: tuple[int, ...]
    backbone_scale: int


def _named(name: str, weights: Path | None, taps: _Taps) -> FrozenDetector:
    assert weights is not None, "check_place saw to it"
    if name in CONVERTED:
        from frozen_cache.detectors.hf.official_keys import load_by_name

        return load_by_name(name, weights, **asdict(taps))
    if taps.backbone_strides:
        raise UserError(f"added backbone maps are for transformers detectors; {name} has all its levels")
    from frozen_cache.detectors.official import load_official

    return at_scale(load_official(name, weights, taps.encoder_layers), taps.backbone_scale)


def _from_factory(file: Path, factory: str, taps: _Taps) -> FrozenDetector:
    module = _import_file(file)
    make = getattr(module, factory, None)
    if not callable(make):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        found = ", ".join(functions) or "nothing that can be called"
        raise UserError(f"{file} has no factory named {factory or '(empty)'}; it has {found}")
    try:
        with _beside(file):
            made = make()
    except Exception as error:
        raise UserError(f"{file}:{factory} raised {type(error).__name__}: {_one_line(error)}") from error
    name = f"{file.resolve().parent.name}/{file.name}:{factory}"
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        from frozen_cache.detectors.hf.detector import TransformersDetector

        return TransformersDetector(made[0], made[1], name=name, **asdict(taps))
    if callable(made) and isinstance(getattr(made, "spec", None), DetectorSpec):
        other_layers = taps.encoder_layers not in (None, made.spec.encoder_layers)
        if other_layers or taps.backbone_strides:
            raise UserError(
                f"{file}:{factory} made a detector that keeps encoder layers {list(made.spec.encoder_layers)}; "
                "choose layers and added strides in the factory itself"
            )
        return made if taps.backbone_scale == 1 else at_scale(made, taps.backbone_scale)
    raise UserError(
        f"{file}:{factory} returned {_kind(made)}; expected a FrozenDetector, or (transformers model, image processor)"
    )


def _import_file(file: Path) -> ModuleType:
    """Run a user's file as a module of its own name; it may import its neighbours."""
    path = file.resolve()
    name = f"frozen_cache_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--detector: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _beside(file):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{file} cannot be imported: {type(error).__name__}: {_one_line(error)}") from error
    return module


@contextlib.contextmanager
def _beside(file: Path) -> Iterator[None]:
    """The file's folder is importable meanwhile."""
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _refuse_weights(spec: str, weights: Path | None) -> None:
    if weights is not None:
        raise UserError(
            f"--weights goes with a named detector (`frozen-cache detectors` lists them); {spec} has its own weights"
        )


def _kind(made: Any) -> str:
    if isinstance(made, tuple):
        return f"({', '.join(type(item).__name__ for item in made)})"
    return type(made).__name__


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or "no message"
