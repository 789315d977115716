"""Names as short as they may be."""

from __future__ import annotations

import pytest

from frozen_cache.report.cells import short_names


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["head /home/me/runs/a/last.safetensors", "/home/me/box", "other.json"], ["head a", "box", "other.json"]),
        (["/one/results", "/two/results"], ["one/results", "two/results"]),
        (["mean of 2 heads: runs/a/best.safetensors, runs/b/best.safetensors", "c/x"], ["mean of 2 heads: a, b", "x"]),
        (["baseline: filled boxes"], ["baseline: filled boxes"]),
        (["a/last.safetensors", "a/best.safetensors"], ["a/last.safetensors", "a/best.safetensors"]),
    ],
)
def test_of_a_path_only_the_folders_that_tell_it_apart_are_shown(names, short):
    assert short_names(names) == short


def test_some_folders_may_be_kept_in_any_case():
    assert short_names(["head /home/me/demo/head/last.safetensors"], least=2) == ["head demo/head"]
