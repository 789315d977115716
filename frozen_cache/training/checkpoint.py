"""Checkpoints: one safetensors file each, written aside and renamed, so that a crash leaves the old one.

Names within the file: `head.*` the weights to evaluate, `raw.*` the weights in training where `head.*` is their moving
average, `detector.*` the detector's weights that train along, `optimizer.INDEX.*` AdamW's state. Metadata: `run`, a
JSON object; `sums`, a CRC-32 of it (under an empty name) and of each tensor, which checkpoints of before do not have.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from frozen_cache.durable import flush_file
from frozen_cache.errors import NotFiniteError, UserError

TUNED = "tuned"
"""Key of the metadata: sha256 of the weights and fingerprint of the detector with its `detector.*`."""


def save_checkpoint(path: Path, tensors: dict[str, Tensor], *, run: dict[str, Any]) -> None:
    """Write durably and atomically; on any error what was at `path` stays. `run` is plain JSON data.

    Raises:
        NotFiniteError: a tensor holds a NaN or an infinity.
        UserError: it cannot be written, the disk being full for instance.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    bad = [name for name, tensor in plain.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise NotFiniteError(f"`{bad[0]}` and {len(bad) - 1} more of {len(plain)} tensors are not finite")
    told = json.dumps(run, allow_nan=False)
    sums = {"": zlib.crc32(told.encode())} | {name: _sum(tensor) for name, tensor in plain.items()}
    try:
        save_file(plain, aside, metadata={"run": told, "sums": json.dumps(sums)})
        flush_file(aside)
        aside.replace(path)
        flush_file(path.parent)
    except (SafetensorError, OSError) as error:  # safetensors' own errors are no OSErrors
        raise UserError(
            f"checkpoint {path} cannot be written ({error}); the one before it is safe: make room, then give the same "
            "command again"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def load_checkpoint(path: Path, *, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors whose names start with `prefix`, with the prefix cut off; run metadata).

    Raises:
        UserError: the file is missing, damaged, or no checkpoint of ours.
    """
    with _opened(path) as file:
        run = _metadata(file)
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  no dictionary
        tensors = {name: file.get_tensor(name) for name in names}
        sums = _sums(file)
        if sums is not None and (wrong := [name for name in names if sums.get(name) != _sum(tensors[name])]):
            raise ValueError(f"`{wrong[0]}` and {len(wrong) - 1} more of {len(names)} tensors are not what was saved")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, run


def load_metadata(path: Path) -> dict[str, Any]:
    """The run metadata of a checkpoint alone. Errors as in `load_checkpoint`."""
    with _opened(path) as file:
        return _metadata(file)


def shapes(path: Path, *, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors whose names start with `prefix`, which is cut off; none is read."""
    with _opened(path) as file:
        return {
            name.removeprefix(prefix): tuple(file.get_slice(name).get_shape())
            for name in file.keys()  # noqa: SIM118
            if name.startswith(prefix)
        }


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise UserError(f"no checkpoint {path}: train one with `frozen-cache train-head`")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or not a checkpoint of frozen-cache: {error}") from error


def _metadata(file: Any) -> dict[str, Any]:
    told = (file.metadata() or {})["run"]
    run = json.loads(told)
    if not isinstance(run, dict):
        raise TypeError("its metadata is no object")
    sums = _sums(file)
    if sums is not None and sums.get("") != zlib.crc32(told.encode()):
        raise ValueError("its metadata is not what was saved")
    return run


def _sums(file: Any) -> dict[str, int] | None:
    """CRC-32 by name; None of a checkpoint of before."""
    metadata = file.metadata() or {}
    if set(metadata) == {"run"}:
        return None
    sums = json.loads(metadata["sums"])
    if not isinstance(sums, dict) or set(sums) != {"", *file.keys()}:
        raise ValueError("its sums are not those of its tensors")
    return sums


def _sum(tensor: Tensor) -> int:
    """CRC-32 of type, shape and bytes."""
    kind = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(kind))


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
