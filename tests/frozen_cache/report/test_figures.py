"""Plots: round ticks within the axis, and texts that keep clear of its name."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from frozen_cache.report.figures import LEFT, LETTER, WIDTH, gain_plot, line_plot, tick_texts, ticks


@pytest.mark.parametrize("low", [0.0, -0.3, 0.0123, 70.0])
@pytest.mark.parametrize("span", [1e-6, 2.3e-4, 0.001, 0.5, 4.2, 100.0, 6e5])
def test_ticks_are_few_lie_within_and_their_texts_are_short_and_right(low, span):
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 * span <= value <= low + span * (1 + 1e-9) for value in found)
    if low == 0.0:
        texts = tick_texts(found)
        assert max(map(len, texts)) <= 6
        assert [float(text) for text in texts] == pytest.approx(found, rel=0.05, abs=1e-12)


def test_small_values_are_written_with_exponents():
    assert tick_texts([0.0, 0.0005, 0.001]) == ["0", "5e-4", "1e-3"]
    assert tick_texts([0.0, 0.00025, 0.0005]) == ["0", "2.5e-4", "5e-4"]
    assert tick_texts([0, 0.5, 1]) == ["0", "0.5", "1"]


def test_texts_of_a_learning_rate_keep_clear_of_the_axis_name():
    svg = line_plot({"rate": [(0, 9.5e-4), (300, 1e-8)]}, title="t", x_label="step", y_label="rate")
    beside = re.findall(rf'<text x="{LEFT - 8}"[^>]*>([^<]*)</text>', svg)
    assert len(beside) >= 4 and max(map(len, beside)) <= 6
    [middle] = re.findall(r'translate\((\d+) [^>]*rotate\(-90\)"[^>]*>rate<', svg)
    assert LEFT - 8 - LETTER * max(map(len, beside)) > int(middle) + 4  # in Chromium they overlapped


def test_a_long_legend_takes_more_rows_and_no_two_lines_look_alike():
    series = {f"head.roi_size={size} seed=0": [(0.0, 1.0), (1.0, float(size))] for size in range(10)}
    svg = line_plot(series, title="t", x_label="step", y_label="loss")
    names = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="(-?[\d.]+)">head', svg)]
    assert len(names) == len(set(names)) == 10
    assert all(x + LETTER * len("head.roi_size=0 seed=0") <= WIDTH for x, _ in names)
    top = int(re.search(r'viewBox="0 (-?\d+) ', svg)[1])
    assert top < min(y for _, y in names) - 10 and max(y for _, y in names) == 18
    lines = re.findall(r'stroke="(var\(--s\d\))" stroke-width="2" [^>]*stroke-dasharray="([^"]*)"', svg)
    assert len(lines) == len(set(lines)) == 10
    for (x, y), (other, below) in pairwise(names):
        assert below > y or other - 28 > x + LETTER * len("head.roi_size=0 seed=0")


def test_bars_are_as_long_as_their_values_and_show_what_is_gained():
    svg = gain_plot({"as it is": 20.0, "edges < true": 30.0, "worse": 15.0}, title="t")
    bars = [
        tuple(map(float, found)) for found in re.findall(r'<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)" height', svg)
    ]
    widths = {(x > 0, y): width for x, y, width in bars}
    tops = sorted({y for _, y, _ in bars})
    own, gained = ([widths[beyond, y] for y in tops] for beyond in (False, True))
    assert own == pytest.approx([own[0], own[0], 0.75 * own[0]], abs=0.1)
    assert gained == pytest.approx([0, own[0] / 2, 0], abs=0.1)
    assert own[1] + gained[1] + LETTER * 5 <= WIDTH
    assert "edges &lt; true</text>" in svg and ">30.0</text>" in svg
    height = int(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])
    assert tops[-1] + 12 <= height


def test_a_series_of_one_point_is_a_dot():
    """A line through one point draws nothing."""
    svg = line_plot({"a": [(3.0, 5.7)], "b": [(3.0, 6.0), (6.0, 5.0)]}, title="t", x_label="step", y_label="loss")
    assert svg.count("<circle") == 1 and svg.count("<polyline") == 2
