"""The HTML page: one self-contained file, made of sections of tables, figures, pictures and facts."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from frozen_cache.durable import write_durably


@dataclass(frozen=True)
class Table:
    """Rows under a head; every column but the first holds numbers."""

    head: list[str]
    rows: list[list[str]]
    caption: str = ""
    strong: int | None = None
    """The row that the page is about."""
    shades: dict[tuple[int, int], int] = field(default_factory=dict)
    """(row, column) -> 0 to 100: how strongly a cell is tinted."""
    folded: bool = False
    """Shown on request only: long tables."""


@dataclass(frozen=True)
class Figure:
    """A plot as inline SVG, which carries its own title and description."""

    svg: Markup
    caption: str = ""

    @property
    def title(self) -> Markup:
        """What the plot shows, as it says itself."""
        return Markup(self.svg.partition("<title>")[2].partition("</title>")[0])


@dataclass(frozen=True)
class Picture:
    """One picture as a data URI."""

    source: str
    size: tuple[int, int]
    """(width, height) in pixels: its place is kept before it is decoded, so that no jump on the page misses."""
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    pictures: list[Picture]
    caption: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    rows: list[tuple[str, str]]
    folded: str = ""
    """Under this title, shown on request only."""


Block = Table | Figure | Gallery | Facts


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and a place in the navigation."""

    name: str
    """Its anchor."""
    title: str
    blocks: list[Block]
    text: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    lead: str
    cards: list[tuple[str, str, str]]
    """(label, value, note): the figures that come first."""
    sections: list[Section]


def render(page: Page) -> str:
    """The page as HTML; every text is escaped."""
    environment = Environment(
        loader=PackageLoader("frozen_cache.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["figure"] = lambda block: isinstance(block, Figure)
    environment.tests["gallery"] = lambda block: isinstance(block, Gallery)
    return environment.get_template("page.html").render(page=page, version=version("frozen-cache"))


def write_page(path: Path, page: Page) -> None:
    """Render and write durably."""
    write_durably(path, render(page).encode())
