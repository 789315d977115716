"""What reading a view of a cache costs beside reading the same files as they are, on a warm page cache.

    python benchmarks/cache_read.py --work FOLDER [--rounds 9] [--only TEXT]

FOLDER holds caches of random maps (`random_cache`), made where they are not there: views of H-DETR R50 at the mean size
of COCO in float16, float32 and coded at step 1, and views of DEIMv2-Atto. These things take turns in each round, and
each goes through the same views:

`view`      `CacheReader.read_stored`: all of a view that training reads, checked, its maps as they are stored.
`raw`       the data files of the same segments, in pieces of the size that a view has in its array, those of a view
            held until all are there: opened, read into new memory of numpy's, closed; nothing is checked.
`raw, aligned`
            the same into new memory that starts at a multiple of 64 bytes, as the reader's does: the kernel copies
            faster into it.
`zstd`      of coded caches: the chunks of the same views decoded from memory into new memory, nothing else.
`floor`     the chunks of each view, and no objects of them: read as by `raw, aligned`, the CRC-32C of each by the
            library that the reader uses, decoded by zstd where they are coded. What is compared with `raw` or `zstd`
            alone is asked to do the rest in the part by which the goal is above 1; this yardstick has all of it.
`view, two threads`, `raw, two threads`, `floor, two threads`
            the same work dealt out to two threads.

CPU is that of the process; the ratios are of CPU seconds, those of two threads of the clock. Medians over the rounds.
`ratio` is to `raw, aligned`, of coded caches to `zstd`; `ratios` has the others, among them `floor`, and the one to
what reading and decoding take together, which is `raw, aligned` and `zstd`. `two_threads` is how many times faster two
threads are than one; its `view to floor` is the clock's ratio of both with two threads.
Results: benchmarks/cache_read.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from awscrt.checksums import crc32c
from conditions import conditions
from numcodecs import Zstd
from numcodecs.zstd import decompress
from random_cache import random_cache

from frozen_cache.cache.attributes import Precision
from frozen_cache.cache.layout import CRC_BYTES
from frozen_cache.cache.reader import CacheReader

RESULT = Path(__file__).with_suffix(".json")
LIMITS = {"large": 1.5, "small": 4.0, "coded": 1.3, "two threads": 1.7}
"""That the project sets itself; the last one is the least, the others are the most."""
ALIGNMENT = 64
OBJECTS = 7
"""Of an image of COCO, in the mean."""


@dataclass(frozen=True)
class Case:
    """A cache to read."""

    name: str
    shapes: str
    size: tuple[int, int]
    precision: Precision
    images: int
    limit: str
    """Its name in `LIMITS`."""


CASES = [
    Case("large float16", "hdetr-r50", (800, 1120), "float16", 8, "large"),
    Case("large float32", "hdetr-r50", (800, 1120), "float32", 4, "large"),
    Case("small float16", "deimv2-atto", (320, 320), "float16", 128, "small"),
    Case("large coded", "hdetr-r50", (800, 1120), "coded", 8, "coded"),
    Case("small coded", "deimv2-atto", (320, 320), "coded", 128, "coded"),
]


@dataclass(frozen=True)
class Spent:
    """Seconds of one pass over all views."""

    cpu: float
    wall: float


def data_files(reader: CacheReader) -> list[Path]:
    """The files of all views' arrays; those of the tables, which are read once for all, are not among them."""
    segments = {id(segment): segment for segment, _ in (reader.place(index) for index in range(len(reader)))}
    found = []
    for segment in segments.values():
        folder = Path(str(segment.folder))
        for document in folder.rglob("zarr.json"):
            node = json.loads(document.read_text())
            if node["node_type"] == "array" and node["codecs"][0]["name"] == "sharding_indexed":
                found += [file for file in (document.parent / "c").rglob("*") if file.is_file()]
    return sorted(found)


@dataclass(frozen=True)
class Chunks:
    """Those of a shard, one after the other."""

    places: list[tuple[int, int]]
    """(offset, bytes) of each, the last 4 of which are its CRC-32C."""
    decoded: int | None
    """Bytes that zstd makes of each; None where nothing is compressed."""


def chunks_of(file: Path) -> Chunks:
    """As the shard's index has them."""
    array = next(parent for parent in file.parents if (parent / "zarr.json").is_file())
    node = json.loads((array / "zarr.json").read_text())
    inner = node["codecs"][0]["configuration"]
    coded = "zstd" in [codec["name"] for codec in inner["codecs"]]
    shard, chunk = node["chunk_grid"]["configuration"]["chunk_shape"][0], inner["chunk_shape"][0]
    content = file.read_bytes()
    index = np.frombuffer(content[-16 * (shard // chunk) - 4 : -4], dtype="<u8").reshape(-1, 2)
    return Chunks([(at, size) for at, size in index.tolist() if at != 2**64 - 1], chunk if coded else None)


Piece = tuple[Path, int, int]
"""File, start, bytes."""


def pieces(files: Sequence[Path], views: int) -> list[list[Piece]]:
    """Of each view, as large as its part of each array is in the mean."""
    arrays: dict[Path, list[tuple[Path, int]]] = {}
    for file in files:
        array = next(parent for parent in file.parents if parent.name == "c")
        arrays.setdefault(array, []).append((file, file.stat().st_size))
    found: list[list[Piece]] = [[] for _ in range(views)]
    for members in arrays.values():
        size = -(-sum(size for _, size in members) // views)
        cut = [(file, start, min(size, end - start)) for file, end in members for start in range(0, end, size)]
        for place, piece in enumerate(cut):
            found[place * views // len(cut)].append(piece)
    return found


Part = tuple[Path, Chunks]


def parts(files: Sequence[Path], views: int) -> list[list[Part]]:
    """The chunks of each view, by file, dealt out as `pieces` are."""
    arrays: dict[Path, list[Part]] = {}
    for file in files:
        array = next(parent for parent in file.parents if parent.name == "c")
        arrays.setdefault(array, []).append((file, chunks_of(file)))
    found: list[list[Part]] = [[] for _ in range(views)]
    for members in arrays.values():
        total, place = sum(len(chunks.places) for _, chunks in members), 0
        for file, chunks in members:
            of_view: dict[int, list[tuple[int, int]]] = {}
            for each in chunks.places:
                of_view.setdefault(place * views // total, []).append(each)
                place += 1
            for view, places in of_view.items():
                found[view].append((file, Chunks(places, chunks.decoded)))
    return found


def frames_of(view: Sequence[Part]) -> list[tuple[bytes, int]]:
    """The zstd frames of a view, and how many bytes each holds; none where it has none."""
    found = []
    for file, chunks in view:
        if chunks.decoded is not None:
            content = file.read_bytes()
            found += [(content[at : at + size - CRC_BYTES], chunks.decoded) for at, size in chunks.places]
    return found


def read_decoded(view: Sequence[Part]) -> list[np.ndarray]:
    """All chunks of a view, summed and decoded."""
    found = []
    for file, chunks in view:
        first, (last, size) = chunks.places[0][0], chunks.places[-1]
        content = read_piece(file, first, last + size - first, aligned=True)
        out = np.empty(len(chunks.places) * (chunks.decoded or 0), dtype=np.uint8)
        for number, (at, size) in enumerate(chunks.places):
            end = at - first + size - CRC_BYTES
            chunk = content[at - first : end]
            assert crc32c(chunk) == int.from_bytes(content[end : end + CRC_BYTES], "little")
            if chunks.decoded is not None:
                decompress(chunk, out[number * chunks.decoded : (number + 1) * chunks.decoded])
        found.append(content if chunks.decoded is None else out)
    return found


def read_raw(view: Sequence[Piece], *, aligned: bool = False) -> list[np.ndarray]:
    """All pieces of a view."""
    return [read_piece(*piece, aligned=aligned) for piece in view]


def read_piece(file: Path, start: int, size: int, *, aligned: bool) -> np.ndarray:
    """A piece of a file."""
    into = np.empty(size + ALIGNMENT * aligned, dtype=np.uint8)
    if aligned:
        into = into[-into.ctypes.data % ALIGNMENT :][:size]
    descriptor = os.open(file, os.O_RDONLY)
    try:
        assert os.preadv(descriptor, [into.data], start) == size
    finally:
        os.close(descriptor)
    return into


def decode(chunks: Sequence[tuple[bytes, int]]) -> None:
    """Frames one after the other into one piece of new memory, as large as a view's."""
    into = np.empty(sum(size for _, size in chunks), dtype=np.uint8)
    at = 0
    for frame, size in chunks:
        Zstd().decode(frame, into[at : at + size])
        at += size


def spent(work: Callable[[Any], object], items: Sequence[Any], *, threads: int) -> Spent:
    """One pass."""
    if threads == 1:
        cpu, wall = time.process_time(), time.perf_counter()
        for item in items:
            work(item)
        return Spent(time.process_time() - cpu, time.perf_counter() - wall)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda at: at, range(threads)))  # they are there
        cpu, wall = time.process_time(), time.perf_counter()
        list(pool.map(work, items))
        return Spent(time.process_time() - cpu, time.perf_counter() - wall)


def measure(case: Case, *, work: Path, rounds: int) -> dict[str, Any]:
    """All kinds in turn."""
    cache = random_cache(
        work, shapes=case.shapes, size=case.size, objects=OBJECTS, images=case.images, precision=case.precision
    )
    reader = CacheReader(cache)
    views = list(range(len(reader)))
    files = data_files(reader)
    total = sum(file.stat().st_size for file in files)
    raw, chunks = pieces(files, len(views)), parts(files, len(views))
    frames = [each for view in chunks if (each := frames_of(view))]
    kinds: dict[str, Callable[[], Spent]] = {
        "view": lambda: spent(reader.read_stored, views, threads=1),
        "raw": lambda: spent(read_raw, raw, threads=1),
        "raw, aligned": lambda: spent(partial(read_raw, aligned=True), raw, threads=1),
        "floor": lambda: spent(read_decoded, chunks, threads=1),
        "view, two threads": lambda: spent(reader.read_stored, views, threads=2),
        "raw, two threads": lambda: spent(partial(read_raw, aligned=True), raw, threads=2),
        "floor, two threads": lambda: spent(read_decoded, chunks, threads=2),
    }
    if frames:
        kinds["zstd"] = lambda: spent(decode, frames, threads=1)
    for kind in kinds.values():  # pages and segments are there after this
        kind()
    found: dict[str, list[Spent]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, kind in kinds.items():
            found[name].append(kind())
    times = {
        name: {
            field: 1e3 * statistics.median(getattr(each, field) for each in passes) / len(views)
            for field in ("cpu", "wall")
        }
        for name, passes in found.items()
    }
    cpu = {name: each["cpu"] for name, each in times.items()}
    against = {name: each for name, each in cpu.items() if name in ("raw", "raw, aligned", "zstd", "floor")}
    if frames:
        against["reading and zstd"] = cpu["raw, aligned"] + cpu["zstd"]
    ratios = {name: round(cpu["view"] / each, 2) for name, each in against.items()}
    scaled = {
        name: statistics.median(
            one.wall / two.wall for one, two in zip(found[alone], found[f"{name}, two threads"], strict=True)
        )
        for name, alone in (("view", "view"), ("raw", "raw, aligned"), ("floor", "floor"))
    }
    scaled["view to floor"] = times["view, two threads"]["wall"] / times["floor, two threads"]["wall"]
    return {
        "case": case.name,
        "shapes": case.shapes,
        "image_size": list(case.size),
        "precision": case.precision,
        "views": len(views),
        "mb_per_view": round(total / len(views) / 1e6, 3),
        "ms_a_view": {name: {field: round(ms, 3) for field, ms in each.items()} for name, each in times.items()},
        "ratio": ratios["zstd" if frames else "raw, aligned"],
        "ratios": ratios,
        "limit": LIMITS[case.limit],
        "two_threads": {name: round(speed, 2) for name, speed in scaled.items()},
        "two_threads_at_least": LIMITS["two threads"],
    }


def main() -> None:
    """Run, print, and keep the results beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="Cases whose name has this in it; nothing is kept.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    before = conditions()
    rows = []
    for case in CASES:
        if given.only in case.name:
            rows.append(measure(case, work=given.work, rounds=given.rounds))
            print(json.dumps(rows[-1]))
    result = {
        "conditions": {
            **before,
            "load_average": [before["load_average"], conditions()["load_average"]],
            "rounds": given.rounds,
            "objects_per_image": OBJECTS,
            "maps": "normal random numbers, so that coded ones take as many bits as any can",
        },
        "rows": rows,
    }
    if not given.only:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
