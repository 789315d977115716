"""COCO results on disk as they come, image by image: memory does not grow with them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frozen_cache.durable import durable_file, errors_name

KINDS = ("segm", "bbox")


class ResultStore:
    """Results of images under their ids, in a file without a name that goes with this object.

    Args:
        folder: where; None for the system's place for such files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = Path(tempfile.gettempdir() if folder is None else folder)
        with errors_name(self._folder):
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        self._place: dict[str, dict[int, tuple[int, int]]] = {kind: {} for kind in KINDS}
        self._end = 0

    def add(self, image_id: int, texts: dict[str, str]) -> None:
        """Keep one image's results: `segm`, `bbox` -> JSON list."""
        with errors_name(self._folder):
            for kind, text in texts.items():
                content = text.encode()
                self._file.seek(self._end)
                self._file.write(content)
                self._place[kind][image_id] = self._end, len(content)
                self._end += len(content)

    def of_image(self, image_id: int, kind: str = "segm") -> list[dict[str, Any]]:
        """COCO results of one image, in the order in which they were found."""
        return json.loads(self._text(image_id, kind))

    def all(self, kind: str = "segm") -> list[dict[str, Any]]:
        """COCO results of all images, in the order in which they were added: all of them in memory."""
        return [entry for image_id in self._place[kind] for entry in self.of_image(image_id, kind)]

    def write(self, kind: str, path: Path) -> None:
        """Write a COCO result file durably."""
        with durable_file(path) as file:
            file.writelines(self._parts(kind))

    def _parts(self, kind: str) -> Iterator[bytes]:
        first = True
        yield b"["
        for image_id in self._place[kind]:
            inner = self._text(image_id, kind)[1:-1]
            if inner:
                yield inner if first else b", " + inner
                first = False
        yield b"]\n"

    def _text(self, image_id: int, kind: str) -> bytes:
        start, length = self._place[kind].get(image_id, (0, 0))
        if not length:
            return b"[]"
        with errors_name(self._folder):
            self._file.seek(start)
            return self._file.read(length)
