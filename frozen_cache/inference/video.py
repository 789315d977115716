"""The frames of a video file, through PyAV (extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from frozen_cache.data.images import BrokenImageError
from frozen_cache.errors import UserError


def need_video() -> None:
    """UserError where PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise UserError("video files need PyAV: pip install 'frozen-cache[video]'") from None


def read_frames(path: Path, *, step: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """(number, RGB frame) of every `step`-th frame, from 0, upright; BrokenImageError naming the file.

    A video that breaks off underway gives its frames up to there, then the error.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BrokenImageError(f"{path} has no pictures in it")
            for number, frame in enumerate(container.decode(video=0)):
                if number % step == 0:
                    picture = frame.to_image()
                    yield number, picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
    except av.FFmpegError as error:
        raise BrokenImageError(f"{path} is not a video that can be read: {error.strerror or error}") from None
