"""JSON files of results: no NaN and no infinity gets into one, which JSON does not know and no result should hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from frozen_cache.durable import write_durably
from frozen_cache.errors import NotFiniteError


def finite_json(values: Any, *, path: Path, indent: int | None = None) -> str:
    """The values as JSON.

    Args:
        path: the file that it is for.

    Raises:
        NotFiniteError: a number in it is not finite; names the file and the place in it.
    """
    try:
        return json.dumps(values, indent=indent, allow_nan=False)
    except ValueError as error:
        where = _not_finite(values)
        if where is None:
            raise
        raise NotFiniteError(f"{path} is not written, as `{where}` in it is not finite") from error


def write_finite_json(path: Path, values: Any, *, indent: int | None = None) -> None:
    """Write a JSON file durably. Errors as in `finite_json`; what was at `path` stays then."""
    write_durably(path, (finite_json(values, path=path, indent=indent) + "\n").encode())


def _not_finite(values: Any) -> str | None:
    """The dotted place of the first number that is not finite."""
    if isinstance(values, float):
        return None if math.isfinite(values) else ""
    if isinstance(values, dict):
        parts = list(values.items())
    elif isinstance(values, list | tuple):
        parts = list(enumerate(values))
    else:
        return None
    for key, value in parts:
        found = _not_finite(value)
        if found is not None:
            return f"{key}.{found}" if found else str(key)
    return None
