"""What the user says of classes: by name, by number, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frozen_cache.data.choices import AnnotationChoices
from frozen_cache.data.choose import choose_annotations
from frozen_cache.errors import UserError

CATEGORIES = {1: "cat", 2: "dog", 7: "dog"}


def choose(**options: Any) -> AnnotationChoices:
    return choose_annotations(categories=CATEGORIES, label_names={0: "hound", 1: "feline"}, num_labels=3, **options)


def test_names_and_numbers_are_understood_on_both_sides() -> None:
    found = choose(label_map=["cat=feline", "2 = LABEL_2", "7=0"], only=["cat", "7"])
    assert found.label_map == {1: 1, 2: 2, 7: 0}
    assert found.only == (1, 7)


def test_a_file_has_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "map.toml"
    file.write_text('cat = "feline"\n7 = 0\n')
    assert choose(label_map=[str(file)]).label_map == {1: 1, 7: 0}


def test_names_of_the_user_s_own_labels_count() -> None:
    found = choose(labels=["x", "y", "z"], label_map=["cat=z"])
    assert (found.labels, found.label_map) == (("x", "y", "z"), {1: 2})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label_map": ["cow=hound"]}, "--map: there is no category cow; the data set has cat, dog"),
        ({"label_map": ["dog=hound"]}, "--map: the categories 2, 7 are all named dog: give an id"),
        ({"label_map": ["cat=wolf"]}, "--map: the detector has no label wolf; it has hound, feline"),
        ({"label_map": ["cat=3"]}, "no label 3"),
        ({"label_map": ["nowhere.toml"]}, "--map nowhere.toml: give CATEGORY=LABEL, or a TOML file"),
        ({"label_map": ["bad.toml"]}, "--map bad.toml is not TOML that can be read"),
        ({"label_map": ["cat=felin"]}, r"no label felin \(did you mean feline\?\); it has hound, feline"),
        ({"label_map": ["²=hound"]}, "--map: there is no category ²"),
        ({"label_map": ["cat=²"]}, "--map: the detector has no label ²"),
        ({"label_map": ["cat=" + "9" * 5000]}, "--map: the detector has no label 999"),
        ({"label_map": ["cat=-1"]}, "--map: the detector has no label -1"),
        ({"only": ["--7"]}, "--only: there is no category --7"),
        ({"only": ["9" * 5000]}, "--only: there is no category 999"),
        ({"only": ["cow"]}, "--only: there is no category cow; the data set has cat, dog"),
        ({"only": ["Dgo"]}, r"--only: there is no category Dgo \(did you mean dog\?\); the data set has cat, dog"),
        ({"crowds": "no"}, "--crowds no: give as-marked or as-objects"),
    ],
)
def test_what_is_not_there_is_named(
    options: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text("cat = [")
    with pytest.raises(UserError, match=said):
        choose(**options)
