"""Paths that a command needs, looked at before anything slow is imported: a typing error costs no seconds."""

from __future__ import annotations

from pathlib import Path

from frozen_cache.detectors.place import check_place
from frozen_cache.errors import UserError
from frozen_cache.near_names import perhaps_meant
from frozen_cache.remote import CachePath, RemotePath


def need_cache(path: CachePath) -> None:
    """UserError where there is surely no cache at `path`."""
    if isinstance(path, RemotePath):  # asked for once, by the reader
        return
    if not path.is_dir():
        near = _near(path, "zarr.json")
        raise UserError(f"there is no cache {path}{near}; `frozen-cache extract-features --out {path}` makes one")
    if not (path / "zarr.json").is_file():
        raise UserError(f"{path} is not a cache: it holds no zarr.json")


def need_run(path: Path) -> None:
    """UserError where there is surely no run of train-head at `path`, nor a checkpoint of one."""
    if not path.exists():
        near = _near(path, "run.json")
        raise UserError(f"there is no run {path}{near}; `frozen-cache train-head --out {path}` makes one")
    folder = path if path.is_dir() else path.parent
    if not (folder / "run.json").is_file():
        raise UserError(f"{path} is no run of train-head: there is no run.json in {folder}")


def need_model(path: Path) -> None:
    """UserError where there is surely neither a run of train-head nor an exported folder at `path`, nor a file of
    either's head."""
    if path.suffix == ".onnx" or (path / "onnx.json").is_file():
        raise UserError(
            f"{path} is an ONNX graph, which other programs run: give the run or folder that it was made of"
        )
    if not path.exists():
        near = _near(path, "run.json", "model.json")
        raise UserError(
            f"there is no model {path}{near}: give a run directory of train-head, or a folder made by export"
        )
    folder = path if path.is_dir() else path.parent
    if not any((folder / name).is_file() for name in ("run.json", "model.json")):
        raise UserError(f"{path} is no model: {folder} holds neither run.json (train-head) nor model.json (export)")


def need_inputs(detector: str, images: Path, annotations: Path, weights: Path | None = None) -> None:
    """UserError for an extraction's paths that are surely wrong."""
    need_data(images, annotations)
    need_detector(detector, weights)


def need_data(images: Path | None, annotations: Path | None) -> None:
    """UserError for an image folder or an annotation file that is given and not there."""
    if annotations is not None and not annotations.is_file():
        raise UserError(f"there is no annotation file {annotations}")
    if images is not None and not images.is_dir():
        raise UserError(f"there is no image folder {images}")


def need_detector(detector: str | None, weights: Path | None) -> None:
    """UserError where a detector that is given is surely not there."""
    if detector is not None:
        check_place(detector, weights)


def _near(path: Path, *documents: str) -> str:
    """` (did you mean train.zarr?)` for folders beside `path` that hold one of the documents."""
    return perhaps_meant(
        path.name, (other.parent.name for name in documents for other in path.parent.glob(f"*/{name}"))
    )
