"""The root attributes of a cache: what it was made from, typed, and compared before anything is added to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import TypedDict

from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.data.choices import AnnotationChoices, AnnotationCounts
from frozen_cache.detectors.output import DetectorSpec
from frozen_cache.detectors.stem import StemConfig
from frozen_cache.documents import added_later, whole
from frozen_cache.durable import read_regular
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath

DOCUMENT_BYTES = 64 << 20
"""More than the root document of any data set."""
FORMAT_VERSION: Literal[2] = 2
"""Of what is made now. All earlier ones are read, and continued as they were begun."""
READABLE_VERSIONS = (2, 1)
MAX_SEGMENTS = 1_000_000
"""Beyond it the numbers of the segments alone fill the memory."""
Precision = Literal["float16", "float32", "int8", "coded"]
C1Choice = Literal["stored", "recomputed", "none"]
Packing = Literal["bytes", "nibbles"]
LEAST_PACKED_STEP = 0.5
"""Of finer steps, two integers to a byte take more than one: too many do not fit into half a byte."""


class Category(TypedDict):
    """One category of the data set."""

    id: int
    name: str


class PromptedBy(BaseModel):
    """A model that gave masks to annotated boxes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Its name."""
    sha256: str
    """Of its weights."""

    def __str__(self) -> str:
        return f"{self.model} (sha256 {self.sha256[:12]})"


class DataAttributes(BaseModel):
    """The data set of a cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    """sha256 over categories, annotations as used, image file names and sizes in bytes."""
    annotations: str
    """File name of the annotation file, for people."""
    images: int
    missing: tuple[int, ...] = ()
    """Ids of annotated images without a file, left out by `--skip-missing`."""
    limit: int | None = None
    """Only the first images by id were taken."""
    categories: tuple[Category, ...]
    """By rising id; labels and ground truth are indices into this list."""
    choices: AnnotationChoices = added_later(AnnotationChoices())
    """How the annotations were read."""
    counts: AnnotationCounts = added_later(AnnotationCounts())
    """What was found in them, repaired or left out; empty in caches that were made before it was kept."""
    made_by: Literal["", "relabel", "subset", "merge"] = added_later("")
    """The command that made the cache from other caches."""
    bit_depth: int | None = added_later(None)
    """Values of images with more than 8 bits run from 0 to 2^bit_depth - 1; None for what their files say."""
    points: int | None = added_later(None)
    """Of data in which objects lack masks: the points that `truth/supervision` has room for, per object; None where all
    have masks, and there is no such array."""
    masks_from: tuple[PromptedBy, ...] = added_later(())
    """The models whose masks some objects have (`cache relabel --masks-from`); nobody drew these."""


class StemRecord(BaseModel):
    """The detector's stem, with which a cache makes maps from its images instead of storing them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: StemConfig
    weights_sha256: str
    """Of the file `stem/weights.safetensors`."""
    weights_bytes: int


class CacheAttributes(BaseModel):
    """Root attributes. `detector` holds the input rule and the kept encoder layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["frozen-cache"] = "frozen-cache"
    format_version: Literal[1, 2] = FORMAT_VERSION
    detector: DetectorSpec
    detector_fingerprint: str
    """sha256 over the detector's spec, the sha256 of its weights included."""
    label_to_category: dict[int, int]
    """Detector label -> category id of the data set."""
    data: DataAttributes
    views: int
    """Views per image; view 0 is the plain resize."""
    view_seed: int = 0
    copy_paste: bool = added_later(False)
    """Whether objects of other images were pasted into half of the further views (`data.copy_paste`)."""
    tta: bool = added_later(False)
    """Whether the views are those of test-time augmentation (`data.tta`)."""
    top_k: int
    precision: Precision = "float16"
    """Of `c1` and `encoder`; everything else is exact."""
    step: float | None = added_later(None)
    """Of `coded` maps, and of no others: a step of a channel in its standard deviations."""
    packing: Packing = added_later("bytes")
    """Of `coded` maps: an integer to a byte, as the first coded caches have it, or as `cache.nibbles` packs them."""
    c1: C1Choice = added_later("stored")
    """Where C1 comes from: the cache, the images in it through the detector's stem, or nowhere."""
    stem: StemRecord | None = added_later(None)
    """With `recomputed` C1: what makes it, and the added backbone maps, which are not stored either."""
    autocast: str | None = None
    batch_size: int
    """Images that went through the detector together, at most; another size changes the last bits."""
    views_total: int = Field(ge=0)
    views_per_segment: int = Field(ge=1)
    segment_views: tuple[Annotated[int, Field(ge=1)], ...] = added_later(())
    """Views of each segment, of a cache that was updated; empty where all but the last have `views_per_segment`."""

    @model_validator(mode="after")
    def _has_a_step_where_it_is_coded(self) -> CacheAttributes:
        if (self.step is not None) != (self.precision == "coded") or (self.step is not None and not self.step > 0):
            raise ValueError(f"precision {self.precision} with step {self.step}")
        if self.packing == "nibbles" and self.step is None:
            raise ValueError(f"precision {self.precision} with packing {self.packing}")
        return self

    @model_validator(mode="after")
    def _has_a_stem_where_it_recomputes(self) -> CacheAttributes:
        levels = () if self.stem is None else self.stem.config.levels
        if (self.stem is not None) != (self.c1 == "recomputed") or any(
            not 0 <= index < len(self.detector.encoder_levels) for index in levels
        ):
            raise ValueError(f"c1 {self.c1} with {'no' if self.stem is None else 'such a'} stem")
        return self

    @property
    def stores_c1(self) -> bool:
        """Whether the arrays of a segment hold C1."""
        return self.detector.c1 is not None and self.c1 == "stored"

    @property
    def recomputed_levels(self) -> frozenset[int]:
        """Indices of the encoder levels that no array holds."""
        return frozenset() if self.stem is None else frozenset(self.stem.config.levels)

    @property
    def categories(self) -> list[Category]:
        """`{"id", "name"}` of each category, by rising id."""
        return list(self.data.categories)

    @property
    def segment_count(self) -> int:
        """Segments of the complete cache."""
        return len(self.segment_views) or -(-self.views_total // self.views_per_segment)

    def views_planned(self, segment: int) -> int:
        """Views that a segment has where no image is broken."""
        if self.segment_views:
            return self.segment_views[segment] if 0 <= segment < len(self.segment_views) else 0
        return min(self.views_per_segment, self.views_total - segment * self.views_per_segment)

    @property
    def fingerprint(self) -> str:
        """sha256 over all attributes; each committed segment carries it."""
        return _sha256(self.model_dump(mode="json"))

    def root_document(self) -> bytes:
        """The content of the root `zarr.json`."""
        attributes = {**self.model_dump(mode="json"), "fingerprint": self.fingerprint}
        return group_document(attributes)


def best_packing(step: float | None) -> Packing:
    """How maps coded with this step take the least; "bytes" where they are not coded."""
    return "nibbles" if step is not None and step >= LEAST_PACKED_STEP else "bytes"


def detector_fingerprint(spec: DetectorSpec) -> str:
    """sha256 over the spec, its name left aside: the same model under another name is the same detector."""
    return _sha256(spec.model_dump(mode="json", exclude={"name"}))


def group_document(attributes: Mapping[str, Any]) -> bytes:
    """The `zarr.json` of a zarr v3 group, always the same bytes for the same attributes."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def read_attributes(path: CachePath) -> CacheAttributes:
    """Read and check the root attributes of the cache at `path`.

    Raises:
        UserError: there is no cache, or one of a format that this version does not read, naming the difference.
        DamagedCacheError: the attributes are not those that were written.
    """
    document = path / "zarr.json"
    if not path.is_dir():
        raise UserError(f"there is no cache {path}; `frozen-cache extract-features --out {path}` makes one")
    if not document.is_file():
        raise UserError(f"{path} is not a cache: it holds no zarr.json")
    again = "the same `frozen-cache extract-features` command as at first writes it again"
    try:
        content = read_regular(document, limit=DOCUMENT_BYTES)
        raw = json.loads(content)["attributes"]
        known = raw.get("format") == "frozen-cache"
        version = raw.get("format_version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedCacheError(f"cache {path} is damaged: its zarr.json cannot be read; {again}") from None
    if not known:
        raise UserError(f"{path} is a zarr group, but no cache of frozen-cache: its attributes name no such format")
    if version not in READABLE_VERSIONS:
        raise UserError(
            f"cache {path} has format version {version}, this frozen-cache reads versions 1 to {FORMAT_VERSION}: "
            "use the version that made it, or extract again"
        )
    recorded = raw.pop("fingerprint", None)
    try:
        attributes = CacheAttributes.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedCacheError(
            f"cache {path}: attribute `{where}` is not understood ({first['msg']}); {again}"
        ) from None
    if recorded != attributes.fingerprint or content != attributes.root_document():
        raise DamagedCacheError(f"cache {path} is damaged: its attributes do not match their fingerprint; {again}")
    if attributes.segment_count > MAX_SEGMENTS:
        raise DamagedCacheError(
            f"cache {path} has {attributes.segment_count:,} segments, more than {MAX_SEGMENTS:,}: extract again with a "
            "larger --segment-images"
        )
    return attributes


OPTIONS = {
    "views": "--views",
    "copy_paste": "--copy-paste",
    "tta": "--tta",
    "top_k": "--top-k",
    "precision": "--precision",
    "step": "--step",
    "c1": "--c1",
    "autocast": "--autocast",
    "batch_size": "--batch-size",
    "views_per_segment": "--segment-images",
    "data.limit": "--limit",
    "data.bit_depth": "--bit-depth",
    "data.choices": "--crowds, --only, --labels, --map or --skip-bad-annotations",
    "detector.backbone_scale": "--backbone-scale",
    "detector.encoder_layers": "--encoder-layers",
}
"""Which option of extract-features sets an attribute."""


def differences(there: CacheAttributes, asked: CacheAttributes) -> list[str]:
    """What keeps the cache `there` from being continued as `asked`, in words, each difference by the smallest thing
    that differs and its two values; empty where nothing does."""
    found = []
    if there.detector.weights_sha256 != asked.detector.weights_sha256:
        found.append(
            f"the detector's weights (there {there.detector.weights_sha256[:12]}, "
            f"now {asked.detector.weights_sha256[:12]})"
        )
    before, now = whole(there), whole(asked)
    leave = {
        "": {"format", "format_version", "detector_fingerprint", "views_total", "segment_views", "detector", "data"}
        | ({"stem"} if there.c1 != asked.c1 else set()),
        "detector": {"weights_sha256", "name"},
        "data": {"fingerprint", "annotations", "categories", "counts", "made_by", "masks_from"},
    }
    for group, without in leave.items():
        old, new = (value[group] if group else value for value in (before, now))
        names = [name for name in {**old, **new} if name not in without]
        for name in names:
            found += _difference(f"{group}.{name}" if group else name, old.get(name), new.get(name))
    if there.data.fingerprint != asked.data.fingerprint:
        found.append("the images or annotations (their fingerprints differ)")
    return found


def _difference(name: str, there: object, now: object) -> list[str]:
    """`name (there A, now B)` for the first thing inside that differs, with the option that sets it."""
    if there == now:
        return []
    path = name
    while True:
        if isinstance(there, dict) and isinstance(now, dict):
            key = next(key for key in {**there, **now} if there.get(key) != now.get(key))
            path, there, now = f"{path}.{key}", there.get(key), now.get(key)
        elif isinstance(there, list) and isinstance(now, list) and len(there) == len(now) and _nested(there):
            place = next(place for place, pair in enumerate(zip(there, now, strict=True)) if pair[0] != pair[1])
            path, there, now = f"{path}.{place}", there[place], now[place]
        else:
            break
    texts = [text if len(text := str(value)) <= 60 else text[:57] + "..." for value in (there, now)]
    option = OPTIONS.get(name)
    return [f"{path} (there {texts[0]}, now {texts[1]})" + (f", set by {option}" if option else "")]


def _nested(values: list[Any]) -> bool:
    return any(isinstance(value, dict | list) for value in values)


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
