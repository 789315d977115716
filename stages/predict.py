"""Masks on pictures and videos of one's own."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from frozen_cache.data.images import BrokenImageError
from frozen_cache.errors import UserError
from frozen_cache.finite_json import write_finite_json
from frozen_cache.inference.choice import THRESHOLD
from frozen_cache.inference.images import read_picture
from frozen_cache.inference.inputs import InputFile
from frozen_cache.inference.outputs import KINDS, OutputFolder, Picture
from frozen_cache.inference.segmenter import InstanceSegmenter, PreparedImage, in_batches
from frozen_cache.inference.video import read_frames
from frozen_cache.ownership import Ownership
from frozen_cache.progress import progress_bar, say
from frozen_cache.stages.predict_request import MARKER, RESULTS, PredictRequest, check_out


@dataclass
class PredictSummary:
    """What was done."""

    out: Path
    images: int = 0
    """Pictures segmented, frames of videos included."""
    instances: int = 0
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    """Files that could not be read, and why."""
    seconds: float = 0.0

    def text(self) -> str:
        """What the command prints in the end."""
        rate = self.images / max(self.seconds, 1e-9)
        found = f"{_counted(self.instances, 'instance')} in {_counted(self.images, 'picture')}"
        lines = [f"{found}, {self.seconds:.1f} s ({rate:.1f} img/s)"]
        lines += [f"skipped: {reason}" for _, reason in self.skipped]
        return "\n".join([*lines, f"results in {self.out}"])


@dataclass(frozen=True)
class _Loaded:
    """A picture on its way to the detector."""

    file: InputFile
    name: str
    image: Image.Image
    prepared: PreparedImage


def predict(
    request: PredictRequest,
    *,
    model: Path | Sequence[Path],
    detector: str | None = None,
    weights: Path | None = None,
    threshold: float = THRESHOLD,
    classes: Sequence[str | int] | None = None,
    max_detections: int | None = None,
    mask_threshold: float = 0.5,
    roi_sizes: Sequence[int] = (),
    views: int = 1,
    tta: bool = False,
    guided: bool = False,
    batch_size: int = 1,
    frame_step: int = 1,
    device: str = "auto",
    workers: int | None = None,
) -> PredictSummary:
    """Segment pictures and videos and write the results into the request's `out`.

    `segm_results.json` and `bbox_results.json` are COCO results, `images.json` explains their image ids; the request's
    kinds each get a folder. Files that cannot be read are named and left out.

    Args:
        request: made by `check_request`.
        model: a run directory of train-head, or an exported folder; masks of several are averaged.
        frame_step: every so many frames of a video.
        workers: threads that read and write; None for the number of cores, at most 8.

    The other arguments are those of `InstanceSegmenter`.

    Raises:
        UserError: no model, a wrong option, an `out` that has come to hold other things.
    """
    started = time.perf_counter()
    files, out = request.files, request.out
    workers = workers if workers is not None else min(8, os.cpu_count() or 1)
    numbers = {"--views": views, "--batch-size": batch_size, "--frame-step": frame_step, "--workers": workers}
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"{name} {value}: give 1 or more")
    with Ownership(out) as owner:
        check_out(out, overwrite=request.overwrite)
        segmenter = InstanceSegmenter.load(
            model,
            detector=detector,
            weights=weights,
            device=device,
            roi_sizes=roi_sizes,
            views=views,
            tta=tta,
            guided=guided,
        )
        choice = segmenter.choice(
            threshold=threshold, classes=classes, max_detections=max_detections, mask_threshold=mask_threshold
        )
        models = [model] if isinstance(model, Path) else model
        asked = {
            "models": [path.as_posix() for path in models],
            "roi_sizes": list(roi_sizes),
            "views": views,
            "tta": tta,
        }
        _clear(out, asked | {"guided": guided, "mask_threshold": mask_threshold, "threshold": threshold})
        folder = OutputFolder(out, kinds=request.kinds, names=segmenter.names)
        summary = PredictSummary(out)
        images: list[dict[str, Any]] = []
        results: dict[str, list[dict[str, Any]]] = {"segm": [], "bbox": []}
        writing: deque[Future[None]] = deque()
        total = None if request.has_videos else len(files)
        bar = progress_bar(desc="predict", unit="img", total=total)
        with ThreadPoolExecutor(workers) as pool, closing(bar):
            loaded = _load(files, segmenter, summary, pool=pool, step=frame_step, ahead=2 * batch_size + workers)
            with closing(loaded):
                for batch in in_batches(loaded, batch_size, prepared=lambda each: each.prepared):
                    prepared = [each.prepared for each in batch]
                    plain, others = segmenter.detect(prepared), segmenter.detect_further(prepared)
                    for each, view, further in zip(batch, plain, others, strict=True):
                        found = segmenter.segment(view, choice, guide=each.prepared.guide, further=further)
                        summary.images += 1
                        summary.instances += len(found)
                        height, width = found.size
                        images.append(
                            {
                                "id": summary.images,
                                "file_name": each.file.path.as_posix(),
                                "output_name": each.name,
                                "height": height,
                                "width": width,
                            }
                        )
                        results["segm"] += found.to_coco(summary.images, kind="segm")
                        results["bbox"] += found.to_coco(summary.images, kind="bbox")
                        writing.append(pool.submit(folder.write, Picture(each.name, each.image, found)))
                        while len(writing) > 2 * workers:
                            writing.popleft().result()
                    bar.update(len(batch))
            while writing:
                writing.popleft().result()
        owner.check()
        categories = [{"id": category, "name": name} for category, name in segmenter.names.items()]
        write_finite_json(out / "images.json", {"images": images, "categories": categories})
        for kind, entries in results.items():
            write_finite_json(out / f"{kind}_results.json", entries)
    summary.seconds = time.perf_counter() - started
    return summary


def _load(
    files: list[InputFile],
    segmenter: InstanceSegmenter,
    summary: PredictSummary,
    *,
    pool: ThreadPoolExecutor,
    step: int,
    ahead: int,
) -> Generator[_Loaded, None, None]:
    """All pictures that can be read, in order, `ahead` of them being read while one is used."""

    def load(file: InputFile, name: str, image: Image.Image | None) -> _Loaded:
        picture = read_picture(file.path) if image is None else image
        return _Loaded(file, name, picture, segmenter.prepare(picture))

    def skip(file: InputFile, error: Exception) -> None:
        summary.skipped.append((file.path, " ".join(str(error).split())))
        say(f"skipped: {error}")

    waiting: deque[tuple[InputFile, Future[_Loaded]]] = deque()

    def ready(most: int) -> Iterator[_Loaded]:
        while len(waiting) > most:
            file, future = waiting.popleft()
            try:
                yield future.result()
            except (UserError, PermissionError) as error:
                skip(file, error)

    for file in files:
        if not file.is_video:
            waiting.append((file, pool.submit(load, file, file.name, None)))
            yield from ready(ahead)
            continue
        try:
            for number, frame in read_frames(file.path, step=step):
                waiting.append((file, pool.submit(load, file, f"{file.name}.{number:06d}", frame)))
                yield from ready(ahead)
        except (BrokenImageError, PermissionError) as error:
            skip(file, error)
    yield from ready(0)


def _clear(out: Path, asked: dict[str, Any]) -> None:
    """An `out` with nothing in it but the mark that it is ours, and what the masks in it are made by."""
    write_finite_json(out / MARKER, {"made_by": "frozen-cache predict"} | asked)
    for name in (*RESULTS, *KINDS):
        if (out / name).is_dir() and not (out / name).is_symlink():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
