"""The root document: one of an earlier version verifies as it stands, and fields that came later count once used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

from frozen_cache.cache.attributes import differences, read_attributes
from frozen_cache.documents import added_later, whole

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


def test_the_whole_of_a_document_has_the_fields_that_it_leaves_out_inside_too() -> None:
    class Inner(BaseModel):
        new: tuple[int, ...] = added_later(())

    class Outer(BaseModel):
        old: int = 1
        new: int = added_later(5)
        inner: Inner = Inner()
        later: Inner = added_later(Inner())

    assert whole(Outer()) == {"old": 1, "new": 5, "inner": {"new": []}, "later": {"new": []}}
    used = Outer(new=6, inner=Inner(new=(1,)))
    assert whole(used) == {"old": 1, "new": 6, "inner": {"new": [1]}, "later": {"new": []}}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("copy_paste", True, "copy_paste (there False, now True), set by --copy-paste"),
        ("c1", "none", "c1 (there stored, now none), set by --c1"),
        ("packing", "nibbles", "packing (there bytes, now nibbles)"),
    ],
)
def test_a_field_that_came_later_differs_by_its_two_values(tmp_path: Path, name: str, value: object, said: str) -> None:
    shutil.copy(DOCUMENT, tmp_path / "zarr.json")
    before = read_attributes(tmp_path)
    now = before.model_copy(update={name: value})
    assert differences(before, now) == [said]
    assert not differences(now, now)
