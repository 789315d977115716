"""`model.json`: what an exported folder holds, and how it fits together.

    model.json                          this record
    head.safetensors                    the mask head's weights
    detector/model.safetensors          the detector's weights
    detector/config.json                transformers families: their own configuration
    detector/preprocessor_config.json   transformers families: their image processor
    README.md                           the model card, for people

A folder may come from a stranger. It is data: weights are safetensors, everything else JSON, no code is ever taken from
it, and its files are the ones above, of the sizes and checksums that the record says.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from frozen_cache.cache.attributes import Category
from frozen_cache.cache.kept_maps import KeptMaps
from frozen_cache.detectors.output import DetectorSpec
from frozen_cache.documents import added_later
from frozen_cache.errors import UserError
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import HeadInputs

MANIFEST = "model.json"
HEAD = "head.safetensors"
DETECTOR = "detector"
WEIGHTS = "model.safetensors"
DETECTOR_FILES = {
    "transformers": (WEIGHTS, "config.json", "preprocessor_config.json"),
    "official": (WEIGHTS,),
}
"""Kind of detector -> the files in `detector/`."""
MOST_BYTES = 16 << 20
"""Of a JSON file that is read."""


class FileFacts(BaseModel):
    """One file of the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    """In bytes."""
    sha256: str


class Manifest(BaseModel):
    """The content of `model.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["frozen-cache-model"] = "frozen-cache-model"
    format_version: Literal[1] = 1
    made_by: str
    """Version of frozen-cache, for people."""
    kind: Literal["transformers", "official"]
    """`transformers`: `detector/` is what `save_pretrained` writes; `official`: weights of the named detector."""
    spec: DetectorSpec
    detector_fingerprint: str
    backbone_strides: tuple[int, ...] = ()
    queries: int | None = None
    """official: queries that inference uses."""
    head: HeadConfig
    inputs: HeadInputs
    encoder_layer: int
    categories: list[Category]
    label_to_category: dict[int, int]
    top_k: int
    autocast: str | None
    kept: KeptMaps | None = added_later(None)
    """How maps are rounded before the head sees them; None for floats."""
    cache_fingerprint: str
    """Of the cache that the head was trained from."""
    license: str
    files: dict[str, FileFacts]
    """Path in the folder -> its facts, of every file but this one and those for people."""

    @property
    def detector_name(self) -> str:
        """Of the detector in the folder."""
        return self.spec.name

    @property
    def backbone_scale(self) -> int:
        """C1 and the added maps come from the images at so many times the input size."""
        return self.spec.backbone_scale

    def settings(self) -> dict[str, Any]:
        """How the head is built, nested, for people."""
        return {"head": self.head.model_dump(mode="json")}


def is_exported(path: Path) -> bool:
    """Whether there is an exported folder at `path`."""
    return (path / MANIFEST).is_file()


def exported_folder(path: Path) -> Path | None:
    """The exported folder that `path` is, or whose head it is; else None."""
    folder = path.parent if path.name == HEAD else path
    return folder if is_exported(folder) else None


def file_facts(path: Path) -> FileFacts:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileFacts(size=path.stat().st_size, sha256=digest)


def read_manifest(folder: Path) -> Manifest:
    """The record of an exported folder, its files checked against it.

    Raises:
        UserError: a record that is not understood; a file that is missing, changed, a link, or not of the folder.
    """
    manifest = read_record(folder)
    _check_files(folder, manifest)
    return manifest


def read_record(folder: Path) -> Manifest:
    """The record of an exported folder alone; UserError where it is not understood."""
    content = read_small(folder / MANIFEST)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UserError(f"{folder / MANIFEST} is damaged or of another version: {where}: {first['msg']}") from None
    if manifest.files.keys() != (expected := expected_files(manifest.kind)):
        odd = sorted(manifest.files.keys() ^ expected)
        raise UserError(f"{folder / MANIFEST} names other files than a {manifest.kind} model has: {odd[0]}")
    return manifest


def expected_files(kind: str) -> set[str]:
    """Paths in the folder of a model of one kind of detector."""
    return {HEAD, *(f"{DETECTOR}/{name}" for name in DETECTOR_FILES[kind])}


def read_small(path: Path) -> bytes:
    """The content of a JSON file of the folder, which is no link and not large."""
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path} is missing, or a link: an exported folder holds plain files")
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} has {path.stat().st_size} bytes: that is no file of an exported folder")
    return path.read_bytes()


def _check_files(folder: Path, manifest: Manifest) -> None:
    inside = folder / DETECTOR
    if inside.is_symlink() or not inside.is_dir():
        raise UserError(f"{inside} is missing, or a link: an exported folder holds plain files")
    for entry in sorted(inside.iterdir()):
        if f"{DETECTOR}/{entry.name}" not in manifest.files:
            raise UserError(f"{entry} does not belong there: take it out, or export the run again")
    for name, facts in manifest.files.items():
        check_file(folder / name, facts)


def check_file(file: Path, facts: FileFacts) -> None:
    """UserError where a file is not the plain one that was exported."""
    if file.is_symlink() or not file.is_file():
        raise UserError(f"{file} is missing, or a link: an exported folder holds plain files")
    if file.stat().st_size != facts.size or file_facts(file) != facts:
        raise UserError(f"{file} is not the file that was exported (another size or sha256): fetch it again")
