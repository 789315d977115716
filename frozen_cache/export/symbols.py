"""Keeping sizes free while a graph is recorded: without these, some calls would fix them to those of the recording."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def sizes_stay_free(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Meanwhile `torch.linspace` is `free_linspace`, `torch.as_tensor` of a list is `free_tensor`, and `len(tensor)` in
    the model files of transformers, of which the modules are, is `tensor.shape[0]`.

    The built-in must return a number, which would fix the batch of RT-DETR and its heirs.
    """
    names = {type(module).__module__ for module in modules}
    with contextlib.ExitStack() as stack:
        for name in sorted(name for name in names if name.startswith("transformers.models.")):
            stack.enter_context(mock.patch.dict(vars(sys.modules[name]), {"len": _length}))
        stack.enter_context(_FreeSizes())
        yield


def free_linspace(start: Any, end: Any, steps: Any, **options: Any) -> Tensor:
    """`torch.linspace`, whose number of steps may be a symbol; torch's own turns it into a number."""
    step = (end - start) / torch.sym_max(steps - 1, 1)
    return torch.arange(steps, **options) * step + start


def free_tensor(values: Any, **options: Any) -> Tensor:
    """`torch.as_tensor` of nested lists of numbers, which may be symbols; torch's own turns them into numbers."""
    if isinstance(values, list | tuple):
        return torch.stack([free_tensor(each, **options) for each in values])
    return torch.scalar_tensor(values, **options)


class _FreeSizes(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        replacement = func
        if func is torch.linspace:
            replacement = free_linspace
        elif func is torch.as_tensor and args and isinstance(args[0], list | tuple) and "dtype" in (kwargs or {}):
            replacement = free_tensor
        return replacement(*args, **(kwargs or {}))


def _length(values: Any) -> int:
    return values.shape[0] if isinstance(values, Tensor) else len(values)
