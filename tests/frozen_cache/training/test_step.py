"""A training step never waits for the device and runs few operations, seen on the CPU by what it calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from random_steps import HEADS, a_step, random_batch, weak_batch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from frozen_cache.attention.backends import SWITCH
from frozen_cache.training.watch import StepNumbers, Watch

MOST_OPERATIONS = 2_500
WAITING = {
    "_local_scalar_dense",
    "is_nonzero",
    "item",
    "equal",
    "nonzero",
    "masked_select",
    "unique_consecutive",
    "unique_dim",
    "_unique2",
    "bincount",
    "lift_fresh",
}
"""Operators that need a number of the device on the host, or copy one from the host."""
FETCHING = {
    *(getattr(Tensor, name) for name in ("item", "tolist", "numpy", "cpu", "new_tensor", "nonzero", "unique")),
    *(getattr(Tensor, f"__{name}__") for name in ("bool", "int", "float", "index", "len", "contains")),
    torch.tensor,
    torch.as_tensor,
} - {Tensor.__len__}
"""Functions that do the same, some of them without an operator where the device is the CPU."""
VIEWS = {"view", "t", "transpose", "permute", "expand", "unsqueeze", "select", "slice", "split", "split_with_sizes"}
VIEWS |= {"detach", "unbind", "alias", "squeeze", "as_strided", "_unsafe_view", "diagonal", "unfold"}
"""Operators that launch nothing on a device."""


class Functions(TorchFunctionMode):
    """Refuses calls from Python that wait."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in FETCHING, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Refuses operators that wait, and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITING, f"{func} waits for the device"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            by = [each for each in args[1] if each is not None]
            assert all(each.dtype not in (torch.bool, torch.uint8) for each in by), f"{func} by a mask waits"
        if name == "repeat_interleave":
            assert (kwargs or {}).get("output_size") is not None, f"{func} without output_size waits"
        self.counts[name] += name not in VIEWS
        return func(*args, **(kwargs or {}))


@contextmanager
def watching() -> Iterator[Counter[str]]:
    """Counts operators within, and fails where one waits for the device."""
    with Operators() as operators, Functions():
        yield operators.counts


@pytest.mark.parametrize(("head", "half"), [*((head, None) for head in HEADS), ("paper", torch.float16)])
def test_a_step_waits_for_nothing_and_runs_few_operations_whatever_the_number_of_objects(
    head: str, half: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "grid_sample")  # as GPUs do it
    step, config = a_step(HEADS[head], half=half)
    watch = Watch(precision="no", run=Path("run"), reduce=lambda values: values)
    sizes = [(64, 96)] * 3 + [(96, 64)] * 2 + [(64, 120)] * 3
    found = []
    for at, counts in enumerate(([1] * 8, [1] * 8, [7, 1, 2, 3, 20, 5, 1, 9])):
        batch = random_batch(sizes, counts, side=config.head.mask_side)
        with watching() as operations:
            result = step(batch, rate=1e-3)
            watch.add(StepNumbers(step=at, images=[1], rate=1e-3, values=result.values))
        found.append(sum(operations.values()))
    assert 0 < max(found[1:]) <= MOST_OPERATIONS
    assert found[1] == found[2], "operations do not grow with the objects"
    assert watch.check()["rois"] == 48


@pytest.mark.parametrize("head", ["paper", "refined"])
def test_a_step_on_objects_without_masks_waits_for_nothing_either(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "grid_sample")  # as GPUs do it
    step, config = a_step(HEADS[head])
    found = []
    for number, counts in enumerate(([2, 2], [2, 2], [9, 1])):
        batch = weak_batch([(64, 96), (96, 64)], counts, side=config.head.mask_side, seed=number)
        with watching() as operations:
            result = step(batch, rate=1e-3, progress=0.01)
        found.append(sum(operations.values()))
    assert found[1] == found[2], "operations do not grow with the objects"
    assert {"guess", "projection", "pairwise", "annotated", "bce"} < set(result.values)
    assert all(torch.isfinite(value) for value in result.values.values())


@pytest.mark.parametrize("head", ["everything", "swin", "unet"])
def test_recomputed_layers_give_the_same_weights_from_less_memory(head: str) -> None:
    weights, kept = [], []
    for recompute in (False, True):
        step, config = a_step(HEADS[head] | {"recompute": recompute})
        batch = random_batch([(64, 96)] * 2, [2, 3], side=config.head.mask_side)
        bytes_kept: dict[int, int] = {}

        def keep(tensor: Tensor, found: dict[int, int] = bytes_kept) -> Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = torch.stack(list(step.losses(batch, count=5.0).values())).sum()
        kept.append(sum(bytes_kept.values()))
        loss.backward()
        weights.append({name: value.grad for name, value in step.head.named_parameters()})
    assert kept[1] < 0.7 * kept[0]
    assert all(torch.equal(weights[0][name], gradient) for name, gradient in weights[1].items())


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: float(x.sum()),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x * torch.tensor(2.0),
        lambda x: x.unique(),
    ],
)
def test_the_watch_sees_what_waits(waits: Callable[[Tensor], Any]) -> None:
    with pytest.raises(AssertionError, match="wait"), watching():
        waits(torch.ones(3))
