"""Where the time of a training step of the head goes, and how near it is to the machine's own matrix products.

    python benchmarks/head_step.py --work FOLDER [--shapes hdetr-r50] [--size 800 1120] [--batch 1] [--objects 7]
        [--steps 6] [--device auto] [--precision auto] [--set KEY=VALUE ...] [--note TEXT]

FOLDER holds a cache of random maps in the detector's shapes, in float16, made where it is not there. Two passes over
the same steps: `free` is a training as it runs (reading threads, copies ahead, no looks at the device), which gives
images a second and the share of the time that it waits for data; `phases` has its batches at hand and waits for the
device after copy, forward, backward and optimiser. On a CPU the phases are seconds of its own processor time, which
hardly feels who else uses the machine, on a GPU those of the clock. `matmul_share` is the rate of the step's matrix
products and convolutions, over forward and backward, as a share of the rate of one large matrix product in the same
number type, measured in turn with the steps. Every run is added to benchmarks/head_step.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from conditions import processor
from random_cache import random_cache
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from frozen_cache.cache.reader import CacheReader
from frozen_cache.device import pick_device
from frozen_cache.freed_memory import keep_freed_memory, reason_against
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.precision import chosen_precision
from frozen_cache.training.batches import TrainingBatch, ViewStore, make_batch
from frozen_cache.training.code_version import code_version
from frozen_cache.training.config import TrainConfig, load_config, parse_set
from frozen_cache.training.reading import ReadAhead, on_device
from frozen_cache.training.step import TrainingStep
from frozen_cache.training.tuning import ShownBatch

RESULT = Path(__file__).with_suffix(".json")
SIDE = {"cpu": 1024, "cuda": 8192}
"""Of the large matrix product."""
VIEWS = {"view", "t", "transpose", "permute", "expand", "unsqueeze", "select", "slice", "split", "split_with_sizes"}
VIEWS |= {"detach", "unbind", "alias", "squeeze", "as_strided", "_unsafe_view", "diagonal", "unfold"}
"""Operators that launch nothing on a device."""


class Operations(TorchDispatchMode):
    """Counts what would be launched on a device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


class Bench:
    """One head, one cache, one device."""

    def __init__(self, cache: Path, config: TrainConfig, device: torch.device) -> None:
        self.device, self.config = device, config
        reader = CacheReader(cache)
        layer = reader.attributes.detector.encoder_layers[-1]
        torch.manual_seed(0)
        head = MaskHead(config=config.head, inputs=reader.head_inputs(layer)).to(device)
        # Nothing is kept in memory, so each view is read again, as of a cache that is larger than it.
        self.store = ViewStore(reader, encoder_layer=layer, c1=head.uses_c1, memory_bytes=0)
        self.accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=device.type == "cpu")
        self.step = TrainingStep(head=head, config=config, accelerator=self.accelerator)
        self.step.prepare()

    def run(self, number: int, batch: TrainingBatch | ShownBatch) -> None:
        """One step."""
        torch.manual_seed(number)
        self.step(batch, rate=1e-4)

    def views(self, number: int) -> list[int]:
        """Of a step, in turn."""
        size, total = self.config.optim.batch_size, len(self.store.reader.views)
        return [(number * size + at) % total for at in range(size)]

    def free(self, steps: int) -> dict[str, float]:
        """A training as it runs."""
        planned = iter([(number, self.views(number)) for number in range(steps + 1)])
        reading = ReadAhead(
            self.store, planned, self.config, roi_side=self.config.head.mask_side, pinned=self.device.type == "cuda"
        )
        started = waited = 0.0
        for number, _, batch in on_device(iter(reading), self.device):
            self.run(number, batch)
            if number == 0:  # the first warms up
                self.wait()
                started, waited = time.perf_counter(), reading.waited
        self.wait()
        seconds = time.perf_counter() - started
        return {
            "images_per_second": round(steps * self.config.optim.batch_size / seconds, 4),
            "data_wait_share": round((reading.waited - waited) / seconds, 4),
            "reading_threads": reading.workers,
        }

    def phases(self, steps: int) -> dict[str, Any]:
        """Seconds a step by phase, the share of the matrix product's rate, operations."""
        spent: dict[str, list[float]] = defaultdict(list)
        with (
            self._timed("forward", self.step, "losses", spent),
            self._timed("backward", self.accelerator, "backward", spent),
        ):
            for number in range(steps):
                spent["matmul"].append(self.matmul())
                made = self.batch(number)
                started = self.now()
                batch = made.to(self.device)
                spent["copy"].append(self.now() - started)
                started = self.now()
                self.run(number, batch)
                spent["optimiser"].append(self.now() - started - spent["forward"][-1] - spent["backward"][-1])
        rate = 2 * SIDE[self.device.type] ** 3 / statistics.median(spent.pop("matmul"))
        batch = self.batch(0).to(self.device)
        with FlopCounterMode(display=False) as flops:
            self.run(0, batch)
        with Operations() as operations:
            self.run(0, batch)
        seconds = {name: statistics.median(values) for name, values in spent.items()}
        share = flops.get_total_flops() / (seconds["forward"] + seconds["backward"]) / rate
        return {
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "seconds_a_step": round(sum(seconds.values()), 4),
            "gflop_a_step": round(flops.get_total_flops() / 1e9, 1),
            "matmul_gflop_per_second": round(rate / 1e9, 1),
            "matmul_share": round(share, 3),
            "operations": operations.count,
        }

    def batch(self, number: int) -> TrainingBatch:
        """Read at once."""
        side = self.config.head.mask_side
        pinned = self.device.type == "cuda"
        return make_batch(self.store, self.views(number), self.config, roi_side=side, seed=number, pinned=pinned)

    def matmul(self) -> float:
        """Seconds of the large matrix product."""
        side = SIDE[self.device.type]
        kind = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.config.mixed_precision]
        left, right = torch.randn(2, side, side, device=self.device).to(kind)
        left @ right
        started = self.now()
        left @ right
        return self.now() - started

    def now(self) -> float:
        """After all that the device was given: processor time of a CPU, the clock of a GPU."""
        self.wait()
        return time.perf_counter() if self.device.type == "cuda" else time.process_time()

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def _timed(self, name: str, owner: Any, method: str, spent: dict[str, list[float]]) -> Iterator[None]:
        """Within, calls of a method are timed."""
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            started = self.now()
            result = original(*arguments, **options)
            spent[name].append(self.now() - started)
            return result

        setattr(owner, method, timed)
        yield
        delattr(owner, method)

    def peak(self) -> float:
        """GB: of tensors on a GPU, of the whole process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    """Run, print, and keep the result beside those of before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shapes", default="hdetr-r50")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1120))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--objects", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="no", choices=["no", "bf16", "fp16", "auto"])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    keep_freed_memory()  # as the console command does
    device = pick_device(given.device)
    config = load_config(
        preset=given.preset,
        overrides=parse_set(given.settings)
        | {"optim.batch_size": given.batch, "mixed_precision": chosen_precision(given.precision, device)},
    )
    size = (given.size[0], given.size[1])
    cache = random_cache(given.work, shapes=given.shapes, size=size, objects=given.objects, images=4 * given.batch)
    bench = Bench(cache, config, device)
    result = {"free": bench.free(given.steps), "phases": bench.phases(given.steps), "peak_gb": round(bench.peak(), 2)}
    conditions = {
        "code": code_version(),
        "note": given.note,
        "shapes": given.shapes,
        "image_size": list(size),
        "batch_size": given.batch,
        "objects_per_image": given.objects,
        "preset": given.preset,
        "settings": given.settings,
        "precision": config.mixed_precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "freed_memory": "kept" if reason_against() is None else "given back",
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=2))
    earlier = json.loads(RESULT.read_text())["runs"] if RESULT.is_file() else []
    RESULT.write_text(json.dumps({"runs": [*earlier, {"conditions": conditions} | result]}, indent=2) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
