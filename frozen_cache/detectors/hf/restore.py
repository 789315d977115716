"""Weights that a checkpoint holds and transformers did not load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from frozen_cache.errors import UserError

NAMES = ("model.safetensors", "pytorch_model.bin")


def weight_files(place: str, *, local: bool) -> list[Path]:
    """The files that hold the weights in a folder, or in the hub's local copy of `place`."""
    found = [path for name in NAMES for path in _files(place, name, local=local)]
    return found if found and found[0].suffix == ".bin" else [path for path in found if path.suffix == ".safetensors"]


@torch.no_grad()
def restore_weights(model: nn.Module, files: list[Path]) -> list[str]:
    """Make every tensor of the model equal to the checkpoint's tensor of that name; return the names that were not.

    transformers (5.23) saves DEIMv2's shared box head under the name of one layer, `bbox_embed.1`, and on loading ties
    it to `bbox_embed.0`, which the file does not have: the box head is then random, with no key reported as missing.
    Names that the model does not have (older layouts, which transformers renames) are left alone.

    Raises:
        UserError: where two names share one tensor in the model, and the file gives them different values.
    """
    state = model.state_dict()
    restored = [name for path in files for name, value in _tensors(path) if _set_where_different(state, name, value)]
    if restored:
        torn = [name for path in files for name, value in _tensors(path) if _different(state, name, value)]
        if torn:
            raise UserError(
                f"transformers ties {torn[0]} to another weight, from which it differs in {files[0].parent}"
            )
    return restored


def _set_where_different(state: dict[str, Tensor], name: str, value: Tensor) -> bool:
    if not _different(state, name, value):
        return False
    state[name].copy_(value)
    return True


def _different(state: dict[str, Tensor], name: str, value: Tensor) -> bool:
    held = state.get(name)
    return held is not None and held.shape == value.shape and not torch.equal(held, value.to(held.dtype))


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == ".bin":
        yield from torch.load(path, map_location="cpu", weights_only=True).items()
        return
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a dictionary)
            yield name, file.get_tensor(name)


def _files(place: str, name: str, *, local: bool) -> list[Path]:
    single, index = _find(place, name, local=local), _find(place, f"{name}.index.json", local=local)
    if single is not None:
        return [single]
    if index is None:
        return []
    shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    return [path for shard in shards if (path := _find(place, shard, local=local)) is not None]


def _find(place: str, name: str, *, local: bool) -> Path | None:
    if local:
        path = Path(place) / name
        return path if path.is_file() else None
    from transformers.utils import cached_file

    found = cached_file(
        place, name, local_files_only=True, _raise_exceptions_for_missing_entries=False
    )  # from_pretrained has just brought it
    return None if found is None else Path(found)
