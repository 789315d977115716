"""Plots as inline SVG in the page's own colours: light and dark, sharp at any size, a few kilobytes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

Point = tuple[float, float]
WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 34, 44
LINE, LETTER = 20, 7.2
"""Height of a line of the legend, usual width of a letter."""
BAR, ROW = 12, 38
"""Height of a bar, and of a row: its name, the bar below it."""
DASHES = ("", "6 4", "2 3", "8 3 2 3", "1 5")
"""Series differ in their dashes as well as in colour."""
MOST_DIGITS = 5


def line_plot(
    series: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_limits: tuple[float, float] | None = None,
    marked: bool = False,
) -> Markup:
    """Lines over a common axis, with a legend above; series without points are left out, those of one are a dot."""
    drawn = {name: list(points) for name, points in series.items() if points}
    frame = _Frame.around([point for points in drawn.values() for point in points], y_limits)
    legend, above = _legend(list(drawn))
    parts = [frame.axes(x_label, y_label), legend]
    for at, points in enumerate(drawn.values()):
        colour, dash = _style(at)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(frame.place, points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round" '
            f'stroke-dasharray="{dash}"/>'
        )
        if marked or len(points) == 1:
            places = [frame.place(point) for point in points]
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    return _svg(title, parts, above=above)


def scatter_plot(points: dict[str, Point], *, title: str, x_label: str, y_label: str) -> Markup:
    """A named dot for each row."""
    frame = _Frame.around(list(points.values()), None, room=0.08)
    parts = [frame.axes(x_label, y_label)]
    for name, point in points.items():
        x, y = frame.place(point)
        anchor, shift = ("end", -8) if x > WIDTH * 0.66 else ("start", 8)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="var(--s0)"/>'
            f'<text x="{x + shift:.1f}" y="{y - 7:.1f}" text-anchor="{anchor}">{escape(name)}</text>'
        )
    return _svg(title, parts)


def gain_plot(values: Mapping[str, float], *, title: str) -> Markup:
    """A bar for each value from 0 on, its name above and the value behind it; what it has beyond the first one in
    another colour."""
    own, most = next(iter(values.values())), max(*values.values(), 1e-9)
    unit = (WIDTH - LEFT - RIGHT) / most
    parts = []
    for at, (name, value) in enumerate(values.items()):
        top, shared = ROW * at + 18, min(value, own)
        texts = (f'<text x="0" y="{top - 5}">{escape(name)}</text>', f"{value:.1f}")
        parts.append(
            f'{texts[0]}<rect x="0" y="{top}" width="{unit * shared:.1f}" height="{BAR}" fill="var(--s0)"/>'
            f'<rect x="{unit * shared:.1f}" y="{top}" width="{unit * (value - shared):.1f}" height="{BAR}" '
            f'fill="var(--s1)"/><text x="{unit * value + 6:.1f}" y="{top + BAR - 1}">{texts[1]}</text>'
        )
    return _svg(title, parts, height=ROW * len(values))


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round values within low..high, about so many."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [at * step for at in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_texts(values: Sequence[float]) -> list[str]:
    """What stands beside an upright axis: of at most 5 characters, so that it keeps clear of the axis' name."""
    texts = [f"{round(value, 9):g}" for value in values]
    if max(map(len, texts), default=0) <= MOST_DIGITS:
        return texts
    return ["0" if abs(value) < 1e-12 else re.sub(r"\.?0*e([+-])0*", r"e\1", f"{value:.1e}") for value in values]


class _Frame:
    """The plot's area, and data to pixels."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y

    @classmethod
    def around(cls, points: list[Point], y_limits: tuple[float, float] | None, *, room: float = 0.0) -> _Frame:
        xs, ys = [point[0] for point in points] or [0.0, 1.0], [point[1] for point in points] or [0.0, 1.0]
        return cls(_widened(min(xs), max(xs), room), y_limits or _widened(min(ys), max(ys), max(room, 0.05)))

    def place(self, point: Point) -> Point:
        """Pixels of a point, y downwards."""
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_label: str, y_label: str) -> str:
        """Grid lines, tick labels, axis labels."""
        parts = []
        heights = ticks(*self.y)
        for value, text in zip(heights, tick_texts(heights), strict=True):
            _, y = self.place((self.x[0], value))
            parts.append(f'<path class="axis" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        for value in ticks(*self.x, about=6):
            x, _ = self.place((value, self.y[0]))
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{round(value, 6):g}</text>'
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
        parts.append(
            f'<text transform="translate(12 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
        )
        return "".join(parts)


def _widened(low: float, high: float, room: float) -> tuple[float, float]:
    span = high - low or abs(high) or 1.0
    margin = span * room if high > low else span / 2
    return low - margin, high + margin


def _style(at: int) -> tuple[str, str]:
    """Colour and dashes of a series: no two of 25 have both in common."""
    return f"var(--s{at % 5})", DASHES[(at + at // 5) % len(DASHES)]


def _legend(names: list[str]) -> tuple[str, int]:
    """Names with their lines, and by how much these reach above the usual height: of many there are several rows."""
    places, row, x = [], 0, float(LEFT)
    for name in names:
        width = 44 + LETTER * len(name)
        if x > LEFT and x + width - 16 > WIDTH:
            row, x = row + 1, float(LEFT)
        places.append((row, x))
        x += width
    parts = []
    for at, (name, (line, x)) in enumerate(zip(names, places, strict=True)):
        colour, dash = _style(at)
        y = 14 - LINE * (row - line)
        parts.append(
            f'<path d="M{x:.0f} {y}h22" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/>'
            f'<text x="{x + 28:.0f}" y="{y + 4}">{escape(name)}</text>'
        )
    return "".join(parts), LINE * row


def _svg(title: str, parts: Sequence[str], *, above: int = 0, height: int = HEIGHT) -> Markup:
    return Markup(
        f'<svg viewBox="0 {-above} {WIDTH} {height + above}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
