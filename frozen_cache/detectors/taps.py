"""Reading what modules are given and return during one forward pass. Hooks live for that pass only."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Taps:
    """Context manager: keeps the last call of each of the named modules.

    >>> with Taps({"head": model.class_embed}) as taps:
    ...     model(images)
    >>> taps.inputs["head"][0], taps.outputs["head"]
    """

    def __init__(self, modules: dict[str, nn.Module], *, with_inputs: Iterable[str] = ()) -> None:
        self.modules = modules
        self.with_inputs = frozenset(with_inputs)
        self.inputs: dict[str, tuple[Any, ...]] = {}
        self.keywords: dict[str, dict[str, Any]] = {}
        self.outputs: dict[str, Any] = {}
        """In the order of the calls."""
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Taps:
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_hook(self._keep(name), with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            if name in self.with_inputs:
                self.inputs[name], self.keywords[name] = inputs, keywords
            self.outputs.pop(name, None)
            self.outputs[name] = output

        return hook


class _ReachedError(Exception):
    """The module that was waited for is done."""


def run_until(model: nn.Module, module: nn.Module, images: Tensor) -> None:
    """Run `model` on images (B, 3, H, W) only as far as the end of `module`: what follows may not take their size."""

    def stop(*call: Any) -> None:
        raise _ReachedError

    handle = module.register_forward_hook(stop)
    try:
        model(pixel_values=images)
    except _ReachedError:
        pass
    finally:
        handle.remove()
