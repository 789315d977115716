"""A head that starts from another run's weights: what fits is taken, what differs is named and starts anew."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from frozen_cache.errors import NotFiniteError, UserError
from frozen_cache.export.head import exported_head_file
from frozen_cache.export.manifest import exported_folder
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.checkpoint import load_checkpoint
from frozen_cache.training.trained_head import checkpoint_of, run_of

MOST_NAMED = 4


@dataclass(frozen=True)
class StartFrom:
    """The checkpoint that a training starts from."""

    file: Path
    sha256: str

    @classmethod
    def find(cls, path: Path) -> StartFrom:
        """That of a run directory (`best`, else `last`), of an exported folder, or a checkpoint itself; UserError
        where there is none."""
        if (folder := exported_folder(path)) is not None:
            file = exported_head_file(folder)
        else:
            run_of(path, option="--init")
            file = checkpoint_of(path)
        if not file.is_file():
            raise UserError(f"--init {path} holds no checkpoint: give a run directory of train-head")
        return cls(file=file.resolve(), sha256=hashlib.sha256(file.read_bytes()).hexdigest())

    def into(self, head: MaskHead) -> str:
        """Put into a head all tensors whose name and shape it has, and say what became of the others.

        Raises:
            UserError: no tensor fits, or the checkpoint is damaged.
            NotFiniteError: a tensor holds a NaN or an infinity.
        """
        there = self._tensors()
        mine = head.state_dict()
        fitting = {name: value for name, value in there.items() if name in mine and value.shape == mine[name].shape}
        if not fitting:
            raise UserError(f"--init {self.file}: none of its {len(there)} tensors fits the head that is asked for")
        if bad := [name for name, value in fitting.items() if not torch.isfinite(value).all()]:
            raise NotFiniteError(f"--init {self.file}: `{bad[0]}` and {len(bad) - 1} more tensors are not finite")
        head.load_state_dict(fitting, strict=False)
        anew = [
            f"{name} {_shape(there[name]) if name in there else 'new'}, here {_shape(value)}"
            for name, value in mine.items()
            if name not in fitting
        ]
        left = [name for name in there if name not in mine]
        text = f"init: {len(fitting)} of {len(mine)} tensors from {self.file}"
        text += f"; started anew: {_some(anew)}" if anew else ""
        return text + (f"; not used: {_some(left)}" if left else "")

    def _tensors(self) -> dict[str, torch.Tensor]:
        if exported_folder(self.file) is None:
            return load_checkpoint(self.file, prefix="head.")[0]
        try:
            return load_file(self.file)
        except SafetensorError as error:
            raise UserError(f"{self.file} is not a readable safetensors file: {error}") from None


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return "; ".join(names[:MOST_NAMED]) + more
