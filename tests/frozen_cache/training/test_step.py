"""A training step never waits for the device and runs few operations, seen on the CPU by what it calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from frozen_cache.cache.stored_map import StoredMap
from frozen_cache.detectors.output import FeatureSpec
from frozen_cache.head.inputs import HeadInputs, Rois
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.batches import TrainingBatch
from frozen_cache.training.config import TrainConfig, with_overrides
from frozen_cache.training.step import TrainingStep
from frozen_cache.training.stored_group import StoredFeatures, stored_groups
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


INPUTS = HeadInputs(
    query_dim=16,
    c1=FeatureSpec(channels=8, stride=4),
    levels=tuple(FeatureSpec(channels=16, stride=stride) for stride in (8, 16, 32, 64)),
    num_classes=3,
)
SMALL = {"head.width": 8, "head.roi_size": 8, "loss.points": 16, "optim.ema_decay": 0.9, "optim.clip_grad_norm": 1.0}
HEADS: dict[str, dict[str, Any]] = {
    "paper": {},
    "everything": {"head.query_blocks": ["ffn", "b2o", "o2o"], "head.box_layers": 4},
    "swin": {"head.image_encoder": "swin", "head.box_encoder": "swin", "loss.supervision": "dense"},
    "unet": {"head.box_encoder": "unet", "head.query_in_roi": True, "head.fused_levels": "all", "head.roi_scale": 1.2},
    "segmenter": {"head.mask_head": "segmenter", "head.box_encoder": "convnext", "head.image_encoder": "convnext"},
    "mask r-cnn": {"head.mask_head": "fcn", "head.query_blocks": [], "head.box_encoder": "fcn"},
}


def random_batch(
    sizes: list[tuple[int, int]], counts: list[int], *, side: int, seed: int = 0, dtype: torch.dtype = torch.float16
) -> TrainingBatch:
    """Noise: images of these sizes in pixels, with so many RoIs each."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)

    def of(spec: FeatureSpec, size: tuple[int, int]) -> StoredMap:
        shape = (spec.channels, -(-size[0] // spec.stride), -(-size[1] // spec.stride))
        return StoredMap(torch.randn(shape, generator=generator).to(dtype))

    assert INPUTS.c1 is not None
    boxes = torch.rand(total, 4, generator=generator) * 0.4 + 0.3
    images = [
        StoredFeatures(c1=of(INPUTS.c1, size), levels=[of(level, size) for level in INPUTS.levels], size=size)
        for size in sizes
    ]
    rois = Rois(
        image_index=torch.arange(len(sizes)).repeat_interleave(torch.tensor(counts)),
        boxes=boxes,
        queries=torch.randn(total, INPUTS.query_dim, generator=generator),
        labels=torch.randint(0, INPUTS.num_classes, (total,), generator=generator),
    )
    return TrainingBatch(
        groups=stored_groups(images, counts, pinned=False),
        rois=rois,
        targets=(torch.rand(total, side, side, generator=generator) > 0.5).float(),
        box_areas=boxes[:, 2] * boxes[:, 3] * 1000,
        object_areas=torch.full((total,), 100.0),
    )


def a_step(overrides: dict[str, Any]) -> tuple[TrainingStep, TrainConfig]:
    config = with_overrides({}, SMALL | overrides)
    torch.manual_seed(0)
    head = MaskHead(config=config.head, inputs=INPUTS)
    step = TrainingStep(head=head, config=config, accelerator=Accelerator(cpu=True))
    step.prepare()
    return step, config


@pytest.mark.parametrize("head", HEADS)
def test_a_step_waits_for_nothing_and_runs_few_operations_whatever_the_number_of_objects(head: str) -> None:
    step, config = a_step(HEADS[head])
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
