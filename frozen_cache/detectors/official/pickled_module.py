"""A model that was saved as a whole object, read without its classes: nothing of the file is run or imported.

`torch.load(weights_only=True)` refuses a name that it does not know. Here each such name becomes a class without code,
a stand-in, which keeps what the file says of an object and does nothing else. Modules are then dictionaries of tensors.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class StandIn:
    """An object of a class that is not imported: its name, the arguments of its making, and its attributes."""

    path = ""

    def __new__(cls, *arguments: Any) -> StandIn:
        made = super().__new__(cls)
        made.__dict__["arguments"] = arguments
        return made

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


def load_with_stand_ins(path: Path) -> Any:
    """What a PyTorch file holds; objects of every class that `weights_only` refuses are `StandIn`s.

    Raises:
        pickle.UnpicklingError, RuntimeError and others, as `torch.load` raises them.
        ValueError: not a file of `torch.save` since 1.6.
    """
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    stand_ins: list[Any] = [(type(name.rpartition(".")[2], (StandIn,), {"path": name}), name) for name in unknown]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def is_module(content: Any) -> bool:
    """True for the stand-in of an `nn.Module`."""
    return isinstance(content, StandIn) and isinstance(content.__dict__.get("_modules"), dict)


def modules(root: StandIn, prefix: str = "") -> Iterator[tuple[str, StandIn]]:
    """Every module with its dotted name; the root's is empty."""
    yield prefix.removesuffix("."), root
    for name, child in root.__dict__["_modules"].items():
        if is_module(child):
            yield from modules(child, f"{prefix}{name}.")


def state_dict(root: StandIn) -> dict[str, Tensor]:
    """Parameters and buffers by dotted name."""
    found: dict[str, Tensor] = {}
    for name, module in modules(root):
        own = module.__dict__
        passing = own.get("_non_persistent_buffers_set") or ()
        tensors = {**own.get("_parameters", {}), **own.get("_buffers", {})}
        found |= {
            f"{name}.{key}".removeprefix("."): each
            for key, each in tensors.items()
            if isinstance(each, Tensor) and key not in passing
        }
    return found
