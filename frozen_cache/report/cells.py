"""Figures as the text of a table's cells."""

from __future__ import annotations


def percent(value: float | None) -> str:
    """0.1234 as `12.3`; a dash where there is nothing to measure."""
    return "–" if value is None or value < 0 else f"{100 * value:.1f}"


def ratio(mask: float, box: float) -> str:
    """mask / box with two digits."""
    return f"{mask / box:.2f}" if mask >= 0 and box > 0 else "–"
