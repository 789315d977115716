"""The fingerprint of weights."""

from __future__ import annotations

import torch

from frozen_cache.detectors.fingerprint import weights_sha256

WEIGHTS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor(True),
    "c": torch.zeros(0),
    "d": torch.ones(2).bfloat16(),
}


def test_is_the_same_whatever_the_order_and_the_memory_layout() -> None:
    turned = {name: WEIGHTS[name] for name in reversed(WEIGHTS)} | {"a": WEIGHTS["a"].T.contiguous().T}
    assert weights_sha256(turned) == weights_sha256(WEIGHTS)


def test_changes_with_names_shapes_dtypes_and_values() -> None:
    changed = [
        {"A" if name == "a" else name: each for name, each in WEIGHTS.items()},
        WEIGHTS | {"a": WEIGHTS["a"].view(3, 2)},
        WEIGHTS | {"a": WEIGHTS["a"].view(torch.int32)},
        WEIGHTS | {"a": WEIGHTS["a"] + 1},
        WEIGHTS | {"e": torch.zeros(1)},
    ]
    assert len({weights_sha256(each) for each in [WEIGHTS, *changed]}) == len(changed) + 1
