"""The root attributes of a cache: what it was made from, typed, and compared before anything is added to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import TypedDict

from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.detectors.output import DetectorSpec
from frozen_cache.errors import UserError

FORMAT_VERSION = 1
Precision = Literal["float16", "float32", "int8"]


class Category(TypedDict):
    """One category of the data set."""

    id: int
    name: str


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


class CacheAttributes(BaseModel):
    """Root attributes of format version 1. `detector` holds the input rule and the kept encoder layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["frozen-cache"] = "frozen-cache"
    format_version: Literal[1] = 1
    detector: DetectorSpec
    detector_fingerprint: str
    """sha256 over the detector's spec, the sha256 of its weights included."""
    label_to_category: dict[int, int]
    """Detector label -> category id of the data set."""
    data: DataAttributes
    views: int
    """Views per image; view 0 is the plain resize."""
    view_seed: int = 0
    top_k: int
    precision: Precision = "float16"
    """Of `c1` and `encoder`; everything else is exact."""
    autocast: str | None = None
    batch_size: int
    """Images that went through the detector together, at most; another size changes the last bits."""
    views_total: int
    views_per_segment: int

    @property
    def categories(self) -> list[Category]:
        """`{"id", "name"}` of each category, by rising id."""
        return list(self.data.categories)

    @property
    def segment_count(self) -> int:
        """Segments of the complete cache."""
        return -(-self.views_total // self.views_per_segment)

    @property
    def fingerprint(self) -> str:
        """sha256 over all attributes; each committed segment carries it."""
        return _sha256(self.model_dump(mode="json"))

    def root_document(self) -> bytes:
        """The content of the root `zarr.json`."""
        attributes = {**self.model_dump(mode="json"), "fingerprint": self.fingerprint}
        return group_document(attributes)


def detector_fingerprint(spec: DetectorSpec) -> str:
    """sha256 over the spec, its name left aside: the same model under another name is the same detector."""
    return _sha256(spec.model_dump(mode="json", exclude={"name"}))


def group_document(attributes: Mapping[str, Any]) -> bytes:
    """The `zarr.json` of a zarr v3 group, always the same bytes for the same attributes."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def read_attributes(path: Path) -> CacheAttributes:
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
    content = document.read_bytes()
    try:
        raw = json.loads(content)["attributes"]
        known = raw.get("format") == "frozen-cache"
        version = raw.get("format_version")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedCacheError(f"cache {path} is damaged: its zarr.json cannot be read; extract it again") from None
    if not known:
        raise UserError(f"{path} is a zarr group, but no cache of frozen-cache: its attributes name no such format")
    if version != FORMAT_VERSION:
        raise UserError(
            f"cache {path} has format version {version}, this frozen-cache reads version {FORMAT_VERSION}: "
            "use the version that made it, or extract again"
        )
    recorded = raw.pop("fingerprint", None)
    try:
        attributes = CacheAttributes.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedCacheError(f"cache {path}: attribute `{where}` is not understood ({first['msg']})") from None
    if recorded != attributes.fingerprint or content != attributes.root_document():
        raise DamagedCacheError(f"cache {path} is damaged: its attributes do not match their fingerprint")
    return attributes


def differences(there: CacheAttributes, asked: CacheAttributes) -> list[str]:
    """What keeps the cache `there` from being continued as `asked`, in words; empty where nothing does."""
    found = []
    if there.detector.weights_sha256 != asked.detector.weights_sha256:
        found.append(
            f"the detector's weights (there {there.detector.weights_sha256[:12]}, "
            f"now {asked.detector.weights_sha256[:12]})"
        )
    for name in type(there.detector).model_fields:
        if name not in ("weights_sha256", "name"):
            found += _difference(f"detector.{name}", getattr(there.detector, name), getattr(asked.detector, name))
    for name in type(there.data).model_fields:
        if name not in ("fingerprint", "annotations", "categories"):
            found += _difference(f"data.{name}", getattr(there.data, name), getattr(asked.data, name))
    if there.data.fingerprint != asked.data.fingerprint:
        found.append("the images or annotations (their fingerprints differ)")
    for name in ("label_to_category", "views", "view_seed", "top_k", "precision", "autocast", "views_per_segment"):
        found += _difference(name, getattr(there, name), getattr(asked, name))
    return found


def _difference(name: str, there: object, now: object) -> list[str]:
    if there == now:
        return []
    texts = [text if len(text := str(value)) <= 60 else text[:57] + "..." for value in (there, now)]
    return [f"{name} (there {texts[0]}, now {texts[1]})" if texts[0] != texts[1] else name]


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
