"""The head of an exported folder, without its detector: enough for what reads a cache. Nothing in it is trusted."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from frozen_cache.errors import UserError
from frozen_cache.export.manifest import HEAD, Manifest, check_file, read_record
from frozen_cache.head.mask_head import MaskHead


def exported_head_file(folder: Path) -> Path:
    """The file of an exported folder's head; UserError where it is not the one that was exported."""
    file = folder / HEAD
    check_file(file, read_record(folder).files[HEAD])
    return file


def load_exported_head(folder: Path, manifest: Manifest) -> MaskHead:
    """The head in eval mode, its sizes compared with the file's before any memory is taken."""
    file = folder / HEAD
    with torch.device("meta"):
        expected = MaskHead(config=manifest.head, inputs=manifest.inputs).state_dict()
    if _shapes(file) != {name: tuple(tensor.shape) for name, tensor in expected.items()}:
        raise UserError(f"{file} does not fit the head that {folder} describes: export the run again")
    head = MaskHead(config=manifest.head, inputs=manifest.inputs)
    head.load_state_dict(load_file(file))
    return head.eval()


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a readable safetensors file: {error}") from None
