"""Names from files do nothing to a terminal, and can always be written."""

import pytest

from frozen_cache.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jcat", "\\x1b[2Jcat"),
        ("a\rb\x00\x7f\x9b", "a\\rb\\x00\\x7f\\x9b"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\udcff.png \ud800", "\\udcff.png \\ud800"),
    ],
)
def test_what_acts_on_a_terminal_is_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).encode()


@pytest.mark.parametrize(
    "text", ["a – b\n\tc", "кот 猫 قطة", "👩\u200d👩\u200d👧 🏴\U000e0067\U000e007f", "हिन्\u200dदी", "", "\\x1b"]
)
def test_all_other_text_stays(text: str) -> None:
    assert printable(text) == text
