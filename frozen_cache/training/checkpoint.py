"""Checkpoints: one safetensors file each, written aside and renamed, so that a crash leaves the old one.

Names within the file: `head.*` the weights to evaluate, `raw.*` the weights in training where `head.*` is their moving
average, `optimizer.INDEX.*` AdamW's state. Metadata: `run`, a JSON object.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from frozen_cache.errors import UserError


def save_checkpoint(path: Path, tensors: dict[str, Tensor], *, run: dict[str, Any]) -> None:
    """Write durably and atomically. `run` is plain JSON data."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, aside, metadata={"run": json.dumps(run)})
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def load_checkpoint(path: Path, *, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors whose names start with `prefix`, with the prefix cut off; run metadata).

    Raises:
        UserError: the file is missing, damaged, or no checkpoint of ours.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint {path}: train one with `frozen-cache train-head`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            run = json.loads(metadata["run"])
            tensors = {
                name.removeprefix(prefix): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118  safe_open objects are no dictionaries
                if name.startswith(prefix)
            }
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise UserError(f"{path} is damaged or not a checkpoint of frozen-cache: {error}") from error
    return tensors, run


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state as flat tensors `INDEX.KEY`, in the order of the parameters."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": torch.as_tensor(value) for index, part in state.items() for key, value in part.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
