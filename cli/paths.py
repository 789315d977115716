"""Paths that a command needs, looked at before anything slow is imported: a typing error costs no seconds."""

from __future__ import annotations

from pathlib import Path

from frozen_cache.errors import UserError


def need_cache(path: Path) -> None:
    """UserError where there is surely no cache at `path`."""
    if not path.is_dir():
        raise UserError(f"there is no cache {path}; `frozen-cache extract-features --out {path}` makes one")
    if not (path / "zarr.json").is_file():
        raise UserError(f"{path} is not a cache: it holds no zarr.json")
