"""`CacheReader`: the views of a cache, read one at a time and checked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from frozen_cache.cache.attributes import CacheAttributes, read_attributes
from frozen_cache.cache.contents import NotWhole, check_record
from frozen_cache.cache.errors import DamagedCacheError, IncompleteCacheError
from frozen_cache.cache.from_image import CacheStem
from frozen_cache.cache.ledger import BrokenImage, committed_segments, read_record, read_records, segment_name
from frozen_cache.cache.mending import finish, mend, mend_stem
from frozen_cache.cache.ranges import OpenFiles
from frozen_cache.cache.scaled import scaled
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.cache.stem_files import stem_damage
from frozen_cache.cache.stored_map import StoredView
from frozen_cache.cache.truth_table import TruthRoom
from frozen_cache.cache.view import CachedView
from frozen_cache.cache.view_index import ViewIndex
from frozen_cache.data.views import apply_view
from frozen_cache.errors import UserError
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.remote import CachePath, cache_path


class CacheReader:
    """Read access to the committed segments of a cache.

    Views are numbered 0..len-1, segment by segment. Arrays are opened when first read, in whichever thread or spawned
    worker reads them; a reader that is pickled opens its own. Do not read before forking.
    """

    def __init__(self, path: CachePath | str, *, allow_incomplete: bool = False, c1_scale: int | None = None) -> None:
        """Open a cache.

        Args:
            c1_scale: C1 and the added maps come from the images at so many times the input size, where they are
                recomputed; None for that with which the cache was made. `attributes` are those of this scale.

        Raises:
            UserError: there is none, or one of a format that is not read, or of another scale.
            IncompleteCacheError: segments are missing and `allow_incomplete` is not set.
            DamagedCacheError: the attributes or the ledger are damaged.
        """
        self.path = cache_path(path)
        self.attributes: CacheAttributes = scaled(read_attributes(self.path), c1_scale, cache=self.path)
        committed = committed_segments(self.path)
        total = self.attributes.segment_count
        if len(committed) < total and not allow_incomplete:
            raise IncompleteCacheError(
                f"cache {self.path} has {len(committed)} of {total} segments: {finish(self.path)}"
            )
        fingerprint = self.attributes.fingerprint
        if what := stem_damage(self.path, self.attributes.stem, quick=True):
            raise DamagedCacheError(f"cache {self.path} is damaged: {what}; {mend_stem(self.path)}", what)
        self._stem = None if self.attributes.stem is None else CacheStem(self.path, self.attributes)
        try:
            self._index = ViewIndex.build(committed, read_records(self.path, committed, fingerprint))
        except (ValueError, OverflowError):
            raise self._contradiction(committed) from None
        self._start()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def views(self) -> Sequence[tuple[int, int]]:
        """(image id, view index) of each view."""
        return self._index

    @property
    def broken(self) -> list[BrokenImage]:
        """Images that `--skip-broken` left out, each once."""
        return self._index.broken

    def shapes(self, index: int) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of C1 and of each encoder level, finest first, as far as they are stored; nothing is opened."""
        return self._index.shapes(index)

    def resized_size(self, index: int) -> tuple[int, int]:
        """(height, width) of the detector's input, in pixels; nothing is opened."""
        return self._index.resized_size(index)

    def matched(self, index: int) -> int:
        """Objects of a view that have a matched query; nothing is opened."""
        return self._index.matched(index)

    def read(
        self,
        index: int,
        *,
        encoder_layers: Sequence[int] | None = None,
        c1: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        close_up: bool = False,
    ) -> CachedView:
        """One view, its maps made floats.

        Args:
            encoder_layers: the kept layers to read; None for all, () for none.
            c1: whether to read C1.
            dtype: of C1 and the encoder levels.
            device: where the maps are made and lie; None for the CPU.
            close_up: whether to read the view's own pixels, too.

        Raises:
            UserError: a layer that the cache does not hold.
            DamagedCacheError: naming segment and image, where the data is not what was written.
        """
        stored = self.read_stored(index, encoder_layers=encoder_layers, c1=c1, close_up=close_up)
        return (stored if device is None else stored.to(device)).decoded(dtype)

    def read_stored(
        self, index: int, *, encoder_layers: Sequence[int] | None = None, c1: bool = True, close_up: bool = False
    ) -> StoredView:
        """As `read`, the maps left as they are stored."""
        if close_up:
            self.check_zoom()
        layers = self._layers(encoder_layers)
        segment, row = self._index.place(index)
        try:
            opened = self._segment(segment)
        except DamagedCacheError as error:
            raise DamagedCacheError(f"image {self.views[index][0]} cannot be read: {error}", error.what) from error
        return opened.read(row, layers=layers, c1=c1, close_up=close_up)

    def check_zoom(self) -> None:
        """UserError where the cache has no images, or no stem that makes C1 of them."""
        stem = self.attributes.stem
        if stem is None or stem.config.c1 is None:
            raise UserError(
                f"head.zoom reads crops of the images by the detector's stem, and the cache {self.path} does not hold "
                "both: extract it with --c1 recomputed, or leave head.zoom out"
            )

    @property
    def has_pictures(self) -> bool:
        """Whether the cache holds its images."""
        return self.attributes.stem is not None

    def picture(self, index: int) -> Image.Image | None:
        """The image that a view shows, RGB and upright, whole; None where the cache holds no images."""
        segment, row = self.place(index)
        return segment.picture(row)

    def pixels(self, index: int, view: StoredView) -> Tensor | None:
        """(3, H, W) RGB of a view that was read, in 0..255, at the detector's input size or a multiple of it; None
        where the cache holds no images."""
        if view.image is not None:
            return view.image.pixels[max(view.image.pixels)][0]
        picture = self.picture(index)
        return None if picture is None else apply_view(picture, view.rows.transform, self.attributes.detector.input)

    def place(self, index: int) -> tuple[SegmentReader, int]:
        """The opened segment of a view, and its row there; DamagedCacheError as `read`."""
        segment, row = self._index.place(index)
        return self._segment(segment), row

    def head_inputs(self, encoder_layer: int | None = None) -> HeadInputs:
        """The shapes that a mask head is sized by, with the levels of one kept encoder layer (None: the last)."""
        spec = self.attributes.detector
        if encoder_layer is not None:
            self._layers([encoder_layer])
        return HeadInputs(
            query_dim=spec.query_dim,
            c1=None if self.attributes.c1 == "none" else spec.c1,
            levels=spec.encoder_levels,
            num_classes=len(self.attributes.data.categories),
        )

    def _layers(self, asked: Sequence[int] | None) -> tuple[int, ...]:
        kept = self.attributes.detector.encoder_layers
        if asked is None:
            return kept
        for layer in asked:
            if layer not in kept:
                have = ", ".join(map(str, kept)) or "none"
                raise UserError(f"cache {self.path} does not hold encoder layer {layer}; it has {have}")
        return tuple(asked)

    def _contradiction(self, committed: list[int]) -> DamagedCacheError:
        """What to say where lines that are whole do not fit into an index of views."""
        for segment in committed:
            record = read_record(self.path, segment, self.attributes.fingerprint)
            try:
                check_record(record, self.attributes)
                ViewIndex.build([segment], [record])
            except (NotWhole, ValueError, OverflowError) as error:
                what = str(error) if isinstance(error, NotWhole) else "its line in the ledger contradicts itself"
                where = f"segment {segment_name(segment)} of {self.path}"
                return DamagedCacheError(f"{where} is damaged: {what}; {mend(self.path)}", what)
        return DamagedCacheError(f"cache {self.path} is damaged: the lines of its ledger contradict each other")

    def _segment(self, segment: int) -> SegmentReader:
        with self._lock:
            opened = self._opened.get(segment)
            if opened is None:
                record = read_record(self.path, segment, self.attributes.fingerprint)
                if self._index.changed(record):
                    raise DamagedCacheError(f"segment {segment} of {self.path} was made anew since it was opened")
                opened = SegmentReader(
                    self.path, record, self.attributes, stem=self._stem, room=self._room, files=self._files
                )
                self._opened[segment] = opened
            return opened

    def _start(self) -> None:
        self._opened: dict[int, SegmentReader] = {}
        self._room, self._files = TruthRoom(), OpenFiles()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: value for key, value in self.__dict__.items() if key not in ("_opened", "_lock", "_room", "_files")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()
