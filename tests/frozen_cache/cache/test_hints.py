"""Hints: where a cache came from, absolute, and never in anybody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from frozen_cache.cache.hints import HINTS_FILE, Hints, absolute_detector, read_hints, write_hints


def test_hints_are_read_as_written(tmp_path: Path) -> None:
    hints = Hints(
        detector="hdetr-r50",
        weights=tmp_path / "w.pth",
        backbone_strides=(8,),
        images=tmp_path,
        annotations=tmp_path / "a",
    )
    write_hints(tmp_path, hints)
    assert read_hints(tmp_path) == hints


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"detector": 3}'])
def test_hints_that_cannot_be_read_are_none(tmp_path: Path, content: bytes) -> None:
    assert read_hints(tmp_path) is None
    (tmp_path / HINTS_FILE).write_bytes(content)
    assert read_hints(tmp_path) is None


def test_paths_in_a_detector_become_absolute_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert absolute_detector("hf:model") == f"hf:{tmp_path / 'model'}"
    assert absolute_detector("mine.py:make") == f"{tmp_path / 'mine.py'}:make"
    assert absolute_detector("hf:PekingU/rtdetr_r50vd") == "hf:PekingU/rtdetr_r50vd"
    assert absolute_detector("hdetr-r50") == "hdetr-r50"
