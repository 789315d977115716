"""Results kept on disk image by image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frozen_cache.evaluation.result_store import ResultStore

FOUND = {
    42: {"segm": [{"image_id": 42, "score": 0.5}, {"image_id": 42, "score": 0.25}], "bbox": [{"bbox": [1.5, 2, 3, 4]}]},
    7: {"segm": [], "bbox": []},
    9: {"segm": [{"image_id": 9, "segmentation": {"size": [3, 4], "counts": 'a\\"b'}}], "bbox": [{"bbox": []}]},
}


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    store = ResultStore(tmp_path)
    for image, kinds in FOUND.items():
        store.add(image, {kind: json.dumps(entries) for kind, entries in kinds.items()})
    return store


def test_each_image_has_its_own(store: ResultStore) -> None:
    for image in (9, 42, 7, 9):
        for kind in ("segm", "bbox"):
            assert store.of_image(image, kind) == FOUND[image][kind]
    assert store.of_image(1) == []
    assert store.all() == FOUND[42]["segm"] + FOUND[9]["segm"]


def test_a_result_file_is_what_json_makes_of_all(store: ResultStore, tmp_path: Path) -> None:
    for kind in ("segm", "bbox"):
        store.write(kind, tmp_path / f"{kind}.json")
        everything = [entry for kinds in FOUND.values() for entry in kinds[kind]]
        assert (tmp_path / f"{kind}.json").read_text() == json.dumps(everything) + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bbox.json", "segm.json"]


def test_no_results_are_an_empty_list(tmp_path: Path) -> None:
    ResultStore(tmp_path).write("segm", tmp_path / "segm.json")
    assert json.loads((tmp_path / "segm.json").read_text()) == []


def test_a_full_disk_names_the_folder_and_leaves_the_old_file(
    store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "segm.json").write_text("old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"segm\.json"):
        store.write("segm", tmp_path / "segm.json")
    assert [path.name for path in tmp_path.iterdir()] == ["segm.json"]
    assert (tmp_path / "segm.json").read_text() == "old"
