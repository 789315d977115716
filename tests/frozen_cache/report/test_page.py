"""The page for the keyboard and for those who do not see it: every part that scrolls, folds or shows a picture."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

from markupsafe import Markup
from PIL import Image

from frozen_cache.report.gallery import as_picture
from frozen_cache.report.page import Facts, Figure, Gallery, Page, Picture, Section, Table, render

TABLE = Table(["", "AP"], [["masks", "1.0"]], caption="AP of all")
BLOCKS = [
    TABLE,
    Table(["", "AP"], [["boxes", "2.0"]], folded=True, caption="Every class"),
    Figure(Markup("<svg><title>A line</title></svg>"), "Loss"),
    Gallery([Picture("data:image/png;base64,", (640, 480), "a star in image 3")]),
    Facts([("cache", "x")], folded="Every setting"),
]


class Tags(HTMLParser):
    """The tags of a page, each with its attributes and those around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._around: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), list(self._around)))
        if tag not in ("meta", "img", "link", "br"):
            self._around.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._around.pop()


def rendered() -> tuple[str, Tags]:
    text = render(
        Page("Title", "Lead", [("AP", "1", "")], [Section("a", "Part A", BLOCKS), Section("b", "B", [TABLE])])
    )
    return text, Tags(text)


def test_landmarks_and_headings_let_one_jump():
    _, tags = rendered()
    names = [tag for tag, _, _ in tags.found]
    assert all(names.count(each) == 1 for each in ("header", "nav", "main", "footer", "h1"))
    links = [attributes["href"] for tag, attributes, _ in tags.found if tag == "a"]
    assert links == ["#main", "#a", "#b"]  # the way past the navigation comes first
    for tag, attributes, _ in tags.found:
        if tag == "section":
            assert ("h2", {"id": attributes["aria-labelledby"]}) in [each[:2] for each in tags.found]


def test_what_scrolls_sideways_is_reached_by_keyboard_and_has_a_name():
    text, tags = rendered()
    rules = re.findall(r"^(.+?) \{[^}]*overflow-x: auto", text, flags=re.MULTILINE)
    assert rules == ["nav", ".scroll", ".plot"]
    for name in (".scroll", ".plot"):
        found = [attributes for _, attributes, _ in tags.found if attributes.get("class") == name[1:]]
        assert found and all(each["tabindex"] == "0" and each["aria-label"] for each in found)
    assert '<figure class="plot" tabindex="0" aria-label="A line">' in text


def test_focus_is_seen_and_never_switched_off_but_for_the_target_of_a_jump():
    text, _ = rendered()
    assert re.search(r":focus-visible \{ outline: 3px solid", text)
    assert re.findall(r"([^\n]*) \{ outline: none", text) == ["main:focus"]


def test_pictures_have_their_place_before_they_are_decoded():
    """A page on paper, or one jumped into, has all of them where they belong."""
    _, tags = rendered()
    [picture] = [attributes for tag, attributes, _ in tags.found if tag == "img"]
    assert (picture["width"], picture["height"]) == ("640", "480") and "loading" not in picture


def test_pictures_plots_and_tables_say_what_they_are():
    text, tags = rendered()
    assert all(attributes["alt"] for tag, attributes, _ in tags.found if tag == "img")
    assert "<title>A line</title>" in text
    assert [around[-1] for tag, _, around in tags.found if tag == "caption"] == ["table"] * 3
    assert all(attributes.get("scope") for tag, attributes, _ in tags.found if tag == "th")
    assert [around[-1] for tag, _, around in tags.found if tag == "summary"] == ["details"] * 2


def test_long_names_are_wrapped_not_cut():
    names = ["masks", "Mask Frozen-H-DETR, Swin-L, Objects365 (val2017)"]
    table = Table(["", "AP"], [[name, "1.0"] for name in names])
    text = render(Page("Title", "Lead", [], [Section("a", "A", [table])]))
    rows = [attributes.get("class") for tag, attributes, _ in Tags(text).found if attributes.get("scope") == "row"]
    assert rows == [None, "long"]
    assert re.search(r"th\.long \{ white-space: normal; min-width: 11em;", text)


def test_a_picture_knows_its_size():
    picture = as_picture(Image.new("RGB", (30, 20)), alt="a star")
    with Image.open(io.BytesIO(base64.b64decode(picture.source.partition(",")[2]))) as drawn:
        assert picture.size == drawn.size == (30, 20)
