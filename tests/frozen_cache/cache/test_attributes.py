"""The root document: one of an earlier version verifies as it stands, and fields that came later count once used."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel

from frozen_cache.cache.attributes import read_attributes
from frozen_cache.documents import added_later

DOCUMENT = Path(__file__).parent / "documents" / "root_v1.json"
"""Written by the code of version 0.1.0, before any field was added."""


def test_a_root_document_of_the_first_version_verifies(tmp_path: Path) -> None:
    shutil.copy(DOCUMENT, tmp_path / "zarr.json")
    attributes = read_attributes(tmp_path)
    assert attributes.root_document() == DOCUMENT.read_bytes()
    assert attributes.fingerprint == "726a44c98c83f2397f827abb4c903d3d94006cb111b991c0d2de0c21b64c6a1d"


def test_a_field_that_came_later_is_written_only_where_it_says_something() -> None:
    class Grown(BaseModel):
        old: int = 1
        new: int = added_later(5)

    assert Grown().model_dump(mode="json") == {"old": 1}
    assert Grown(new=6).model_dump(mode="json") == {"old": 1, "new": 6}
    assert Grown.model_validate({"old": 2}).new == 5
